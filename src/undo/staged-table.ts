import type pg from 'pg'
import { assert } from '../base/assert.ts'
import { WalbackError } from '../base/errors.ts'
import type { Tuple } from '../model/pgoutput.ts'
import { copyIn } from '../postgres/copy.ts'
import { copyOptions } from '../postgres/row-session.ts'
import { LineEncoder } from '../restore/copy-text.ts'
import { type Known, markOf, type Reversal, type Row } from './reversals.ts'
import { nameOf, type TargetColumn, type TargetTable } from './target-table.ts'

/** What an undo does to a row: it deletes one that was inserted, inserts one that was deleted, sets one back. */
export type Kind = 'd' | 'i' | 'u'

const kindOf = ({ old, now }: Reversal): Kind => (old === undefined ? 'd' : now === undefined ? 'i' : 'u')

/**
 * A table's reversals, brought to the server by COPY, which reads values as the stream has them, in a temporary table:
 * from there they are compared and carried out by sets. Layers are folded each by itself, and undone from the last to the first.
 *
 * Columns: `ord` the number of the reversal, `layer`, `kind`, `marks` (a letter for each column), `okey` and `nkey` the
 * hashes of the keys, `o1…` the values that are to be, `n1…` those that the transaction left.
 */
export class StagedTable {
  readonly table: TargetTable
  readonly stage: string
  readonly check: string
  readonly layers = new Set<number>()
  /** Whether any row has another key than before. */
  hasMoves = false
  /** Rows whose old values are not in the stream. */
  lacking = 0
  /** From which reversal on old values are yet to be looked for (fill-old.ts). */
  sought = 0
  readonly counts = { d: 0, i: 0, u: 0 }
  private changed = new Set<number>()
  private readonly lackingLayers = new Set<number>()
  private readonly lost = new Map<string, number>()
  private next = 0

  private constructor(table: TargetTable, number: number) {
    this.table = table
    this.stage = `pg_temp.walback_undo_${number}`
    this.check = `pg_temp.walback_check_${number}`
  }

  static async create(client: pg.Client, table: TargetTable, number: number): Promise<StagedTable> {
    const staged = new StagedTable(table, number)
    if (table.columns.length > mostColumns) {
      throw new WalbackError('refused', `${staged.name} has more columns than an undo can hold beside each other`, {
        hint: `${mostColumns} is the most; leave the table out with --table, or restore to before the transaction`,
      })
    }
    const values = ['o', 'n'].flatMap((side) =>
      table.columns.map(({ type, collation }, index) => `${side}${index + 1} ${type}${collation}`),
    )
    const columns = ['ord bigint', 'layer int', 'kind "char"', 'marks text', 'okey text', 'nkey text', ...values]
    await client.query(`CREATE TEMP TABLE ${bare(staged.stage)} (${columns.join(', ')}) ON COMMIT PRESERVE ROWS`)
    await client.query(
      `CREATE TEMP TABLE ${bare(staged.check)} (ord bigint, layer int, kind "char", state text, place tid) ON COMMIT PRESERVE ROWS`,
    )
    return staged
  }

  /** Places in the stream's rows of what tells rows apart. */
  get keyPlaces(): readonly number[] | undefined {
    return this.table.key?.map(({ column }) => column.place)
  }

  /** The columns that any row is to be set back in. */
  get setBack(): readonly { readonly column: TargetColumn; readonly index: number }[] {
    return this.table.columns.flatMap((column, index) => (this.changed.has(index) ? [{ column, index }] : []))
  }

  async load(
    client: pg.Client,
    layer: number,
    reversals: Iterable<Reversal>,
    options: { readonly encoding: string; readonly signal?: AbortSignal | undefined },
  ): Promise<void> {
    this.layers.add(layer)
    const sql = `COPY ${this.stage} FROM STDIN ${copyOptions(options.encoding)}`
    await copyIn(client, sql, batched(this.lines(layer, reversals)), options.signal)
  }

  /** So that the server knows how many there are, and joins accordingly. */
  async finish(client: pg.Client): Promise<void> {
    const [first] = this.lost
    if (first !== undefined) {
      throw new WalbackError(
        'refused',
        `column ${first[0]} of ${this.table.schema}.${this.table.name} was dropped since, and ${first[1]} rows had values in it that cannot be put back`,
        {
          hint: 'leave the table out with --table, or restore to before the transaction: `walback restore --before-tx`',
        },
      )
    }
    // Rows are looked up in other layers, and where others move to, one by one; layers are worked through one by one.
    const isIndexed = this.layers.size > 1 || this.hasMoves
    for (const key of isIndexed ? ['okey, layer', 'nkey, layer', 'layer'] : [])
      await client.query(`CREATE INDEX ON ${this.stage} (${key})`)
    if (isIndexed) await client.query(`CREATE INDEX ON ${this.check} (layer)`)
    await client.query(`ANALYZE ${this.stage}`)
  }

