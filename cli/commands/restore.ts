import {
  baseKind,
  describeConninfo,
  formatLsn,
  formatTime,
  type LiveUse,
  type Micros,
  mergeModes,
  micros,
  planSelected,
  type RestorePlan,
  resolveConninfo,
  type TransactionEntry,
  WalbackError,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { bytes, plural, printable, shellWord } from '../format.ts'
import { type InPlaceFlags, inPlaceInWords, refuseOtherPlaces, restoreInItsPlace, rollback } from '../in-place.ts'
import { type Destination, restoreIntoDatabase } from '../into-database.ts'
import { type LiveFlags, liveInWords, liveUseOf, parseMergeMode, restoreLive } from '../live-restore.ts'
import { namingOthers } from '../other-base.ts'
import { addStageFlags } from '../past.ts'
import { type ReviewedPlan, readPlanFile, writePlanFile } from '../plan-file.ts'
import { type Eta, etaInWords, etaJson, etaOf } from '../proofs.ts'
import { passedOverJson, readFirst } from '../readable.ts'
import { addRoleFlags, type RoleFlags, roleOptionsOf } from '../roles.ts'
import {
  addSelectionFlags,
  type SelectionFlags,
  selectionFlags,
  selectionInWords,
  selectionJson,
  selectionOf,
} from '../selection.ts'
import { restoreAsSql } from '../sql-out.ts'
import { addTargetFlags, type TargetFlags, targetInJson, targetOf } from '../target.ts'
import { lookAtTarget, lookInWords, lookJson, refuseFailing } from '../target-look.ts'
import { addInterrupted, requestOf, tellInterrupted } from './restore-interrupted.ts'
import { checkPreviewFlags, type PreviewFlags, preview, previewInWords, previewJson } from './restore-preview.ts'

interface Options extends RoleFlags, TargetFlags, SelectionFlags, LiveFlags, InPlaceFlags, PreviewFlags {
  readonly base?: string
  readonly into?: string
  readonly intoUrl?: string
  readonly sqlOut?: string
  readonly dataOnly?: boolean
  readonly plan?: boolean
  readonly planFile?: string
  readonly apply?: string
}

export const addRestore: AddCommand = (program, bind) => {
  const command = addTargetFlags(
    program
      .command('restore')
      .description('bring a source back as it was, into a new database, or some of its tables into the one in use'),
  )
    .option('--into <database>', 'a new database on the server of --db')
    .option('--into-url <url>', 'a database on another server: new, or empty')
    .option(
      '--sql-out <file>',
      'as plain SQL into a new file, a new folder/, or - for stdout; no server of yours is needed',
    )
    .option('-a, --data-only', 'with --sql-out: rows, sequences and large objects alone, for tables that are there')
    .option('--in-place', 'in the place of the database of --db, which is kept under a dated name')
    .option('--confirm <database>', 'with --in-place: its name, instead of typing it')
    .option('--as <table>', 'one --table into the database of --db, under a new name')
    .option('--merge <mode>', `rows back into the tables of --db: ${mergeModes.join(', ')}`, parseMergeMode)
    .option('--base <id>', 'from this base backup, and not from the one that has least to be read')
    .option('--plan', 'show what would be done, and end')
    .option('--plan-file <file>', 'write that to a file too, to be reviewed, and then carried out with --apply')
    .option('--apply <file>', 'carry out the plan of such a file, or nothing; no other flag but --confirm goes with it')
    .option('--preview', 'show that, and the tables then and now, and end; on a throwaway server')
  addRoleFlags(addSelectionFlags(addStageFlags(command))).action(bind<Options>(restore))
  command
    .command('rollback')
    .description('swap the database that a restore in place has put aside back into its place')
    .option('--to <database>', 'another than the newest')
    .option('--confirm <database>', 'the name of the database of --db, instead of typing it')
    .action(bind(rollback))
  addInterrupted(command, bind)
}

async function restore(context: Context, given: Options): Promise<number | undefined> {
  const { out, signal } = context
  checkPreviewFlags(given)
  const reviewed = given.apply === undefined ? undefined : await reviewedPlan(context, given, given.apply)
  const options = reviewed === undefined ? given : { ...given, ...reviewed.flags }
  const target = reviewed?.target ?? (await targetOf(context, options, 'restore to when?'))
  const selection = selectionOf(options)
  const live = liveUseOf(options)
  const destination = await chooseDestination(context, options, live)
  const {
    repository,
    passedOver,
    value: plan,
  } = await readFirst(context, async (opened) => {
    const selected = await planSelected(opened.repository, opened.source, target, selection, {
      base: options.base,
      onPassedOver: (base, { message }) => out.warn(`base ${base} is passed over: ${printable(message)}`),
      signal,
    })
    reviewed?.check(opened.source, selected)
    return selected
  })
  // Of live tables only rows are restored: whose they are does not matter.
  const lookOptions = live === undefined ? roleOptionsOf(options) : { noOwner: true, noPrivileges: true }
  const isBeside = live !== undefined || options.inPlace === true
  const looked =
    destination && (await lookAtTarget(context, repository, plan, destination, { ...lookOptions, isBeside }))
  const into = intoInWords(plan, destination, live, options)
  const eta = await etaOf(repository, plan, signal)
  const words = planInWords(context, plan, {
    into,
    about: lookInWords(looked),
    eta,
    isLive: live !== undefined,
  })
  const from = { repository: repository.storage.url, ...passedOverJson(passedOver) }
  const json = {
    ...planJson(plan, destination, live),
    ...from,
    ...lookJson(looked),
    eta: etaJson(eta),
  }
  if (options.plan || options.planFile !== undefined) {
    out.data(words)
    const file = options.planFile && (await writePlanFile(context, options.planFile, plan, options))
    if (file) out.say(`written to ${file}; carry it out with: walback restore --apply ${shellWord(file)}`)
    out.document({ type: 'plan', ...json, ...(file ? { file } : {}) })
    refuseFailing(looked)
    return
  }
  if (options.preview) {
    out.data(words)
    const seen = await preview(context, repository, plan, options)
    out.data(previewInWords(seen))
    out.document({ type: 'preview', ...json, ...previewJson(seen) })
    return
  }
  out.say(words)
  out.line({ type: 'plan', schema_version: 1, ...json })
  refuseFailing(looked)
  if (destination === undefined)
    return namingOthers(plan, () =>
      restoreAsSql(context, repository, plan, { ...options, sqlOut: options.sqlOut ?? '-' }),
    )
  if (options.inPlace)
    return restoreInItsPlace(context, repository, plan, destination.conninfo, {
      ...options,
      request: requestOf(plan, options),
    })
  if (reviewed === undefined) await context.confirm('Proceed?', { plan: json })
  if (live !== undefined)
    return namingOthers(plan, () => restoreLive(context, repository, plan, destination.conninfo, live, options.jobs))
  await tellInterrupted(context, destination.conninfo)
  return namingOthers(plan, () =>
    restoreIntoDatabase(context, repository, plan, destination, {
      jobs: options.jobs,
      roles: roleOptionsOf(options),
      request: requestOf(plan, options),
    }),
  )
}

async function destinationOf(context: Context, options: Options): Promise<Destination> {
  const destination = await namedDestination(context, options)
  if (!/^template[01]$/.test(destination.database)) return destination
  throw new WalbackError('usage', `${destination.database} is what new databases are copied from`, {
    hint: 'restore into a database with a name of its own',
  })
}

async function namedDestination(context: Context, options: Options): Promise<Destination> {
  const { into, intoUrl } = options
  if ((into === undefined) === (intoUrl === undefined)) {
    throw new WalbackError(
      'usage',
      into === undefined ? 'restore where?' : '--into and --into-url exclude each other',
      {
        hint: 'give --into NEWDB for a new database on the server of --db, or --into-url postgres://… for another server',
      },
    )
  }
  if (intoUrl !== undefined) {
    const conninfo = resolveConninfo(intoUrl, context.world.env)
    return { conninfo, database: conninfo.database }
  }
  const database = into ?? ''
  if (database === '' || Buffer.byteLength(database) > 63) {
    throw new WalbackError('usage', `not a name for a database: ${JSON.stringify(database)}`, {
      hint: 'a name has 1 to 63 bytes',
    })
  }
  const { conninfo } = await context.settings()
  if (conninfo) return { conninfo, database }
  throw new WalbackError('usage', `on which server is ${database} to be made?`, {
    hint: 'give --db of the server, or --into-url postgres://…/newdb instead of --into',
  })
}

/** A plan says all of it, so what else is said would be another one. */
async function reviewedPlan(context: Context, given: Options, file: string): Promise<ReviewedPlan> {
  const { owner, privileges } = given
  const also = planned.filter((name) => given[name] !== undefined && given[name] !== false)
  if (also.length > 0 || owner === false || privileges === false)
    throw new WalbackError(
      'usage',
      `--apply takes everything from its file, and more was given${also.length > 0 ? `: ${also.join(', ')}` : ''}`,
      {
        hint: 'leave that out, or make the plan anew with --plan-file',
      },
    )
  return await readPlanFile(context, file)
}

/** What a plan's file says. */
const planned = [
  ...([
    'to',
    'toLsn',
    'toTx',
    'beforeTx',
    'toMark',
    'base',
    'into',
    'intoUrl',
    'sqlOut',
    'inPlace',
    'as',
    'merge',
  ] as const),
  ...([
    'table',
    'schema',
    'excludeTable',
    'excludeSchema',
    'schemaOnly',
    'dataOnly',
    'createRoles',
    'mapRole',
  ] as const),
  ...(['plan', 'planFile', 'preview', 'on'] as const),
]

/** Where to; a preview and a file need no server. */
async function chooseDestination(
  context: Context,
  options: Options,
  live: LiveUse | undefined,
): Promise<Destination | undefined> {
  if (options.dataOnly && (options.sqlOut === undefined || options.schemaOnly))
    throw new WalbackError('usage', '--data-only goes with --sql-out, and not with --schema-only', {
      hint: 'rows go back into the tables of a database by --merge insert-missing, overwrite or replace',
    })
  if (live !== undefined || options.inPlace) return await destinationInUse(context, options)
  const isNowhere = options.into === undefined && options.intoUrl === undefined
  if (options.sqlOut !== undefined && !isNowhere)
    throw new WalbackError('usage', '--sql-out goes to a file, and --into and --into-url to a server', {
      hint: 'give one',
    })
  if ((options.preview || options.sqlOut !== undefined) && isNowhere) return undefined
  return await destinationOf(context, options)
}

/** The database in use is named by --db, and nothing else. */
async function destinationInUse(context: Context, options: Options): Promise<Destination> {
  refuseOtherPlaces(options)
  if (options.inPlace && (options.as !== undefined || options.merge !== undefined))
    throw new WalbackError('usage', '--in-place replaces the whole database; --as and --merge are for tables in it', {
      hint: 'give one of them',
    })
  const conninfo = await context.requireConninfo()
  return { conninfo, database: conninfo.database }
}

function intoInWords(
  plan: RestorePlan,
  destination: Destination | undefined,
  live: LiveUse | undefined,
  { sqlOut, inPlace, dataOnly }: Options,
): string {
  if (destination === undefined) {
    if (sqlOut === undefined) return 'a throwaway server, for the preview alone'
    return `${sqlOut === '-' ? 'stdout' : sqlOut}, as SQL${dataOnly ? ' of rows alone' : ''}, by way of a throwaway server`
  }
  if (live !== undefined) return liveInWords(live, destination.conninfo)
  return inPlace ? inPlaceInWords(destination.conninfo) : databaseInWords(plan, destination)
}

const databaseInWords = ({ base }: RestorePlan, { conninfo, database }: Destination): string =>
  `new database ${printable(database)} on ${describeConninfo(conninfo, database)}; ${printable(base.database.name)} is not touched`

/** How many different ones are read. */
const segmentsOf = ({ earlier, segments, unneeded }: RestorePlan): number =>
  new Set([...earlier, ...segments].map(({ key }) => key)).size - (unneeded?.size ?? 0)

function planInWords(
  context: Context,
  plan: RestorePlan,
  {
    into,
    about,
    eta,
    isLive,
  }: {
    readonly into: string
    readonly about: ReturnType<typeof lookInWords>
    readonly eta: Eta | undefined
    /** Of live tables only rows are restored. */
    readonly isLive: boolean
  },
): string {
  const { base, lastKept } = plan
  const missing = isLive ? plan.unseen : plan.notRestored
  const lines = [
    `from       base ${base.id}${baseKind(base) === 'partial' ? ' of some tables' : ''} (${bytes(plan.bytes.base)}) + ${plural(segmentsOf(plan), 'segment')} (${bytes(plan.bytes.segments)}), replaying ${plural(plan.transactions, 'transaction')}`,
    `to         ${targetInWords(context, plan)}`,
    `last kept  ${entryInWords(context, lastKept) ?? 'the state of the base itself'}`,
    `left out   ${leftOutInWords(context, plan)}`,
    `into       ${into}`,
    ...selectionInWords(plan).map((line, index) => `${index === 0 ? 'only     ' : '         '}  ${line}`),
    ...about.map(([name, line], index) => `${(name === about[index - 1]?.[0] ? '' : name).padEnd(9)}  ${line}`),
    ...missing.map((line, index) => `${index === 0 ? 'without  ' : '         '}  ${line}`),
    `time       ${etaInWords(eta)}`,
  ]
  return `Plan\n${lines.map((line) => `  ${line}\n`).join('')}`
}

function leftOutInWords(context: Context, { firstLeftOut, leftOut }: RestorePlan): string {
  if (firstLeftOut === undefined) return 'nothing that changed a row'
  return `${plural(leftOut, 'transaction')}; the first is ${entryInWords(context, firstLeftOut)}`
}

function targetInWords(context: Context, { target, reached, firstLeftOut, lastKept }: RestorePlan): string {
  const at = formatLsn(reached)
  switch (target.kind) {
    case 'latest':
      return `${at} = the latest archived`
    case 'time':
      return `${at} = ${timeInWords(context, target.time)}`
    case 'lsn':
      return `${at} = every commit up to ${formatLsn(target.lsn)}`
    case 'tx':
      return target.inclusive
        ? `${at} = with ${entryInWords(context, lastKept) ?? `tx:${target.xid}`}`
        : `${at} = just before ${entryInWords(context, firstLeftOut) ?? `tx:${target.xid}`}`
    case 'mark':
      return `${at} = mark ${printable(target.name)}`
  }
}

function entryInWords(context: Context, entry: TransactionEntry | undefined): string | undefined {
  if (entry === undefined) return undefined
  return `tx:${entry.xid} (${timeInWords(context, micros(BigInt(entry.time)))})`
}

function timeInWords(context: Context, time: Micros): string {
  const local = context.local(time)
  return `${formatTime(time)}${local === undefined ? '' : `, ${local}`}`
}

const entryJson = (entry: TransactionEntry | undefined): Record<string, unknown> | null =>
  entry === undefined ? null : { xid: entry.xid, lsn: entry.end, time: formatTime(micros(BigInt(entry.time))) }

function planJson(
  plan: RestorePlan,
  destination: Destination | undefined,
  live: LiveUse | undefined,
): Record<string, unknown> {
  return {
    source: plan.source,
    target: targetInJson(plan.target),
    timeline: plan.timeline.id,
    base: plan.base.id,
    base_selection: selectionFlags(plan.base),
    segments: segmentsOf(plan),
    lsn: formatLsn(plan.reached),
    last_kept: entryJson(plan.lastKept),
    first_left_out: entryJson(plan.firstLeftOut),
    left_out: plan.leftOut,
    transactions: plan.transactions,
    bytes: plan.bytes,
    into:
      destination === undefined
        ? null
        : {
            server: describeConninfo(destination.conninfo, destination.database),
            database: destination.database,
            ...live,
          },
    selection: selectionJson(plan),
    not_restored: plan.notRestored,
  }
}
