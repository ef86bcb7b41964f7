import { randomBytes } from 'node:crypto'
import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { forEachParallel } from '../base/parallel.ts'
import { version as walbackVersion } from '../base/version.ts'
import { compressBlock } from '../codec/block.ts'
import { RowHash } from '../codec/row-hash.ts'
import type { LargeObject, QualifiedName, Table } from '../model/catalog.ts'
import { qualified, quoteIdent } from '../model/identifier.ts'
import { formatLsn } from '../model/lsn.ts'
import { parseSnapshot } from '../model/snapshot.ts'
import {
  definitionsStamp,
  largeObjectDataSql,
  readDatabase,
  readLargeObjects,
  readPopulatedViews,
  readRoles,
  readSequences,
  readTablesWithoutRows,
} from '../postgres/catalog.ts'
import { readCatalogStamp } from '../postgres/catalog-stamp.ts'
import { readNotCarried } from '../postgres/check-sql.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { copyOptions, noTimeoutsSql, openRowSession, rowSettings } from '../postgres/row-session.ts'
import { dumpSchema } from '../postgres/schema-dump.ts'
import { readSlot, readSourceFacts } from '../postgres/source.ts'
import { type BaseManifest, type BaseTable, type ObjectReference, writeManifest } from '../repository/base.ts'
import { ContainerWriter } from '../repository/container.ts'
import { basePrefix } from '../repository/layout.ts'
import type { Repository } from '../repository/repository.ts'
import { readHead } from '../repository/segments.ts'
import type { Timeline } from '../repository/timeline.ts'
import { type StoredRows, storeRows } from './rows.ts'
import { type HeldSnapshot, takeSnapshot } from './snapshot.ts'

export interface BaseBackupOptions {
  /** Connections that copy rows side by side. */
  readonly jobs: number
  readonly lockTimeout_ms: number
  /** Publishes tables before the snapshot; says, as that sees it, whether all is done, or it has to be done again. */
  readonly preparation?: {
    readonly run: () => Promise<void>
    readonly check: (
      leader: pg.Client,
    ) => Promise<{ readonly isDone: boolean; readonly unpublished: readonly QualifiedName[] }>
  }
  readonly onProgress?: (progress: BaseProgress) => void
  readonly signal?: AbortSignal | undefined
}

export type BaseProgress =
  | { readonly phase: 'waiting'; readonly transactions: number }
  | {
      readonly phase: 'rows'
      readonly tables: number
      readonly pieces: number
      readonly raw_bytes: number
      readonly rows: number
    }

/**
 * Takes a base backup: everything under one snapshot that parallel workers share, objects first and the manifest last.
 * It neither waits for long transactions nor reads any position off the log: which transactions of the stream are in
 * the base is decided at restore, by their ids against the snapshot.
 */