  /** Old values have been looked for: what is still lacking, and what was not changed after all. */
  async reconsider(client: pg.Client): Promise<void> {
    await client.query(`DELETE FROM ${this.stage} WHERE kind = 'u' AND marks !~ '[x?]' AND okey = nkey`)
    const changed = this.table.columns.map((_, index) => `bool_or(kind = 'u' AND substr(marks, ${index + 1}, 1) = 'x')`)
    const { rows } = await client.query<{ lacking: string; changed: (boolean | null)[] }>(
      `SELECT count(*) FILTER (WHERE strpos(marks, '?') > 0) AS lacking, ARRAY[${changed.join(', ')}]::bool[] AS changed FROM ${this.stage}`,
    )
    this.lacking = Number(rows[0]?.lacking ?? 0)
    this.changed = new Set(rows[0]?.changed.flatMap((isChanged, index) => (isChanged ? [index] : [])) ?? [])
    await client.query(`ANALYZE ${this.stage}`)
  }

  lacksIn({ from, to }: { readonly from: number; readonly to: number }): boolean {
    return [...this.lackingLayers].some((layer) => layer >= from && layer < to)
  }

  indexOf(name: string): number {
    return this.table.columns.findIndex((column) => column.name === name)
  }

  private *lines(layer: number, reversals: Iterable<Reversal>): Generator<Buffer> {
    const encoder = new LineEncoder()
    const places = this.table.columns.map(({ place }) => place)
    const none = places.map(() => '\\N').join('\t')
    const side = (row: Row | undefined): Buffer =>
      row === undefined ? Buffer.from(none) : encoder.line(sendable(row), places)
    for (const reversal of reversals) {
      const kind = kindOf(reversal)
      const marks = this.table.columns.map((column) => markOf(reversal, column.place)).join('')
      if (kind === 'u' && !/[x?]/.test(marks) && reversal.oldKey === reversal.nowKey && this.table.dropped.length === 0)
        continue
      this.account(layer, kind, marks, reversal)
      const { oldKey = '\\N', nowKey = '\\N' } = reversal
      const head = [this.next++, layer, kind, marks === '' ? '\\N' : marks, oldKey, nowKey].join('\t')
      yield places.length === 0
        ? Buffer.from(`${head}\n`)
        : Buffer.concat([Buffer.from(`${head}\t`), side(reversal.old), tab, side(reversal.now), newline])
    }
  }

  private account(layer: number, kind: Kind, marks: string, { old, now, oldKey, nowKey }: Reversal): void {
    this.counts[kind]++
    if (kind === 'u' && oldKey !== nowKey) this.hasMoves = true
    if (marks.includes('?')) {
      this.lacking++
      this.lackingLayers.add(layer)
    }
    this.accountDropped(old, now)
    for (let index = 0; kind === 'u' && index < marks.length; index++) {
      const mark = marks[index]
      if (mark === 'x' || mark === '?') this.changed.add(index)
    }
  }

  /** Values of columns that are gone: only what a row would get back is missed. */
  private accountDropped(old: Row | undefined, now: Row | undefined): void {
    if (old === undefined) return
    for (const { name, place } of this.table.dropped) {
      const value = old[place]
      const isBack = Buffer.isBuffer(value) && !(Buffer.isBuffer(now?.[place]) && value.equals(now[place] as Buffer))
      if (isBack) this.lost.set(name, (this.lost.get(name) ?? 0) + 1)
    }
  }

  /** What the server knows a column by: the live value, and those of the reversal. */
  live = (index: number): string => `t.${quoted(this.column(index))}`
  old = (index: number, of = 's'): string => `${of}.o${index + 1}`
  now = (index: number, of = 's'): string => `${of}.n${index + 1}`

  get sql(): string {
    return nameOf(this.table)
  }

  get name(): string {
    return `${this.table.schema}.${this.table.name}`
  }

  private column(index: number): TargetColumn {
    const column = this.table.columns[index]
    assert(column !== undefined, `column ${index} of ${this.name}`)
    return column
  }
}

export const quoted = ({ name }: { readonly name: string }): string => `"${name.replaceAll('"', '""')}"`

/**
 * Whether values read the same. By the types' output functions, as the stream has them: equality of types is both more
 * (1.0 and 1.00) and less (json has none, boxes are equal by area), and a composite of nulls is not NULL.
 */
export const same = (left: readonly string[], right: readonly string[]): string =>
  left.length === 0 ? 'true' : `${image(left)} = ${image(right)}`

export const image = (values: readonly string[]): string => `(ROW(${values.join(', ')})::text COLLATE "C")`

/** A table has 1,600 at most, and here each column is there twice, beside those of the reversal itself. */
const mostColumns = 796

const bare = (name: string): string => name.replace('pg_temp.', '')
const sendable = (row: Row): Tuple => row.map((value: Known) => (typeof value === 'symbol' ? null : value))
const [tab, newline] = [Buffer.from('\t'), Buffer.from('\n')]

/** Many lines at a time. */
function* batched(lines: Iterable<Buffer>): Generator<Buffer> {
  let held: Buffer[] = []
  let bytes = 0
  for (const line of lines) {
    held.push(line)
    bytes += line.length
    if (bytes < batchBytes) continue
    yield Buffer.concat(held)
    held = []
    bytes = 0
  }
  if (bytes > 0) yield Buffer.concat(held)
}

const batchBytes = 1 << 18
