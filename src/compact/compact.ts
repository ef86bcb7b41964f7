import { randomBytes } from 'node:crypto'
import { BaseStore } from '../backup/base-store.ts'
import { joined, type StoredRows, storeLines } from '../backup/rows.ts'
import { deadCompactions, drawBaseId, removeDead } from '../backup/unfinished.ts'
import { WalbackError } from '../base/errors.ts'
import { forEachParallel } from '../base/parallel.ts'
import { Throttle } from '../base/throttle.ts'
import { version as walbackVersion } from '../base/version.ts'
import { compressBlock } from '../codec/block.ts'
import type { Sequence } from '../model/catalog.ts'
import { formatLsn } from '../model/lsn.ts'
import type { RelationMessage } from '../model/pgoutput.ts'
import { parseSnapshot } from '../model/snapshot.ts'
import {
  type BaseManifest,
  type BaseTable,
  type ObjectReference,
  objectsOf,
  storedBytesOf,
  writeManifest,
} from '../repository/base.ts'
import { listBegun, removeObjects, writeBeginning } from '../repository/base-progress.ts'
import type { Change } from '../repository/change-reader.ts'
import { type ContainerKind, ContainerWriter, readContainer } from '../repository/container.ts'
import { basePrefix } from '../repository/layout.ts'
import type { Repository } from '../repository/repository.ts'
import { checkForm, Fold, type Folded } from '../restore/fold.ts'
import { mergedRows } from '../restore/merge.ts'
import type { NetChanges } from '../restore/net-changes.ts'
import { type OnProgress, Phase } from '../restore/progress.ts'
import { underLease } from '../restore/reading-lease.ts'
import { readChanges } from '../restore/stream.ts'
import type { CompactionEnd } from './plan.ts'

export interface CompactOptions {
  /** Tables that are written side by side. */
  readonly jobs: number
  /** Tables are written anew whenever the net changes hold about this much memory; `compactMemory_bytes` if not given. */
  readonly memory_bytes?: number | undefined
  /** Bytes a second, of the stream as it is stored and of rows as text; as fast as it goes if not given. */
  readonly maxRate?: number | undefined
  readonly onProgress?: OnProgress | undefined
  /** How often it renews what it says to a prune; its default suits all but tests. */
  readonly lease_ms?: number | undefined
  readonly signal?: AbortSignal | undefined
}

const compactMemory_bytes = 256 << 20
/** Of rows as text: about what a base of the source has in one. */
const piece_bytes = 128 << 20

/**
 * Makes a base out of another and the segments after it, without a server: the net changes of the stream are merged with
 * the rows, as a restore does it. What is written is what a base would have had that the heartbeat's snapshot was taken
 * for; what the stream does not carry (large objects, unlogged tables, roles) stays as the base had it, and the manifest
 * says from when that is.
 */
export async function compact(
  repository: Repository,
  end: CompactionEnd,
  options: CompactOptions,
): Promise<BaseManifest> {
  return underLease(
    repository,
    end.plan,
    async ({ signal, token, note }) => {
      if (token === undefined) throw new WalbackError('storage', note ?? 'no lease could be written')
      const signals = [options.signal, signal].filter((one) => one !== undefined)
      const work = new Compaction(repository, end, { ...options, signal: AbortSignal.any(signals) })
      return await work.run(token)
    },
    { purpose: 'compact', interval_ms: options.lease_ms },
  )
}

/** A table as far as it is written anew. */
interface Made {
  readonly table: BaseTable
  /** Its rows as text; undefined as long as it is the old base's. */
  readonly raw_bytes: number | undefined
}

class Compaction {
  private readonly repository: Repository
  private readonly end: CompactionEnd
  private readonly base: BaseManifest
  private readonly options: CompactOptions
  private readonly started = new Date()
  private readonly store: BaseStore
  private readonly fold: Fold
  private readonly throttle: Throttle | undefined
  private readonly tables: Map<number, Made>
  private rowsPhase: Phase | undefined

  constructor(repository: Repository, end: CompactionEnd, options: CompactOptions) {
    this.repository = repository
    this.end = end
    this.base = end.plan.base
    this.options = options
    this.throttle = options.maxRate === undefined ? undefined : new Throttle(options.maxRate)
    const [base, run] = [drawBaseId(this.started), randomBytes(3).toString('hex')]
    this.store = new BaseStore({ repository, source: this.base.source, base, run, signal: options.signal })
    this.tables = new Map(this.base.tables.map((table) => [table.oid, { table, raw_bytes: undefined }]))
    const ignored = new Set(this.base.tablesWithoutRows)
    this.fold = new Fold({
      isIgnored: (oid) => ignored.has(oid),
      generatedColumns: (sent) => this.generatedColumns(sent),
      budget_bytes: options.memory_bytes ?? compactMemory_bytes,
    })
  }

