import { hash } from 'node:crypto'
import { WalbackError } from '../base/errors.ts'
import {
  type OldTuple,
  type RelationMessage,
  type RowMessage,
  type Tuple,
  unchanged,
  type Value,
} from '../model/pgoutput.ts'
import { LineEncoder } from '../restore/copy-text.ts'

/** A value that the stream does not have: the old row came with its key only. */
export const unknown = Symbol('not in the stream')
export type Known = Value | typeof unknown
export type Row = readonly Known[]

/** What a transaction did to one row, from first to last: how the row had been, and how it was left. */
export interface Reversal {
  /** Undefined: there was none, and undoing deletes. */
  readonly old: Row | undefined
  /** Undefined: it was deleted, and undoing inserts. */
  readonly now: Row | undefined
  /** Hashes of the keys that the row had and has. */
  readonly oldKey: string | undefined
  readonly nowKey: string | undefined
}

interface Entry {
  old: Row | undefined
  oldKey: string | undefined
  now: Row | undefined
}

/** What an entry costs beside its values, and a value beside its bytes. */
const [entryBytes, valueBytes] = [400, 120]

/**
 * Folds what a transaction did to the rows of one table: a row that it touched several times is undone once. `keys`: the
 * columns that tell rows apart; where there are none a row is what it reads as, and two equal rows are two.
 */
export class Reversals {
  held_bytes = 0
  private readonly relation: RelationMessage
  private readonly keys: readonly number[] | undefined
  private readonly all: readonly number[]
  private readonly encoder = new LineEncoder()
  /** By the key that the rows have now; several of the same where rows have none. */
  private readonly live = new Map<string, Entry[]>()
  /** By the key that deleted rows had. */
  private readonly gone = new Map<string, Entry[]>()

  constructor(relation: RelationMessage, keys: readonly number[] | undefined) {
    this.relation = relation
    this.keys = keys
    this.all = relation.columns.map((_, place) => place)
  }

  add(change: RowMessage): void {
    if (change.kind === 'insert') this.insert(change.row)
    else if (change.kind === 'delete') this.delete(change.old)
    else this.update(change.old, change.row)
  }

  private update(sentOld: OldTuple | undefined, row: Tuple): void {
    const old = this.oldImage(sentOld, row)
    const oldKey = this.keyOf(old)
    const before = take(this.live, oldKey)
    const known = before?.now ?? old
    const now = row.map((value, place) => (value === unchanged ? (known[place] ?? null) : value))
    if (before) this.forget(before)
    this.put(before ? { ...before, now } : { old, oldKey, now })
  }

  private insert(row: Tuple): void {
    // The same key again, in the same transaction: for who looks from outside, the row was changed.
    const before = this.keys === undefined ? undefined : take(this.gone, this.keyOf(row))
    if (before) this.forget(before)
    this.put(before ? { ...before, now: row } : { old: undefined, oldKey: undefined, now: row })
  }

  private delete(old: OldTuple): void {
    const image = this.oldImage(old, undefined)
    const key = this.keyOf(image)
    const before = take(this.live, key)
    if (before) this.forget(before)
    if (before && before.old === undefined) return
    const entry: Entry = before ? { ...before, now: undefined } : { old: image, oldKey: key, now: undefined }
    this.held_bytes += bytesOf(entry)
    push(this.gone, entry.oldKey ?? '', entry)
  }

  private put(entry: Entry): void {
    this.held_bytes += bytesOf(entry)
    push(this.live, this.keyOf(entry.now as Row), entry)
  }

  private forget(entry: Entry): void {
    this.held_bytes -= bytesOf(entry)
  }

  /** The row before an update or a delete, as far as the stream has it. */
  private oldImage(old: OldTuple | undefined, row: Tuple | undefined): Row {
    if (old?.kind === 'full') return old.values
    const { columns } = this.relation
    return columns.map(({ isKey }, place) => {
      const value = isKey ? (old?.values ?? row)?.[place] : undefined
      if (row?.[place] === unchanged) return value ?? unchanged
      return value === undefined ? unknown : value
    })
  }

  private keyOf(row: Row): string {
    const places = this.keys ?? this.all
    if (places.some((place) => typeof row[place] === 'symbol'))
      throw new WalbackError(
        'refused',
        `the stream does not say which rows of ${this.relation.schema}.${this.relation.name} were changed`,
        {
          hint: 'the key by which its rows are told apart was changed since; restore to before the transaction instead: `walback restore --before-tx`',
        },
      )
    return hash('md5', this.encoder.line(row as Tuple, places), 'base64')
  }

  /** Hands everything over. */
  *take(): Generator<Reversal> {
    for (const entries of this.gone.values())
      for (const { old, oldKey } of entries) yield { old, oldKey, now: undefined, nowKey: undefined }
    for (const [nowKey, entries] of this.live)
      for (const { old, oldKey, now } of entries) yield { old, oldKey, now, nowKey }
    this.gone.clear()
    this.live.clear()
    this.held_bytes = 0
  }
}

function take(map: Map<string, Entry[]>, key: string): Entry | undefined {
  const entries = map.get(key)
  const entry = entries?.pop()
  if (entries?.length === 0) map.delete(key)
  return entry
}

function push(map: Map<string, Entry[]>, key: string, entry: Entry): void {
  const entries = map.get(key)
  if (entries) entries.push(entry)
  else map.set(key, [entry])
}

const rowBytes = (row: Row | undefined): number =>
  row?.reduce((sum: number, value) => sum + valueBytes + (Buffer.isBuffer(value) ? value.length : 0), 0) ?? 0

const bytesOf = ({ old, now }: Entry): number => entryBytes + rowBytes(old) + rowBytes(now)

/** What is known of a column of a reversal: one letter for the server. */
export type Mark = 'x' | '=' | 'u' | 'k' | '?'

/**
 * `x` was changed, and both values are known; `=` was not changed; `u` was not changed, and its value was not sent; `k`
 * the value of a row that was inserted or deleted is known; `?` the old value is not.
 */
export function markOf({ old, now }: Reversal, place: number): Mark {
  const [before, after] = [old?.[place], now?.[place]]
  if (before === unknown) return '?'
  if (old === undefined || now === undefined) return before === unchanged ? '?' : 'k'
  if (before === unchanged || after === unchanged) return before === after ? 'u' : '?'
  const isSame = Buffer.isBuffer(before) ? Buffer.isBuffer(after) && before.equals(after) : before === after
  return isSame ? '=' : 'x'
}
