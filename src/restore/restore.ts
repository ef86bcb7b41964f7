import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { forEachParallel } from '../base/parallel.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified } from '../model/identifier.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { openRowSession } from '../postgres/row-session.ts'
import type { BaseTable, ObjectReference } from '../repository/base.ts'
import { readContainer } from '../repository/container.ts'
import type { Repository } from '../repository/repository.ts'
import { type Destination, prepareDestination } from './destination.ts'
import { Fold } from './fold.ts'
import { restoreLargeObjects } from './large-objects.ts'
import type { NetChanges } from './net-changes.ts'
import type { RestorePlan } from './plan.ts'
import { type OnProgress, Phase } from './progress.ts'
import { proveTables } from './proof.ts'
import { applyToTable, loadTable, type RestoredTable } from './rows.ts'
import { readStatements, runStatements, type SchemaStatements } from './schema.ts'
import { setSequences } from './sequences.ts'
import { isStaged, settleTables, stageTables } from './staged-tables.ts'
import { readChanges } from './stream.ts'

export interface RestoreOptions {
  /** Connections that load and check tables side by side. */
  readonly jobs: number
  /** Net changes are applied whenever they hold about this much memory. */
  readonly memory_bytes?: number
  readonly onProgress?: OnProgress
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
  /** What was left out, each in a line. */
  readonly warnings: readonly string[]
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
  const started = performance.now()
  const workplace = await prepareDestination(destination, plan.base.database)
  const work = new Restore(repository, plan, destination.conninfo, workplace.database, options)
  const interrupt = (): void => void work.interrupt()
  options.signal?.addEventListener('abort', interrupt, { once: true })
  try {
    const { rows, tables } = await work.run()
    await work.close()
    await workplace.finish((warning) => work.warnings.push(warning))
    return {
      database: destination.database,
      tables,
      rows,
      transactions: plan.transactions,
      duration_ms: Math.round(performance.now() - started),
      proven: { tables, rows },
      warnings: work.warnings,
    }
  } catch (error) {
    await work.close()
    await workplace.discard().catch((second: unknown) => {
      throw new WalbackError(
        'failed',
        `the restore failed (${messageOf(error)}), and so did cleaning up after it (${messageOf(second)})`,
        {
          cause: error,
          hint: `what is left is in database ${workplace.database}: drop it by hand`,
        },
      )
    })
    throwIfAborted(options.signal)
    throw error
  } finally {
    options.signal?.removeEventListener('abort', interrupt)
  }
}

/** An error that the server found in a statement; not one of the connection, the server's end, its disk or a cancellation. */
const isStatementError = (error: unknown): boolean => /^(?!08|53|57|58)[0-9A-Z]{5}$/.test(codeOf(error) ?? '')

const defaultMemory_bytes = 256 << 20

class Restore {
  readonly warnings: string[] = []
  private readonly repository: Repository
  private readonly plan: RestorePlan
  private readonly conninfo: Conninfo
  private readonly database: string
  private readonly options: RestoreOptions
  private readonly sessions: pg.Client[] = []

  constructor(
    repository: Repository,
    plan: RestorePlan,
    conninfo: Conninfo,
    database: string,
    options: RestoreOptions,
  ) {
    this.repository = repository
    this.plan = plan
    this.conninfo = conninfo
    this.database = database
    this.options = options
  }

  async run(): Promise<{ tables: number; rows: number }> {
    const { base, timeline } = this.plan
    const statements = await readStatements(
      await this.text(base.schema.preData),
      await this.text(base.schema.postData),
      timeline,
    )
    const schema = await this.open((conninfo) =>
      connect(conninfo, { database: this.database, application: 'walback restore' }),
    )
    await this.statements(schema, 'schema', statements.pre)
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
    const staged = await stageTables(first, base.tables, warn)
    const tables = await this.rows(lanes, staged)
    const proof = new Phase('proof', 'tables', tables.length, this.options.onProgress)
    const proving = { ...this.copying, onTable: () => proof.add(1) }
    await proveTables(
      lanes,
      tables.filter(({ table }) => isStaged(table)),
      proving,
    )
    await settleTables(first, base.tables, staged, warn)
    await restoreLargeObjects(first, this.repository, base.largeObjects, {
      onWarning: warn,
      signal: this.options.signal,
    })
    await this.finish(schema, statements)
    await proveTables(
      lanes,
      tables.filter(({ table }) => !isStaged(table)),
      proving,
    )
    return { tables: tables.length, rows: tables.reduce((sum, { expected }) => sum + expected.rows, 0) }
  }

