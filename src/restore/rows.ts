import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { RowHash } from '../codec/row-hash.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified, quoteIdent } from '../model/identifier.ts'
import { copyIn, copyOut, wholeLines } from '../postgres/copy.ts'
import { copyOptions } from '../postgres/row-session.ts'
import type { BaseTable } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import { batchBytes, batches, mergedRows, newline } from './merge.ts'
import { keep, type NetChanges } from './net-changes.ts'
import { emptyPathSql } from './source-path.ts'
import type { UnreadableRows } from './unreadable-rows.ts'

/** A table to put rows into, by the columns that they have values for, in their order. */
export interface RowTarget {
  readonly schema: string
  readonly name: string
  readonly columns: readonly string[]
  /** The table above, where a row of this one may be in another partition of it (staged-tables.ts). */
  readonly spreadOver?: QualifiedName | null
}

/** Where the rows of a table go, and where they are found. */
const into = (table: RowTarget): string => qualified(table.spreadOver ?? table)
const inside = (table: RowTarget): string =>
  table.spreadOver ? qualified(table.spreadOver) : `ONLY ${qualified(table)}`

/** A table on its way: what its rows must be in the end. */
export interface RestoredTable {
  readonly table: BaseTable
  readonly expected: RowHash
}

interface Options {
  /** The source's encoding, in which its rows are. */
  readonly encoding: string
  readonly unreadable: UnreadableRows
  /** Sets the search_path of the source's applications, for what is computed and checked as rows go in. */
  readonly sourcePathSql: string
  readonly signal?: AbortSignal | undefined
  readonly onBytes?: ((raw: number, rows: number) => void) | undefined
}

/** COPY names the columns, so that their order in the restored table does not matter; a table may also have none. */
const columnList = (table: RowTarget): string =>
  table.columns.length === 0 ? '' : ` (${table.columns.map(quoteIdent).join(', ')})`

export const copyInSql = (table: RowTarget, encoding: string): string =>
  `COPY ${into(table)}${columnList(table)} FROM STDIN ${copyOptions(encoding)}`

/** Loads a table: its rows in the base, merged on the way with the net changes to it. */
export async function loadTable(
  client: pg.Client,
  repository: Repository,
  table: BaseTable,
  changes: NetChanges | undefined,
  options: Options,
): Promise<RestoredTable> {
  if (changes === undefined && table.rows === 0) return { table, expected: new RowHash() }
  const expected = changes ? new RowHash() : RowHash.from(table.rows, table.hash)
  async function* merged(): AsyncGenerator<Buffer> {
    const merging = { ...options, mayLack: options.unreadable.areMissing }
    for await (const lines of mergedRows(repository, table, changes, merging)) {
      if (changes) expected.addLines(lines)
      yield lines
    }
  }
  const loaded = await fill(client, { table, expected }, merged(), options)
  if (loaded !== expected.rows) {
    throw new WalbackError('corrupt', `table ${table.schema}.${table.name} took ${loaded} rows of ${expected.rows}`)
  }
  return { table, expected }
}

/** A table that has rows already: what they must be, if that is known, and how it is emptied. */
interface FilledTable {
  readonly table: RowTarget
  readonly expected: RowHash | undefined
  /** A foreign key names it: TRUNCATE is refused, even in a replica's session. */
  readonly isReferenced?: boolean
  /** It has been emptied already, as far as the changes say so. */
  readonly isEmptied?: boolean
}

/**
 * Applies net changes to a table that is loaded already, by sets: old rows out, new rows in. The session must be in a
 * transaction.
 */
export async function applyToTable(
  client: pg.Client,
  filled: FilledTable,
  changes: NetChanges,
  options: Options,
): Promise<void> {
  const { table, expected = new RowHash() } = filled
  const known = { table, expected }
  let refilled: Buffer[] = []
  if (changes.replacesAll) {
    if (!filled.isEmptied)
      await client.query(`${filled.isReferenced ? 'DELETE FROM' : 'TRUNCATE'} ONLY ${qualified(table)}`)
    expected.clear()
  } else if (changes.touchesOld) {
    refilled = changes.old
      ? await removeByKey(client, known, changes, changes.old, options)
      : await removeByText(client, known, changes, options)
  }
  function* lines(): Generator<Buffer> {
    for (const batch of [batches(refilled), batches(changes.rest(options.unreadable.areMissing))]) {
      for (const rows of batch) {
        expected.addLines(rows)
        yield rows
      }
    }
  }
  await fill(client, known, lines(), options)
}

