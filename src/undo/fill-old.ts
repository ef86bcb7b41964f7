import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import type { FoundTransaction } from '../history/find-transaction.ts'
import { formatLsn, parseLsn } from '../model/lsn.ts'
import { copyIn, copyOut, wholeLines } from '../postgres/copy.ts'
import { copyOptions } from '../postgres/row-session.ts'
import type { BaseTable } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import { planRestore, type RestorePlan } from '../restore/plan.ts'
import { underLease } from '../restore/reading-lease.ts'
import { readChanges } from '../restore/stream.ts'
import { EarlierRows, keyNames } from './earlier-rows.ts'
import { quoted, type StagedTable, same } from './staged-table.ts'

export interface FillOptions {
  /** Of how many rows the old values are looked for at a time, at most. */
  readonly rowsAtOnce: number
  readonly signal?: AbortSignal | undefined
}

/** Layers of one transaction, from and up to but not including. */
export interface Layers {
  readonly from: number
  readonly to: number
}

/**
 * Finds the old values that the stream does not have, where an update or a delete came with its key alone: from the state
 * just before the transaction, which is a base and the stream after it, for these keys alone. As many rounds as the rows
 * need, so that memory is bounded.
 */
export async function fillOldRows(
  client: pg.Client,
  repository: Repository,
  found: FoundTransaction,
  tables: readonly StagedTable[],
  layers: Layers,
  options: FillOptions,
): Promise<void> {
  const plan = await planBefore(repository, found, options.signal)
  await underLease(repository, plan, async ({ signal }) => {
    const signals = [options.signal, signal].filter((one) => one !== undefined)
    const work = { ...options, signal: AbortSignal.any(signals) }
    for (;;) if (!(await fillSome(client, repository, plan, tables, layers, work))) break
  })
  for (const table of tables) await fillFromOwn(client, table, layers)
}

/** The state that the transaction found: everything whose commit ends before its own begins. */
async function planBefore(
  repository: Repository,
  { timeline, entry }: FoundTransaction,
  signal: AbortSignal | undefined,
): Promise<RestorePlan> {
  try {
    const plan = await planRestore(
      repository,
      timeline.source,
      { kind: 'lsn', lsn: parseLsn(entry.commit) },
      { signal },
    )
    if (plan.timeline.id === timeline.id) return plan
    throw new WalbackError('outside_window', `${entry.commit} is in timeline ${plan.timeline.id} as well`)
  } catch (error) {
    if (!(error instanceof WalbackError) || !['outside_window', 'gap'].includes(error.code)) throw error
    throw new WalbackError(
      'refused',
      `how rows had been before transaction ${entry.xid} is not in the stream, which has only their keys, and no base before it can be carried on to it: ${error.message}`,
      {
        cause: error,
        hint: 'REPLICA IDENTITY FULL puts whole old rows into the stream, for transactions to come; `walback list` shows the bases',
        facts: { commit: formatLsn(parseLsn(entry.commit)) },
      },
    )
  }
}

/** One round; false when nothing more was to be looked for. */
async function fillSome(
  client: pg.Client,
  repository: Repository,
  plan: RestorePlan,
  tables: readonly StagedTable[],
  layers: Layers,
  options: FillOptions & { readonly signal: AbortSignal },
): Promise<boolean> {
  const { encoding } = plan.timeline
  const wanted: { readonly staged: StagedTable; readonly rows: EarlierRows }[] = []
  let [left, memory] = [options.rowsAtOnce, roundMemory_bytes]
  for (const staged of tables) {
    const base = plan.base.tables.find(({ oid }) => oid === staged.table.relation.oid)
    const row_bytes = usualRow(base)
    const most = Math.min(left, Math.floor(memory / row_bytes))
    if (most <= 0) break
    const rows = new EarlierRows(staged.table, base)
    const keys = keyNames(staged.table).map((name) => `s.o${staged.indexOf(name) + 1}`)
    // A row that has been looked for, and not found, is not looked for again.
    const sql = `COPY (SELECT s.ord, ${keys.join(', ')} FROM ${staged.stage} s WHERE ${isLacking(layers)} AND NOT ${hasEarlier(staged, layers)}
      AND s.ord >= ${staged.sought} ORDER BY s.ord LIMIT ${most}) TO STDOUT ${copyOptions(encoding)}`
    let last: string | undefined
    for await (const lines of wholeLines(copyOut(client, sql, options.signal)))
      for (const line of lines.toString('latin1', 0, lines.length - 1).split('\n')) {
        last = line.slice(0, line.indexOf('\t'))
        rows.ask(line.slice(last.length + 1))
        left--
        memory -= row_bytes
      }
    if (last === undefined) continue
    staged.sought = Number(last) + 1
    wanted.push({ staged, rows })
  }
  if (wanted.length === 0) return false
  for (;;) {
    for await (const block of readChanges(repository, plan, { signal: options.signal }))
      for (const change of block) for (const { rows } of wanted) rows.take(change)
    if (!wanted.some(({ rows }) => rows.needsFormer)) break
    for (const { rows } of wanted) rows.startAgain()
  }
  for (const { staged, rows } of wanted) {
    await rows.readBase(repository, options.signal)
    await store(client, staged, rows, layers, encoding, options.signal)
  }
  return true
}

