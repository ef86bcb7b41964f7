import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { messageOf, WalbackError } from '../base/errors.ts'
import type { RowHash } from '../codec/row-hash.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified } from '../model/identifier.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { openRowSession } from '../postgres/row-session.ts'
import type { Statement } from '../postgres/split-sql.ts'
import type { BaseTable } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import { applyProperties } from './database-properties.ts'
import { putBackChecks, takeOffChecks } from './deferred-checks.ts'
import { type Destination, onServer, prepareDestination, type Workplace } from './destination.ts'
import { dropUnselected } from './drop-unselected.ts'
import { restoreLargeObjects } from './large-objects.ts'
import type { RestorePlan } from './plan.ts'
import { type OnProgress, Phase } from './progress.ts'
import { proveTables } from './proof.ts'
import { underLease } from './reading-lease.ts'
import { Replay } from './replay.ts'
import { isStatementError } from './replay-session.ts'
import { type RoleOptions, rolesNamed } from './role-plan.ts'
import { explainedMissingRole, Roles } from './roles.ts'
import type { RowTarget } from './rows.ts'
import { loadStatements, runStatements, type SchemaStatements } from './schema.ts'
import { setSequences } from './sequences.ts'
import { sourcePathSql } from './source-path.ts'
import { isStaged, settleTables, stageTables } from './staged-tables.ts'
import { readChanges } from './stream.ts'
import { TargetTables } from './target-tables.ts'
import { UnreadableRows } from './unreadable-rows.ts'

export interface RestoreOptions {
  /** Connections that load and check tables side by side. */
  readonly jobs: number
  /** Net changes are applied whenever they hold about this much memory. */
  readonly memory_bytes?: number
  /** What to do about roles that the target lacks; left out and reported unless this says otherwise. */
  readonly roles?: RoleOptions
  readonly onProgress?: OnProgress
  /** How often it renews what it says to a prune; its default suits all but tests. */
  readonly lease_ms?: number
  readonly signal?: AbortSignal | undefined
}

export interface RestoreReport {
  readonly database: string
  readonly tables: number
  readonly rows: number
  readonly transactions: number
  readonly duration_ms: number
  /** What was read again from the target and found to be what the archive says. */
  readonly proven: { readonly tables: number; readonly rows: number }
  /** The roles that were made, and what else was done about roles as asked, each in a line. */
  readonly roles: { readonly created: readonly string[]; readonly notes: readonly string[] }
  /** What was left out, each in a line. */
  readonly warnings: readonly string[]
  /** What else is to be said, and takes nothing from the restore. */
  readonly notes: readonly string[]
}

/**
 * Carries a plan out: schema, rows merged with net changes, indexes and constraints, sequences, proof; then the
 * database gets its name. If anything fails the server is left as it was.
 */
export async function restore(
  repository: Repository,
  plan: RestorePlan,
  destination: Destination,
  options: RestoreOptions,
): Promise<RestoreReport> {
  return underLease(
    repository,
    plan,
    async ({ signal, note }) => {
      const signals = [options.signal, signal].filter((one) => one !== undefined)
      const report = await carryOut(repository, plan, destination, { ...options, signal: AbortSignal.any(signals) })
      return note === undefined ? report : { ...report, notes: [note, ...report.notes] }
    },
    { interval_ms: options.lease_ms },
  )
}

