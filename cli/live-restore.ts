import {
  type Audited,
  type Conninfo,
  describeConninfo,
  type LiveReport,
  type LiveUse,
  type MergeMode,
  type MergePreview,
  mergeModes,
  type Repository,
  type RestorePlan,
  restoreIntoLive,
  WalbackError,
} from '../src/index.ts'
import { audited, databaseFacts, first, restoreAsked, warned } from './audited.ts'
import type { Context } from './context.ts'
import { invalid } from './errors.ts'
import { duration, plural, printable } from './format.ts'
import { Progress, restoreProgress } from './progress.ts'

/** What a command line says about tables of a database in use. */
export interface LiveFlags {
  readonly as?: string
  readonly merge?: MergeMode
}

export function parseMergeMode(text: string): MergeMode {
  return mergeModes.find((mode) => mode === text) ?? invalid(`It is one of ${mergeModes.join(', ')}.`)
}

/** `undefined` where no live table is meant. */
export function liveUseOf({ as, merge }: LiveFlags): LiveUse | undefined {
  if (as !== undefined && merge !== undefined)
    throw new WalbackError('usage', '--as and --merge exclude each other', {
      hint: '--as NAME makes a new table beside, --merge MODE puts rows into the table that they were in',
    })
  if (merge !== undefined) return { merge }
  if (as === undefined) return undefined
  const [, first, rest] = /^("(?:[^"]|"")+"|[^".]+)(?:\.("(?:[^"]|"")+"|[^"]+))?$/s.exec(as) ?? []
  if (first === undefined)
    throw new WalbackError('usage', `not a name for a table: ${JSON.stringify(as)}`, {
      hint: 'write it as name or schema.name, a name with a dot in quotation marks',
    })
  return { as: rest === undefined ? plain(first) : { schema: plain(first), name: plain(rest) } }
}

const plain = (word: string): string => (word.startsWith('"') ? word.slice(1, -1).replaceAll('""', '"') : word)

/** Where the rows go, in a plan's words. */
export function liveInWords(use: LiveUse, conninfo: Conninfo): string {
  const database = describeConninfo(conninfo, conninfo.database)
  if ('merge' in use) return `the live tables of ${database}: ${modesInWords[use.merge]}`
  const { as } = use
  return `new table ${printable(typeof as === 'string' ? as : `${as.schema}.${as.name}`)} in the live database ${database}`
}

const modesInWords: Readonly<Record<MergeMode, string>> = {
  'insert-missing': 'rows that are not there now are inserted, and no other is touched',
  overwrite: 'rows that are not there now are inserted, and those that differ are set back',
  replace: 'they get the rows that they had, and lose all others',
}

export async function restoreLive(
  context: Context,
  repository: Repository,
  plan: RestorePlan,
  conninfo: Conninfo,
  use: LiveUse,
  jobs: number,
): Promise<number> {
  const { out, signal } = context
  using progress = new Progress(out)
  const approve = async (previews: readonly MergePreview[]): Promise<void> => {
    progress[Symbol.dispose]()
    const json = previews.map(previewJson)
    out.line({ type: 'preview', schema_version: 1, tables: json })
    for (const line of previews.flatMap(previewInWords)) out.say(line)
    await context.confirm('Change these tables?', { tables: json })
  }
  const { result: report, audit } = await audited(
    context,
    { repository, source: plan.source },
    {
      action: 'restore-live',
      role: conninfo.user,
      ...restoreAsked(plan, liveInWords(use, conninfo), { ...databaseFacts(conninfo), ...use }),
      came,
    },
    () =>
      restoreIntoLive(repository, plan, conninfo, use, {
        jobs,
        onProgress: restoreProgress(out, progress),
        signal,
        approve,
      }),
  )
  progress[Symbol.dispose]()
  for (const warning of report.warnings) out.warn(printable(warning))
  for (const table of report.tables) out.data(printable(tableInWords(table)))
  for (const note of report.notes) out.say(printable(note))
  out.say(`done in ${duration(report.duration_ms)}, in one transaction, and read again`)
  out.line({ type: 'summary', schema_version: 1, ...report, audit })
  return report.warnings.length > 0 ? 3 : 0
}

const came: Audited<LiveReport>['came'] = ({ tables, warnings }) => ({
  words: `${first(tables).map(tableInWords).join('; ')}${warned(warnings)}`,
  facts: { tables: first(tables), warnings: first(warnings) },
})

function tableInWords({ schema, name, inserted, updated, deleted }: LiveReport['tables'][number]): string {
  const what = [`${plural(inserted, 'row')} inserted`]
  if (updated > 0) what.push(`${updated} updated`)
  if (deleted > 0) what.push(`${deleted} deleted`)
  return `${schema}.${name}: ${what.join(', ')}`
}

function previewInWords({ schema, name, missing, differing, extra, conflicts, dragged }: MergePreview): string[] {
  return [
    `${printable(`${schema}.${name}`)}: ${missing} missing now, ${differing} different, ${extra} that were not there then`,
    ...(conflicts.length === 0
      ? []
      : [`  different: ${conflicts.map(printable).join(', ')}${differing > conflicts.length ? ', …' : ''}`]),
    ...dragged.map(
      (table) =>
        `  deleting rows changes ${printable(`${table.schema}.${table.name}`)} too (ON DELETE ${table.onDelete})`,
    ),
  ]
}

const previewJson = ({ schema, name, missing, differing, extra, conflicts, dragged }: MergePreview) => ({
  schema,
  name,
  missing,
  differing,
  extra,
  conflicts,
  dragged: dragged.map((table) => ({ schema: table.schema, name: table.name, on_delete: table.onDelete })),
})
