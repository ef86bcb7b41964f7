import type pg from 'pg'
import { z } from 'zod'
import { throwIfAborted } from '../base/abort.ts'
import { messageOf, WalbackError } from '../base/errors.ts'
import type { RowHash } from '../codec/row-hash.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified } from '../model/identifier.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { openRowSession } from '../postgres/row-session.ts'
import type { Statement } from '../postgres/split-sql.ts'
import { type BaseTable, tablesOf } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import { begunShape, fingerprintOf, isAnother } from './begun.ts'
import { Checkpoints } from './checkpoints.ts'
import { type DeferredCheck, putBackChecks, takeOffChecks } from './deferred-checks.ts'
import type { Workplace } from './destination.ts'
import { dropUnselected } from './drop-unselected.ts'
import { restoreLargeObjects } from './large-objects.ts'
import type { RestorePlan } from './plan.ts'
import { Phase } from './progress.ts'
import { proveTables } from './proof.ts'
import { keyOf, Replay } from './replay.ts'
import { isStatementError } from './replay-session.ts'
import type { RestoreOptions, RestoreReport } from './restore.ts'
import { rolesNamed } from './role-plan.ts'
import { Roles, type rolesDone } from './roles.ts'
import type { RowTarget } from './rows.ts'
import { loadStatements, runStatements, type SchemaStatements } from './schema.ts'
import { setSequences } from './sequences.ts'
import { sourcePathSql } from './source-path.ts'
import { isStaged, settleTables, stagedBefore, stageTables } from './staged-tables.ts'
import { readChanges } from './stream.ts'
import { madeUnlogged, TargetTables } from './target-tables.ts'
import { UnreadableRows } from './unreadable-rows.ts'

const proofOf = (table: QualifiedName): string => `proof of ${qualified(table)}`

type Outcome = Pick<RestoreReport, 'tables' | 'rows' | 'proven' | 'notCompared'>

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

