import type pg from 'pg'
import { z } from 'zod'
import { forEachParallel } from '../base/parallel.ts'
import { RowHash } from '../codec/row-hash.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified } from '../model/identifier.ts'
import type { BaseTable } from '../repository/base.ts'
import type { Change } from '../repository/change-reader.ts'
import type { Repository } from '../repository/repository.ts'
import type { Checkpoints } from './checkpoints.ts'
import { DdlReplay } from './ddl-replay.ts'
import { checkForm, Fold, type Folded } from './fold.ts'
import type { NetChanges } from './net-changes.ts'
import type { RestorePlan } from './plan.ts'
import { type OnProgress, Phase } from './progress.ts'
import { ReplayRoles } from './replay-roles.ts'
import { ReplaySession } from './replay-session.ts'
import type { Roles } from './roles.ts'
import { applyToTable, loadTable, type RestoredTable } from './rows.ts'
import { quietly, type TargetTable, type TargetTables } from './target-tables.ts'
import { leftOutShape, type UnreadableRows } from './unreadable-rows.ts'

const tableState = z.object({
  turn: z.number(),
  rows: z.number(),
  hash: z.string(),
  raw: z.number(),
  leftOut: leftOutShape,
})

export const keyOf = ({ oid }: BaseTable): string => `table ${oid}`

export interface ReplayOptions {
  readonly memory_bytes: number
  /** The source's encoding, in which its rows are. */
  readonly encoding: string
  readonly unreadable: UnreadableRows
  /** Sets the search_path of the source's applications. */
  readonly sourcePathSql: string
  /** The tables to load in place of the base's, by their ids: those beside that staged ones go through. */
  readonly staged: ReadonlyMap<number, BaseTable>
  /** Relations that the stream may name, and whose rows are none of ours. */
  readonly isIgnored: (oid: number) => boolean
  /** Ends the loading of the base: what is left of its schema is made. */
  readonly complete: (tables: readonly RestoredTable[]) => Promise<void>
  readonly points: Checkpoints
  /** Called before the first change of the schema, from where on nothing is noted any more. */
  readonly onDdl: () => Promise<void>
  readonly roles: Roles
  /** Provides roles that the stream names, on a session that is in no transaction. */
  readonly provideRoles: (named: ReadonlySet<string>) => Promise<void>
  readonly warn: (warning: string) => void
  readonly onProgress?: OnProgress | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Rows and changes of the schema, in the order of the stream. As long as there is no change of the schema, changes of
 * rows are folded and merged with the base on its way in, side by side over the tables, before there is any index. The
 * first change of the schema completes the database as the base has it; from then on one session applies what was
 * folded whenever the next change may depend on it.
 */
export class Replay {
  private readonly repository: Repository
  private readonly plan: RestorePlan
  private readonly lanes: readonly pg.Client[]
  private readonly tables: TargetTables
  private readonly options: ReplayOptions
  private readonly fold: Fold
  private readonly base: ReadonlyMap<number, BaseTable>
  private loaded: Map<number, RestoredTable> | undefined
  /** How many times what was folded has been applied; the same in each attempt, since the stream and the memory are. */
  private turn = 0
  private session: ReplaySession | undefined
  private ddl: DdlReplay | undefined

  constructor(
    repository: Repository,
    plan: RestorePlan,
    lanes: readonly pg.Client[],
    tables: TargetTables,
    options: ReplayOptions,
  ) {
    this.repository = repository
    this.plan = plan
    this.lanes = lanes
    this.tables = tables
    this.options = options
    this.base = new Map(plan.base.tables.map((table) => [table.oid, table]))
    this.fold = new Fold({
      isIgnored: options.isIgnored,
      generatedColumns: ({ oid }) => tables.generatedColumns(oid),
      budget_bytes: options.memory_bytes,
    })
  }

  async run(changes: AsyncIterable<Iterable<Change>>): Promise<void> {
    for await (const block of changes) {
      for (const change of block) {
        // Most changes only fold: nothing to wait for.
        const pending = this.take(change)
        if (pending !== undefined) await pending
      }
    }
    if (this.session) await this.session.begin()
    await this.flush()
    if (this.loaded === undefined) await this.load(new Map())
    await this.ddl?.commit()
    for (const warning of this.ddl?.warnings() ?? []) this.options.warn(warning)
    this.tellUnknown()
    if (this.session === undefined) await this.complete()
    else await this.session.finish()
  }

