import {
  type Conninfo,
  restore as carryOut,
  describeConninfo,
  type Repository,
  type RestoreOptions,
  type RestorePlan,
  type RestoreReport,
} from '../src/index.ts'
import { type AuditedResult, audited, databaseFacts, restoreAsked, restoreCame } from './audited.ts'
import type { Context } from './context.ts'
import { duration, firstOf, plural, printable } from './format.ts'
import { Progress, restoreProgress } from './progress.ts'

export interface Destination {
  readonly conninfo: Conninfo
  readonly database: string
}

/** Restores into a database of its own, showing what it does, and tells what came of it; gives the exit status. */
export async function restoreIntoDatabase(
  context: Context,
  repository: Repository,
  plan: RestorePlan,
  destination: Destination,
  options: Pick<RestoreOptions, 'jobs' | 'roles' | 'request' | 'resumed'>,
): Promise<number> {
  const { out, signal } = context
  using progress = new Progress(out)
  const { conninfo, database } = destination
  const { asked, facts } = restoreAsked(plan, describeConninfo(conninfo, database), databaseFacts(conninfo, database))
  const goesOn = options.resumed === undefined ? '' : `going on with what was begun ${options.resumed.begun}: `
  const { result: report, audit } = await audited(
    context,
    { repository, source: plan.source },
    { action: 'restore', role: conninfo.user, asked: `${goesOn}${asked}`, facts, came: restoreCame },
    () => carryOut(repository, plan, destination, { ...options, onProgress: restoreProgress(out, progress), signal }),
  )
  progress[Symbol.dispose]()
  return tell(context, { ...report, audit }, destination)
}

const mostNamed = 8

function tell(
  { out }: Context,
  report: RestoreReport & Pick<AuditedResult<unknown>, 'audit'>,
  { conninfo, database }: Destination,
): number {
  const url = describeConninfo(conninfo, database)
  for (const warning of report.warnings) out.warn(printable(warning))
  out.data(
    `restored ${plural(report.tables, 'table')}, ${plural(report.rows, 'row')} in ${duration(report.duration_ms)}: ${url}`,
  )
  out.say(
    `proven: ${plural(report.proven.rows, 'row')} of ${plural(report.proven.tables, 'table')} were read again and are what the archive says`,
  )
  if (report.notCompared.length > 0)
    out.say(
      `not compared, since the base has no hash of what was made or changed since: ${printable(firstOf(report.notCompared, mostNamed))}`,
    )
  for (const note of [...report.roles.notes, ...report.notes]) out.say(printable(note))
  out.say(`look:   psql '${url}'`)
  out.line({ type: 'summary', schema_version: 1, ...report, url })
  return report.warnings.length > 0 ? 3 : 0
}
