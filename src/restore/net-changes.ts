import { hash } from 'node:crypto'
import { WalbackError } from '../base/errors.ts'
import type { RelationMessage, RowMessage, Tuple, Value } from '../model/pgoutput.ts'
import { unchanged } from '../model/pgoutput.ts'
import { joinFields, keyOfLine, LineEncoder, splitLine } from './copy-text.ts'

/**
 * Net changes: what a run of the stream does to one table, folded to its effect. `add` takes the stream's changes in
 * order; then `absorb` is shown the rows that were there before, and says what becomes of each; `rest` gives the rows
 * that are new. Rows are told apart by the text of their replica identity, which is the same bytes in stream and COPY.
 */
export interface NetChanges {
  add(change: RowMessage): void
  /** The table was emptied: nothing from before is left. */
  truncate(): void
  /** Rows from before are of no interest: the table was emptied. */
  readonly replacesAll: boolean
  /** Whether any row from before may be changed or gone, so that they have to be looked at. */
  readonly touchesOld: boolean
  /**
   * What becomes of an earlier row, `text[start, end)` without its newline: it stays (`keep`), is gone (undefined), or
   * is this other line.
   */
  absorb(text: Buffer, start: number, end: number): Buffer | undefined | typeof keep
  /**
   * The rows that were added, once every earlier row has been absorbed. Throws if an earlier row was missing, unless
   * `mayLack`: then a row that draws on a missing one is missing too.
   */
  rest(mayLack?: boolean): Generator<Buffer>
  /** About how much memory it holds. */
  readonly held_bytes: number
  /** How to find the earlier rows that are changed or gone: by these keys (as COPY lines), or by looking at all rows. */
  readonly old: { readonly columns: readonly string[]; readonly keys: Iterable<string> } | undefined
}

export const keep = Symbol('the row stays as it is')

/** How many bytes an entry costs beside its text. */
const entryBytes = 200
/** The same for each field of one that is not whole yet. */
const entryFieldBytes = 100

/** Which rows a relation's updates and deletes name: those with the old key, or those that read as the old row. */
export function changesFor(relation: RelationMessage): NetChanges {
  const keys = relation.columns.flatMap((column, place) => (column.isKey ? [place] : []))
  return relation.identity === 'full' || keys.length === 0 ? new BagChanges(relation) : new KeyedChanges(relation, keys)
}

/** Whether changes under this form of the relation can be added to those. */
export function isSameShape(a: RelationMessage, b: RelationMessage): boolean {
  const shape = (relation: RelationMessage): string =>
    JSON.stringify([relation.identity === 'full', relation.columns.map((column) => [column.name, column.isKey])])
  return shape(a) === shape(b)
}

interface Entry {
  /** The whole row; or, while values are missing that only the earlier row has, its fields. */
  line: Buffer | undefined
  fields: (Buffer | undefined)[] | undefined
  /** Key of the earlier row that has what is missing. */
  base: string | undefined
}

const bytesOf = ({ line, fields }: Entry): number =>
  line?.length ?? fields?.reduce((sum, field) => sum + entryFieldBytes + (field?.length ?? 0), 0) ?? 0

/** Changes to a table whose rows have a key. */
class KeyedChanges implements NetChanges {
  held_bytes = 0
  replacesAll = false
  private readonly encoder = new LineEncoder()
  private readonly relation: RelationMessage
  private readonly keys: readonly number[]
  private readonly all: readonly number[]
  /** Rows that exist because of the stream, by key. */
  private readonly rows = new Map<string, Entry>()
  /** Keys of earlier rows that are changed or gone. */
  private readonly consumed = new Set<string>()
  /** By the key of the earlier row that they need: keys of rows with missing values. */
  private readonly waiting = new Map<string, string>()
  private seen = 0

  constructor(relation: RelationMessage, keys: readonly number[]) {
    this.relation = relation
    this.keys = keys
    this.all = relation.columns.map((_, place) => place)
  }

  get touchesOld(): boolean {
    return this.consumed.size > 0
  }

  get old(): { readonly columns: readonly string[]; readonly keys: Iterable<string> } {
    return { columns: this.keys.map((place) => this.relation.columns[place]?.name ?? ''), keys: this.consumed }
  }

  add(change: RowMessage): void {
    if (change.kind === 'insert') {
      this.put(this.encoder.key(change.row, this.keys), {
        line: this.encoder.line(change.row, this.all),
        fields: undefined,
        base: undefined,
      })
    } else if (change.kind === 'delete') {
      this.takeOut(this.encoder.key(change.old.values, this.keys))
    } else {
      const oldKey = this.encoder.key(change.old?.values ?? change.row, this.keys)
      const before = this.takeOut(oldKey)
      const entry = this.filled(change.row, before, oldKey)
      // An unchanged key may be a TOASTed value that was not sent: then the key is the old one.
      const isKeySent = this.keys.every((place) => change.row[place] !== unchanged)
      this.put(isKeySent ? this.encoder.key(change.row, this.keys) : oldKey, entry)
    }
  }

  truncate(): void {
    this.rows.clear()
    this.consumed.clear()
    this.waiting.clear()
    this.held_bytes = 0
    this.replacesAll = true
  }

  absorb(text: Buffer, start: number, end: number): Buffer | undefined | typeof keep {
    const key = keyOfLine(text, start, end, this.keys)
    if (!this.consumed.has(key)) {
      if (this.rows.has(key)) throw this.contradiction('a row that the stream inserted was there already')
      return keep
    }
    this.seen++
    const waiting = this.waiting.get(key)
    const entry = waiting === undefined ? undefined : this.rows.get(waiting)
    if (waiting === undefined || entry?.fields === undefined) return undefined
    const old = splitLine(text.subarray(start, end))
    this.rows.delete(waiting)
    return joinFields(entry.fields.map((field, place) => field ?? (old[place] as Buffer)))
  }

