import { assertionsOf } from '../../src/config.ts'
import {
  type ProofFinding,
  type ProofReport,
  planRestore,
  proveRestore,
  type RecoveryTarget,
  type Repository,
  randomTarget,
  readHoldings,
  WalbackError,
} from '../../src/index.ts'
import type { Context, OpenedSource } from '../context.ts'
import { duration, plural, printable } from '../format.ts'
import { stageOptions } from '../past.ts'
import { Progress, restoreProgress } from '../progress.ts'
import { proofJson, whereInWords } from '../proofs.ts'
import { findTarget, type TargetFlags } from '../target.ts'

export interface RehearsalFlags extends TargetFlags {
  readonly restore?: boolean
  readonly random?: boolean
  readonly on?: string
  readonly maxTime?: number
  readonly record?: boolean
  readonly read?: boolean
  readonly readSubset?: unknown
  readonly resume?: boolean
  readonly jobs: number
}

/** Refuses flags of the one kind of verification with the other; gives the target, if there is one. */
export function checkRehearsalFlags(context: Context, flags: RehearsalFlags): RecoveryTarget | undefined {
  const target = findTarget(context, flags)
  if (flags.restore) {
    if (flags.random && target !== undefined)
      throw new WalbackError('usage', '--random and a target exclude each other', { hint: 'give one of them' })
    if (flags.read === false || flags.readSubset !== undefined || flags.resume)
      throw new WalbackError('usage', '--restore does not go with --no-read, --read-subset or --resume', {
        hint: 'run walback verify twice: with --restore, and without',
      })
  } else if (flags.random || flags.on !== undefined || flags.maxTime !== undefined || target !== undefined)
    throw new WalbackError('usage', 'a target, --random, --max-time and --on belong to --restore', {
      hint: 'add --restore, or leave them out: objects are verified whatever the target',
    })
  return target
}

/** `walback verify --restore`: each source is restored where it harms nobody, and what comes of it is noted. */
export async function rehearse(
  context: Context,
  { repository, sources }: { readonly repository: Repository; readonly sources: readonly string[] },
  flags: RehearsalFlags,
  asked: RecoveryTarget | undefined,
): Promise<undefined> {
  const { out } = context
  const reports: ProofReport[] = []
  for (const source of sources) {
    const report = await rehearseOne(context, { repository, source }, flags, asked)
    tell(context, report)
    reports.push(report)
  }
  const findings = reports.flatMap((report) => report.findings)
  out.line({
    type: 'summary',
    schema_version: 1,
    repository: repository.storage.url,
    sources: reports.map(({ record, key, notRecorded }) => ({
      ...proofJson(record),
      record: key ?? null,
      not_recorded: notRecorded ?? null,
    })),
    findings: findings.length,
  })
  if (findings.length === 0) return
  const isDamaged = findings.some(({ kind }) => kind === 'damaged')
  throw new WalbackError(
    isDamaged ? 'corrupt' : 'failed',
    reports.every(({ record }) => record.outcome === 'proven')
      ? 'restorable, and not in the time that it may take'
      : `not proven restorable: ${plural(findings.length, 'finding')}`,
    {
      hint: isDamaged
        ? 'each is named above; `walback verify` says which objects are damaged and what they cost'
        : 'each is named above; `walback restore` to the same target shows the database as it is',
      facts: { findings: findings.length },
    },
  )
}

async function rehearseOne(
  context: Context,
  { repository, source }: OpenedSource,
  flags: RehearsalFlags,
  asked: RecoveryTarget | undefined,
): Promise<ProofReport> {
  const { out, signal } = context
  const target = flags.random
    ? randomTarget(await readHoldings(repository, source, signal), Math.random)
    : (asked ?? { kind: 'latest' as const })
  const plan = await planRestore(repository, source, target, { signal })
  const assertions = assertionsOf((await context.load()).config, source)
  using progress = new Progress(out)
  return await proveRestore(repository, plan, {
    ...stageOptions(context, flags.on),
    jobs: flags.jobs,
    assertions,
    maxTime_ms: flags.maxTime,
    isRandom: flags.random === true,
    isRecorded: flags.record !== false,
    onProgress: restoreProgress(out, progress),
    onRestored: ({ report }, { server }) => {
      progress[Symbol.dispose]()
      out.say(
        `${printable(source)}: ${plural(report.rows, 'row')} brought back in ${duration(report.duration_ms)} on ${printable(server)}; checking`,
      )
    },
    onFinding: (finding) => {
      progress[Symbol.dispose]()
      out.line({ type: 'finding', source, ...finding })
      out.data(findingInWords(context, finding))
    },
  })
}

const findingInWords = ({ out }: Context, { kind, name, message }: ProofFinding): string =>
  `${out.paintData('FAILED', 'red')}  ${kind}  ${printable(name)}: ${printable(message)}`

function tell({ out }: Context, { record, notRecorded }: ProofReport): void {
  const { source, outcome, proven, tables, checked, findings, warnings } = record
  for (const warning of warnings) out.warn(printable(warning))
  const word = outcome === 'proven' ? out.paintData('proven', 'green') : out.paintData('FAILED', 'red')
  const checks = [
    `${plural(proven.rows, 'row')} of ${plural(proven.tables, 'table')}${tables > proven.tables ? ` (not of ${tables - proven.tables} that were made or changed since the base)` : ''}`,
    plural(checked.foreignKeys, 'foreign key'),
    plural(checked.indexes, 'index', 'indexes'),
    plural(checked.assertions, 'assertion'),
  ]
  out.result(
    `${printable(source)}  ${word}  ${outcome === 'proven' ? `restorable to ${whereInWords(record)}; checked: ${checks.join(', ')}` : `${whereInWords(record)}: ${plural(findings.length, 'finding')}`}`,
  )
  if (notRecorded !== undefined) out.warn(`the result was not recorded: ${notRecorded}`)
}
