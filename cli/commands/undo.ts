import { createWriteStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { Option } from 'commander'
import {
  type Conninfo,
  codeOf,
  describeConninfo,
  type FoundTransaction,
  findTransactions,
  formatTime,
  parseTransactionName,
  resolveConninfo,
  timeOf,
  Undo,
  type UndoConflict,
  type UndoPolicy,
  type UndoReport,
  type UndoTable,
  WalbackError,
} from '../../src/index.ts'
import { audited, databaseFacts, first } from '../audited.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { count, plural, printable, shellWord } from '../format.ts'
import { parseList } from '../options.ts'
import { passedOverJson, readFirst } from '../readable.ts'

interface Options {
  readonly table?: readonly string[]
  readonly onConflict: UndoPolicy
  readonly showConflicts?: boolean
  readonly intoUrl?: string
  readonly apply?: boolean
  readonly sql?: string | true
}

export const addUndo: AddCommand = (program, bind) => {
  program
    .command('undo <tx...>')
    .description(
      'bring back, in the live database, the rows that transactions changed; shows what it would do, unless --apply',
    )
    .option('--table <pattern>', 'only rows of these: name, schema.name, * for any; several with commas', parseList)
    .addOption(
      new Option(
        '--on-conflict <policy>',
        'rows that were changed since: do nothing at all, leave them, or put them back too',
      )
        .choices(['abort', 'skip', 'force'])
        .default('abort'),
    )
    .option('--show-conflicts', 'list the rows that stand in the way')
    .option('--into-url <url>', 'another database than the source, such as a restored one')
    .option('--sql [file]', 'write it as SQL, to a new file or to standard output (-), and do nothing')
    .option('--apply', 'do it, in one transaction, after asking')
    .action(bind<Options>(undo))
}

async function undo(context: Context, options: Options, given: readonly string[]): Promise<number | undefined> {
  const { out, signal } = context
  const names = given.map(parseTransactionName)
  const file = sqlFileOf(context, options)
  const conninfo = await targetOf(context, options)
  const progress = { rows: 0 }
  const { repository, source, passedOver, value } = await readFirst(context, async (opened) => {
    const found = unique(await findTransactions(opened.repository, opened.source, names, signal))
    const work = await Undo.begin(opened.repository, found, conninfo, {
      tables: options.table,
      shownConflicts: options.showConflicts ? 100 : 5,
      onRows: (rows) => {
        progress.rows += rows
      },
      signal,
    })
    return { found, work }
  })
  await using work = value.work
  const head = {
    source,
    repository: repository.storage.url,
    ...passedOverJson(passedOver),
    transactions: value.found.map(({ entry, timeline }) => ({
      xid: entry.xid,
      timeline: timeline.id,
      lsn: entry.end,
      time: formatTime(timeOf(entry)),
    })),
    on_conflict: options.onConflict,
  }
  const preview = await work.preview()
  const words = previewInWords(preview, value.found, conninfo)
  if (file === '-') out.say(words)
  else out.data(words)
  if (options.showConflicts) out.data(preview.shown.map(conflictInWords).join('\n'))
  const stops = options.onConflict === 'abort' && preview.conflicts > 0
  if (file !== undefined && !stops) {
    await writeScript(context, work.script(options.onConflict), file)
    out.document({ ...head, ...reportJson(preview), applied: null, sql: file })
    return
  }
  if (!options.apply || stops) {
    out.document({ ...head, ...reportJson(preview), applied: null })
    out.say(await nextStep(context, options, given, preview))
    return stops ? 23 : undefined
  }
  await context.confirm(`Undo ${plural(value.found.length, 'transaction')} in ${describeConninfo(conninfo)}?`, {
    undo: reportJson(preview),
  })
  const { result: report, audit } = await audited<UndoReport>(
    context,
    { repository, source },
    {
      action: 'undo',
      role: conninfo.user,
      asked: `${transactionsInWords(value.found)} in ${describeConninfo(conninfo)}`,
      facts: {
        ...databaseFacts(conninfo),
        transactions: head.transactions,
        on_conflict: options.onConflict,
        tables: options.table ?? null,
      },
      came: (done) => ({ words: doneInWords(done), facts: auditFacts(done) }),
    },
    () => apply(work, options.onConflict),
  )
  out.result(`${doneInWords(report)}. To take that back: walback undo tx:${report.xid}${await context.sameFlags()}`)
  out.document({ ...head, ...reportJson(report), applied: { xid: report.xid }, audit })
  return
}

async function apply(work: Undo, policy: UndoPolicy): Promise<UndoReport> {
  const report = await work.apply(policy)
  if (report.xid !== undefined) return report
  throw new WalbackError('conflict', `${plural(report.conflicts, 'row')} of what is to be undone changed meanwhile`, {
    hint: 'nothing was changed; run it again',
    facts: { undo: reportJson(report) },
  })
}

/** Without rows: the record is not for what was in them. */
const auditFacts = ({ xid, tables, conflicts }: UndoReport): Readonly<Record<string, unknown>> => ({
  xid: String(xid),
  tables: first(tables).map(({ schema, name, inserts, updates, deletes }) => ({
    schema,
    name,
    inserts,
    updates,
    deletes,
  })),
  conflicts,
})

/** Where the SQL goes; undefined: nowhere. */
function sqlFileOf(context: Context, { sql, apply }: Options): string | undefined {
  if (sql === undefined) return undefined
  const file = sql === true ? '-' : sql
  const against = apply ? '--apply' : file === '-' && context.out.json ? '--json' : undefined
  if (against === undefined) return file === '-' ? file : context.path(file)
  throw new WalbackError('usage', `--sql${against === '--json' ? ' to standard output' : ''} excludes ${against}`, {
    hint: against === '--json' ? 'name a file: --sql undo.sql' : '--sql does nothing but write',
  })
}

async function writeScript({ out }: Context, script: AsyncIterable<string>, file: string): Promise<void> {
  if (file === '-') {
    for await (const piece of script) out.data(piece)
    return
  }
  await pipeline(script, createWriteStream(file, { flags: 'wx', mode: 0o600 })).catch((error: unknown) => {
    if (codeOf(error) !== 'EEXIST') throw error
    throw new WalbackError('refused', `${file} is there already`, { cause: error, hint: 'name a new file' })
  })
  out.say(`nothing was changed: the undo is in ${file}, for psql -f`)
}

async function targetOf(context: Context, { intoUrl }: Options): Promise<Conninfo> {
  return intoUrl === undefined ? await context.requireConninfo() : resolveConninfo(intoUrl, context.world.env)
}

/** Naming a transaction twice does not undo it twice. */
const unique = (found: readonly FoundTransaction[]): FoundTransaction[] =>
  found.filter(
    (one, place) =>
      found.findIndex(({ entry, timeline }) => entry === one.entry && timeline.id === one.timeline.id) === place,
  )

function previewInWords(report: UndoReport, found: readonly FoundTransaction[], conninfo: Conninfo): string {
  return [
    `undo ${transactionsInWords(found)} in ${describeConninfo(conninfo)}`,
    ...report.tables.map((table) => `  ${tableName(table)}: ${tableInWords(table)}`),
    ...triggersInWords(report.tables),
  ].join('\n')
}

const transactionsInWords = (found: readonly FoundTransaction[]): string =>
  found.map(({ entry }) => `tx:${entry.xid} of ${formatTime(timeOf(entry))}`).join(', ')

function tableInWords(table: UndoTable): string {
  const { conflicts } = table
  const parts = [
    ...(table.inserts > 0 ? [`insert ${count(table.inserts)}`] : []),
    ...(table.updates > 0 ? [`set back ${count(table.updates)}`] : []),
    ...(table.deletes > 0 ? [`delete ${count(table.deletes)}`] : []),
    ...(table.already > 0 ? [`${count(table.already)} already as before`] : []),
    ...(conflicts.changed > 0 ? [`${plural(conflicts.changed, 'conflict')}: changed since`] : []),
    ...(conflicts.exists > 0 ? [`${plural(conflicts.exists, 'conflict')}: the key exists again`] : []),
    ...(conflicts.gone > 0 ? [`${plural(conflicts.gone, 'conflict')}: gone since`] : []),
  ]
  return parts.length === 0 ? 'nothing to do' : parts.join('; ')
}

function triggersInWords(tables: readonly UndoTable[]): string[] {
  const named = (names: readonly string[], table: UndoTable): string[] =>
    names.map((name) => `${printable(name)} on ${tableName(table)}`)
  const silent = tables.flatMap((table) => named(table.silentTriggers, table))
  const firing = tables.flatMap((table) => named(table.firingTriggers, table))
  return [
    ...(silent.length > 0
      ? [`triggers that do not fire, since what they wrote is undone too: ${silent.join(', ')}`]
      : []),
    ...(firing.length > 0 ? [`triggers that fire, being enabled ALWAYS or REPLICA: ${firing.join(', ')}`] : []),
  ]
}

const tableName = ({ schema, name }: { readonly schema: string; readonly name: string }): string =>
  printable(`${schema}.${name}`)

const stateInWords: Readonly<Record<UndoConflict['state'], string>> = {
  changed: 'was changed since',
  exists: 'its key exists again',
  gone: 'is gone',
}

const conflictInWords = (conflict: UndoConflict): string => {
  const row = Object.entries(conflict.row).map(([column, value]) => `${column}=${value ?? 'NULL'}`)
  return `  ${tableName(conflict)} ${printable(row.join(' '))}: ${stateInWords[conflict.state]} (${conflict.undo})`
}

async function nextStep(
  context: Context,
  options: Options,
  words: readonly string[],
  { conflicts }: UndoReport,
): Promise<string> {
  const nothing = 'nothing was changed'
  const same = await context.sameFlags()
  const tables = (options.table ?? []).map((table) => ` --table ${shellWord(table)}`).join('')
  const command = `walback undo ${words.map(shellWord).join(' ')}${tables}${same}`
  if (options.onConflict === 'abort' && conflicts > 0)
    return `${nothing}: ${plural(conflicts, 'row')} changed since. See them: ${command} --show-conflicts\nundo the others: ${command} --on-conflict skip --apply`
  const policy = options.onConflict === 'abort' ? '' : ` --on-conflict ${options.onConflict}`
  return `${nothing}. Foreign keys are checked when it is applied. Apply: ${command}${policy} --apply`
}

function doneInWords({ tables, conflicts, xid }: UndoReport): string {
  const sum = (of: (table: UndoTable) => number): number => tables.reduce((total, table) => total + of(table), 0)
  const parts = [
    ...(sum((table) => table.inserts) > 0
      ? [
          `${plural(
            sum((table) => table.inserts),
            'row',
          )} inserted`,
        ]
      : []),
    ...(sum((table) => table.updates) > 0
      ? [
          `${plural(
            sum((table) => table.updates),
            'row',
          )} set back`,
        ]
      : []),
    ...(sum((table) => table.deletes) > 0
      ? [
          `${plural(
            sum((table) => table.deletes),
            'row',
          )} deleted`,
        ]
      : []),
    ...(conflicts > 0 ? [`${plural(conflicts, 'conflict')}`] : []),
  ]
  return `undone by tx:${xid}: ${parts.length === 0 ? 'nothing was left to do' : parts.join(', ')}`
}

const reportJson = ({ tables, conflicts, shown }: UndoReport): Record<string, unknown> => ({
  tables: tables.map(({ silentTriggers, firingTriggers, ...table }) => ({
    ...table,
    silent_triggers: silentTriggers,
    firing_triggers: firingTriggers,
  })),
  conflicts,
  shown_conflicts: shown,
})