  *rest(mayLack = false): Generator<Buffer> {
    if (this.seen !== this.consumed.size && !mayLack)
      throw this.contradiction('a row that the stream changed was not there')
    for (const entry of this.rows.values()) {
      if (entry.line === undefined && mayLack) continue
      if (entry.line === undefined) throw this.contradiction('a value that the stream did not repeat was not there')
      yield entry.line
    }
  }

  /** Removes the row of this key, wherever it comes from, and gives what the stream said of it so far. */
  private takeOut(key: string): Entry | undefined {
    const entry = this.rows.get(key)
    if (entry) {
      this.rows.delete(key)
      if (entry.base !== undefined) this.waiting.delete(entry.base)
      this.held_bytes -= entryBytes + key.length + bytesOf(entry)
      return entry
    }
    if (this.replacesAll || this.consumed.has(key)) throw this.contradiction('the stream changes a row that is gone')
    this.consumed.add(key)
    this.held_bytes += entryBytes + key.length
    return undefined
  }

  private put(key: string, entry: Entry): void {
    if (this.rows.has(key)) throw this.contradiction('the stream inserts a row twice')
    this.rows.set(key, entry)
    if (entry.base !== undefined) this.waiting.set(entry.base, key)
    this.held_bytes += entryBytes + key.length + bytesOf(entry)
  }

  /** The new row, with what the update left unsaid taken from the row before it as far as the stream knows that. */
  private filled(row: Tuple, before: Entry | undefined, oldKey: string): Entry {
    if (!row.includes(unchanged)) return { line: this.encoder.line(row, this.all), fields: undefined, base: undefined }
    const known = before?.line ? splitLine(before.line) : before?.fields
    const fields = row.map((value: Value, place) =>
      value === unchanged ? known?.[place] : this.encoder.line(row, [place]),
    )
    if (fields.every((field) => field !== undefined))
      return { line: joinFields(fields as Buffer[]), fields: undefined, base: undefined }
    return { line: undefined, fields, base: before ? before.base : oldKey }
  }

  private contradiction(what: string): WalbackError {
    return contradiction(this.relation, what)
  }
}

/** Changes to a table whose rows have no key: rows are what they read as, and two equal rows are two. */
class BagChanges implements NetChanges {
  held_bytes = 0
  replacesAll = false
  private readonly encoder = new LineEncoder()
  private readonly relation: RelationMessage
  private readonly all: readonly number[]
  /** How many more (or fewer) rows there are that read so. */
  private readonly delta = new Map<string, { count: number; line: Buffer }>()
  private missing = 0

  constructor(relation: RelationMessage) {
    this.relation = relation
    this.all = relation.columns.map((_, place) => place)
  }

  get touchesOld(): boolean {
    return this.missing > 0
  }

  readonly old = undefined

  add(change: RowMessage): void {
    if (change.kind !== 'insert') {
      if (change.old?.kind !== 'full') throw contradiction(this.relation, 'an old row was not sent whole')
      this.count(change.old.values, -1)
    }
    if (change.kind === 'insert') this.count(change.row, 1)
    else if (change.kind === 'update') {
      const { old, row } = change
      this.count(
        row.map((value, place) => (value === unchanged ? (old?.values[place] as Value) : value)),
        1,
      )
    }
  }

  truncate(): void {
    this.delta.clear()
    this.held_bytes = 0
    this.missing = 0
    this.replacesAll = true
  }

  absorb(text: Buffer, start: number, end: number): undefined | typeof keep {
    if (this.missing === 0) return keep
    const entry = this.delta.get(bagKey(text.subarray(start, end)))
    if (entry === undefined || entry.count >= 0) return keep
    entry.count++
    this.missing--
    return undefined
  }

  *rest(mayLack = false): Generator<Buffer> {
    if (this.missing > 0 && !mayLack) throw contradiction(this.relation, 'a row that the stream changed was not there')
    for (const { count, line } of this.delta.values()) for (let n = 0; n < count; n++) yield line
  }

  private count(row: Tuple, by: 1 | -1): void {
    const line = this.encoder.line(row, this.all)
    const key = bagKey(line)
    const entry = this.delta.get(key)
    if (entry === undefined) {
      this.delta.set(key, { count: by, line })
      this.held_bytes += entryBytes + key.length + line.length
    } else entry.count += by
    const count = entry?.count ?? by
    if (by < 0 && count < 0) this.missing++
    else if (by > 0 && count <= 0) this.missing--
    if (count === 0) {
      this.delta.delete(key)
      this.held_bytes -= entryBytes + key.length + line.length
    } else if (this.replacesAll && count < 0)
      throw contradiction(this.relation, 'the stream changes a row that is gone')
  }
}

/** Short rows are their own key; of long ones a hash is kept. */
const bagKey = (line: Buffer): string =>
  line.length <= 64 ? line.toString('latin1', 0, line.length) : `#${hash('sha256', line, 'base64')}`

function contradiction(relation: RelationMessage, what: string): WalbackError {
  return new WalbackError(
    'corrupt',
    `the archive contradicts itself at table ${relation.schema}.${relation.name}: ${what}`,
    {
      hint: 'please report this; another base may restore: `walback list` shows them',
    },
  )
}
