import {
  type Conninfo,
  describeConninfo,
  formatLsn,
  type InPlaceReport,
  planRollback,
  type Repository,
  type RestorePlan,
  restoreInPlace,
  rollBack,
  type SwapReport,
  WalbackError,
} from '../src/index.ts'
import { audited, databaseFacts, restoreAsked, restoreCame } from './audited.ts'
import type { Context } from './context.ts'
import { duration, plural, printable, shellWord } from './format.ts'
import { Progress, restoreProgress } from './progress.ts'
import { type RoleFlags, roleOptionsOf } from './roles.ts'

export interface InPlaceFlags {
  readonly inPlace?: boolean
  /** The name of the database that is replaced. */
  readonly confirm?: string
}

export const inPlaceInWords = (conninfo: Conninfo): string =>
  `the place of ${printable(conninfo.database)} on ${describeConninfo(conninfo, conninfo.database)}: restored beside it first; then nobody can connect for some seconds, and the two are swapped. What is there now is kept as ${printable(conninfo.database)}_before_…, and in the archive`

export async function restoreInItsPlace(
  context: Context,
  repository: Repository,
  plan: RestorePlan,
  conninfo: Conninfo,
  options: InPlaceFlags & RoleFlags & { readonly jobs: number; readonly request: unknown },
): Promise<number> {
  const { out, signal } = context
  await context.confirmName(conninfo.database, options.confirm, `replace ${conninfo.database} by what is restored`)
  using progress = new Progress(out)
  const { result, audit } = await audited<InPlaceReport>(
    context,
    { repository, source: plan.source },
    {
      action: 'restore-in-place',
      role: conninfo.user,
      ...restoreAsked(plan, `the place of ${describeConninfo(conninfo)}`, databaseFacts(conninfo)),
      came: (report) => ({
        words: `${restoreCame(report.restored).words}; ${keptInWords(report.swapped)}`,
        facts: { ...restoreCame(report.restored).facts, ...swapJson(report.swapped) },
      }),
    },
    () =>
      restoreInPlace(repository, plan, conninfo, {
        jobs: options.jobs,
        roles: roleOptionsOf(options),
        request: options.request,
        onProgress: restoreProgress(out, progress),
        onStep: (step) => out.say(`  ${printable(step)}`),
        signal,
      }),
  )
  const { restored, swapped } = result
  progress[Symbol.dispose]()
  for (const warning of restored.warnings) out.warn(printable(warning))
  out.data(
    `restored ${plural(restored.tables, 'table')}, ${plural(restored.rows, 'row')} in place of ${printable(conninfo.database)} in ${duration(restored.duration_ms)}`,
  )
  for (const note of [...restored.roles.notes, ...restored.notes]) out.say(printable(note))
  tellSwap(context, swapped)
  out.line({ type: 'summary', schema_version: 1, ...restored, ...swapJson(swapped), audit })
  return restored.warnings.length > 0 ? 3 : 0
}

const keptInWords = ({ kept }: SwapReport): string => `the database before is kept as ${kept}`

function tellSwap({ out }: Context, { kept, closed_ms, mark, mark_lsn, timeline, hasAgent }: SwapReport): void {
  out.say(`nobody could connect for ${duration(closed_ms)}`)
  out.say(
    `the database before is ${printable(kept)}; \`walback restore rollback --to ${shellWord(kept)}\` swaps it back`,
  )
  out.say(`all of it is in the archive, up to mark ${printable(mark)} (${formatLsn(mark_lsn)})`)
  out.say(
    hasAgent
      ? `capture goes on in timeline ${timeline.id}; later states can be restored once the agent has taken a base`
      : `timeline ${timeline.id} has begun; take a base now: walback backup --full`,
  )
}

const swapJson = ({ kept, closed_ms, mark, mark_lsn, timeline, hasAgent }: SwapReport): Record<string, unknown> => ({
  kept,
  closed_ms,
  mark,
  mark_lsn: formatLsn(mark_lsn),
  timeline: timeline.id,
  captured_by_agent: hasAgent,
})

interface RollbackFlags {
  readonly to?: string
  readonly confirm?: string
}

/** `restore rollback`. */
export async function rollback(context: Context, options: RollbackFlags): Promise<undefined> {
  const { out, signal } = context
  const conninfo = await context.requireConninfo()
  const { repository, source } = await context.openSource()
  const plan = await planRollback({ conninfo, to: options.to })
  const database = printable(conninfo.database)
  if (plan.kind === 'swap') {
    out.say(
      `Plan\n  into       the place of ${database} comes ${printable(plan.to)}\n  kept       what is there now, as ${printable(plan.keptAs)}, and in the archive`,
    )
    await context.confirmName(conninfo.database, options.confirm, `swap ${conninfo.database} for ${plan.to}`)
  }
  const asked = plan.kind === 'swap' ? `swap ${conninfo.database} for ${plan.to}` : `open ${conninfo.database} again`
  const { result: swapped, audit } = await audited<SwapReport | undefined>(
    context,
    { repository, source },
    {
      action: 'rollback',
      role: conninfo.user,
      asked,
      facts: { ...databaseFacts(conninfo), ...plan },
      came: (report) =>
        report === undefined
          ? { words: 'open again, and nothing was swapped', facts: {} }
          : { words: keptInWords(report), facts: swapJson(report) },
    },
    () =>
      rollBack(plan, {
        conninfo,
        repository,
        source,
        onStep: (step) => out.say(`  ${printable(step)}`),
        signal,
      }),
  )
  if (swapped === undefined) {
    out.data(
      `${database} was closed by a restore in place that was interrupted, and is open again; nothing was swapped`,
    )
    out.document({ opened: true, audit })
    return
  }
  out.data(`${database} is ${plan.kind === 'swap' ? printable(plan.to) : ''} again`)
  tellSwap(context, swapped)
  out.document({ opened: false, ...swapJson(swapped), audit })
}

/** Where it goes is named by --db alone. */
export function refuseOtherPlaces({ into, intoUrl }: { readonly into?: string; readonly intoUrl?: string }): void {
  if (into === undefined && intoUrl === undefined) return
  throw new WalbackError(
    'usage',
    '--in-place, --as and --merge are for the database of --db; --into and --into-url name another',
    {
      hint: 'leave --into and --into-url out',
    },
  )
}
