/** Which transactions did what, answered from the trailers of segments: no row is read. */

import { WalbackError } from '../base/errors.ts'
import { nearest } from '../base/nearest.ts'
import { type Lsn, parseLsn } from '../model/lsn.ts'
import { matchTables, type TableName } from '../model/selection.ts'
import type { Micros } from '../model/time.ts'
import type { BaseManifest } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import {
  changesAnything,
  type DdlEntry,
  type SegmentSummary,
  type TransactionEntry,
} from '../repository/segment-format.ts'
import { scanSegments, timeOf } from '../repository/segments.ts'
import { readTimelines } from '../repository/timeline.ts'

export const rowOperations = ['insert', 'update', 'delete', 'truncate'] as const
export type RowOperation = (typeof rowOperations)[number]

/** What can be selected by; `ddl` is any change of the schema. */
export const operations = [...rowOperations, 'ddl'] as const
export type Operation = (typeof operations)[number]

/** Rows per operation; `truncate` counts truncations, whose rows nobody counted. */
export type RowCounts = Readonly<Record<RowOperation, number>>

export interface TableChange extends RowCounts {
  readonly schema: string
  readonly name: string
}

export interface LoggedTransaction {
  readonly timeline: string
  readonly xid: bigint
  /** Start and end of the commit record. */
  readonly commit: Lsn
  readonly end: Lsn
  readonly time: Micros
  /** Of the whole transaction, in the uncompressed stream. */
  readonly bytes: number
  /** What the selection asks for: the tables and operations that match it. */
  readonly tables: readonly TableChange[]
  /** Rows of `tables`, truncated ones not counted. */
  readonly rows: number
  /** Truncations in `tables`. */
  readonly truncates: number
  /** The changes of the schema that match, as far as the archive's index names them, and how many there were. */
  readonly ddl: readonly DdlEntry[]
  readonly ddlCount: number
  /** Whether the transaction also changed what the selection leaves out. */
  readonly hasOther: boolean
}

export interface RowCondition {
  readonly operator: '>' | '>=' | '<' | '<=' | '='
  readonly rows: number
}

export interface LogSelection {
  /**
   * `name` or `schema.name`, with `*` for any run of characters; a table that matches one of them counts, and a change of
   * the schema whose object does.
   */
  readonly tables?: readonly string[]
  readonly operations?: readonly Operation[]
  /** On what was done to rows: a transaction that only changed the schema fulfils none. */
  readonly rows?: RowCondition
  /** Both bounds are inclusive. */
  readonly since?: Micros
  readonly until?: Micros
  readonly limit: number
  /** `time`: the newest `limit`, newest last. `rows`: the largest `limit`, truncating ones first, then by rows. */
  readonly sort: 'time' | 'rows'
}

export interface TransactionLog {
  readonly transactions: readonly LoggedTransaction[]
  /** Of all that matched, also those past the limit. */
  readonly matched: number
  readonly totals: Readonly<Record<Operation, number>>
}

/** `>100`, `>=5`, `<3`, `=1`; a bare number means at least. */
export function parseRowCondition(text: string): RowCondition {
  const match = /^\s*(>=|<=|>|<|=)?\s*(\d{1,15})\s*$/.exec(text)
  if (match) return { operator: (match[1] ?? '>=') as RowCondition['operator'], rows: Number(match[2]) }
  throw new WalbackError('usage', `not a condition on rows: ${JSON.stringify(text)}`, {
    hint: "write it as '>100', '>=5', '<3' or '=1', in quotes",
  })
}

/** How many rows a truncation took nobody knows, so one fulfils any lower bound and no upper one. */
function fulfils(condition: RowCondition | undefined, rows: number, truncates: number): boolean {
  if (condition === undefined) return true
  switch (condition.operator) {
    case '>':
      return truncates > 0 || rows > condition.rows
    case '>=':
      return truncates > 0 || rows >= condition.rows
    case '<':
      return truncates === 0 && rows < condition.rows
    case '<=':
      return truncates === 0 && rows <= condition.rows
    case '=':
      return truncates === 0 && rows === condition.rows
  }
}

