import { randomBytes } from 'node:crypto'
import type pg from 'pg'
import { sleep } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { Throttle } from '../base/throttle.ts'
import { version as walbackVersion } from '../base/version.ts'
import type { QualifiedName, Table } from '../model/catalog.ts'
import { formatLsn } from '../model/lsn.ts'
import { inOneOrder } from '../model/selection.ts'
import { parseSnapshot } from '../model/snapshot.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { noTimeoutsSql, rowSettings } from '../postgres/row-session.ts'
import { readSourceFacts, type SourceFacts } from '../postgres/source.ts'
import {
  type BaseManifest,
  type BaseTable,
  headOf,
  objectsOf,
  storedBytesOf,
  writeManifest,
} from '../repository/base.ts'
import { removeObjects, type StoredTable } from '../repository/base-progress.ts'
import type { Repository } from '../repository/repository.ts'
import type { Timeline } from '../repository/timeline.ts'
import { type BaseBackupOptions, defaultLimits, type TakenBase } from './base-options.ts'
import { BaseRecord } from './base-record.ts'
import { BaseStore } from './base-store.ts'
import { storeLargeObjects } from './large-objects.ts'
import { LockWatch } from './lock-watch.ts'
import { refuseUnfit } from './preconditions.ts'
import { readSchema, type Schema } from './schema.ts'
import { type HeldSnapshot, takeSnapshot } from './snapshot.ts'
import { TableCopier } from './table-copier.ts'
import { type ClaimedBase, claimBase, removeDead } from './unfinished.ts'

/**
 * Takes a base backup, objects first and the manifest last. It neither waits for long transactions nor reads any
 * position off the log: which transactions of the stream are in the base is decided at restore, by their ids against
 * snapshots.
 *
 * Tables are read in rounds, each under a snapshot that parallel workers share; a round ends when its snapshot is too
 * old. The base is as its last snapshot sees the database. A table that was read under an earlier one, and was not
 * altered since, need not be read again: the stream brings it there (restore/stream.ts). So the last round has what
 * changed otherwise, and what the stream does not follow. A base that was interrupted is carried on in the same way.
 */
export async function takeBase(
  conninfo: Conninfo,
  repository: Repository,
  timeline: Timeline,
  given: BaseBackupOptions,
): Promise<TakenBase> {
  const { selection, signal } = given
  const options = { ...given, selection: selection && inOneOrder(selection) }
  const run = randomBytes(3).toString('hex')
  const application = (conninfo.applicationName ?? 'walback backup').slice(0, 40)
  const openSession = () =>
    connect({ ...conninfo, applicationName: application }, { settings: leaderSettings, ...(signal ? { signal } : {}) })
  const leader = await openSession()
  let looker: pg.Client | undefined
  try {
    await leader.query(noTimeoutsSql)
    await leader.query(`SET lock_timeout = ${options.lockTimeout_ms}`)
    const facts = await readSourceFacts(leader)
    await refuseUnfit(leader, repository, timeline, facts)
    const claimed = await claimBase(leader, repository, timeline, options)
    looker = await openSession()
    const workers = { ...conninfo, applicationName: `${application} ${run}` }
    await using watch = await LockWatch.open(
      conninfo,
      workers.applicationName,
      options.yieldAfter_ms ?? defaultLimits.yieldAfter_ms,
    )
    const store = new BaseStore({ repository, source: timeline.source, base: claimed.id, run, signal })
    const parts = { conninfo: workers, timeline, leader, looker, watch, store, facts, claimed, options }
    const { base, objects } = await new BaseBackup(parts).take()
    // By now nothing else is left of what was known of each table, of which there may be tens of thousands.
    await tidy(parts, base.id, new Set(objects))
    return base
  } finally {
    await looker?.end().catch(() => undefined)
    await leader.end().catch(() => undefined)
  }
}

const leaderSettings = { ...rowSettings, jit: 'off', statement_timeout: '900000' }

interface Parts {
  readonly conninfo: Conninfo
  readonly timeline: Timeline
  /** Holds the snapshots and the claim on the base. */
  readonly leader: pg.Client
  readonly looker: pg.Client
  readonly watch: LockWatch
  readonly store: BaseStore
  readonly facts: SourceFacts
  readonly claimed: ClaimedBase
  readonly options: BaseBackupOptions
}

/** A base that is complete, and the keys of what it names. */
interface Completed {
  readonly base: TakenBase
  readonly objects: readonly string[]
}

/** What a round that ends the base has found. */
interface Ended {
  readonly held: HeldSnapshot
  readonly schema: BaseManifest['schema']
  readonly catalogs: Schema['catalogs']
  readonly unpublished: readonly QualifiedName[]
}

class BaseBackup {
  private readonly parts: Parts
  private readonly record: BaseRecord
  private readonly copier: TableCopier
  private readonly done = new Map<number, StoredTable>()
  /** Tables that were altered or truncated between snapshot and lock, and so are the first to be read under the next. */
  private hasty: ReadonlySet<number> = new Set()
  private readonly counts = { tables: 0, raw_bytes: 0, rows: 0 }
  private isBegun: boolean

