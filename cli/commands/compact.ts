import {
  type BaseManifest,
  type CompactionPlan,
  compact as carryOut,
  formatLsn,
  formatTime,
  micros,
  planCompaction,
  type Stop,
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
    out.data(`nothing to compact: ${whyNothing(plan)}`)
    if (stop) out.data(stopInWords(stop))
    out.line({ type: 'plan', schema_version: 1, ...json })
    return
  }
  const { transactions, earlier, segments, bytes: sizes } = end.plan
  out.say(`base     ${base.id} of ${timeOf(base.time)} (${base.lsn})`)
  out.say(
    `and      ${plural(transactions, 'transaction')} in ${plural(earlier.length + segments.length, 'segment')}, ${bytes(sizes.segments)}`,
  )
  out.say(`make     a base of ${timeOf(end.time)}`)
  if (stop) out.warn(stopInWords(stop))
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

function whyNothing({ base, end, stop }: CompactionPlan): string {
  if (end !== undefined)
    return `nothing that the stream tells has changed between base ${base.id} and ${timeOf(end.time)}`
  if (base.catalog === undefined) return `base ${base.id} does not say what the catalogs were (walback 0.1 took it)`
  if (stop !== undefined) return `base ${base.id} is the last before a change of the schema`
  return `after base ${base.id} there is no heartbeat yet that says what the catalogs were`
}

/** Why it ends there, and what does not. */
function stopInWords({ command, time, lsn }: Stop): string {
  const what =
    command === undefined
      ? `a change of the schema of which the stream does not tell, found at ${timeOf(time)} (${lsn})`
      : `${command.tag}${command.object === null ? '' : ` of ${printable(command.object)}`} in tx:${command.xid} at ${timeOf(time)} (${lsn})`
  return `it goes no further than ${what}: what that made of tables only a server can tell; \`walback backup --full\` takes a base after it`
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
