import type pg from 'pg'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import { formatLsn } from '../model/lsn.ts'
import { parseSnapshot } from '../model/snapshot.ts'
import { allFireAlwaysSql } from '../postgres/ddl-capture-sql.ts'
import { publishableTablesSql, tablesWithoutIdentitySql } from '../postgres/identity-sql.ts'
import type { ServerHistory } from '../postgres/server-history.ts'
import {
  createSlotSql,
  dropSlotSql,
  publishAllSql,
  publishListSql,
  runAs,
  schemaComment,
  setIdentityFullSql,
  type TriggerChoice,
  triggersSql,
  triggersStamp,
} from '../postgres/setup-sql.ts'
import { readSlot, readSourceFacts, type SlotState, type SourceFacts } from '../postgres/source.ts'
import type { Repository } from '../repository/repository.ts'
import { serverEntry } from '../repository/segment-writer.ts'
import { type Head, readSoundHead } from '../repository/segments.ts'
import { beginTimeline, currentTimeline, type Timeline } from '../repository/timeline.ts'
import { noteFor } from './check-publication.ts'
import { checkContinuity, checkHistory } from './continuity.ts'
import { checkOverlap } from './overlap.ts'
import { checkPrerequisites } from './prerequisites.ts'

export interface SetupOptions {
  readonly source: string
  /** What to do with tables whose updates would fail once published: give them FULL, or leave updates and deletes out. */
  readonly replicaIdentity: 'full' | 'skip'
  /** The repository that the source will belong to, which is noted at the publication. */
  readonly repositoryId?: string
  /** False: plan also where preconditions are not met, for SQL that somebody else will run. */
  readonly mustBeReady?: boolean
  /** Which history the server's log is of, where that is known: whether the archive is of the same. */
  readonly server?: ServerHistory
  /** What ended capture, if that is why the source is set up again: the reason of the new timeline. */
  readonly gap?: WalbackError
  /** The database has taken the place of the one that was captured, under its name: it begins a new timeline. */
  readonly isSuccessor?: boolean
  readonly onStep?: (step: string) => void
}

interface Table {
  readonly schema: string
  readonly name: string
}

/** What is to be done in the database, in the order that keeps applications unharmed; nothing where all is there. */
export interface SetupPlan {
  readonly steps: readonly { readonly title: string; readonly sql: string }[]
  readonly publications: readonly string[]
  readonly slot: string
  readonly allTables: boolean
  /** Whether event triggers write changes of the schema into the stream. */
  readonly ddl: Timeline['ddl']
}

/** A table whose updates would fail once published; `full`: REPLICA IDENTITY FULL mends it. */
interface BareTable extends Table {
  readonly full: boolean
}

/** Names of slots and publications, of letters that both allow. */
export const slotName = (source: string): string =>
  `walback_${source.toLowerCase().replace(/[^a-z0-9_]/g, '_')}`.slice(0, 63)