/** Selects from trailers of one timeline, or of several in their order. Those that changed nothing, such as walback's own, are left out. */
export function selectTransactions(
  segments: Iterable<{ readonly timeline: string; readonly segment: SegmentSummary }>,
  selection: LogSelection,
): TransactionLog {
  const selector = new Selector(selection)
  for (const { timeline, segment } of segments) selector.offer(timeline, segment)
  return selector.result()
}

class Selector {
  private readonly selection: LogSelection
  private readonly matchesTable: (table: { readonly schema: string; readonly name: string }) => boolean
  private readonly wanted: ReadonlySet<Operation>
  private readonly totals = { insert: 0, update: 0, delete: 0, truncate: 0, ddl: 0 }
  private readonly kept: Shortlist

  constructor(selection: LogSelection) {
    this.selection = selection
    this.matchesTable = selection.tables === undefined ? () => true : matchTables(selection.tables)
    this.wanted = new Set<Operation>(selection.operations ?? operations)
    this.kept = new Shortlist(selection)
  }

  offer(timeline: string, segment: SegmentSummary): void {
    for (const entry of segment.trailer.transactions) {
      if (!changesAnything(entry) || !isWithin(timeOf(entry), this.selection)) continue
      const { tables, hasOther } = changesOf(entry, segment, this.matchesTable, this.wanted)
      const { ddl, ddlCount } = this.ddlOf(entry)
      if (tables.length === 0 && (ddlCount === 0 || this.selection.rows !== undefined)) continue
      const rows = tables.reduce((sum, table) => sum + table.insert + table.update + table.delete, 0)
      const truncates = tables.reduce((sum, table) => sum + table.truncate, 0)
      if (!fulfils(this.selection.rows, rows, truncates)) continue
      for (const table of tables) for (const operation of rowOperations) this.totals[operation] += table[operation]
      this.totals.ddl += ddlCount
      const { xid, commit, end, bytes } = entry
      this.kept.add({
        timeline,
        xid: BigInt(xid),
        commit: parseLsn(commit),
        end: parseLsn(end),
        time: timeOf(entry),
        bytes,
        tables,
        rows,
        truncates,
        ddl,
        ddlCount,
        hasOther: hasOther || ddlCount < (entry.ddlCount ?? 0),
      })
    }
  }

  private ddlOf({ ddl = [], ddlCount = 0 }: TransactionEntry): { ddl: readonly DdlEntry[]; ddlCount: number } {
    if (!this.wanted.has('ddl')) return { ddl: [], ddlCount: 0 }
    if (this.selection.tables === undefined) return { ddl, ddlCount }
    const found = ddl.filter(({ object }) => {
      const name = object === null ? undefined : nameIn(object)
      return name !== undefined && this.matchesTable(name)
    })
    return { ddl: found, ddlCount: found.length }
  }

  result(): TransactionLog {
    return { transactions: this.kept.take(), matched: this.kept.matched, totals: this.totals }
  }
}

const isWithin = (time: Micros, { since, until }: LogSelection): boolean =>
  (since === undefined || time >= since) && (until === undefined || time <= until)

function changesOf(
  entry: TransactionEntry,
  segment: SegmentSummary,
  matchesTable: (table: { readonly schema: string; readonly name: string }) => boolean,
  wanted: ReadonlySet<Operation>,
): { tables: TableChange[]; hasOther: boolean } {
  const tables: TableChange[] = []
  let hasOther = false
  for (const [place, ...counts] of entry.counts) {
    const { schema, name } = segment.trailer.tables[place] ?? { schema: '', name: `relation ${place}` }
    const count = (operation: RowOperation, index: number): number => (wanted.has(operation) ? (counts[index] ?? 0) : 0)
    const change = {
      schema,
      name,
      insert: count('insert', 0),
      update: count('update', 1),
      delete: count('delete', 2),
      truncate: count('truncate', 3),
    }
    const all = counts.reduce((sum, one) => sum + one, 0)
    const selected = change.insert + change.update + change.delete + change.truncate
    if (selected > 0 && matchesTable(change)) tables.push(change)
    if (selected < all || !matchesTable(change)) hasOther = true
  }
  return { tables, hasOther }
}