  constructor(parts: Parts) {
    this.parts = parts
    const { conninfo, timeline, leader, looker, watch, store, facts, claimed, options } = parts
    const isLeaderGone = endOf(leader)
    this.record = new BaseRecord(store)
    this.isBegun = claimed.stored !== undefined
    for (const table of claimed.stored ?? []) this.done.set(table.oid, table)
    this.copier = new TableCopier({
      conninfo,
      store,
      watch,
      looker,
      publications: timeline.publications,
      encoding: facts.encoding,
      jobs: options.jobs,
      lockTimeout_ms: options.lockTimeout_ms,
      throttle: options.maxRate === undefined ? undefined : new Throttle(options.maxRate),
      check: () => {
        if (isLeaderGone()) throw leaderIsGone()
      },
      onBytes: (bytes) => {
        this.counts.raw_bytes += bytes
        this.report()
      },
      onTable: async (table) => {
        this.done.set(table.oid, table)
        this.counts.rows += table.rows
        this.report()
        await this.record.add(table)
      },
      signal: options.signal,
    })
  }

  async take(): Promise<Completed> {
    const { leader, claimed, options } = this.parts
    if (claimed.stored !== undefined) {
      const raw_bytes = [...this.done.values()].reduce((sum, table) => sum + table.raw_bytes, 0)
      options.onProgress?.({ phase: 'resuming', base: claimed.id, tables: this.done.size, raw_bytes })
    }
    for (let fruitless = 0; ; ) {
      const before = new Set(this.done.values())
      const ended = await this.round()
      if (ended !== undefined) return await this.complete(ended)
      await leader.query('ROLLBACK')
      await this.record.flush()
      fruitless = [...this.done.values()].some((table) => !before.has(table)) ? 0 : fruitless + 1
      if (fruitless >= fruitlessRounds) throw keptChanging()
      await sleep(pause_ms * fruitless, options.signal)
    }
  }

  /** Copies under a new snapshot what is needed under it and not stored yet. Undefined: there has to be another one. */
  private async round(): Promise<Ended | undefined> {
    const { timeline, leader, options } = this.parts
    await options.preparation?.run()
    const held = await takeSnapshot(leader, {
      slotSnapshot: parseSnapshot(timeline.snapshot),
      publications: timeline.publications,
      selection: options.selection,
      onWait: (transactions) => options.onProgress?.({ phase: 'waiting', transactions }),
      signal: options.signal,
    })
    this.counts.tables = held.tables.length
    const prepared = await options.preparation?.check(leader)
    if (prepared?.isDone === false) return undefined
    if (!this.isBegun) await this.record.begin(beginningOf(this.parts))
    this.isBegun = true
    const needed = held.tables.filter(({ oid }) => this.isNeeded(held, oid))
    // What is truncated over and over is read as soon after the snapshot as can be.
    const isWell = await this.copy(
      held,
      needed.filter(({ oid }) => this.hasty.has(oid)),
    )
    if (!isWell) return undefined
    const read = await this.storeSchema(held)
    if (read === undefined) return undefined
    const isFollowed = (oid: number): boolean => held.looks.get(oid)?.isFollowed === true
    const followed = needed.filter(({ oid }) => isFollowed(oid))
    const isSame = await this.copy(held, followed, options.maxSnapshotAge_ms ?? defaultLimits.maxSnapshotAge_ms)
    if (!isSame || followed.some(({ oid }) => this.isNeeded(held, oid))) return undefined
    // Nothing brings these to a later snapshot, so this one has to last for them.
    const rest = needed.filter(({ oid }) => !isFollowed(oid))
    if (!(await this.copy(held, rest))) return undefined
    return { held, ...read, unpublished: prepared?.unpublished ?? [] }
  }

  /** At once, so that its text, megabytes where tables are many, is not held while rows are copied. */
  private async storeSchema(held: HeldSnapshot): Promise<Pick<Ended, 'schema' | 'catalogs'> | undefined> {
    const { conninfo, leader, watch, store, facts, options } = this.parts
    const read = await readSchema(conninfo, { leader, held, watch, serverVersion: facts.version, ...options })
    if (read === undefined) return undefined
    const { dump, catalogs } = read
    const preData = await store.text('schema/pre-data.wbt', dump.preData)
    const postData = await store.text('schema/post-data.wbt', dump.postData)
    return { schema: { tool: dump.tool, preData, postData }, catalogs }
  }

  private isNeeded({ looks, snapshotText }: HeldSnapshot, oid: number): boolean {
    const [stored, look] = [this.done.get(oid), looks.get(oid)]
    return stored?.stamp !== look?.stamp || (look?.isFollowed !== true && stored?.snapshot !== snapshotText)
  }