/** Decides what `init` has to do; reads only. Throws when a precondition is not met. */
export async function planSetup(
  client: pg.Client,
  options: SetupOptions & { readonly publications?: readonly string[] },
): Promise<SetupPlan> {
  const facts = await readSourceFacts(client)
  const name = slotName(options.source)
  const slot = await readSlot(client, name)
  if (options.mustBeReady !== false) checkPrerequisites(facts, { slotExists: slot !== undefined })
  const isOthers = options.isSuccessor === true && slot !== undefined && slot.database !== facts.database.name
  if (slot && !isOthers) refuseForeignSlot(slot, facts)
  await refuseForeignSchema(client)
  const found = await existingPublications(client, name)
  for (const { note } of found) refuseOtherRepository(note, options)
  // The slot is made after the publication: one without the other has places in the log where it was gone, which it
  // cannot read past or, from 18 on, passes over.
  const isWhole = (options.publications ?? [name]).every((one) => found.some((have) => have.name === one))
  const isSpent = slot !== undefined && !isOthers && (!isWhole || options.gap?.facts['slotIsSpent'] === true)
  const existing = isSpent && !isWhole ? [] : found
  const bare = (await client.query<BareTable>(tablesWithoutIdentitySql)).rows
  const insertsOnly = bare.filter((table) => options.replicaIdentity === 'skip' || !table.full)
  const ddl = facts.role.eventTriggers ? 'triggers' : 'none'
  const allTables =
    existing.length > 0
      ? existing.some((found) => found.all)
      : facts.role.superuser && options.replicaIdentity === 'full' && insertsOnly.length === 0
  const steps: { title: string; sql: string }[] = []
  const triggers = { identity: options.replicaIdentity, runAs: runAs(facts.role, allTables) }
  if (ddl === 'triggers' && !(await hasTriggers(client, triggers))) {
    steps.push({ title: 'event triggers that follow the schema', sql: triggersSql(triggers) })
  }
  if (options.replicaIdentity === 'full') {
    for (const table of bare.filter(({ full }) => full)) {
      steps.push({ title: `replica identity of ${table.schema}.${table.name}`, sql: setIdentityFullSql(table) })
    }
  }
  const publications = existing.map((found) => found.name)
  if (existing.length === 0) {
    for (const left of found)
      steps.push({ title: `removal of publication ${left.name}`, sql: `DROP PUBLICATION ${quoteIdent(left.name)}` })
    const made = await publicationSteps(client, name, { allTables, insertsOnly, facts })
    steps.push(...made.steps)
    publications.push(...made.publications)
  }
  if (options.repositoryId !== undefined && existing.every((found) => found.note === null)) {
    for (const publication of publications) {
      const sql = `COMMENT ON PUBLICATION ${quoteIdent(publication)} IS ${quoteLiteral(noteFor(options.repositoryId))}`
      steps.push({ title: `note at publication ${publication}`, sql })
    }
  }
  const isLost = slot?.walStatus === 'lost'
  if (isLost || isSpent || isOthers) {
    const why = isOthers
      ? `which is of ${slot?.database}`
      : isLost
        ? 'whose log is lost'
        : 'which cannot be read past where a publication was gone'
    steps.push({ title: `removal of slot ${name}, ${why}`, sql: dropSlotSql(name) })
  }
  if (slot === undefined || isLost || isSpent || isOthers) {
    steps.push({ title: `replication slot ${name}`, sql: createSlotSql(name, facts.version) })
  }
  return { steps, publications, slot: name, allTables, ddl }
}

/** Carries the plan out and begins the timeline. Repeating it is harmless: what is there is left as it is. */
export async function setUp(
  client: pg.Client,
  repository: Repository,
  options: SetupOptions,
): Promise<{ timeline: Timeline; done: string[] }> {
  const facts = await readSourceFacts(client)
  const known = await currentTimeline(repository, options.source)
  if (known && !options.isSuccessor) refuseOtherSource(known, facts)
  const plan = await planSetup(client, {
    ...options,
    repositoryId: repository.id,
    ...(known ? { publications: known.publications } : {}),
  })
  const done: string[] = []
  for (const step of plan.steps) {
    options.onStep?.(step.title)
    await runStep(client, step)
    done.push(step.title)
  }
  const left = await client.query<BareTable>(tablesWithoutIdentitySql)
  if (plan.allTables && left.rows.length > 0) {
    // A table made in between: the trigger sees to those that come from now on, so one more look settles it.
    for (const table of left.rows.filter(({ full }) => full))
      await runStep(client, {
        title: `replica identity of ${table.schema}.${table.name}`,
        sql: setIdentityFullSql(table),
      })
  }
  const timeline = await timelineFor(client, repository, { facts, plan, options, known })
  if (timeline !== known) done.push(`timeline ${timeline.id}`)
  return { timeline, done }
}

function refuseOtherSource(known: Timeline, facts: SourceFacts): void {
  if (known.systemIdentifier === facts.systemIdentifier && known.database.oid === facts.database.oid) return
  throw new WalbackError(
    'refused',
    `the repository already holds a source ${known.source}, which is database ${known.database.name} of another server or another database of this one`,
    {
      hint: 'give this one a name of its own with --source, or use another repository',
    },
  )
}

/** Two repositories on one slot would each take from the other what it confirms. */
function refuseOtherRepository(note: string | null, { repositoryId, source }: SetupOptions): void {
  if (note === null || repositoryId === undefined || note === noteFor(repositoryId)) return
  throw new WalbackError(
    'refused',
    `the slot and publication of source ${source} already feed another repository (${note})`,
    {
      hint: 'use that repository, or give this one a source of its own with --source, or run `walback uninstall` first; if this one is a copy that takes the place of that, `walback check` says how',
    },
  )
}