async function carryOut(
  repository: Repository,
  plan: RestorePlan,
  destination: Destination,
  options: RestoreOptions,
): Promise<RestoreReport> {
  const started = performance.now()
  const workplace = await prepareDestination(destination, plan.base.database)
  const work = new Restore(repository, plan, destination.conninfo, workplace, options)
  const interrupt = (): void => void work.interrupt()
  options.signal?.addEventListener('abort', interrupt, { once: true })
  try {
    const { roles, ...outcome } = await work.run()
    throwIfAborted(options.signal)
    await work.close()
    await workplace.finish((client, database) => {
      const onWarning = (line: string): void => void work.warnings.push(line.replace(database, destination.database))
      return applyProperties(client, database, plan.base.database, { roles, onWarning })
    })
    await roles.settle((revoke) => onServer(destination, revoke))
    return {
      database: destination.database,
      transactions: plan.transactions,
      duration_ms: Math.round(performance.now() - started),
      ...outcome,
      roles: { created: roles.created, notes: roles.notes() },
      warnings: [...plan.unseen, ...work.warnings, ...roles.warnings()],
      notes: work.notes,
    }
  } catch (error) {
    await work.close()
    const discard = async (): Promise<void> => {
      await workplace.discard()
      // Only now is nothing theirs any more.
      await work.roles?.discard((drop) => onServer(destination, drop))
    }
    await discard().catch((second: unknown) => {
      throw new WalbackError(
        'failed',
        `the restore failed (${messageOf(error)}), and so did cleaning up after it (${messageOf(second)})`,
        {
          cause: error,
          hint: `drop by hand what is left: ${[`database ${workplace.database}`, ...(work.roles?.created ?? []).map((role) => `role ${role}`)].join(', ')}`,
        },
      )
    })
    throwIfAborted(options.signal)
    throw explainedMissingRole(error)
  } finally {
    options.signal?.removeEventListener('abort', interrupt)
  }
}

type Outcome = Pick<RestoreReport, 'tables' | 'rows' | 'proven'>

/** Ids on the target of the views. */
async function viewIds(client: pg.Client, views: readonly QualifiedName[]): Promise<string[]> {
  const { rows } = await client.query<{ oid: string | null }>(
    'SELECT pg_catalog.to_regclass(name)::pg_catalog.oid::text AS oid FROM pg_catalog.unnest($1::text[]) name',
    [views.map(qualified)],
  )
  return rows.flatMap(({ oid }) => oid ?? [])
}

/** The views that hold rows in the end: those of the base, and what the stream says of views. */
function fillable(
  ofBase: readonly string[],
  told: readonly { readonly target: string; readonly populated: boolean }[],
): ReadonlySet<string> {
  const filled = new Set(ofBase)
  for (const { target, populated } of told) {
    if (populated) filled.add(target)
    else filled.delete(target)
  }
  return filled
}

const defaultMemory_bytes = 256 << 20

class Restore {
  readonly warnings: string[] = []
  readonly notes: string[] = []
  /** Once there is a session on the target. */
  roles: Roles | undefined
  private readonly repository: Repository
  private readonly plan: RestorePlan
  private readonly conninfo: Conninfo
  private readonly database: string
  private readonly isNewDatabase: boolean
  private readonly options: RestoreOptions
  private readonly sessions: pg.Client[] = []
  private readonly unreadable: UnreadableRows

  constructor(
    repository: Repository,
    plan: RestorePlan,
    conninfo: Conninfo,
    workplace: Workplace,
    options: RestoreOptions,
  ) {
    this.repository = repository
    this.plan = plan
    this.unreadable = new UnreadableRows(plan.base.database.encoding)
    this.conninfo = conninfo
    this.database = workplace.database
    this.isNewDatabase = workplace.isNew
    this.options = options
  }