  /** False if tables had changed since the snapshot. */
  private async copy(held: HeldSnapshot, tables: HeldSnapshot['tables'], maxAge_ms?: number): Promise<boolean> {
    const left = tables.filter(({ oid }) => this.isNeeded(held, oid))
    const stale = await this.copier.copy(held, left, maxAge_ms)
    if (stale.size === 0) return true
    this.hasty = new Set([...this.hasty, ...stale])
    return false
  }

  private async complete({ held, schema, catalogs, unpublished }: Ended): Promise<Completed> {
    const { conninfo, leader, store, timeline, claimed, facts, options } = this.parts
    const { selection, signal } = options
    // They belong to no table, so a selection does not mean them.
    const largeObjects =
      selection === undefined
        ? await storeLargeObjects(conninfo, leader, held, store, { before: () => this.record.flush(), signal })
        : noLargeObjects
    const tables = held.tables.map((table) => this.tableOf(held, table))
    const manifest: BaseManifest = {
      walback: 'base',
      format: selection === undefined ? 1 : 2,
      id: claimed.id,
      source: timeline.source,
      timeline: timeline.id,
      started: claimed.started.toISOString(),
      finished: new Date().toISOString(),
      walbackVersion,
      serverVersion: facts.version,
      systemIdentifier: facts.systemIdentifier,
      snapshot: held.snapshotText,
      lsn: formatLsn(held.lsn),
      time: held.time.toString(),
      schema,
      ...catalogs,
      tables,
      ...(selection === undefined ? {} : { selection, leftOut: held.leftOut.map(nameOf), sizes: undefined }),
      largeObjects,
      ...(unpublished.length > 0 ? { unpublished: [...unpublished] } : {}),
      raw_bytes: held.tables.reduce((sum, { oid }) => sum + (this.done.get(oid)?.raw_bytes ?? 0), 0),
      stored_bytes: storedBytesOf({ schema, tables, largeObjects }),
    }
    // The session is there yet, and so is our claim.
    await leader.query('COMMIT')
    if (!(await writeManifest(store.repository, manifest))) throw takenOver(claimed.id)
    const rows = tables.reduce((sum, table) => sum + table.rows, 0)
    return {
      base: { ...headOf(manifest), tables: tables.length, rows, leftOut: held.leftOut.length },
      objects: objectsOf(manifest),
    }
  }

  private tableOf(held: HeldSnapshot, table: HeldSnapshot['tables'][number]): BaseTable {
    const { oid, schema, name, columns, types, extension, via } = table
    const { rows, hash, pieces, snapshot } = this.done.get(oid) as StoredTable
    return {
      oid,
      schema,
      name,
      columns,
      types,
      ...(extension ? { extension } : {}),
      ...(via ? { via } : {}),
      rows,
      hash,
      pieces,
      ...(snapshot === held.snapshotText ? {} : { snapshot }),
    }
  }

  private report(): void {
    const { tables, raw_bytes, rows } = this.counts
    this.parts.options.onProgress?.({ phase: 'rows', tables, stored: this.done.size, raw_bytes, rows })
  }
}

/** Removes what interrupted attempts have left. The base is whole without that; the next one tries it again. */
async function tidy({ store, claimed }: Parts, base: string, kept: ReadonlySet<string>): Promise<void> {
  const { repository, source } = store
  try {
    await removeObjects(repository, source, base, (key) => kept.has(key))
    await removeDead(repository, source, claimed.dead)
  } catch (error) {
    if (!(error instanceof WalbackError)) throw error
  }
}

/** Whether the session has ended, by itself or otherwise; it holds on to nothing but that. */
function endOf(client: pg.Client): () => boolean {
  let isGone = false
  client.once('end', () => {
    isGone = true
  })
  return () => isGone
}

const noLargeObjects: BaseManifest['largeObjects'] = { objects: [], data: [] }

const nameOf = ({ oid, schema, name }: Table) => ({ oid, schema, name })

const beginningOf = ({ timeline, claimed, options: { selection } }: Parts) =>
  ({
    walback: 'base begun',
    format: 1,
    base: claimed.id,
    timeline: timeline.id,
    systemIdentifier: timeline.systemIdentifier,
    database: timeline.database.oid,
    started: claimed.started.toISOString(),
    ...(selection === undefined ? {} : { selection }),
  }) as const

const fruitlessRounds = 12
const pause_ms = 200

const leaderIsGone = (): WalbackError =>
  new WalbackError('database', 'the session that holds the snapshot was lost', {
    hint: 'run the backup again: it goes on with what is stored',
    retryable: true,
  })

const takenOver = (id: string): WalbackError =>
  new WalbackError('locked', `base ${id} was completed or given up by another process meanwhile`, {
    hint: '`walback list` shows what there is',
  })

const keptChanging = (): WalbackError =>
  new WalbackError('database', 'the schema kept changing while it was read', {
    hint: 'run the backup again when the migration is done: it goes on with what is stored',
    retryable: true,
  })