/** What a user keeps in a schema of our name would be left out of everything. */
async function refuseForeignSchema(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ comment: string | null }>(
    `SELECT pg_catalog.obj_description(oid, 'pg_namespace') AS comment FROM pg_catalog.pg_namespace WHERE nspname = 'walback'`,
  )
  if (rows.length === 0 || rows[0]?.comment?.startsWith('walback:')) return
  throw new WalbackError('refused', 'the database has a schema walback that is not of our making', {
    hint: 'walback keeps its event triggers in a schema of that name, and backs nothing up that is in it: rename yours (ALTER SCHEMA walback RENAME TO …)',
  })
}

function refuseForeignSlot(slot: SlotState, facts: SourceFacts): void {
  if (slot.plugin === 'pgoutput' && slot.database === facts.database.name) return
  throw new WalbackError(
    'refused',
    `the replication slot ${slot.name} is not of this database: it reads ${slot.database} by ${slot.plugin}`,
    {
      hint: 'slots have names of the whole server: choose another with --source',
    },
  )
}

/** The timeline that the slot carries on, or a new one, which begins where the slot stands. */
async function timelineFor(
  client: pg.Client,
  repository: Repository,
  found: {
    readonly facts: SourceFacts
    readonly plan: SetupPlan
    readonly options: SetupOptions
    readonly known: Timeline | undefined
  },
): Promise<Timeline> {
  const { facts, plan, options, known } = found
  const slot = await readSlot(client, plan.slot)
  if (slot?.confirmedFlushLsn === undefined)
    throw new WalbackError('database', `the replication slot ${plan.slot} was not made`, { hint: 'see the server log' })
  let parent: Timeline['parent']
  if (known) {
    const { head } = await readSoundHead(repository, known)
    const isNewSlot = plan.steps.some((step) => step.sql.includes('pg_create_logical_replication_slot'))
    const reason = isNewSlot
      ? `the replication slot ${plan.slot} was gone or lost, and was made anew`
      : await gapOf(client, { facts, slot, server: options.server }, known, head)
    if (reason === undefined) return known
    parent = { timeline: known.id, end: formatLsn(head.end), reason: options.gap?.message ?? reason }
  }
  const { rows } = await client.query<{ snapshot: string }>('SELECT pg_catalog.pg_current_snapshot()::text AS snapshot')
  const snapshot = rows[0]?.snapshot ?? ''
  return beginTimeline(repository, {
    source: options.source,
    systemIdentifier: facts.systemIdentifier,
    database: facts.database,
    slot: plan.slot,
    publications: [...plan.publications],
    replicaIdentity: options.replicaIdentity,
    allTables: plan.allTables,
    ddl: plan.ddl,
    insertsOnly: await publishedTables(client, insertsPublication(plan.slot)),
    encoding: facts.encoding,
    serverVersion: facts.version,
    start: formatLsn(slot.confirmedFlushLsn),
    xid: parseSnapshot(snapshot).xmax.toString(),
    ...(options.server ? { server: serverEntry(options.server) } : {}),
    snapshot,
    ...(parent ? { parent } : {}),
  })
}

/** Why the slot does not carry the archive on, if it does not. */
async function gapOf(
  client: pg.Client,
  found: { readonly facts: SourceFacts; readonly slot: SlotState; readonly server: ServerHistory | undefined },
  known: Timeline,
  head: Head,
): Promise<string | undefined> {
  try {
    checkContinuity(found.facts, found.slot, known, head)
    if (found.server) checkHistory(found.server, known, head)
    // A slot that is read now is being carried on.
    if (!found.slot.active) await checkOverlap(client, found.slot, known, head)
    return undefined
  } catch (error) {
    if (!(error instanceof WalbackError) || error.code !== 'gap') throw error
    return error.message
  }
}

async function existingPublications(
  client: pg.Client,
  name: string,
): Promise<{ name: string; all: boolean; note: string | null }[]> {
  const { rows } = await client.query<{ name: string; all: boolean; note: string | null }>(
    `SELECT pubname AS name, puballtables AS all, pg_catalog.obj_description(oid, 'pg_publication') AS note FROM pg_catalog.pg_publication WHERE pubname IN ($1, $2) ORDER BY 1`,
    [name, insertsPublication(name)],
  )
  return rows
}

async function publishedTables(client: pg.Client, publication: string): Promise<Table[]> {
  const { rows } = await client.query<Table>(
    'SELECT schemaname AS schema, tablename AS name FROM pg_catalog.pg_publication_tables WHERE pubname = $1 ORDER BY 1, 2',
    [publication],
  )
  return rows
}

export const insertsPublication = (name: string): string => `${name.slice(0, 55)}_inserts`

