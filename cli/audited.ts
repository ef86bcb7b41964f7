import {
  type Audited,
  describeConninfo,
  formatLsn,
  type Repository,
  type RestorePlan,
  type RestoreReport,
  recorded,
  targetText,
} from '../src/index.ts'
import type { Context } from './context.ts'
import { plural, printable } from './format.ts'
import { selectionInWords, selectionJson } from './selection.ts'

export interface AuditedResult<T> {
  readonly result: T
  /** For `--json`: the number of the record, or why there is none. */
  readonly audit: { readonly record: number | null; readonly note: string | null }
}

/** Does something, and has it in the audit record; says where that could not be. */
export async function audited<T>(
  { out, signal }: Context,
  { repository, source }: { readonly repository: Repository; readonly source: string },
  what: Audited<T>,
  work: () => Promise<T>,
): Promise<AuditedResult<T>> {
  let note: string | null = null
  const onNotRecorded = (why: string): void => {
    note = why
    out.say(printable(why))
  }
  const { result, record } = await recorded(repository, source, what, work, { onNotRecorded, signal })
  return { result, audit: { record: record ?? null, note } }
}

/** Of warnings and tables a record names the first. */
const mostNamed = 50
export const first = <T>(many: readonly T[]): readonly T[] => many.slice(0, mostNamed)

/** What a restore is asked for; `into` in words, `facts` what else there is to say of the destination. */
export function restoreAsked(
  plan: RestorePlan,
  into: string,
  facts: Readonly<Record<string, unknown>>,
): Pick<Audited<never>, 'asked' | 'facts'> {
  const [selection] = selectionInWords(plan)
  return {
    asked: `${targetText(plan.target)} (${formatLsn(plan.reached)}) into ${into}${selection === undefined ? '' : `, ${selection}`}`,
    facts: {
      target: targetText(plan.target),
      timeline: plan.timeline.id,
      base: plan.base.id,
      lsn: formatLsn(plan.reached),
      transactions: plan.transactions,
      selection: selectionJson(plan),
      ...facts,
    },
  }
}

/** The database that a restore goes to, as facts. */
export const databaseFacts = (
  conninfo: Parameters<typeof describeConninfo>[0],
  database = conninfo.database,
): Readonly<Record<string, unknown>> => ({ server: describeConninfo(conninfo, database), database })

/** What came of a restore into a database. */
export const restoreCame: Audited<RestoreReport>['came'] = (report) => ({
  words: `${plural(report.tables, 'table')}, ${plural(report.rows, 'row')}; ${plural(report.proven.rows, 'row')} proven${warned(report.warnings)}`,
  facts: {
    tables: report.tables,
    rows: report.rows,
    proven: report.proven,
    transactions: report.transactions,
    roles_created: report.roles.created,
    warnings: first(report.warnings),
  },
})

export const warned = (warnings: readonly string[]): string =>
  warnings.length === 0 ? '' : `; ${plural(warnings.length, 'warning')}`
