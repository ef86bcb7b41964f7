import {
  type BaseManifest,
  type CompactionPlan,
  compact as carryOut,
  formatLsn,
  formatTime,
  micros,
  nothingInWords,
  planCompaction,
  stopInWords,
} from '../../src/index.ts'
import { audited } from '../audited.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { bytes, duration, plural, printable } from '../format.ts'
import { baseJson } from '../holdings.ts'
import { parseJobs } from '../options.ts'
import { Progress, restoreProgress } from '../progress.ts'

interface Options {
  readonly to: string
  readonly dryRun?: boolean
  readonly jobs: number
}

export const addCompact: AddCommand = (program, bind) => {
  program
    .command('compact')
    .description('make a base out of a base and the stream after it, without touching the source')
    .option('--to <time>', 'up to this time; or latest', 'latest')
    .option('-n, --dry-run', 'show what would be made, and end')
    .option('--jobs <n>', 'tables that are written side by side', parseJobs, 4)
    .action(bind<Options>(compact))
}

async function compact(context: Context, options: Options): Promise<undefined> {
  const { out, signal } = context
  const { repository, source } = await context.openSource()
  const plan = await planCompaction(repository, source, context.readMoment(options.to), { signal })
  const json = planJson(plan)
  const { base, end, stop } = plan
  if (end === undefined || end.plan.transactions === 0) {
    out.data(`nothing to compact: ${nothingInWords(plan)}`)
    if (stop) out.data(printable(stopInWords(stop)))
    out.line({ type: 'plan', schema_version: 1, ...json })
    return
  }
  const { transactions, earlier, segments, bytes: sizes } = end.plan
  out.say(`base     ${base.id} of ${timeOf(base.time)} (${base.lsn})`)
  out.say(
    `and      ${plural(transactions, 'transaction')} in ${plural(earlier.length + segments.length, 'segment')}, ${bytes(sizes.segments)}`,
  )
  out.say(`make     a base of ${timeOf(end.time)}`)
  if (stop) out.warn(printable(stopInWords(stop)))
  out.line({ type: 'plan', schema_version: 1, ...json })
  if (options.dryRun) return
  const started = performance.now()
  using progress = new Progress(out)
  const { result: made, audit } = await audited<BaseManifest>(
    context,
    { repository, source },
    {
      action: 'compact',
      role: null,
      asked: `base ${base.id} and ${plural(transactions, 'transaction')} to a base of ${timeOf(end.time)}`,
      facts: { base: base.id, lsn: formatLsn(end.plan.cut), transactions },
      came: (manifest) => ({
        words: `base ${manifest.id}`,
        facts: { base: manifest.id, stored_bytes: manifest.stored_bytes },
      }),
    },
    () =>
      carryOut(repository, end, {
        jobs: options.jobs,
        onProgress: restoreProgress(out, progress),
        signal,
      }),
  )
  progress[Symbol.dispose]()
  const duration_ms = Math.round(performance.now() - started)
  out.data(`base ${made.id}: ${inWords(made)} in ${duration(duration_ms)}`)
  out.say('restores to later moments begin with it; what only older bases were for, `walback prune` removes')
  out.line({ type: 'summary', schema_version: 1, base: baseJson(made), duration_ms, audit })
}

const timeOf = (time: string): string => formatTime(micros(BigInt(time)))

function inWords({ tables, raw_bytes, stored_bytes }: BaseManifest): string {
  const rows = tables.reduce((sum, table) => sum + table.rows, 0)
  return `${plural(tables.length, 'table')}, ${plural(rows, 'row')}, ${bytes(raw_bytes)}, stored in ${bytes(stored_bytes)},`
}

function planJson({ base, end, stop }: CompactionPlan): Record<string, unknown> {
  return {
    base: base.id,
    end:
      end === undefined
        ? null
        : { lsn: formatLsn(end.plan.cut), time: timeOf(end.time), transactions: end.plan.transactions },
    stop: stop === undefined ? null : { command: stop.command ?? null, lsn: stop.lsn, time: timeOf(stop.time) },
  }
}