/** Puts rows into a table; gives their number. */
async function fill(
  client: pg.Client,
  { table, expected }: KnownTable,
  lines: AsyncIterable<Buffer> | Iterable<Buffer>,
  { sourcePathSql, encoding, unreadable, signal }: Options,
): Promise<number> {
  await client.query(sourcePathSql)
  const readable = unreadable.readable(table, lines, (line) => expected.add(line, 0, line.length, -1))
  const loaded = await copyIn(client, copyInSql(table, encoding), readable, signal)
  // All else is written and read with an empty one.
  await client.query(emptyPathSql)
  return loaded
}

/** A loaded table whose rows are known, for the functions below. */
interface KnownTable {
  readonly table: RowTarget
  readonly expected: RowHash
}

/** Takes the old rows out by their keys; gives back those that the changes only refilled. */
async function removeByKey(
  client: pg.Client,
  { table, expected }: KnownTable,
  changes: NetChanges,
  old: { readonly columns: readonly string[]; readonly keys: Iterable<string> },
  { encoding, unreadable, signal }: Options,
): Promise<Buffer[]> {
  const columns = old.columns.map(quoteIdent)
  await client.query(`CREATE TEMP TABLE walback_old AS SELECT ${columns.join(', ')} FROM ${inside(table)} WITH NO DATA`)
  const keys = unreadable.areMissing ? unreadable.readable(table, keyLines(old.keys)) : keyLines(old.keys)
  await copyIn(client, `COPY pg_temp.walback_old FROM STDIN ${copyOptions(encoding)}`, keys, signal)
  // As text, since an extension's equality operator is not on the empty search_path; keys equal as text are equal.
  const isSame = columns.map((column) => `t.${column}::pg_catalog.text = o.${column}::pg_catalog.text`).join(' AND ')
  const returning = table.columns.map((column) => `t.${quoteIdent(column)}`).join(', ')
  const sql = `COPY (DELETE FROM ${inside(table)} t USING pg_temp.walback_old o WHERE ${isSame} RETURNING ${returning}) TO STDOUT ${copyOptions(encoding)}`
  const refilled: Buffer[] = []
  for await (const { text, start, end } of linesOf(copyOut(client, sql, signal))) {
    expected.add(text, start, end, -1)
    const becomes = changes.absorb(text, start, end)
    if (becomes === keep)
      throw new WalbackError('corrupt', `table ${table.schema}.${table.name} lost a row that was to stay`)
    if (becomes) refilled.push(becomes)
  }
  await client.query('DROP TABLE pg_temp.walback_old')
  return refilled
}

/** Rows without a key are found by looking at every row's text, and taken out by where they lie. */
async function removeByText(
  client: pg.Client,
  { table, expected }: KnownTable,
  changes: NetChanges,
  { encoding, signal }: Options,
): Promise<Buffer[]> {
  // A place is in one table; above partitions it takes two words to tell it.
  const place = table.spreadOver ? `pg_catalog.format('%s %s', tableoid::pg_catalog.oid, ctid)` : 'ctid'
  const columns = [place, ...table.columns.map(quoteIdent)].join(', ')
  const places: string[] = []
  const sql = `COPY (SELECT ${columns} FROM ${inside(table)}) TO STDOUT ${copyOptions(encoding)}`
  for await (const { text, start, end } of linesOf(copyOut(client, sql, signal))) {
    const tab = text.indexOf(9, start)
    const placeEnd = tab < 0 || tab > end ? end : tab
    const row = Math.min(placeEnd + 1, end)
    if (changes.absorb(text, row, end) === keep) continue
    expected.add(text, row, end, -1)
    places.push(text.toString('latin1', start, placeEnd))
  }
  await client.query(`CREATE TEMP TABLE walback_old (place ${table.spreadOver ? 'text' : 'tid'})`)
  await copyIn(client, 'COPY pg_temp.walback_old FROM STDIN', keyLines(places), signal)
  const isThere = table.spreadOver
    ? `t.tableoid = split_part(o.place, ' ', 1)::pg_catalog.oid AND t.ctid = split_part(o.place, ' ', 2)::pg_catalog.tid`
    : 't.ctid = o.place'
  await client.query(`DELETE FROM ${inside(table)} t USING pg_temp.walback_old o WHERE ${isThere}`)
  await client.query('DROP TABLE pg_temp.walback_old')
  return []
}

function* keyLines(keys: Iterable<string>): Generator<Buffer> {
  let text = ''
  for (const key of keys) {
    text += `${key}\n`
    if (text.length < batchBytes) continue
    yield Buffer.from(text, 'latin1')
    text = ''
  }
  if (text.length > 0) yield Buffer.from(text, 'latin1')
}

async function* linesOf(chunks: AsyncIterable<Buffer>): AsyncGenerator<{ text: Buffer; start: number; end: number }> {
  for await (const text of wholeLines(chunks)) {
    for (let start = 0; start < text.length; ) {
      const end = text.indexOf(newline, start)
      yield { text, start, end }
      start = end + 1
    }
  }
}