  /** Materialized views that the stream filled or emptied, by their ids on the target. */
  populatedViews(): readonly { readonly target: string; readonly populated: boolean }[] {
    return this.ddl?.populatedViews() ?? []
  }

  private take(change: Change): Promise<void> | undefined {
    if (change.kind === 'row' || change.kind === 'truncate') {
      if (!this.fold.add(change)) return this.flush().then(() => void this.fold.add(change))
      return this.fold.isFull ? this.flush() : undefined
    }
    if (change.kind === 'ddl') return this.command(change.message)
    return this.ddl === undefined ? undefined : this.commit()
  }

  private async command(message: Extract<Change, { kind: 'ddl' }>['message']): Promise<void> {
    this.ddl ??= await this.beginDdl()
    await this.ddl.take(message)
  }

  /** What a transaction deferred holds at its end, so everything it did has to be there. */
  private async commit(): Promise<void> {
    if (this.session?.isOpen) await this.flush()
    await this.ddl?.commit()
  }

  private async beginDdl(): Promise<DdlReplay> {
    await this.flush()
    if (this.loaded === undefined) await this.load(new Map())
    await this.complete()
    await this.options.onDdl()
    const [client] = this.lanes as [pg.Client]
    const session = new ReplaySession(client)
    await session.prepare()
    this.session = session
    const { roles, provideRoles } = this.options
    return new DdlReplay(session, this.tables, {
      roles: new ReplayRoles(roles, provideRoles, this.plan.base.serverVersion),
      flush: () => this.flush(),
      forget: (source) => this.fold.forget(source),
      versions: { source: this.plan.base.serverVersion, target: session.serverVersion },
      signal: this.options.signal,
    })
  }

  private async complete(): Promise<void> {
    await this.options.complete([...(this.loaded as ReadonlyMap<number, RestoredTable>).values()])
  }

  /** Applies what is folded, but for relations that are not known: what makes them may come later in the transaction. */
  private async flush(): Promise<void> {
    if (this.fold.isEmpty) return
    if (this.session)
      return this.applyInOrder(
        this.session,
        this.fold.take((oid) => this.tables.has(oid)),
      )
    const changes = this.fold.take((oid) => this.base.has(oid))
    for (const [oid, { relation }] of changes) checkForm(relation, this.base.get(oid), 'same order')
    if (this.loaded === undefined) await this.load(changes)
    else await this.applySideBySide(this.loaded, changes)
  }

  private async load(changes: ReadonlyMap<number, Folded>): Promise<void> {
    const { base } = this.plan
    // How much of it some of the tables are, nobody knows.
    const total = this.plan.selected === undefined ? base.raw_bytes : undefined
    const phase = new Phase('rows', 'bytes', total, this.options.onProgress)
    const restored = new Map<number, RestoredTable>()
    const tables = base.tables.flatMap(
      (table) => this.options.staged.get(table.oid) ?? (this.options.isIgnored(table.oid) ? [] : table),
    )
    const largestFirst = tables.sort((a, b) => b.rows - a.rows)
    await forEachParallel(largestFirst, this.lanes.length, async (table, lane) => {
      const client = this.lanes[lane] as pg.Client
      const known = this.known(table)
      if (known) phase.add(known.raw)
      const loaded = known?.restored ?? (await this.loadOne(client, table, changes.get(table.oid)?.changes, phase))
      restored.set(table.oid, loaded)
      this.tables.setRestored(table.oid, loaded)
    })
    this.loaded = restored
  }

  private async loadOne(
    client: pg.Client,
    table: BaseTable,
    changes: NetChanges | undefined,
    phase: Phase,
  ): Promise<RestoredTable> {
    let raw = 0
    const onBytes = (bytes: number, rows: number): void => {
      raw += bytes
      phase.add(bytes, rows)
    }
    const { points } = this.options
    const load = () => loadTable(client, this.repository, table, changes, { ...this.options, onBytes })
    try {
      if (changes === undefined && table.rows === 0) return await load()
      return await points.together(client, keyOf(table), load, (loaded) => this.stateOf(loaded, raw))
    } catch (error) {
      this.refused(table.oid, table, error)
      const loaded = { table, expected: new RowHash() }
      await points.note(client, keyOf(table), this.stateOf(loaded, raw))
      return loaded
    }
  }