  private get copying(): { readonly encoding: string; readonly signal: AbortSignal | undefined } {
    return { encoding: this.plan.base.database.encoding, signal: this.options.signal }
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

  /** Loads every table, folding the stream first as far as memory allows; what comes after is applied in rounds. */
  private async rows(lanes: readonly pg.Client[], staged: ReadonlyMap<number, BaseTable>): Promise<RestoredTable[]> {
    const { base, bytes } = this.plan
    const replay = new Phase('replay', 'bytes', bytes.segments, this.options.onProgress)
    const tables = base.tables.flatMap((table) => (isStaged(table) ? (staged.get(table.oid) ?? []) : table))
    const leftOut = base.tables.filter((table) => isStaged(table) && !staged.has(table.oid)).map((table) => table.oid)
    const ignored = [...base.tablesWithoutRows, ...leftOut]
    const fold = new Fold(base.tables, ignored, this.options.memory_bytes ?? defaultMemory_bytes)
    let restored: Map<number, RestoredTable> | undefined
    const apply = async (): Promise<void> => {
      const changes = fold.take()
      if (restored) await this.applyAll(lanes, restored, changes)
      else restored = await this.loadAll(lanes, tables, changes)
    }
    const changes = readChanges(this.repository, this.plan, {
      signal: this.options.signal,
      onBytes: (stored) => replay.add(stored),
    })
    for await (const block of changes) {
      for (const change of block) {
        if (!fold.add(change)) {
          await apply()
          fold.add(change)
        }
        if (fold.isFull) await apply()
      }
    }
    await apply()
    return [...(restored as unknown as Map<number, RestoredTable>).values()]
  }

  private async loadAll(
    lanes: readonly pg.Client[],
    tables: readonly BaseTable[],
    changes: ReadonlyMap<number, NetChanges>,
  ): Promise<Map<number, RestoredTable>> {
    const { base } = this.plan
    const phase = new Phase('rows', 'bytes', base.raw_bytes, this.options.onProgress)
    const restored = new Map<number, RestoredTable>()
    const largestFirst = [...tables].sort((a, b) => b.rows - a.rows)
    await forEachParallel(largestFirst, lanes.length, async (table: BaseTable, lane) => {
      const options = { ...this.copying, onBytes: (raw: number) => phase.add(raw) }
      restored.set(
        table.oid,
        await loadTable(lanes[lane] as pg.Client, this.repository, table, changes.get(table.oid), options),
      )
    })
    return restored
  }

  private async applyAll(
    lanes: readonly pg.Client[],
    restored: ReadonlyMap<number, RestoredTable>,
    changes: ReadonlyMap<number, NetChanges>,
  ): Promise<void> {
    await forEachParallel(changes, lanes.length, async ([oid, net], lane) => {
      await applyToTable(lanes[lane] as pg.Client, restored.get(oid) as RestoredTable, net, this.copying)
    })
  }

  private async finish(schema: pg.Client, statements: SchemaStatements): Promise<void> {
    const { base, sequences } = this.plan
    await this.statements(schema, 'indexes', statements.post)
    await setSequences(schema, sequences)
    const populated = new Set(base.materializedViews.map(qualified))
    for (const view of statements.views) {
      throwIfAborted(this.options.signal)
      if (populated.has(qualified(view))) await this.refresh(schema, view)
    }
    await runStatements(schema, statements.last, {
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
    statements: SchemaStatements['pre'],
  ): Promise<void> {
    const progress = new Phase(phase, 'statements', statements.length, this.options.onProgress)
    await runStatements(client, statements, {
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

  private async text(reference: ObjectReference): Promise<string> {
    const parts: Buffer[] = []
    for await (const part of readContainer(this.repository.storage, reference, this.options.signal)) {
      if (part.kind === 'block') parts.push(part.raw)
    }
    return Buffer.concat(parts).toString('utf8')
  }
}