export async function takeBase(
  conninfo: Conninfo,
  repository: Repository,
  timeline: Timeline,
  options: BaseBackupOptions,
): Promise<BaseManifest> {
  const started = new Date()
  const id = `${started.toISOString().replace(/[-:]|\.\d+/g, '')}-${randomBytes(3).toString('hex')}`
  const leader = await connect(conninfo, { settings: leaderSettings, ...signalOf(options) })
  try {
    await leader.query(noTimeoutsSql)
    const facts = await readSourceFacts(leader)
    await refuseBrokenStream(leader, repository, timeline, facts)
    for (let attempt = 1; ; attempt++) {
      await options.preparation?.run()
      const held = await takeSnapshot(leader, {
        lockTimeout_ms: options.lockTimeout_ms,
        slotSnapshot: parseSnapshot(timeline.snapshot),
        onWait: (transactions) => options.onProgress?.({ phase: 'waiting', transactions }),
        signal: options.signal,
      })
      const prefix = basePrefix(timeline.source, attempt === 1 ? id : `${id}.${attempt}`)
      const prepared = await options.preparation?.check(leader)
      const isReady = prepared?.isDone ?? true
      const schema = isReady ? await readSchema(conninfo, leader, held, facts.version, options) : undefined
      if (schema === undefined) {
        await leader.query('ROLLBACK')
        if (attempt < schemaAttempts) continue
        throw new WalbackError('database', 'the schema kept changing while it was read', {
          hint: 'run the backup again when the migration is done',
          retryable: true,
        })
      }
      const store = new BaseStore(repository, prefix, options.signal)
      const preData = await store.text('schema/pre-data.wbt', schema.preData)
      const postData = await store.text('schema/post-data.wbt', schema.postData)
      const { tables, raw_bytes } = await storeTables(conninfo, held, store, facts.encoding, options)
      const largeObjects = await storeLargeObjects(conninfo, leader, held, store, options)
      const manifest: BaseManifest = {
        walback: 'base',
        format: 1,
        id: prefix.split('/').at(-2) ?? id,
        source: timeline.source,
        timeline: timeline.id,
        started: started.toISOString(),
        finished: new Date().toISOString(),
        walbackVersion,
        serverVersion: facts.version,
        systemIdentifier: facts.systemIdentifier,
        database: await readDatabase(leader, facts.version),
        snapshot: held.snapshotText,
        lsn: formatLsn(held.lsn),
        time: held.time.toString(),
        schema: { tool: schema.tool, preData, postData },
        ...(await catalogOf(leader)),
        tables,
        tablesWithoutRows: await readTablesWithoutRows(leader),
        sequences: await readSequences(leader),
        materializedViews: await readPopulatedViews(leader),
        largeObjects,
        roles: await readRoles(leader),
        notCarried: await readNotCarried(leader),
        ...(prepared?.unpublished.length ? { unpublished: [...prepared.unpublished] } : {}),
        raw_bytes,
        stored_bytes: store.stored_bytes,
      }
      await leader.query('COMMIT')
      await writeManifest(repository, manifest)
      return manifest
    }
  } finally {
    await leader.end().catch(() => undefined)
  }
}

const leaderSettings = { ...rowSettings, jit: 'off' }
const schemaAttempts = 4
const signalOf = (options: { readonly signal?: AbortSignal | undefined }): { signal?: AbortSignal } =>
  options.signal === undefined ? {} : { signal: options.signal }

/** The catalogs' stamp; nothing where the role may not read them, which is no reason to have no base. */
async function catalogOf(leader: pg.Client): Promise<Pick<BaseManifest, 'catalog'>> {
  await leader.query('SAVEPOINT catalog')
  try {
    return { catalog: await readCatalogStamp(leader) }
  } catch (error) {
    if (codeOf(error) === undefined) throw error
    await leader.query('ROLLBACK TO SAVEPOINT catalog')
    return {}
  }
}

/** A base without a stream to carry it on would only look like a backup. */
async function refuseBrokenStream(
  leader: pg.Client,
  repository: Repository,
  timeline: Timeline,
  facts: { readonly systemIdentifier: string; readonly database: { readonly oid: number } },
): Promise<void> {
  if (facts.systemIdentifier !== timeline.systemIdentifier || facts.database.oid !== timeline.database.oid) {
    throw new WalbackError('refused', `this database is another one than ${timeline.source}'s archive was made from`, {
      hint: 'check --db, or use another --source name',
    })
  }
  const slot = await readSlot(leader, timeline.slot)
  const head = await readHead(repository, timeline)
  const isBehind = slot?.confirmedFlushLsn !== undefined && slot.confirmedFlushLsn <= head.end
  // An active slot may have been confirmed further than the head that was read a moment before.
  if (slot !== undefined && slot.walStatus !== 'lost' && (isBehind || slot.active)) return
  throw new WalbackError('gap', `the replication slot ${timeline.slot} does not carry the archive on`, {
    hint: 'run `walback init` to begin a new timeline, then take the base',
  })
}