  async run(lease: string): Promise<BaseManifest> {
    const { repository, store } = this
    const { source, base } = store
    const begun = await listBegun(repository, source, this.options.signal)
    await removeDead(repository, source, await deadCompactions(repository, source, begun, this.options.signal))
    const beginning = {
      walback: 'base begun',
      format: 1,
      base,
      timeline: this.base.timeline,
      systemIdentifier: this.base.systemIdentifier,
      database: this.end.plan.timeline.database.oid,
      started: this.started.toISOString(),
      compaction: { lease },
    } as const
    await writeBeginning(repository, source, beginning)
    try {
      const manifest = await this.make()
      if (!(await writeManifest(repository, manifest))) throw givenUp(base)
      const kept = new Set(objectsOf(manifest))
      // The base is whole without that; the next one tries it again.
      await removeObjects(repository, source, base, (key) => kept.has(key)).catch(() => undefined)
      return manifest
    } catch (error) {
      await removeDead(repository, source, [{ id: base, beginning, isEnded: false }]).catch(() => undefined)
      throw error
    }
  }

  private async make(): Promise<BaseManifest> {
    const { plan, snapshot } = this.end
    const { signal, onProgress } = this.options
    const progress = new Phase('replay', 'bytes', plan.bytes.segments, onProgress)
    let unpaid_bytes = 0
    const onBytes = (stored: number): void => {
      unpaid_bytes += stored
      progress.add(stored)
    }
    const seenBy = parseSnapshot(snapshot)
    for await (const block of readChanges(this.repository, plan, { signal, onBytes, seenBy })) {
      await this.throttle?.pass(unpaid_bytes, signal)
      unpaid_bytes = 0
      for (const change of block) {
        const pending = this.take(change)
        if (pending !== undefined) await pending
      }
    }
    await this.flush()
    await this.writeRest()
    return this.manifest()
  }

  private take(change: Change): Promise<void> | undefined {
    if (change.kind === 'commit') return undefined
    if (change.kind === 'ddl') throw notFollowed('the schema was changed')
    if (!this.fold.add(change)) return this.flush().then(() => void this.fold.add(change))
    return this.fold.isFull ? this.flush() : undefined
  }

  /** Writes the tables anew that net changes are held of. */
  private async flush(): Promise<void> {
    const changed = this.fold.take(() => true)
    await forEachParallel(changed, this.options.jobs, async ([oid, folded]) => this.merge(oid, folded))
  }

  private async merge(oid: number, { relation, changes }: Folded): Promise<void> {
    const made = this.tables.get(oid)
    checkForm(relation, made?.table, 'same order')
    if (made === undefined) return
    this.tables.set(oid, await this.written(made.table, changes))
    for (const { key } of made.table.pieces) if (this.isOwn(key)) await this.repository.storage.delete(key)
  }

  private async written(table: BaseTable, changes: NetChanges): Promise<Made> {
    const { throttle } = this
    const { signal } = this.options
    const onBytes = (raw: number, rows: number): void => this.rows.add(raw, rows)
    const rows = mergedRows(this.repository, table, changes, { signal, onBytes })
    const stored: StoredRows[] = []
    for await (const piece of pieces(rows))
      stored.push(await storeLines(piece, this.store.rows(table, stored.length), { signal, throttle }))
    const { snapshot: _, ...rest } = table
    const { raw_bytes, ...made } = joined(stored)
    return { table: { ...rest, ...made }, raw_bytes }
  }

  /** What has not changed is taken over object by object, so that the old base can be removed. */
  private async writeRest(): Promise<void> {
    const rest = [...this.tables.values()].filter(({ raw_bytes }) => raw_bytes === undefined)
    await forEachParallel(rest, this.options.jobs, async ({ table }) => {
      const { snapshot: _, ...same } = table
      const taken = []
      for (const piece of table.pieces) taken.push({ rows: piece.rows, ...(await this.takeOver(piece, 'rows')) })
      const raw_bytes = taken.reduce((sum, one) => sum + one.raw_bytes, 0)
      const now = taken.map(({ raw_bytes: _raw, ...piece }) => piece)
      this.tables.set(table.oid, { table: { ...same, pieces: now }, raw_bytes })
      this.rows.add(raw_bytes)
    })
  }