  async run(): Promise<Outcome & { readonly roles: Roles }> {
    const { base } = this.plan
    const loaded = await loadStatements(this.repository, this.plan, this.options.signal)
    const isMade = (statement: Statement): boolean => !this.plan.selected?.isCut(statement)
    const statements = { ...loaded, post: loaded.post.filter(isMade) }
    const schema = await this.open((conninfo) =>
      connect(conninfo, { database: this.database, application: 'walback restore' }),
    )
    const roles = await this.prepareRoles(schema, statements)
    await this.statements(schema, 'schema', roles, statements.pre)
    const checks = await takeOffChecks(schema)
    const lanes: pg.Client[] = []
    for (let n = 0; n < this.options.jobs; n++)
      lanes.push(
        await this.open((conninfo) =>
          openRowSession(conninfo, { database: this.database, application: 'walback restore' }),
        ),
      )
    for (const lane of lanes) await lane.query('SET synchronous_commit = off')
    const [first] = lanes as [pg.Client]
    const warn = (warning: string): void => void this.warnings.push(warning)
    const read = base.tables.filter(({ oid }) => !this.plan.selected?.without.has(oid))
    const staged = await stageTables(first, read, warn)
    const tables = new TargetTables()
    await tables.addBase(first, [...base.tables, ...base.sequences])
    const proof = new Phase('proof', 'tables', read.length, this.options.onProgress)
    const proving = { ...this.copying, onTable: () => proof.add(1) }
    const filledViews: string[] = []
    const replay = new Replay(this.repository, this.plan, lanes, tables, {
      ...this.copying,
      memory_bytes: this.options.memory_bytes ?? defaultMemory_bytes,
      staged,
      isIgnored: this.ignored(staged),
      roles,
      provideRoles: (named) => roles.provideLater(schema, named),
      warn,
      onProgress: this.options.onProgress,
      complete: async (loaded) => {
        // What is beside is proven there: the server adds its own to it.
        await proveTables(
          lanes,
          loaded.filter(({ table }) => isStaged(table)),
          proving,
        )
        await settleTables(first, read, staged, warn)
        await schema.query(sourcePathSql(base.database))
        await this.statements(schema, 'indexes', roles, statements.post)
        await putBackChecks(schema, checks, warn)
        filledViews.push(...(await viewIds(schema, base.materializedViews)))
      },
    })
    const progress = new Phase('replay', 'bytes', this.plan.bytes.segments, this.options.onProgress)
    const { signal } = this.options
    await replay.run(readChanges(this.repository, this.plan, { signal, onBytes: (stored) => progress.add(stored) }))
    this.warnings.push(...(await this.unreadable.warnings(first)))
    if (this.plan.selected === undefined)
      await restoreLargeObjects(first, this.repository, base.largeObjects, { roles, signal })
    else this.notes.push(...(await dropUnselected(schema, this.plan.selected, tables)))
    await this.finish(schema, roles, statements, tables, fillable(filledViews, replay.populatedViews()))
    return { ...(await this.prove(lanes, tables, staged, proving)), roles }
  }

  private async prepareRoles(client: pg.Client, { pre, post, last }: SchemaStatements): Promise<Roles> {
    const { base } = this.plan
    const options = this.options.roles ?? {}
    const roles = await Roles.open(client, base.roles, options)
    this.roles = roles
    const named = rolesNamed(base, [...pre, ...post, ...last], { ...options, isNewDatabase: this.isNewDatabase })
    await roles.provide(client, named)
    return roles
  }

  /** Relations whose rows are not to be restored. */
  private ignored(staged: ReadonlyMap<number, BaseTable>): (oid: number) => boolean {
    const { base, selected } = this.plan
    if (selected?.selection.rows === false) return () => true
    const leftOut = base.tables.filter((table) => isStaged(table) && !staged.has(table.oid)).map((table) => table.oid)
    const ignored = new Set([...base.tablesWithoutRows, ...leftOut, ...(selected?.without ?? [])])
    return (oid) => ignored.has(oid)
  }