/** The schema as the snapshot sees it; undefined when DDL committed while it was read, since parts of it are read as of now. */
async function readSchema(
  conninfo: Conninfo,
  leader: pg.Client,
  held: HeldSnapshot,
  serverVersion: number,
  options: BaseBackupOptions,
): Promise<Awaited<ReturnType<typeof dumpSchema>> | undefined> {
  const inSnapshot = await definitionsStamp(leader)
  const schema = await dumpSchema(conninfo, {
    snapshot: held.exported,
    serverVersion,
    excludeSchemas: ['walback'],
    lockTimeout_ms: options.lockTimeout_ms,
    ...signalOf(options),
  })
  const fresh = await connect(conninfo, { settings: leaderSettings, ...signalOf(options) })
  try {
    return (await definitionsStamp(fresh)) === inSnapshot ? schema : undefined
  } finally {
    await fresh.end().catch(() => undefined)
  }
}

/** Puts the objects of one base, and adds up what they take. */
class BaseStore {
  stored_bytes = 0
  readonly storage: Repository['storage']
  private readonly prefix: string
  private readonly signal: AbortSignal | undefined

  constructor(repository: Repository, prefix: string, signal: AbortSignal | undefined) {
    this.storage = repository.storage
    this.prefix = prefix
    this.signal = signal
  }

  key(name: string): string {
    return `${this.prefix}${name}`
  }

  account(stored: ObjectReference): ObjectReference {
    this.stored_bytes += stored.size_bytes
    return { key: stored.key, size_bytes: stored.size_bytes, sha256: stored.sha256 }
  }

  async text(name: string, text: string): Promise<ObjectReference> {
    const container = new ContainerWriter()
    const parts = [container.header({ kind: 'text', name })]
    const bytes = Buffer.from(text, 'utf8')
    for (let at = 0; at < bytes.length; at += textBlockBytes) {
      parts.push(container.add(await compressBlock(bytes.subarray(at, at + textBlockBytes), 1)))
    }
    parts.push(container.end({ kind: 'text' }))
    const key = this.key(name)
    await this.storage.put(key, Buffer.concat(parts), { ifAbsent: true, signal: this.signal })
    return this.account({ key, size_bytes: container.size_bytes, sha256: container.sha256 })
  }
}

const textBlockBytes = 1 << 20

interface Piece {
  readonly table: Table
  readonly index: number
  /** Heap pages [first, next); the last piece of a table has no end, for pages added since. */
  readonly pages: { readonly first: number; readonly next: number | undefined } | undefined
}

/** Large tables in ranges of pages, the largest first, so that no worker is left with one at the end. */
export function planPieces(tables: readonly Table[]): Piece[] {
  const sorted = [...tables].sort((a, b) => b.pages - a.pages)
  return sorted.flatMap((table): Piece[] => {
    if (table.pages <= pagesPerPiece) return [{ table, index: 0, pages: undefined }]
    const count = Math.ceil(table.pages / pagesPerPiece)
    return Array.from({ length: count }, (_, index) => ({
      table,
      index,
      pages: { first: index * pagesPerPiece, next: index === count - 1 ? undefined : (index + 1) * pagesPerPiece },
    }))
  })
}

/** 128 MiB. */
const pagesPerPiece = 16_384

function copySql({ table, pages }: Piece, encoding: string): string {
  // Without a list COPY takes all columns but generated ones, also where there are none.
  if (pages === undefined) return `COPY ${qualified(table)} TO STDOUT ${copyOptions(encoding)}`
  const columns = table.columns.map(quoteIdent).join(', ')
  const end = pages.next === undefined ? '' : ` AND ctid < '(${pages.next},0)'::tid`
  return `COPY (SELECT ${columns} FROM ONLY ${qualified(table)} WHERE ctid >= '(${pages.first},0)'::tid${end}) TO STDOUT ${copyOptions(encoding)}`
}

