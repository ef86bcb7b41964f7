import { WalbackError } from '../base/errors.ts'
import { RowHash } from '../codec/row-hash.ts'
import { type BaseManifest, type BaseTable, type ObjectReference, referencesOf } from '../repository/base.ts'
import { readContainer } from '../repository/container.ts'
import { basePrefix } from '../repository/layout.ts'
import type { Repository } from '../repository/repository.ts'
import type { ShelvedBase } from './shelf.ts'

/** One object of a base, with what it must hold. */
export interface BaseObject {
  readonly reference: ObjectReference
  /** Where it is rows of a table: which, and how many. */
  readonly rows: { readonly table: BaseTable; readonly count: number } | undefined
  readonly kind: 'text' | 'rows' | 'large objects'
}

/** All objects that a manifest names, in the order of their keys. */
export function objectsIn({ schema, tables, largeObjects }: BaseManifest): BaseObject[] {
  const text = [schema.preData, schema.postData].map(
    (reference): BaseObject => ({ reference, rows: undefined, kind: 'text' }),
  )
  const rows = tables.flatMap((table) =>
    table.pieces.map((piece): BaseObject => ({ reference: piece, rows: { table, count: piece.rows }, kind: 'rows' })),
  )
  const large = largeObjects.data.map(
    (reference): BaseObject => ({ reference, rows: undefined, kind: 'large objects' }),
  )
  return [...text, ...rows, ...large].sort((a, b) => (a.reference.key < b.reference.key ? -1 : 1))
}

/** What a manifest says that does not fit together; nothing but the manifest is read. */
export function contradictionIn(manifest: BaseManifest): string | undefined {
  const prefix = basePrefix(manifest.source, manifest.id)
  const elsewhere = referencesOf(manifest).find(({ key }) => !key.startsWith(prefix))
  if (elsewhere) return `it names ${elsewhere.key}, which is not of this base`
  const wrong = manifest.tables.find(({ rows, pieces }) => pieces.reduce((sum, piece) => sum + piece.rows, 0) !== rows)
  if (wrong) return `the pieces of ${wrong.schema}.${wrong.name} have not the number of rows that the table has`
  return undefined
}

/** An object that is named must be there and as long; undefined if so. */
export function absenceOf(
  { reference }: BaseObject,
  { objects }: ShelvedBase,
): 'missing' | 'another length' | undefined {
  const length = objects.get(reference.key)
  return length === undefined ? 'missing' : length === reference.size_bytes ? undefined : 'another length'
}

/** Reads an object of a base whole; gives the hash of its rows, as its trailer has it. */
export async function readBaseObject(
  { storage }: Repository,
  { reference, rows, kind }: BaseObject,
  signal: AbortSignal,
): Promise<string | undefined> {
  const damaged = (what: string): WalbackError => new WalbackError('corrupt', `${reference.key} is damaged: ${what}`)
  let [lines, hash] = [0, undefined as string | undefined]
  for await (const part of readContainer(storage, { ...reference, kind }, signal)) {
    if (part.kind === 'header') {
      const { schema, name } = part.header as { schema?: unknown; name?: unknown }
      const isRight = rows === undefined || (schema === rows.table.schema && name === rows.table.name)
      if (!isRight) throw damaged('it is not what its manifest names it for')
    } else if (part.kind === 'block') {
      if (kind !== 'rows') continue
      const inBlock = linesIn(part.raw)
      if (inBlock !== part.items) throw damaged(`a block holds ${inBlock} rows, and its head says ${part.items}`)
      lines += inBlock
    } else {
      if (part.size_bytes !== reference.size_bytes)
        throw damaged(`it has ${part.size_bytes} bytes, not ${reference.size_bytes}`)
      const trailer = part.trailer as { rows?: unknown; hash?: unknown }
      if (rows !== undefined && (lines !== rows.count || trailer.rows !== rows.count))
        throw damaged(`it holds ${lines} rows, and its manifest says ${rows.count}`)
      hash = typeof trailer.hash === 'string' ? trailer.hash : undefined
    }
  }
  return hash
}

/** Rows of COPY text: each ends in the one newline that is not escaped. */
function linesIn(text: Buffer): number {
  let lines = 0
  for (let at = text.indexOf(newline); at >= 0; at = text.indexOf(newline, at + 1)) lines++
  return lines
}

const newline = 10

/** Adds up the hashes of a table's pieces, which come in any order. */
export class TableHashes {
  private readonly sums = new Map<BaseTable, { pieces: number; hash: RowHash }>()

  add({ rows }: BaseObject, hash: string | undefined): void {
    if (rows === undefined || hash === undefined) return
    const sum = this.sums.get(rows.table) ?? { pieces: 0, hash: new RowHash() }
    sum.pieces++
    sum.hash.merge(RowHash.from(rows.count, hash))
    this.sums.set(rows.table, sum)
  }

  /** A table all of whose pieces were read, and whose hash is not their sum. */
  wrong(): BaseTable | undefined {
    for (const [table, { pieces, hash }] of this.sums)
      if (pieces === table.pieces.length && hash.digest() !== table.hash) return table
    return undefined
  }
}
