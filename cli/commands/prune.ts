import type { Command } from 'commander'
import {
  basesLacking,
  breakStaleLeases,
  describeLease,
  formatLsn,
  formatTime,
  isEmptyPolicy,
  type KeptWindow,
  Prune,
  type PrunePlan,
  type PruneReport,
  previewPrune,
  pruneAudited,
  type Repository,
  type RetentionPolicy,
  removesNothing,
} from '../../src/index.ts'
import { audited } from '../audited.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { requiredStores } from '../copies.ts'
import { bytes, duration, plural, printable, table } from '../format.ts'
import { baseTime, brief, point } from '../holdings.ts'
import { parseBases, parseSpan } from '../options.ts'
import { flagsOf, selectionFlags } from '../selection.ts'

interface Options {
  readonly window?: number
  readonly keepLast?: number
  readonly keepWithin?: number
  readonly keepDaily?: number
  readonly keepWeekly?: number
  readonly keepMonthly?: number
  readonly keepYearly?: number
  readonly external?: boolean
  readonly dryRun?: boolean
  readonly breakStaleLeases?: boolean
}

export const addPrune: AddCommand = (program, bind) => {
  const command: Command = program
    .command('prune')
    .description('remove what no recovery point that is to be kept needs; shows what and why, and asks first')
    .option('--window <span>', 'keep every moment of this time restorable, such as 14d', parseSpan)
    .option('--keep-last <n>', 'keep the newest bases', parseBases)
    .option('--keep-within <span>', 'keep every base of this time', parseSpan)
    .option('--keep-daily <n>', 'keep the newest base of each of so many days that have one', parseBases)
    .option('--keep-weekly <n>', 'the same of weeks', parseBases)
    .option('--keep-monthly <n>', 'of months', parseBases)
    .option('--keep-yearly <n>', 'of years', parseBases)
    .option('--external', 'name what a rule of the store may remove, and remove nothing')
    .option('-n, --dry-run', 'show what would be removed, and end')
    .option('--break-stale-leases', 'watch the leases of restores and prunes, and break those that nobody renews')
  command.action(bind<Options>(prune))
}

async function prune(context: Context, options: Options): Promise<undefined> {
  const { out, signal } = context
  const { retention } = await context.settings()
  const { repository, source } = await context.openSource()
  const policy = policyOf(options, retention.policy)
  const isExternal = options.external === true || (retention.mode === 'external' && options.external !== false)
  if (options.breakStaleLeases) await breakStale(context, repository, source)
  const isDry = options.dryRun === true || isExternal || !(context.flags.yes === true || context.isInteractive)
  const required = await requiredStores(context)
  const lacking = (ending: AbortSignal | undefined) => basesLacking(repository, required, source, ending)
  if (isDry) {
    const plan = await previewPrune(repository, source, policy, { lacking, signal })
    out.data(inWords(context, plan, repository))
    if (isExternal) out.data(externalInWords(plan))
    else out.say('nothing was removed: this was a dry run. To remove it, add --yes')
    out.document({ ...planJson(plan, repository), ...(isExternal ? externalJson(plan) : {}), removed: null })
    return
  }
  await using work = await Prune.begin(repository, source, policy, { lacking, signal })
  const { plan } = work
  out.data(inWords(context, plan, repository))
  if (removesNothing(plan)) {
    out.document({ ...planJson(plan, repository), removed: reportJson(nothing) })
    return
  }
  await context.confirm(`Remove ${bytes(plan.removal.bytes)}?`)
  const { result: report, audit } = await audited(context, { repository, source }, pruneAudited(plan), () =>
    work.run({ signal }),
  )
  tell(context, report)
  out.document({ ...planJson(plan, repository), removed: reportJson(report), audit })
}

/** Flags take the place of the configuration's policy as a whole: a rule that was not typed is not meant. */
function policyOf(options: Options, configured: RetentionPolicy): RetentionPolicy {
  const given: RetentionPolicy = {
    window_ms: options.window,
    last: options.keepLast,
    within_ms: options.keepWithin,
    daily: options.keepDaily,
    weekly: options.keepWeekly,
    monthly: options.keepMonthly,
    yearly: options.keepYearly,
  }
  return isEmptyPolicy(given) ? configured : given
}

async function breakStale({ out, signal }: Context, repository: Repository, source: string): Promise<void> {
  const broken = await breakStaleLeases(repository, source, {
    signal,
    onWatch: (wait_ms) => out.say(`watching the leases for ${duration(wait_ms)}: those that are in use are renewed`),
  })
  for (const lease of broken) out.warn(`broken: ${describeLease(lease)}`)
}

const nothing: PruneReport = { objects: 0, bytes: 0, spared: { objects: 0, for: [] } }