async function storeTables(
  conninfo: Conninfo,
  held: HeldSnapshot,
  store: BaseStore,
  encoding: string,
  options: BaseBackupOptions,
): Promise<{ tables: BaseTable[]; raw_bytes: number }> {
  const pieces = planPieces(held.tables)
  const stored = new Map<number, StoredRows[]>()
  let [raw_bytes, rows, done] = [0, 0, 0]
  const report = (): void =>
    options.onProgress?.({ phase: 'rows', tables: held.tables.length, pieces: done, raw_bytes, rows })
  await withWorkers(conninfo, held, options, Math.min(options.jobs, pieces.length), (workers) =>
    forEachParallel(pieces, workers.length, async (piece, lane) => {
      throwIfAborted(options.signal)
      const { table, index } = piece
      const name = `rows/${table.oid}.${String(index).padStart(5, '0')}.wbr`
      const header = { kind: 'rows', schema: table.schema, name: table.name, columns: table.columns }
      const result = await storeRows(
        workers[lane] as pg.Client,
        copySql(piece, encoding),
        { storage: store.storage, key: store.key(name), header },
        {
          signal: options.signal,
          onBytes: (bytes) => {
            raw_bytes += bytes
            report()
          },
        },
      ).catch((error: unknown) => {
        throw codeOf(error) === '54000' ? tooLarge(table, error) : error
      })
      rows += result.rows
      done++
      const parts = stored.get(table.oid) ?? []
      parts[index] = result
      stored.set(table.oid, parts)
      report()
    }),
  )
  const tables = held.tables.map(({ oid, schema, name, columns, types, extension, via }): BaseTable => {
    const parts = stored.get(oid) ?? []
    const hash = new RowHash()
    for (const part of parts) hash.merge(part.hash)
    return {
      oid,
      schema,
      name,
      columns: [...columns],
      types: [...types],
      ...(extension ? { extension } : {}),
      ...(via ? { via } : {}),
      rows: hash.rows,
      hash: hash.digest(),
      pieces: parts.map((part) => ({ ...store.account(part), rows: part.rows })),
    }
  })
  return { tables, raw_bytes }
}

/** COPY builds a line in one piece of memory, which PostgreSQL bounds. */
const tooLarge = (table: Table, cause: unknown): WalbackError =>
  new WalbackError('database', `table ${table.schema}.${table.name} cannot be read: ${messageOf(cause)}`, {
    cause,
    hint: 'it has a row that takes 1 GiB or more as text (a byte of bytea takes two); COPY, and pg_dump, cannot write it',
  })

async function storeLargeObjects(
  conninfo: Conninfo,
  leader: pg.Client,
  held: HeldSnapshot,
  store: BaseStore,
  options: BaseBackupOptions,
): Promise<{ objects: LargeObject[]; data: ObjectReference[] }> {
  const objects = await readLargeObjects(leader)
  if (objects.length === 0) return { objects, data: [] }
  const sql = `COPY (${await largeObjectDataSql(leader)}) TO STDOUT`
  const data: ObjectReference[] = []
  await withWorkers(conninfo, held, options, 1, async ([worker]) => {
    const target = {
      storage: store.storage,
      key: store.key('large-objects/00000.wbr'),
      header: { kind: 'large objects' },
    }
    data.push(store.account(await storeRows(worker as pg.Client, sql, target, { signal: options.signal })))
  })
  return { objects, data }
}

/** Sessions that read under the held snapshot. */
async function withWorkers(
  conninfo: Conninfo,
  held: HeldSnapshot,
  options: BaseBackupOptions,
  count: number,
  work: (workers: pg.Client[]) => Promise<void>,
): Promise<void> {
  const workers: pg.Client[] = []
  try {
    for (let n = 0; n < count; n++) {
      const worker = await openRowSession(conninfo, signalOf(options))
      workers.push(worker)
      await worker.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
      await worker.query(`SET TRANSACTION SNAPSHOT '${held.exported}'`)
    }
    await work(workers)
  } finally {
    await Promise.all(workers.map((worker) => worker.end().catch(() => undefined)))
  }
}