  /** Reads an object, which proves it, and writes it under a key of the new base. */
  private async takeOver(
    reference: ObjectReference,
    kind: ContainerKind,
  ): Promise<ObjectReference & { readonly raw_bytes: number }> {
    const { throttle } = this
    const { storage } = this.repository
    const { signal } = this.options
    const container = new ContainerWriter()
    const { source, id } = this.base
    const name = reference.key.slice(basePrefix(source, id).length).replace(/\.[0-9a-f]+-\d+(\.\w+)$/, '$1')
    const key = this.store.key(name)
    async function* body(): AsyncGenerator<Buffer> {
      for await (const part of readContainer(storage, { ...reference, kind }, signal)) {
        if (part.kind === 'header') yield container.header(part.header as object)
        else if (part.kind === 'block') {
          yield container.add(await compressBlock(part.raw, part.items))
          await throttle?.pass(part.raw.length, signal)
        } else yield container.end(part.trailer as object)
      }
    }
    await storage.put(key, body(), { ifAbsent: true, signal })
    return { key, size_bytes: container.size_bytes, sha256: container.sha256, raw_bytes: container.rawBytes }
  }

  /** Of the old base's rows, what has been read; more than all of them, where tables are written several times. */
  private get rows(): Phase {
    this.rowsPhase ??= new Phase('rows', 'bytes', this.base.raw_bytes, this.options.onProgress)
    return this.rowsPhase
  }

  private async manifest(): Promise<BaseManifest> {
    const { base, end, store } = this
    const take = async (reference: ObjectReference, kind: ContainerKind): Promise<ObjectReference> => {
      const { raw_bytes: _, ...taken } = await this.takeOver(reference, kind)
      return taken
    }
    const data: ObjectReference[] = []
    for (const reference of base.largeObjects.data) data.push(await take(reference, 'large objects'))
    const made = [...this.tables.values()]
    const schema = {
      tool: base.schema.tool,
      preData: await take(base.schema.preData, 'text'),
      postData: await take(base.schema.postData, 'text'),
    }
    const tables = made.map(({ table }) => table)
    const largeObjects = { objects: base.largeObjects.objects, data }
    return {
      ...base,
      id: store.base,
      started: this.started.toISOString(),
      finished: new Date().toISOString(),
      walbackVersion,
      snapshot: end.snapshot,
      lsn: formatLsn(end.plan.cut),
      time: end.time,
      schema,
      tables,
      sequences: this.sequences(),
      largeObjects,
      compacted: {
        from: base.id,
        full: base.compacted?.full ?? { id: base.id, lsn: base.lsn, time: base.time },
      },
      raw_bytes: made.reduce((sum, { raw_bytes }) => sum + (raw_bytes ?? 0), 0),
      stored_bytes: storedBytesOf({ schema, tables, largeObjects }),
    }
  }

  private sequences(): Sequence[] {
    const positions = new Map(this.end.sequences.map((position) => [position.oid, position]))
    return this.base.sequences.map((sequence) => {
      const position = positions.get(sequence.oid)
      return position ? { ...sequence, last: position.last.toString(), called: position.called } : sequence
    })
  }

  /** From 18 on the stream may have columns that a base has not; before, one more would be a change of the table. */
  private generatedColumns({ oid, columns }: RelationMessage): ReadonlySet<string> {
    const table = this.tables.get(oid)?.table
    if (table === undefined || this.base.serverVersion < 180_000) return new Set()
    return new Set(columns.map(({ name }) => name).filter((name) => !table.columns.includes(name)))
  }

  private isOwn(key: string): boolean {
    return key.startsWith(basePrefix(this.store.source, this.store.base))
  }
}

/** Rows in runs of about a piece's length, to be read one after the other. */
async function* pieces(rows: AsyncGenerator<Buffer>): AsyncGenerator<AsyncIterable<Buffer>> {
  let next = await rows.next()
  async function* piece(): AsyncGenerator<Buffer> {
    for (let length = 0; !next.done && length < piece_bytes; next = await rows.next()) {
      length += next.value.length
      yield next.value
    }
  }
  try {
    while (!next.done) yield piece()
  } finally {
    await rows.return(undefined)
  }
}

const notFollowed = (what: string): WalbackError =>
  new WalbackError('refused', `${what} after the base, and a compaction does not follow that`, {
    hint: 'take a base with `walback backup --full`',
  })

const givenUp = (base: string): WalbackError =>
  new WalbackError('locked', `base ${base} was given up by another walback, which took this compaction for dead`, {
    hint: 'run it again',
    retryable: true,
  })
