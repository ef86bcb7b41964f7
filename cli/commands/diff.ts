import {
  diffPasts,
  formatLsn,
  matchTables,
  planRestore,
  type RestorePlan,
  type RowDifference,
  type SampleRow,
  type TableDifference,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { count, plural, printable } from '../format.ts'
import { parseLimit, parseList } from '../options.ts'
import { addStageFlags, bringBack, type StageFlags, stageFor } from '../past.ts'
import { Progress } from '../progress.ts'
import { readFirst } from '../readable.ts'
import { readTarget, targetInJson } from '../target.ts'

interface Options extends StageFlags {
  readonly from: string
  readonly to: string
  readonly table?: readonly string[]
  readonly limit?: number
}

export const addDiff: AddCommand = (program, bind) => {
  const command = program
    .command('diff')
    .description('which rows two moments differ in, table by table, on a throwaway server')
    .requiredOption('--from <moment>', 'a time, a position such as 0/16B3748, tx:81240, before-tx:81240 or mark:NAME')
    .option('--to <moment>', 'likewise; now: the latest archived', 'now')
    .option('--table <pattern>', 'only these: name, schema.name, * for any; several with commas', parseList)
    .option('--limit <n>', 'differing rows that are shown of each table (default: 3; with --table 20)', parseLimit)
  addStageFlags(command).action(bind<Options>(diff))
}

async function diff(context: Context, options: Options): Promise<undefined> {
  const { out, signal } = context
  const targets = [readTarget(context, options.from), readTarget(context, options.to)] as const
  const { repository, value: plans } = await readFirst(context, async ({ repository: from, source }) => {
    const plan = (target: (typeof targets)[number]): Promise<RestorePlan> =>
      planRestore(from, source, target, { signal })
    return [await plan(targets[0]), await plan(targets[1])] as const
  })
  await using stage = await stageFor(context, plans, options)
  const before = await bringBack(context, stage, repository, plans[0], options)
  const after = await bringBack(context, stage, repository, plans[1], options)
  using progress = new Progress(out)
  const limit = options.limit ?? (options.table === undefined ? 3 : 20)
  const { compared, differences } = await diffPasts(before, after, {
    limit,
    ...(options.table === undefined ? {} : { matches: matchTables(options.table) }),
    onTable: (done, total) => progress.bar('compare', done / total, `${count(done)} of ${count(total)} tables`),
    signal,
  })
  progress[Symbol.dispose]()
  for (const one of differences) out.data(inWords(context, one, limit))
  out.data(`${plural(compared, 'table')} compared, ${plural(differences.length, 'differs', 'differ')}`)
  out.document({
    source: plans[0].source,
    from: { target: targetInJson(targets[0]), lsn: formatLsn(plans[0].reached) },
    to: { target: targetInJson(targets[1]), lsn: formatLsn(plans[1].reached) },
    compared,
    tables: differences.map(({ hasKey, ...table }) => ({ ...table, has_key: hasKey })),
  })
}

function inWords({ out }: Context, table: TableDifference, limit: number): string {
  const { inserted, updated, deleted, samples, change, columns, hasKey } = table
  const counts = [
    ...(inserted > 0 ? [out.paintData(`+${count(inserted)}`, 'green')] : []),
    ...(updated > 0 ? [out.paintData(`~${count(updated)}`, 'yellow')] : []),
    ...(deleted > 0 ? [out.paintData(`-${count(deleted)}`, 'red')] : []),
  ]
  const remarks = [
    ...(change === 'kept' ? [] : [change]),
    ...columns.added.map((name) => `new column ${printable(name)}`),
    ...columns.dropped.map((name) => `column ${printable(name)} gone`),
    ...(hasKey || inserted + deleted === 0 ? [] : ['no primary key: a changed row is one gone and one new']),
  ]
  const more = inserted + updated + deleted - samples.length
  return [
    [
      out.paintData(printable(`${table.schema}.${table.name}`), 'bold'),
      ...counts,
      ...remarks.map((one) => `(${one})`),
    ].join('  '),
    ...samples.map((sample) => `  ${sampleInWords(sample)}`),
    ...(limit > 0 && more > 0 ? [`  … and ${plural(more, 'row')} more`] : []),
  ].join('\n')
}

function sampleInWords(sample: RowDifference): string {
  switch (sample.kind) {
    case 'inserted':
      return `+ ${rowInWords(sample.after)}`
    case 'deleted':
      return `- ${rowInWords(sample.before)}`
    case 'updated': {
      const { before, after } = sample
      const columns = Object.keys(after)
      return `~ ${columns
        .map((name) => {
          const [was, is] = [before[name] ?? null, after[name] ?? null]
          return was === is ? cell(name, is) : `${cell(name, was)} → ${value(is)}`
        })
        .join('  ')}`
    }
  }
}

export const rowInWords = (row: SampleRow): string =>
  Object.entries(row)
    .map(([name, text]) => cell(name, text))
    .join('  ')

const cell = (name: string, text: string | null): string => `${printable(name)}=${value(text)}`

/** Cut where it is long. */
const value = (text: string | null): string =>
  text === null ? 'NULL' : printable(text.length > longest ? `${text.slice(0, longest - 1)}…` : text)

const longest = 60
