import {
  formatLsn,
  formatTime,
  isDamage,
  type LostTargets,
  messageOf,
  type ReadSubset,
  type Repository,
  type VerifyFinding,
  type VerifyProgress,
  type VerifyReport,
  verifySource,
  WalbackError,
  wholeSubset,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { bytes, duration, plural, printable } from '../format.ts'
import { parseJobs, parseShare, parseSpan } from '../options.ts'
import { addOnFlag } from '../past.ts'
import { Progress } from '../progress.ts'
import { addTargetFlags } from '../target.ts'
import { checkRehearsalFlags, type RehearsalFlags, rehearse } from './verify-restore.ts'

interface Options extends RehearsalFlags {
  readonly read?: boolean
  readonly readSubset?: ReadSubset
  readonly resume?: boolean
  readonly record?: boolean
  readonly jobs: number
  readonly restore?: boolean
}

export const addVerify: AddCommand = (program, bind) => {
  const command = program
    .command('verify')
    .description(
      'read each repository and find what is missing, damaged or exchanged; all sources, or that of --source',
    )
    .option(
      '--read-subset <n/m>',
      'read only the nth of m parts whole, such as 1/7; the chains are walked all the same',
      parseShare,
    )
    .option('--no-read', 'walk the chains and look whether everything is there, and read nothing whole')
    .option('--resume', 'carry on the last run over the same parts, if it was interrupted')
    .option('--no-record', 'do not store the result in the repository')
    .option('--jobs <n>', 'objects that are read, or connections that load, side by side', parseJobs, 4)
    .option('--restore', 'restore on a throwaway server, check what is there, and note how long it took')
    .option(
      '--max-time <duration>',
      'with --restore: how long it may take, such as 30m; longer is a finding',
      parseSpan,
    )
    .option('--random', 'with --restore: to a random moment of what can be restored')
  addOnFlag(addTargetFlags(command)).action(bind<Options>(verify))
}

async function verify(context: Context, options: Options): Promise<undefined> {
  const { out } = context
  const target = checkRehearsalFlags(context, options)
  if (options.restore) {
    const [first] = await context.requirePlaces()
    return await rehearse(context, await sourcesOf(context, first.url), options, target)
  }
  if (options.read === false && options.readSubset !== undefined) {
    throw new WalbackError('usage', '--no-read and --read-subset exclude each other', {
      hint: 'give --read-subset N/M to read a part, or --no-read to read nothing',
    })
  }
  // One that is away, or does not hold the source, keeps none of the others from being verified.
  let failure: unknown
  let damaged = 0
  for (const { url } of await context.requirePlaces()) {
    try {
      damaged += await verifyRepository(context, url, options)
    } catch (error) {
      if (!(error instanceof WalbackError) || error.code === 'interrupted' || context.signal.aborted) throw error
      if (failure !== undefined) out.warn(printable(messageOf(failure)))
      failure = error
    }
  }
  if (damaged > 0) {
    if (failure !== undefined) out.warn(printable(messageOf(failure)))
    throw new WalbackError('corrupt', `the repository is damaged: ${plural(damaged, 'finding')}`, {
      hint: 'each is named above, with what it costs and what can be done',
      facts: { damaged },
    })
  }
  if (failure !== undefined) throw failure
}

/** How many findings are damage. */
async function verifyRepository(context: Context, url: string, options: Options): Promise<number> {
  const { out } = context
  const { repository, sources } = await sourcesOf(context, url)
  if ((await context.requirePlaces()).length > 1) out.say(repository.storage.url)
  const reports: VerifyReport[] = []
  for (const source of sources) {
    const report = await verifyOne(context, repository, source, options)
    tell(context, report)
    reports.push(report)
  }
  const damaged = reports.reduce((sum, report) => sum + report.damaged, 0)
  out.line({
    type: 'summary',
    schema_version: 1,
    repository: repository.storage.url,
    sources: reports.map(reportJson),
    damaged,
  })
  return damaged
}

/** All that the repository holds, or the one that is named. */
async function sourcesOf(
  context: Context,
  url: string,
): Promise<{ readonly repository: Repository; readonly sources: readonly string[] }> {
  if (context.flags.source !== undefined) {
    const { repository, source } = await context.openSource(url)
    return { repository, sources: [source] }
  }
  const repository = await context.openRepository(url)
  const sources = await repository.sources(context.signal)
  if (sources.length > 0) return { repository, sources }
  throw new WalbackError('no_repository', `the repository at ${repository.storage.url} holds no source yet`, {
    hint: 'set one up with `walback init`',
  })
}

async function verifyOne(
  context: Context,
  repository: Repository,
  source: string,
  options: Options,
): Promise<VerifyReport> {
  const { out, signal } = context
  using progress = new Progress(out)
  const subset = options.read === false ? undefined : (options.readSubset ?? wholeSubset)
  try {
    return await verifySource(repository, source, {
      subset,
      jobs: options.jobs,
      resume: options.resume === true,
      isRecorded: options.record !== false,
      onProgress: out.json ? jsonProgress(context) : (state) => show(progress, state),
      onFinding: (finding) => out.line(findingJson(finding)),
      signal,
    })
  } catch (error) {
    if (!signal.aborted || options.record === false) throw error
    throw new WalbackError('interrupted', `interrupted while verifying ${source}`, {
      cause: error,
      hint: 'what was read is noted: the same command with --resume carries on',
    })
  }
}

function show(progress: Progress, { phase, objects, read_bytes, total_bytes, damaged }: VerifyProgress): void {
  const found = damaged > 0 ? `, ${plural(damaged, 'finding')}` : ''
  const of = total_bytes ? ` of ${bytes(total_bytes)}` : ''
  const share = total_bytes ? Math.min(1, read_bytes / total_bytes) : undefined
  progress.bar(phase, share, `${plural(objects, 'object')}, ${bytes(read_bytes)}${of}${found}`)
}

/** A line when a phase begins, and one a second in between. */
function jsonProgress({ out }: Context): (state: VerifyProgress) => void {
  let [phase, shown_ms] = ['', 0]
  return (state) => {
    const now = performance.now()
    if (state.phase === phase && now - shown_ms < 1000) return
    phase = state.phase
    shown_ms = now
    const { source, objects, read_bytes, total_bytes, damaged } = state
    out.line({ type: 'status', source, phase, objects, read_bytes, total_bytes: total_bytes ?? null, damaged })
  }
}

function tell({ out }: Context, report: VerifyReport): void {
  const { findings, source, subset, objects, read_bytes, duration_ms, damaged, notRecorded } = report
  for (const finding of findings)
    out.data(
      findingInWords(
        finding,
        out.paintData(isDamage(finding) ? 'DAMAGED' : 'note   ', isDamage(finding) ? 'red' : 'dim'),
      ),
    )
  const read =
    subset === undefined
      ? 'nothing read whole'
      : `${bytes(read_bytes)} read${subset.of === 1 ? '' : ` (part ${subset.part} of ${subset.of})`}`
  const word = damaged === 0 ? out.paintData('sound', 'green') : out.paintData('DAMAGED', 'red')
  out.result(
    `${printable(source)}  ${word}  ${plural(objects, 'object')}, ${read} in ${duration(duration_ms)}${rateOf(report)}${report.isResumed ? ', carrying on an interrupted run' : ''}`,
  )
  if (notRecorded !== undefined) out.warn(`the result was not recorded: ${notRecorded}`)
}

const rateOf = ({ read_bytes, duration_ms }: VerifyReport): string =>
  read_bytes > 1 << 20 && duration_ms > 0 ? ` (${bytes((read_bytes * 1000) / duration_ms)}/s)` : ''

function findingInWords(finding: VerifyFinding, word: string): string {
  const lines = [`${word}  ${finding.kind}  ${printable(finding.message)}`]
  if (isDamage(finding)) lines.push(`         costs  ${costInWords(finding.lost)}`, `         mend   ${finding.hint}`)
  return lines.join('\n')
}

function costInWords(lost: readonly LostTargets[] | undefined): string {
  if (lost === undefined) return 'not known: targets that nothing else brings back'
  if (lost.length === 0) return 'no target: what is restorable does not need it'
  return lost
    .map(
      ({ timeline, from, to }) =>
        `targets from ${placeInWords(from)} ${to ? `to ${placeInWords(to)}` : 'on'}, timeline ${timeline}`,
    )
    .join('; ')
}

const placeInWords = ({ lsn, time }: LostTargets['from']): string =>
  `${time === undefined ? '' : `${formatTime(time)} `}(${formatLsn(lsn)})`

const placeJson = ({ lsn, time }: LostTargets['from']) => ({
  lsn: formatLsn(lsn),
  time: time === undefined ? null : formatTime(time),
})

const lostJson = ({ timeline, from, to }: LostTargets): Record<string, unknown> => ({
  timeline,
  from: placeJson(from),
  to: to ? placeJson(to) : null,
})

const findingJson = (finding: VerifyFinding): Record<string, unknown> => ({
  type: 'finding',
  level: finding.level,
  kind: finding.kind,
  source: finding.source,
  key: finding.key,
  message: finding.message,
  ...(isDamage(finding) ? { lost: finding.lost?.map(lostJson) ?? null, hint: finding.hint } : {}),
})

const reportJson = (report: VerifyReport): Record<string, unknown> => ({
  source: report.source,
  outcome: report.damaged > 0 ? 'damaged' : 'sound',
  read: report.subset ?? null,
  resumed: report.isResumed,
  objects: report.objects,
  stored_bytes: report.stored_bytes,
  read_bytes: report.read_bytes,
  duration_ms: report.duration_ms,
  findings: report.findings.map(({ level, kind, key }) => ({ level, kind, key })),
  windows: report.windows.map(lostJson),
  record: report.record ?? null,
  not_recorded: report.notRecorded ?? null,
})