function inWords({ out }: Context, plan: PrunePlan, repository: Repository): string {
  const rows = plan.bases.map(({ base, isKept, reasons, stored_bytes }) => [
    isKept ? 'keep' : 'remove',
    base.id,
    brief(baseTime(base)),
    bytes(stored_bytes),
    printable(
      `${reasons.join(', ')}${base.selection === undefined ? '' : `; of some tables (${flagsOf(base.selection)})`}`,
    ),
  ])
  const unfinished = plan.unfinished.map(({ begun, isKept, reason }) => [
    isKept ? 'keep' : 'remove',
    begun.id,
    `${begun.beginning.started.slice(0, 19).replace('T', ' ')}Z`,
    '',
    reason,
  ])
  const { removal } = plan
  const removed = plan.bases.filter(({ isKept }) => !isKept).length
  const left = removal.leftovers > 0 ? `, ${plural(removal.leftovers, 'object')} left over by interrupted work` : ''
  const goes = removesNothing(plan)
    ? 'nothing to remove'
    : `to remove: ${plural(removed, 'base')}, ${plural(removal.segments, 'segment')}${left}; ${plural(removal.names.length + removal.data.length, 'object')}, ${bytes(removal.bytes)}`
  for (const warning of plan.warnings) out.warn(printable(warning))
  return [
    `${out.paintData(plan.source, 'bold')}  ${repository.storage.url}`,
    table([['', 'BASE', 'TAKEN (UTC)', 'STORED', 'WHY'], ...rows, ...unfinished], [3]).trimEnd(),
    goes,
    ...afterwards(plan),
  ].join('\n')
}

function afterwards({ windows, moments }: PrunePlan): string[] {
  const lines = [
    ...windows.map((window) => `every moment ${spanInWords(window)}`),
    ...moments.map(({ time, lsn, of }) => `the moment   ${formatTime(time)} (${formatLsn(lsn)}), ${of}`),
  ]
  return lines.map((line, index) => `${index === 0 ? 'restorable afterwards: ' : ' '.repeat(23)}${line}`)
}

const spanInWords = ({ from, to }: KeptWindow): string =>
  `from ${formatTime(from.time)} (${formatLsn(from.lsn)}) to ${formatTime(to.time)} (${formatLsn(to.lsn)})`

/** Rules of stores go by the age of objects: the oldest that is needed says how long they must keep. */
function externalInWords(plan: PrunePlan): string {
  const { removal } = plan
  const prefixes = [...removal.names, ...removal.data].map(({ key }) => key)
  const oldest = oldestKept(plan)
  const head =
    prefixes.length === 0
      ? 'a rule of the store may remove nothing now'
      : `a rule of the store may remove these ${plural(prefixes.length, 'object')}; walback removes none of them:`
  const tail = oldest === undefined ? [] : [`a rule by age must keep everything that was written since ${oldest}`]
  return [head, ...prefixes.map((key) => `  ${key}`), ...tail].join('\n')
}

/** By the clock of the machine that wrote it, as stores' own times are by theirs. */
const oldestKept = ({ bases }: PrunePlan): string | undefined =>
  bases
    .filter(({ isKept }) => isKept)
    .map(({ base }) => new Date(base.started).toISOString())
    .sort()[0]

const externalJson = (plan: PrunePlan): Record<string, unknown> => ({
  may_remove: [...plan.removal.names, ...plan.removal.data].map(({ key }) => key),
  keep_written_since: oldestKept(plan) ?? null,
})

function planJson(plan: PrunePlan, repository: Repository): Record<string, unknown> {
  const { removal } = plan
  return {
    source: plan.source,
    repository: repository.storage.url,
    bases: plan.bases.map(({ base, isKept, reasons, stored_bytes }) => ({
      id: base.id,
      time: formatTime(baseTime(base)),
      timeline: base.timeline,
      selection: selectionFlags(base),
      keep: isKept,
      reasons,
      stored_bytes,
    })),
    unfinished: plan.unfinished.map(({ begun, isKept, reason }) => ({ id: begun.id, keep: isKept, reason })),
    remove: {
      objects: removal.names.length + removal.data.length,
      bytes: removal.bytes,
      segments: removal.segments,
      leftovers: removal.leftovers,
    },
    windows_after: plan.windows.map(({ timeline, from, to }) => ({ timeline, from: point(from), to: point(to) })),
    moments_after: plan.moments.map(({ timeline, of, lsn, time }) => ({ timeline, of, ...point({ lsn, time }) })),
    warnings: plan.warnings,
  }
}

const reportJson = ({ objects, bytes: removed, spared }: PruneReport): Record<string, unknown> => ({
  objects,
  bytes: removed,
  spared: { objects: spared.objects, for: spared.for },
})

function tell({ out }: Context, { objects, bytes: removed, spared }: PruneReport): void {
  out.result(`removed ${plural(objects, 'object')}, ${bytes(removed)}`)
  if (spared.objects > 0)
    out.warn(
      `${plural(spared.objects, 'object')} left for the next prune, being read by ${printable(spared.for.join('; '))}`,
    )
}