/** One run of a plan in a database: schema, rows, indexes, sequences, proof. */
export class Restoration {
  readonly warnings: string[] = []
  readonly notes: string[] = []
  /** Once there is a session on the target. */
  roles: Roles | undefined
  private readonly repository: Repository
  private readonly plan: RestorePlan
  private readonly conninfo: Conninfo
  private readonly database: string
  private readonly workplace: Workplace
  private points = Checkpoints.none()
  private hasBegun = false
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
    this.workplace = workplace
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
    const warn = (warning: string): void => void this.warnings.push(warning)
    const read = base.tables.filter(({ oid }) => !this.plan.selected?.without.has(oid))
    const { roles, checks, staged } = await this.begin(schema, statements, read)
    this.hasBegun = true
    const { points } = this
    const lanes: pg.Client[] = []
    for (let n = 0; n < this.options.jobs; n++)
      lanes.push(
        await this.open((conninfo) =>
          openRowSession(conninfo, { database: this.database, application: 'walback restore' }),
        ),
      )
    for (const lane of lanes) await lane.query('SET synchronous_commit = off')
    const [first] = lanes as [pg.Client]
    const tables = new TargetTables()
    await tables.addBase(first, [...tablesOf(base), ...base.sequences])
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
      points,
      onDdl: () => this.withdraw(schema),
      onProgress: this.options.onProgress,
      complete: async (loaded) => {
        const settled = points.get('settled', z.array(z.string()))
        if (settled) this.warnings.push(...settled)
        else {
          // What is beside is proven there: the server adds its own to it.
          await proveTables(
            lanes,
            loaded.filter(({ table }) => isStaged(table)),
            proving,
          )
          const lines: string[] = []
          const settle = () => settleTables(first, read, staged, (line) => lines.push(line))
          await points.together(first, 'settled', settle, () => lines)
          this.warnings.push(...lines)
        }
        await schema.query(sourcePathSql(base.database))
        await this.statements(schema, 'indexes', roles, statements.post)
        await putBackChecks(schema, checks, points, warn)
        filledViews.push(...(await viewIds(schema, base.materializedViews)))
      },
    })
    const progress = new Phase('replay', 'bytes', this.plan.bytes.segments, this.options.onProgress)
    const { signal } = this.options
    await replay.run(readChanges(this.repository, this.plan, { signal, onBytes: (stored) => progress.add(stored) }))
    this.warnings.push(...(await this.unreadable.warnings(first)))
    if (this.plan.selected === undefined)
      await restoreLargeObjects(first, this.repository, base.largeObjects, { roles, points, signal })
    else {
      await this.withdraw(schema)
      this.notes.push(...(await dropUnselected(schema, this.plan.selected, tables)))
    }
    await this.finish(schema, tables, fillable(filledViews, replay.populatedViews()))
    if (this.plan.selected?.selection.rows !== false) this.warnings.push(...(await madeUnlogged(first, base, tables)))
    const outcome = await this.prove(lanes, tables, staged, proving)
    // Event triggers of the source's would fire on it.
    await this.withdraw(schema)
    await runStatements(schema, statements.last, {
      roles,
      points: Checkpoints.none(),
      name: 'last',
      noted: 'as one',
      onWarning: warn,
      signal,
    })
    await schema.query('SET search_path = DEFAULT')
    return { ...outcome, roles }
  }

  /** Makes the schema, or finds it made by an earlier attempt. */
  private async begin(
    schema: pg.Client,
    statements: SchemaStatements,
    read: readonly BaseTable[],
  ): Promise<{ roles: Roles; checks: readonly DeferredCheck[]; staged: Map<number, BaseTable> }> {
    const { about } = this.workplace
    if (about)
      this.points = await (about.isResumed
        ? Checkpoints.resume(schema, this.database)
        : Checkpoints.begin(schema, this.database))
    const before = this.points.get('schema', begunShape)
    const plan = fingerprintOf(this.plan, this.options)
    if (about?.isResumed && before?.plan !== plan) throw isAnother()
    if (before !== undefined) await this.points.forgetLost(schema, () => this.lostTables(schema, read))
    const roles = await this.prepareRoles(schema, statements, before?.roles)
    await this.statements(schema, 'schema', roles, statements.pre)
    if (before !== undefined) {
      this.warnings.push(...before.warnings.filter((line) => !this.warnings.includes(line)))
      return { roles, checks: before.checks, staged: stagedBefore(read, before.staged) }
    }
    const checks = await takeOffChecks(schema)
    const staged = await stageTables(schema, read, (warning) => this.warnings.push(warning))
    const { warnings } = this
    const { request } = this.options
    const begun = { plan, request, checks, staged: [...staged.keys()], roles: roles.done, warnings }
    await this.points.note(schema, 'schema', begun)
    if (about && request !== undefined) await this.points.offer(schema, about)
    return { roles, checks, staged }
  }

  /** Under which keys it is noted that unlogged tables were loaded. */
  private async lostTables(client: pg.Client, tables: readonly BaseTable[]): Promise<string[]> {
    const { rows } = await client.query<QualifiedName>(
      `SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relpersistence = 'u' AND c.relkind = 'r'`,
    )
    const unlogged = new Set(rows.map(qualified))
    // The one beside that a staged one goes through is logged.
    const lost = tables.filter((table) => unlogged.has(qualified(table)) && !isStaged(table)).map(keyOf)
    // What is built on them may forbid what brings their rows back.
    if (!this.points.has('settled') || !lost.some((key) => this.points.has(key))) return lost
    throw new WalbackError('refused', 'the server has crashed since, and the rows of unlogged tables went with it', {
      hint: 'remove it with `walback restore discard`, and restore anew',
    })
  }

  /** What comes next cannot be gone on with by another. */
  private async withdraw(schema: pg.Client): Promise<void> {
    const { about } = this.workplace
    if (about) await this.points.withdraw(schema, about)
  }

  /** Whether what is done so far is left for another process to go on with. */
  get isResumable(): boolean {
    return this.points.isResumable
  }

  /** Whether it has not come so far as to go on with what an earlier attempt has left: that stays as it is. */
  get isUntouched(): boolean {
    return this.workplace.about?.isResumed === true && !this.hasBegun
  }

  private async prepareRoles(
    client: pg.Client,
    { pre, post, last }: SchemaStatements,
    done: z.infer<typeof rolesDone> | undefined,
  ): Promise<Roles> {
    const { base } = this.plan
    const options = this.options.roles ?? {}
    const roles = await Roles.open(client, base.roles, options)
    this.roles = roles
    if (done) roles.recall(done)
    const named = rolesNamed(base, [...pre, ...post, ...last], { ...options, isNewDatabase: this.workplace.isNew })
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
    const outcome = { tables: 0, rows: 0, proven: { tables: 0, rows: 0 }, notCompared: [] as string[] }
    for (const [source, table] of current) {
      if (table.kind !== 'r') continue
      outcome.tables++
      const restored = tables.restored(source)
      if (restored === undefined) {
        const { rows } = await first.query<{ rows: string }>(`SELECT count(*) AS rows FROM ONLY ${qualified(table)}`)
        outcome.rows += Number(rows[0]?.rows)
        outcome.notCompared.push(`${table.schema}.${table.name}`)
        continue
      }
      outcome.rows += restored.expected.rows
      outcome.proven.tables++
      outcome.proven.rows += restored.expected.rows
      const { columns } = restored.table
      if (!staged.has(source) && !this.points.has(proofOf(table)))
        known.push({ expected: restored.expected, table: { ...table, columns } })
    }
    await proveTables(lanes, known, {
      ...proving,
      onTable: async (client, table) => {
        await this.points.note(client, proofOf(table))
        proving.onTable?.(client, table)
      },
    })
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

  private async finish(schema: pg.Client, tables: TargetTables, views: ReadonlySet<string>): Promise<void> {
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
  }

  /** A view whose query fails is no reason to be left without the tables: it stays empty, as it can be filled later. */
  private async refresh(schema: pg.Client, view: QualifiedName): Promise<void> {
    try {
      const key = `view ${qualified(view)}`
      if (!this.points.has(key)) await this.points.run(schema, key, `REFRESH MATERIALIZED VIEW ${qualified(view)}`)
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
      points: this.points,
      name: phase,
      noted: phase === 'schema' ? 'as one' : 'each',
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
