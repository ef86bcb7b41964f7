import { checkQuery, planRestore, runQuery, type TextRow, WalbackError } from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { plural, printable, table } from '../format.ts'
import { parseLimit } from '../options.ts'
import { addStageFlags, bringBack, type StageFlags, stageFor } from '../past.ts'
import { readFirst } from '../readable.ts'
import { addTargetFlags, type TargetFlags, targetInJson, targetOf } from '../target.ts'

interface Options extends TargetFlags, StageFlags {
  readonly csv?: boolean
  readonly limit: number
}

export const addQuery: AddCommand = (program, bind) => {
  const command = program
    .command('query')
    .description('ask a source as it was: a SELECT on a throwaway server')
    .argument('<sql>', 'one SELECT')
  addStageFlags(addTargetFlags(command, '--at'))
    .option('--csv', 'rows as CSV, all of them')
    .option('--limit <n>', 'rows that a table shows', parseLimit, 1000)
    .action(bind<Options>(query))
}

async function query(context: Context, options: Options, [sql = '']: readonly string[]): Promise<undefined> {
  const { out, signal } = context
  if (options.csv && out.json)
    throw new WalbackError('usage', '--csv and --json exclude each other', { hint: 'give one of them' })
  const target = await targetOf(context, options, 'query as of when?')
  await checkQuery(sql)
  const { repository, value: plan } = await readFirst(context, ({ repository: from, source }) =>
    planRestore(from, source, target, { signal }),
  )
  await using stage = await stageFor(context, [plan], options)
  const past = await bringBack(context, stage, repository, plan, options)
  const sink = out.json ? jsonLines(context) : options.csv ? csvLines(context) : shownTable(context, options.limit)
  await runQuery(await past.reader(), sql, sink, signal)
  sink.end()
  out.line({ type: 'summary', schema_version: 1, source: plan.source, target: targetInJson(target), rows: sink.count })
}

interface Sink {
  readonly count: number
  columns(names: readonly string[]): void
  rows(rows: readonly TextRow[]): boolean
  end(): void
}

/** A table needs its widest cell, so it holds no more rows than it shows. */
function shownTable({ out }: Context, limit: number): Sink {
  let head: readonly string[] = []
  const shown: TextRow[] = []
  let hasMore = false
  return {
    get count() {
      return shown.length
    },
    columns: (names) => {
      head = names
    },
    rows: (rows) => {
      shown.push(...rows.slice(0, limit - shown.length + 1))
      hasMore = shown.length > limit
      return !hasMore
    },
    end: () => {
      if (hasMore) shown.pop()
      out.data(table([head.map(printable), ...shown.map((row) => row.map((cell) => printable(cell ?? 'NULL')))]))
      out.say(
        hasMore ? `the first ${plural(limit, 'row')}; --limit shows more, --csv all` : plural(shown.length, 'row'),
      )
    },
  }
}

/** As COPY … CSV writes it: NULL is nothing, an empty text is quoted. */
function csvLines({ out }: Context): Sink {
  let count = 0
  const cell = (value: string | null): string =>
    value === null ? '' : value === '' || /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value
  const line = (cells: TextRow): string => `${cells.map(cell).join(',')}\n`
  return {
    get count() {
      return count
    },
    columns: (names) => out.data(line(names)),
    rows: (rows) => {
      count += rows.length
      out.data(rows.map(line).join(''))
      return true
    },
    end: () => undefined,
  }
}

/** A line for each row, by the names of columns; values are text, as the server writes them, so that none is rounded. */
function jsonLines({ out }: Context): Sink {
  let [count, head]: [number, readonly string[]] = [0, []]
  return {
    get count() {
      return count
    },
    columns: (names) => {
      head = names.map((name, place) => (names.indexOf(name) === place ? name : `${name}_${place + 1}`))
      out.line({ type: 'columns', columns: head })
    },
    rows: (rows) => {
      count += rows.length
      for (const row of rows)
        out.line({ type: 'row', row: Object.fromEntries(head.map((name, place) => [name, row[place] ?? null])) })
      return true
    },
    end: () => undefined,
  }
}