/** What the rows that are looked for at a time may take together. */
const roundMemory_bytes = 128 << 20

/** What one takes here: its line, as rows of the base are long, and what it costs to look it up. */
function usualRow(base: BaseTable | undefined): number {
  const stored_bytes = base?.pieces.reduce((sum, { size_bytes }) => sum + size_bytes, 0) ?? 0
  return 300 + (base === undefined || base.rows === 0 ? 300 : Math.ceil((3 * stored_bytes) / base.rows))
}

const isLacking = ({ from, to }: Layers): string =>
  `s.layer >= ${from} AND s.layer < ${to} AND strpos(s.marks, '?') > 0`

/** Whether an earlier layer of the same transaction touched the row: then it was not what it was before the transaction. */
const hasEarlier = ({ stage }: StagedTable, { from, to }: Layers): string =>
  to - from < 2
    ? 'false'
    : `EXISTS (SELECT FROM ${stage} m WHERE m.layer >= ${from} AND m.layer < s.layer AND m.nkey = s.okey)`

async function store(
  client: pg.Client,
  staged: StagedTable,
  rows: EarlierRows,
  layers: Layers,
  encoding: string,
  signal: AbortSignal,
): Promise<void> {
  const typeOf = (name: string): string => staged.table.columns[staged.indexOf(name)]?.type ?? 'text'
  const columns = rows.columns.map((name) => `${quoted({ name })} ${typeOf(name)}`)
  await client.query(`CREATE TEMP TABLE walback_old (${columns.join(', ')})`)
  await copyIn(client, `COPY pg_temp.walback_old FROM STDIN ${copyOptions(encoding)}`, lines(rows.found()), signal)
  await client.query('ANALYZE pg_temp.walback_old')
  const keys = keyNames(staged.table)
  const isSame = same(
    keys.map((name) => `v.${quoted({ name })}`),
    keys.map((name) => staged.old(staged.indexOf(name))),
  )
  const value = (name: string): string =>
    rows.columns.includes(name) ? `v.${quoted({ name })}` : `NULL::${typeOf(name)}`
  await client.query(
    `UPDATE ${staged.stage} s SET ${setsFrom(staged, value)} FROM pg_temp.walback_old v
      WHERE ${isLacking(layers)} AND NOT ${hasEarlier(staged, layers)} AND ${isSame}`,
  )
  await client.query('DROP TABLE pg_temp.walback_old')
}

/** Old values, and the marks that they give: a value that an update did not send is what it was. */
function setsFrom({ table }: StagedTable, value: (name: string) => string): string {
  const mark = (index: number): string => `substr(s.marks, ${index + 1}, 1)`
  const marks = table.columns.map(
    ({ name }, index) => `CASE ${mark(index)} WHEN '?' THEN CASE WHEN s.kind = 'i' THEN 'k'
      WHEN ${same([value(name)], [`s.n${index + 1}`])} THEN '=' ELSE 'x' END WHEN 'u' THEN '=' ELSE ${mark(index)} END`,
  )
  const values = table.columns.flatMap(({ name }, index) => [
    `o${index + 1} = CASE WHEN ${mark(index)} IN ('?', 'u') THEN ${value(name)} ELSE s.o${index + 1} END`,
    `n${index + 1} = CASE WHEN ${mark(index)} = 'u' THEN ${value(name)} ELSE s.n${index + 1} END`,
  ])
  return [`marks = array_to_string(ARRAY[${marks.join(', ')}]::text[], '')`, ...values].join(', ')
}

/** Layer by layer: rows that an earlier one of the same transaction touched had been as that left them. */
async function fillFromOwn(client: pg.Client, staged: StagedTable, { from, to }: Layers): Promise<void> {
  for (let layer = from + 1; layer < to; layer++) {
    const value = (name: string): string => `m.n${staged.indexOf(name) + 1}`
    await client.query(
      `UPDATE ${staged.stage} s SET ${setsFrom(staged, value)} FROM ${staged.stage} m
        WHERE s.layer = ${layer} AND strpos(s.marks, '?') > 0 AND m.nkey = s.okey AND m.layer =
          (SELECT max(e.layer) FROM ${staged.stage} e WHERE e.layer >= ${from} AND e.layer < ${layer} AND e.nkey = s.okey)`,
    )
  }
}

function* lines(rows: Iterable<Buffer>): Generator<Buffer> {
  for (const row of rows) {
    yield row
    yield newline
  }
}

const newline = Buffer.from('\n')
