import { WalbackError } from '../base/errors.ts'
import { type RelationMessage, type RowMessage, type Tuple, unchanged } from '../model/pgoutput.ts'
import type { BaseTable } from '../repository/base.ts'
import type { Change } from '../repository/change-reader.ts'
import { readContainer } from '../repository/container.ts'
import type { Repository } from '../repository/repository.ts'
import { joinFields, keyOfLine, LineEncoder, splitLine } from '../restore/copy-text.ts'
import type { TargetTable } from './target-table.ts'

/** A row as far as it is known: its line; `absent`; or fields of which some are those of the base's row with that key. */
type Earlier =
  | Buffer
  | 'absent'
  | 'as in the base'
  | { readonly fields: readonly (Buffer | undefined)[]; readonly base: string }

/**
 * What some rows of a table were at an earlier moment: found in a base, and carried on by the stream after it. Rows are
 * asked for by their keys, as lines of COPY; nothing is held of any other.
 */
export class EarlierRows {
  /** The columns of a line. */
  readonly columns: readonly string[]
  private readonly table: TargetTable
  private readonly base: BaseTable | undefined
  private readonly keys: readonly number[]
  private readonly encoder = new LineEncoder()
  private readonly rows = new Map<string, Earlier>()
  /** By the key of the base's row that has what they lack: keys of rows. */
  private readonly waiting = new Map<string, string>()
  /** Keys that rows which were asked for had before, and by which what they lack is found. */
  private readonly former = new Set<string>()
  private readonly forms = new WeakMap<RelationMessage, readonly number[]>()
  private isEmptied = false

  constructor(table: TargetTable, base: BaseTable | undefined) {
    this.table = table
    this.base = base
    const sent = table.relation.columns.map(({ name }) => name)
    this.columns = base?.columns ?? sent.filter((name) => !table.generated.includes(name))
    this.keys = keyNames(table).map((name) => this.columns.indexOf(name))
    if (this.keys.includes(-1)) throw this.altered('has other columns')
  }

  ask(key: string): void {
    this.rows.set(key, 'as in the base')
  }

  /**
   * Whether the stream has to be read again: rows that were asked for once had keys that nobody asked for, and values that
   * were not sent again since.
   */
  get needsFormer(): boolean {
    return this.former.size > 0
  }

  /** The stream comes from its start again, and those keys are looked for too. */
  startAgain(): void {
    for (const key of [...this.rows.keys(), ...this.former]) this.ask(key)
    this.former.clear()
    this.waiting.clear()
    this.isEmptied = false
  }

  take(change: Change): void {
    if (change.kind === 'ddl') this.follow(change)
    else if (change.kind === 'truncate') {
      if (!change.relations.some(({ oid }) => oid === this.oid)) return
      this.isEmptied = true
      for (const key of this.rows.keys()) this.rows.set(key, 'absent')
    } else if (change.kind === 'row' && change.relation.oid === this.oid) this.takeRow(change.relation, change.row)
  }

  /** The base's own rows, for those that no change has said all of. */
  async readBase(repository: Repository, signal: AbortSignal | undefined): Promise<void> {
    if (this.base === undefined || this.isEmptied) return
    const keys = this.keys
    for (const piece of this.base.pieces) {
      for await (const part of readContainer(repository.storage, { ...piece, kind: 'rows' }, signal)) {
        if (part.kind !== 'block') continue
        for (let start = 0; start < part.raw.length; ) {
          const end = part.raw.indexOf(newline, start)
          this.meet(keyOfLine(part.raw, start, end, keys), part.raw, start, end)
          start = end + 1
        }
      }
    }
  }

  /** Lines of COPY: the rows that are known whole. */
  *found(): Generator<Buffer> {
    for (const row of this.rows.values()) if (Buffer.isBuffer(row)) yield row
  }

  private get oid(): number {
    return this.table.relation.oid
  }

