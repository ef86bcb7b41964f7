import { Option } from 'commander'
import {
  formatLsn,
  formatTime,
  type LoggedTransaction,
  type LogSelection,
  type Micros,
  micros,
  type Operation,
  parseRowCondition,
  type RowCounts,
  readLog,
  readManifests,
  rowOperations,
  type TableChange,
  type TransactionLog,
  WalbackError,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { count, plural, printable, shellWord, table } from '../format.ts'
import { parseLimit, parseList, parseOperations } from '../options.ts'
import { passedOverJson, readFirst } from '../readable.ts'

interface Options {
  readonly table?: readonly string[]
  readonly op?: readonly Operation[]
  readonly rows?: string
  readonly since?: string
  readonly until?: string
  readonly around?: string
  readonly limit: number
  readonly sort: 'time' | 'rows'
}

export const addLog: AddCommand = (program, bind) => {
  program
    .command('log')
    .description('transactions, with their rows by table and operation and their changes of the schema')
    .option('--table <pattern>', 'only changes to these: name, schema.name, * for any; several with commas', parseList)
    .option('--op <list>', 'only these operations: insert, update, delete, truncate, ddl', parseOperations)
    .option(
      '--rows <condition>',
      "only transactions of so many rows, such as '>100'; a truncation always counts as many",
    )
    .option('--since <time>', 'committed at or after')
    .option('--until <time>', 'committed at or before')
    .option('--around <time>', 'committed within ten minutes before or after')
    .option('--limit <n>', 'at most so many', parseLimit, 50)
    .addOption(
      new Option('--sort <order>', 'time: newest last; rows: the biggest first')
        .choices(['time', 'rows'])
        .default('time'),
    )
    .action(bind<Options>(log))
}

async function log(context: Context, options: Options): Promise<undefined> {
  const { out, signal } = context
  const selection = select(context, options)
  const {
    repository,
    source,
    passedOver,
    value: found,
  } = await readFirst(context, async (opened) => {
    const bases =
      selection.tables === undefined ? [] : await readManifests(opened.repository, opened.source, { signal })
    return await readLog(opened.repository, opened.source, selection, { bases, signal })
  })
  const { transactions, matched, totals } = found
  if (transactions.length > 0) out.data(inWords(transactions))
  out.say(summary(found))
  const next = transactions.length > 0 ? await commands(context, source, mostDestructive(transactions)) : []
  for (const command of next) out.say(`  ${command}`)
  out.document({
    source,
    repository: repository.storage.url,
    ...passedOverJson(passedOver),
    matched,
    totals,
    transactions: transactions.map((transaction) => ({
      xid: transaction.xid,
      timeline: transaction.timeline,
      commit_lsn: formatLsn(transaction.commit),
      lsn: formatLsn(transaction.end),
      time: formatTime(transaction.time),
      bytes: transaction.bytes,
      rows: transaction.rows,
      truncates: transaction.truncates,
      ddl: transaction.ddl,
      ddl_count: transaction.ddlCount,
      tables: transaction.tables,
      has_other_changes: transaction.hasOther,
    })),
  })
}

const around_us = 600_000_000n

function select(context: Context, options: Options): LogSelection {
  if (options.around !== undefined && (options.since !== undefined || options.until !== undefined)) {
    throw new WalbackError('usage', '--around excludes --since and --until', {
      hint: 'give either --around T, or --since T and --until T',
    })
  }
  const time = (text: string | undefined): Micros | undefined =>
    text === undefined ? undefined : context.readTime(text)
  const middle = time(options.around)
  const since = middle === undefined ? time(options.since) : micros(middle - around_us)
  const until = middle === undefined ? time(options.until) : micros(middle + around_us)
  if (since !== undefined && until !== undefined && since > until) {
    throw new WalbackError('usage', '--since is later than --until', {
      hint: `from ${formatTime(until)} to ${formatTime(since)} would be the other way round`,
    })
  }
  return {
    ...(options.table === undefined ? {} : { tables: options.table }),
    ...(options.op === undefined ? {} : { operations: options.op }),
    ...(options.rows === undefined ? {} : { rows: parseRowCondition(options.rows) }),
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
    limit: options.limit,
    sort: options.sort,
  }
}

function inWords(transactions: readonly LoggedTransaction[]): string {
  const rows = transactions.map((transaction) => [
    `${formatTime(transaction.time).replace('T', ' ')}`,
    `tx:${transaction.xid}`,
    formatLsn(transaction.end),
    signed(sum(transaction.tables)),
    [
      ...transaction.tables.map((one) => named(one, transaction.tables.length > 1)),
      ...ddlInWords(transaction),
      ...(transaction.hasOther ? ['and others'] : []),
    ].join(', '),
  ])
  return table([['COMMITTED (UTC)', 'TX', 'LSN', 'ROWS', 'TABLES'], ...rows], [3])
}

const ddlShown = 3

/** The first few: `DROP TABLE public.orders`. */
function ddlInWords({ ddl, ddlCount }: LoggedTransaction): string[] {
  const shown = ddl.slice(0, ddlShown).map(({ tag, object }) => printable(object === null ? tag : `${tag} ${object}`))
  const more = ddlCount - shown.length
  return more > 0 ? [...shown, `and ${plural(more, 'more change')} of the schema`] : shown
}

const sum = (tables: readonly TableChange[]): RowCounts =>
  Object.fromEntries(
    rowOperations.map((operation) => [operation, tables.reduce((total, one) => total + one[operation], 0)]),
  ) as Record<(typeof rowOperations)[number], number>

const named = (change: TableChange, withCounts: boolean): string =>
  `${printable(`${change.schema}.${change.name}`)}${withCounts ? ` ${signed(change)}` : ''}`

/** `+12 ~3 -48 213 truncate`. */
function signed(counts: RowCounts): string {
  const parts = [
    ...(counts.insert > 0 ? [`+${count(counts.insert)}`] : []),
    ...(counts.update > 0 ? [`~${count(counts.update)}`] : []),
    ...(counts.delete > 0 ? [`-${count(counts.delete)}`] : []),
    ...(counts.truncate > 0 ? ['truncate'] : []),
  ]
  return parts.join(' ')
}

function summary({ transactions, matched, totals }: TransactionLog): string {
  if (matched === 0) return 'no transaction matches'
  const done = [
    ...(totals.insert > 0 ? [`${count(totals.insert)} inserted`] : []),
    ...(totals.update > 0 ? [`${count(totals.update)} updated`] : []),
    ...(totals.delete > 0 ? [`${count(totals.delete)} deleted`] : []),
    ...(totals.truncate > 0 ? [plural(totals.truncate, 'truncation')] : []),
  ]
  const shown = matched > transactions.length ? ` (${count(transactions.length)} shown; --limit)` : ''
  const parts = [
    `${plural(matched, 'transaction')}${shown}`,
    ...(done.length > 0 ? [`rows: ${done.join(', ')}`] : []),
    ...(totals.ddl > 0 ? [`${plural(totals.ddl, 'change')} of the schema`] : []),
  ]
  return parts.join(', ')
}

/** The one that somebody who looks for damage most likely looks for; else the newest. */
function mostDestructive(transactions: readonly LoggedTransaction[]): LoggedTransaction {
  const drops = (one: LoggedTransaction): number =>
    one.ddl.filter(({ tag }) => tag === 'DROP TABLE' || tag === 'DROP SCHEMA').length
  const damage = (one: LoggedTransaction): number => (one.truncates + drops(one)) * 1e12 + sum(one.tables).delete
  return transactions.reduce((worst, one) => (damage(one) >= damage(worst) ? one : worst))
}

async function commands(context: Context, source: string, transaction: LoggedTransaction): Promise<string[]> {
  const same = await context.sameFlags()
  const { xid, truncates, ddlCount } = transaction
  // The rows that a truncation took are not in the stream, so nothing but a restore brings them back.
  const mayBeUndone = truncates === 0 && ddlCount === 0
  const into = shellWord(`${source.slice(0, 40)}_before_${xid}`)
  return [
    `look:  walback show tx:${xid}${same}`,
    ...(mayBeUndone ? [`undo:  walback undo tx:${xid}${same}`] : []),
    `to just before tx:${xid}:  walback restore --before-tx ${xid} --into ${into}${same}`,
    `with it:  walback restore --to-tx ${xid} --into ${shellWord(`${source.slice(0, 40)}_at_${xid}`)}${same}`,
  ]
}
