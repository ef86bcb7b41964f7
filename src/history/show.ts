/** What one transaction did, change by change, in words that people and programs can read. */

import { nameDecoder } from '../model/encoding.ts'
import { type RelationMessage, type RowMessage, type Tuple, unchanged, type Value } from '../model/pgoutput.ts'
import type { Repository } from '../repository/repository.ts'
import { chosenRelations, readTransaction, refuseUnknownTables, type TransactionChange } from './changes.ts'
import type { FoundTransaction } from './find-transaction.ts'

/** Text, NULL, or `unchanged`: a long value that an update left alone, and that the server did not send. */
export type ShownValue = string | null | typeof unchanged
export type ShownRow = ReadonlyMap<string, ShownValue>

interface OfTable {
  readonly schema: string
  readonly name: string
}

export type ShownChange =
  | (OfTable & { readonly kind: 'insert'; readonly after: ShownRow })
  /** `before`: what was sent of the old row; `isWhole` is false where that is its key, or nothing. */
  | (OfTable & {
      readonly kind: 'update'
      /** What identifies the row, as it was before; empty where nothing but the whole row does. */
      readonly key: ShownRow
      readonly before: ShownRow
      readonly after: ShownRow
      readonly isWhole: boolean
    })
  | (OfTable & { readonly kind: 'delete'; readonly before: ShownRow; readonly isWhole: boolean })
  | { readonly kind: 'truncate'; readonly tables: readonly OfTable[] }
  | { readonly kind: 'ddl'; readonly tag: string; readonly objects: readonly string[]; readonly role: string }

/** Streams a transaction's changes, in the order in which they were made; `tables`: only of these. */
export async function* showTransaction(
  repository: Repository,
  found: FoundTransaction,
  options: { readonly tables?: readonly string[] | undefined; readonly signal?: AbortSignal | undefined } = {},
): AsyncGenerator<ShownChange> {
  refuseUnknownTables([found], options.tables)
  const chosen = chosenRelations(found, options.tables)
  const decode = nameDecoder(found.timeline.encoding)
  const blocks = readTransaction(repository, found, { isWanted: (oid) => chosen.has(oid), signal: options.signal })
  for await (const block of blocks) {
    for (const change of block) {
      const shown = shownChange(change, decode)
      if (shown !== undefined && (options.tables === undefined || shown.kind !== 'ddl')) yield shown
    }
  }
}

function shownChange(change: TransactionChange, decode: (bytes: Buffer) => string): ShownChange | undefined {
  if (change.kind === 'row') return shownRow(change.relation, change.row, decode)
  if (change.kind === 'truncate')
    return { kind: 'truncate', tables: change.relations.map(({ schema, name }) => ({ schema, name })) }
  if (change.message.kind !== 'ddl') return undefined
  const { tag, objects, role } = change.message
  return { kind: 'ddl', tag, role, objects: [...new Set(objects.flatMap(({ identity }) => identity ?? []))] }
}

function shownRow(relation: RelationMessage, row: RowMessage, decode: (bytes: Buffer) => string): ShownChange {
  const { schema, name, columns } = relation
  const text = (value: Value | undefined): ShownValue =>
    Buffer.isBuffer(value) ? decode(value) : value === unchanged ? unchanged : null
  const rowOf = (values: Tuple, isKeyOnly = false): ShownRow =>
    new Map(
      columns.flatMap((column, place) =>
        isKeyOnly && !column.isKey ? [] : [[column.name, text(values[place])] as const],
      ),
    )
  if (row.kind === 'insert') return { kind: 'insert', schema, name, after: rowOf(row.row) }
  const isWhole = row.old?.kind === 'full'
  const before = row.old === undefined ? new Map() : rowOf(row.old.values, !isWhole)
  if (row.kind === 'delete') return { kind: 'delete', schema, name, before, isWhole }
  const key = relation.identity === 'full' ? new Map() : rowOf(row.old?.values ?? row.row, true)
  // What was not sent is what it was before.
  const filled = row.row.map((value, place) =>
    value === unchanged && isWhole ? (row.old?.values[place] ?? null) : value,
  )
  return { kind: 'update', schema, name, key, before, after: rowOf(filled), isWhole }
}