  private meet(key: string, text: Buffer, start: number, end: number): void {
    if (this.rows.get(key) === 'as in the base') this.rows.set(key, Buffer.from(text.subarray(start, end)))
    const waiting = this.waiting.get(key)
    const row = waiting === undefined ? undefined : this.rows.get(waiting)
    if (waiting === undefined || typeof row !== 'object' || Buffer.isBuffer(row)) return
    const old = splitLine(text.subarray(start, end))
    this.rows.set(waiting, joinFields(row.fields.map((field, place) => field ?? (old[place] as Buffer))))
  }

  private takeRow(relation: RelationMessage, row: RowMessage): void {
    const places = this.placesIn(relation)
    const keyPlaces = this.keys.map((place) => places[place] as number)
    if (row.kind === 'insert') {
      const key = this.encoder.key(row.row, keyPlaces)
      if (this.rows.has(key)) this.rows.set(key, this.encoder.line(row.row, places))
      return
    }
    const old = row.old
    if (old?.kind === 'key' && keyPlaces.some((place) => relation.columns[place]?.isKey !== true))
      throw this.altered('was told apart by another key')
    const oldKey = this.encoder.key(old?.values ?? (row as { readonly row: Tuple }).row, keyPlaces)
    const before = this.rows.get(oldKey)
    if (before !== undefined) this.rows.set(oldKey, 'absent')
    if (row.kind === 'delete') return
    const isKeySent = keyPlaces.every((place) => row.row[place] !== unchanged)
    const key = isKeySent ? this.encoder.key(row.row, keyPlaces) : oldKey
    if (this.rows.has(key)) this.rows.set(key, this.filled(row, places, { before, oldKey, key }))
  }

  /** A row after an update: what was not sent is what it was. */
  private filled(
    { old, row }: Extract<RowMessage, { kind: 'update' }>,
    places: readonly number[],
    { before, oldKey, key }: { readonly before: Earlier | undefined; readonly oldKey: string; readonly key: string },
  ): Earlier {
    const isPart = typeof before === 'object' && !Buffer.isBuffer(before)
    const known = Buffer.isBuffer(before) ? splitLine(before) : isPart ? before.fields : undefined
    const fields = places.map((place, index) => {
      const value = row[place] === unchanged && old?.kind === 'full' ? old.values[place] : row[place]
      return value === unchanged ? known?.[index] : this.encoder.line([value ?? null], [0])
    })
    if (fields.every((field) => field !== undefined)) return joinFields(fields)
    if (before === undefined) this.former.add(oldKey)
    if (before === undefined || before === 'absent') return 'absent'
    const base = isPart ? before.base : oldKey
    this.waiting.set(base, key)
    return { fields, base }
  }

  private placesIn(relation: RelationMessage): readonly number[] {
    const known = this.forms.get(relation)
    if (known) return known
    const names = relation.columns.map(({ name }) => name)
    const others = names.filter((name) => !this.columns.includes(name) && !this.table.generated.includes(name))
    const places = this.columns.map((name) => names.indexOf(name))
    const isOther = places.some((place, index) => {
      const column = relation.columns[place]
      const type = this.base?.types?.[index]
      return column === undefined || (type !== undefined && type !== `${column.typeOid}.${column.typeModifier}`)
    })
    if (isOther || others.length > 0) throw this.altered('was altered')
    this.forms.set(relation, places)
    return places
  }

  /** A command that may have changed rows without saying which. */
  private follow({ message }: Extract<Change, { kind: 'ddl' }>): void {
    if (message.kind === 'ddl' && message.rewritten.some(({ oid }) => oid === this.oid))
      throw this.altered('was rewritten')
  }

  private altered(how: string): WalbackError {
    const { schema, name } = this.table
    return new WalbackError(
      'refused',
      `what rows of ${schema}.${name} had been is not in the stream, and cannot be found in the base before: the table ${how} in between`,
      {
        hint: `restore to before the transaction instead: \`walback restore --before-tx\`. For the future: ALTER TABLE ${name} REPLICA IDENTITY FULL puts whole old rows into the stream`,
      },
    )
  }
}

/** In the order of the columns, which is that of a line. */
export const keyNames = ({ key = [] }: TargetTable): string[] =>
  [...key].sort((a, b) => a.column.place - b.column.place).map(({ column }) => column.name)

const newline = 0x0a