  /** What is to be noted of a table: what has been applied to it, and what its rows must be then. */
  private stateOf({ table, expected }: RestoredTable, raw = 0): z.infer<typeof tableState> {
    const { turn } = this
    return { turn, rows: expected.rows, hash: expected.digest(), raw, leftOut: this.options.unreadable.of(table) }
  }

  /** What an earlier attempt has noted of it. */
  private known(table: BaseTable): { turn: number; raw: number; restored: RestoredTable } | undefined {
    const state = this.options.points.get(keyOf(table), tableState)
    if (state === undefined) return undefined
    this.options.unreadable.recall(table, state.leftOut)
    return { ...state, restored: { table, expected: RowHash.from(state.rows, state.hash) } }
  }

  private async applySideBySide(
    loaded: ReadonlyMap<number, RestoredTable>,
    changes: ReadonlyMap<number, Folded>,
  ): Promise<void> {
    this.turn++
    await forEachParallel(changes, this.lanes.length, async ([oid, { changes: net }], lane) => {
      const client = this.lanes[lane] as pg.Client
      const table = loaded.get(oid)
      if (table === undefined || (this.known(table.table)?.turn ?? 0) >= this.turn) return
      const apply = () => applyToTable(client, table, net, this.options)
      await this.options.points.together(client, keyOf(table.table), apply, () => this.stateOf(table))
    })
  }

  private async applyInOrder(session: ReplaySession, changes: ReadonlyMap<number, Folded>): Promise<void> {
    await session.begin()
    const current = await this.tables.current(session.client, [...changes.keys()])
    const emptied = await this.emptySpread(session, current, changes)
    for (const [oid, { relation, changes: net }] of changes) {
      const table = current.get(oid)
      if (table?.kind === 'p') continue
      checkForm(relation, table && { ...table, types: this.tables.typesInBase(oid) }, 'any order')
      if (table === undefined) continue
      const filled = {
        table: { ...table, columns: relation.columns.map((column) => column.name) },
        expected: this.tables.restored(oid)?.expected,
        isReferenced: table.isReferenced,
        isEmptied: emptied.has(oid),
      }
      const put = () => applyToTable(session.client, filled, net, this.options)
      await session
        .attempt(() => quietly(session.client, table, put))
        .catch((error: unknown) => this.refused(oid, table, error))
    }
  }

  /**
   * Partitions whose rows may be in others here can be emptied all at once only. Gives those that need no emptying any
   * more.
   */
  private async emptySpread(
    session: ReplaySession,
    current: ReadonlyMap<number, TargetTable>,
    changes: ReadonlyMap<number, Folded>,
  ): Promise<ReadonlySet<number>> {
    const spread = [...current].flatMap(([oid, table]) =>
      table.spreadOver && changes.get(oid)?.changes.replacesAll
        ? [{ oid, top: table.spreadOver, name: qualified(table) }]
        : [],
    )
    for (const top of new Set(spread.map((one) => qualified(one.top)))) {
      const of = spread.filter((one) => qualified(one.top) === top)
      const { rows } = await session.client.query<{ leaves: number }>(
        'SELECT count(*)::int AS leaves FROM pg_catalog.pg_partition_tree($1::regclass) WHERE isleaf',
        [top],
      )
      if (rows[0]?.leaves === of.length) await session.client.query(`DELETE FROM ${top}`)
      else
        this.options.warn(
          `not replayed: TRUNCATE of ${of.map(({ name }) => name).join(', ')}, since by the hash of an enum its rows are in other partitions here`,
        )
    }
    return new Set(spread.map(({ oid }) => oid))
  }

  /** Rows that the server does not take are no reason to be left without the others. */
  private refused(oid: number, table: QualifiedName, error: unknown): void {
    if (!this.options.unreadable.refuse(table, error)) throw error
    this.tables.forgetRows(oid)
  }

  /** Rows of tables whose making is not in the stream (EXPLAIN ANALYZE CREATE TABLE AS tells nobody, for one). */
  private tellUnknown(): void {
    for (const [, { relation }] of this.fold.take(() => true)) {
      const name = `${relation.schema}.${relation.name}`
      if (this.plan.timeline.ddl === 'none') checkForm(relation, undefined, 'same order')
      this.options.warn(`left out: table ${name}, which was made in a way that the stream does not tell`)
    }
  }
}