/** The relation or other object of a schema that an object's identity names: `shop."Line"`, `audit on shop."Line"`. */
function nameIn(identity: string): TableName | undefined {
  const words = identity.split(' on ').at(-1) ?? identity
  const [, schema, name] = /^("(?:[^"]|"")+"|[^".(]+)\.("(?:[^"]|"")+"|[^".(]+)/.exec(words) ?? []
  return schema === undefined || name === undefined ? undefined : { schema: unquoted(schema), name: unquoted(name) }
}

const unquoted = (word: string): string => (word.startsWith('"') ? word.slice(1, -1).replaceAll('""', '"') : word)

/** Keeps the best `limit` of however many come, in bounded memory. */
class Shortlist {
  matched = 0
  private found: LoggedTransaction[] = []
  private readonly limit: number
  private readonly byRows: boolean

  constructor(selection: LogSelection) {
    this.limit = selection.limit
    this.byRows = selection.sort === 'rows'
  }

  add(transaction: LoggedTransaction): void {
    this.matched++
    this.found.push(transaction)
    if (this.found.length >= 2 * this.limit + 1000) this.found = this.take()
  }

  take(): LoggedTransaction[] {
    if (!this.byRows) return this.limit === 0 ? [] : this.found.slice(-this.limit)
    return [...this.found].sort((a, b) => b.truncates - a.truncates || b.rows - a.rows).slice(0, this.limit)
  }
}

/** Reads the trailers, one after the other, and selects. A pattern that no table has is refused, with the nearest name. */
export async function readLog(
  repository: Repository,
  source: string,
  selection: LogSelection,
  options: { readonly bases?: readonly BaseManifest[]; readonly signal?: AbortSignal } = {},
): Promise<TransactionLog> {
  const known = new Map<string, TableName>()
  const learn = (table: TableName): unknown => known.set(`${table.schema}.${table.name}`, table)
  for (const base of options.bases ?? []) base.tables.forEach(learn)
  const changed = new Map<string, TableName>()
  const selector = new Selector(selection)
  for (const timeline of await readTimelines(repository, source, options.signal)) {
    for await (const segment of scanSegments(repository, timeline, { signal: options.signal })) {
      segment.trailer.tables.forEach(learn)
      if (selection.tables !== undefined) learnObjects(segment, changed)
      selector.offer(timeline.id, segment)
    }
  }
  for (const pattern of selection.tables ?? []) refuseUnknownTable(pattern, known, changed)
  return selector.result()
}

/** A table that was only ever made, altered or dropped is known as well. */
function learnObjects(segment: SegmentSummary, changed: Map<string, TableName>): void {
  for (const { ddl = [] } of segment.trailer.transactions) {
    for (const { object } of ddl) {
      const name = object === null ? undefined : nameIn(object)
      if (name) changed.set(`${name.schema}.${name.name}`, name)
    }
  }
}

function refuseUnknownTable(
  pattern: string,
  known: ReadonlyMap<string, TableName>,
  changed: ReadonlyMap<string, TableName>,
): void {
  const matches = matchTables([pattern])
  if ([...known.values(), ...changed.values()].some(matches)) return
  const meant = nearest(pattern, pattern.includes('.') ? known.keys() : [...known.values()].map((table) => table.name))
  const some = [...known.keys()].sort().slice(0, 8)
  throw new WalbackError('usage', `there is no table ${JSON.stringify(pattern)} in the archive`, {
    hint:
      meant !== undefined
        ? `did you mean ${meant}?`
        : some.length > 0
          ? `it has ${some.join(', ')}${known.size > some.length ? `, and ${known.size - some.length} more` : ''}`
          : 'it holds no rows yet',
  })
}