async function publicationSteps(
  client: pg.Client,
  name: string,
  choice: { allTables: boolean; insertsOnly: readonly Table[]; facts: SourceFacts },
): Promise<{ steps: { title: string; sql: string }[]; publications: string[] }> {
  const { facts, insertsOnly } = choice
  const inserts = insertsPublication(name)
  const insertsStep = {
    title: `publication ${inserts} for tables whose updates cannot be published (${insertsOnly.length} now)`,
    sql: publishListSql(inserts, insertsOnly, facts.version, 'insert, truncate'),
  }
  // The triggers may need it for a table that comes later, and the stream names its publications when it starts.
  const hasInserts = insertsOnly.length > 0 || (facts.role.eventTriggers && facts.version >= 180000)
  const publications = hasInserts ? [name, inserts] : [name]
  if (choice.allTables) {
    const all = { title: `publication ${name} for all tables`, sql: publishAllSql(name, facts.version) }
    return { steps: hasInserts ? [all, insertsStep] : [all], publications }
  }
  const { rows } = await client.query<Table & { owned: boolean }>(publishableTablesSql)
  const foreign = rows.filter((table) => !table.owned)
  if (foreign.length > 0) {
    throw new WalbackError(
      'prerequisite',
      `${foreign.length} tables belong to other roles and cannot be published, the first is ${foreign[0]?.schema}.${foreign[0]?.name}`,
      {
        hint: 'connect as a superuser, or as a role that owns the tables or is a member of their owners',
      },
    )
  }
  const isApart = (table: Table): boolean =>
    insertsOnly.some((bare) => bare.schema === table.schema && bare.name === table.name)
  const whole = rows.filter((table) => !isApart(table))
  const list = {
    title: `publication ${name} for ${whole.length} tables`,
    sql: publishListSql(name, whole, facts.version),
  }
  return { steps: hasInserts ? [list, insertsStep] : [list], publications }
}

async function hasTriggers(client: pg.Client, choice: TriggerChoice): Promise<boolean> {
  const { rows } = await client.query<{ comment: string | null; fire: boolean }>(
    `SELECT pg_catalog.obj_description(pg_catalog.to_regnamespace('walback'), 'pg_namespace') AS comment, ${allFireAlwaysSql} AS fire`,
  )
  return rows[0]?.comment === schemaComment(triggersStamp(choice)) && rows[0].fire
}

/** Each step is a transaction of its own that gives up soon on a lock, so that no queue forms behind it. */
export async function runStep(client: pg.Client, step: { title: string; sql: string }): Promise<void> {
  const isSlot = step.sql.includes('pg_create_logical_replication_slot')
  for (let attempt = 1; ; attempt++) {
    try {
      // Making a slot waits for every transaction that is writing, one after the other; its limit holds for each.
      await client.query(`SET lock_timeout = '${isSlot ? slotWait : lockWait}'`)
      await client.query(step.sql)
      return
    } catch (error) {
      if (codeOf(error) === '55P03' && !isSlot && attempt < lockAttempts) continue
      throw stepFailure(step, error, isSlot)
    } finally {
      await client.query('SET lock_timeout = 0').catch(() => undefined)
    }
  }
}

const [lockWait, lockAttempts, slotWait] = ['2s', 10, '10min']

function stepFailure(step: { title: string; sql: string }, error: unknown, isSlot: boolean): WalbackError {
  const [code, message] = [codeOf(error), messageOf(error)]
  if (code === '55P03') {
    return new WalbackError('database', `gave up waiting for a lock while making the ${step.title}`, {
      cause: error,
      hint: isSlot
        ? 'a transaction has been open for long; end it (pg_stat_activity shows it by xact_start), then run init again'
        : 'the table is busy; run init again at a quieter moment: what is done stays done',
      retryable: true,
    })
  }
  if (code === '55006') {
    return new WalbackError('locked', `the ${step.title} has to wait: ${message}`, {
      cause: error,
      hint: 'another walback is capturing this source; stop it, then run init again',
      retryable: true,
    })
  }
  if (code === '42501') {
    return new WalbackError('prerequisite', `the role may not make the ${step.title}: ${message}`, {
      cause: error,
      hint: 'connect as a superuser or the owner, or let a DBA run what `walback init --print-sql` prints',
    })
  }
  return new WalbackError('database', `could not make the ${step.title}: ${message}`, {
    cause: error,
    hint: 'see the server log',
  })
}