  /** Reads again what the archive tells, and counts the rest. */
  private async prove(
    lanes: readonly pg.Client[],
    tables: TargetTables,
    staged: ReadonlyMap<number, BaseTable>,
    proving: Parameters<typeof proveTables>[2],
  ): Promise<Outcome> {
    const [first] = lanes as [pg.Client]
    const current = await tables.current(first, tables.sources())
    const known: { table: RowTarget; expected: RowHash }[] = []
    const outcome = { tables: 0, rows: 0, proven: { tables: 0, rows: 0 } }
    for (const [source, table] of current) {
      if (table.kind !== 'r') continue
      outcome.tables++
      const restored = tables.restored(source)
      if (restored === undefined) {
        const { rows } = await first.query<{ rows: string }>(`SELECT count(*) AS rows FROM ONLY ${qualified(table)}`)
        outcome.rows += Number(rows[0]?.rows)
        continue
      }
      outcome.rows += restored.expected.rows
      outcome.proven.tables++
      outcome.proven.rows += restored.expected.rows
      const { columns } = restored.table
      if (!staged.has(source)) known.push({ expected: restored.expected, table: { ...table, columns } })
    }
    await proveTables(lanes, known, proving)
    return outcome
  }

  private get copying(): {
    readonly encoding: string
    readonly unreadable: UnreadableRows
    readonly sourcePathSql: string
    readonly signal: AbortSignal | undefined
  } {
    const { database } = this.plan.base
    const { unreadable } = this
    return {
      encoding: database.encoding,
      unreadable,
      sourcePathSql: sourcePathSql(database),
      signal: this.options.signal,
    }
  }

  /** Ends the sessions: a statement that builds an index for an hour does not look at the signal. */
  async interrupt(): Promise<void> {
    const pids = this.sessions.map((session) => (session as pg.Client & { readonly processID: number }).processID)
    try {
      const client = await connect(this.conninfo, { database: this.database, application: 'walback restore' })
      await client.query('SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.unnest($1::int[]) pid', [pids])
      await client.end()
    } catch {
      // Then the restore ends a little later, when it next looks at the signal itself.
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.sessions.splice(0).map((session) => session.end().catch(() => undefined)))
  }

  private async finish(
    schema: pg.Client,
    roles: Roles,
    statements: SchemaStatements,
    tables: TargetTables,
    views: ReadonlySet<string>,
  ): Promise<void> {
    const hasRows = this.plan.selected?.selection.rows !== false
    const positions = new Map(this.plan.sequences.map((position) => [tables.target(position.oid), position]))
    if (hasRows) await setSequences(schema, (target) => positions.get(String(target)), this.plan.sequencesBounded)
    // One that reads another was made after it.
    const { rows } = await schema.query<QualifiedName & { oid: string }>(
      `SELECT c.oid::text AS oid, n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' ORDER BY c.oid`,
    )
    for (const view of rows.filter(({ oid }) => hasRows && views.has(oid))) {
      throwIfAborted(this.options.signal)
      await this.refresh(schema, view)
    }
    await runStatements(schema, statements.last, {
      roles,
      onWarning: (warning) => this.warnings.push(warning),
      signal: this.options.signal,
    })
    await schema.query('SET search_path = DEFAULT')
  }

  /** A view whose query fails is no reason to be left without the tables: it stays empty, as it can be filled later. */
  private async refresh(schema: pg.Client, view: QualifiedName): Promise<void> {
    try {
      await schema.query(`REFRESH MATERIALIZED VIEW ${qualified(view)}`)
    } catch (error) {
      if (!isStatementError(error)) throw error
      this.warnings.push(`not filled (${messageOf(error)}): materialized view ${view.schema}.${view.name}`)
    }
  }

  private async statements(
    client: pg.Client,
    phase: 'schema' | 'indexes',
    roles: Roles,
    statements: SchemaStatements['pre'],
  ): Promise<void> {
    const progress = new Phase(phase, 'statements', statements.length, this.options.onProgress)
    await runStatements(client, statements, {
      roles,
      onWarning: (warning) => this.warnings.push(warning),
      onDone: () => progress.add(1),
      signal: this.options.signal,
    })
  }

  private async open(connectTo: (conninfo: Conninfo) => Promise<pg.Client>): Promise<pg.Client> {
    const session = await connectTo(this.conninfo)
    this.sessions.push(session)
    return session
  }
}
