/** Archives made up without a server: the real writers of the repository, a clock and a log of our own. */
import { formatLsn, type Lsn, lsn, parseLsn } from '../../src/model/lsn.ts'
import { everything } from '../../src/model/selection.ts'
import { fullXid } from '../../src/model/snapshot.ts'
import { type Micros, micros } from '../../src/model/time.ts'
import { type BaseManifest, writeManifest } from '../../src/repository/base.ts'
import { writeBeginning, writeStoredTables } from '../../src/repository/base-progress.ts'
import { ContainerWriter } from '../../src/repository/container.ts'
import { basePrefix, partKey, sourcesPrefix } from '../../src/repository/layout.ts'
import { Repository } from '../../src/repository/repository.ts'
import type { SegmentSummary, TransactionEntry } from '../../src/repository/segment-format.ts'
import { SegmentWriter } from '../../src/repository/segment-writer.ts'
import { readHead } from '../../src/repository/segments.ts'
import { beginTimeline, type Timeline } from '../../src/repository/timeline.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { timelineDetails } from '../repository/timeline-details.ts'

const epoch = micros(BigInt(Date.parse('2026-01-01T00:00:00Z')) * 1000n)

/** A commit that was archived. */
export interface Commit {
  readonly timeline: string
  readonly end: Lsn
  readonly time: Micros
}

export interface SegmentPlan {
  readonly commits: number
  readonly hours: number
  /** Whether it ends with a heartbeat, and how many ids before the next one the oldest running transaction has. */
  readonly heartbeat?: number | undefined
  readonly parts?: number
  readonly mark?: string
}

export class MadeArchive {
  readonly source = 'app'
  readonly storage: MemoryStorage
  readonly repository: Repository
  timeline: Timeline
  now: Micros = epoch
  readonly commits: Commit[] = []
  readonly segments: SegmentSummary[] = []
  readonly bases: BaseManifest[] = []
  private writer: SegmentWriter
  private at: bigint
  private xid = 700n
  private oldest = 700n
  private names = 0

  private constructor(storage: MemoryStorage, repository: Repository, timeline: Timeline, writer: SegmentWriter) {
    this.storage = storage
    this.repository = repository
    this.timeline = timeline
    this.writer = writer
    this.at = parseLsn(timeline.start)
  }

  static async begin(): Promise<MadeArchive> {
    const storage = new MemoryStorage()
    const repository = await Repository.create(storage)
    const timeline = await beginTimeline(repository, timelineDetails)
    return new MadeArchive(storage, repository, timeline, await writerOf(repository, timeline))
  }

  /** The same objects again, to be changed alone. */
  async copy(): Promise<{ readonly storage: MemoryStorage; readonly repository: Repository }> {
    const storage = new MemoryStorage()
    for (const [key, bytes] of this.storage.objects) storage.objects.set(key, bytes)
    return { storage, repository: await Repository.open(storage) }
  }

  async segment({ commits, hours, heartbeat, parts = 0, mark }: SegmentPlan): Promise<void> {
    const transactions: TransactionEntry[] = []
    const step = (BigInt(Math.round(hours * 60)) * 60_000_000n) / BigInt(commits + 1)
    for (let n = 0; n < commits; n++) {
      this.now = micros(this.now + step)
      transactions.push({
        ...this.transaction(),
        counts: [[0, 1, 0, 0, 0]],
        ...(mark && n === 0 ? { marks: [mark] } : {}),
      })
    }
    this.now = micros(this.now + step)
    if (heartbeat !== undefined) {
      const from = formatLsn(lsn(this.at))
      this.oldest = max(this.oldest, this.xid - BigInt(heartbeat))
      const snapshot = this.snapshot()
      transactions.push({ ...this.transaction(), counts: [], heartbeat: { from, snapshot, sequences: [] } })
    }
    this.at += 0x10n
    for (let n = 0; n < parts; n++) await this.writer.writePart([])
    const content = {
      blocks: [],
      transactions,
      tables: [{ oid: 1, schema: 'public', name: 't' }],
      end: lsn(this.at),
      xid: fullXid(this.xid),
    }
    this.segments.push(await this.writer.write(content, this.now))
    for (const { end, time } of transactions)
      this.commits.push({ timeline: this.timeline.id, end: parseLsn(end), time: micros(BigInt(time)) })
  }

  private transaction(): Omit<TransactionEntry, 'counts'> {
    const xid = this.xid++
    const commit = this.at + 0x20n
    this.at = commit + 0x10n
    return {
      xid: xid.toString(),
      commit: formatLsn(lsn(commit)),
      end: formatLsn(lsn(this.at)),
      time: this.now.toString(),
      bytes: 100,
      block: 0,
    }
  }

  private snapshot(): string {
    const running = this.oldest < this.xid ? [this.oldest] : []
    return `${this.oldest}:${this.xid}:${running.join(',')}`
  }

  /** As a backup writes it. `table`: a base of that alone. `earlier`: the snapshots of tables that were read in rounds before, oldest first. */
  async base(
    options: {
      readonly earlier?: readonly string[]
      readonly hours?: number
      readonly table?: string | undefined
    } = {},
  ): Promise<BaseManifest> {
    const id = this.name()
    const started = this.stamp()
    this.now = micros(this.now + BigInt(Math.round((options.hours ?? 0.1) * 60)) * 60_000_000n)
    const object = async (name: string): Promise<{ key: string; size_bytes: number; sha256: string }> => {
      const key = `${basePrefix(this.source, id)}${name}`
      const container = new ContainerWriter()
      await this.storage.put(key, Buffer.concat([container.header({ kind: 'text', name: key }), container.end({})]))
      return { key, size_bytes: container.size_bytes, sha256: container.sha256 }
    }
    const tables = [undefined, ...(options.earlier ?? [])].map(async (snapshot, place) => ({
      oid: place + 1,
      schema: 'public',
      name: `t${place}`,
      columns: ['a'],
      rows: 1,
      hash: '0'.repeat(32),
      pieces: [{ ...(await object(`rows/${place + 1}.00000.wbr`)), rows: 1 }],
      ...(snapshot === undefined ? {} : { snapshot }),
    }))
    const manifest: BaseManifest = {
      ...emptyManifest,
      id,
      source: this.source,
      timeline: this.timeline.id,
      started,
      finished: this.stamp(),
      snapshot: this.snapshot(),
      lsn: formatLsn(lsn(this.at)),
      time: this.now.toString(),
      schema: {
        tool: 'none',
        preData: await object('schema/pre-data.wbt'),
        postData: await object('schema/post-data.wbt'),
      },
      tables: await Promise.all(tables),
      ...(options.table === undefined
        ? {}
        : { format: 2 as const, selection: { ...everything, tables: [options.table] }, leftOut: [] }),
    }
    await writeManifest(this.repository, manifest)
    this.bases.push(manifest)
    return manifest
  }

  /** What a backup leaves that is at work, or was interrupted. */
  async unfinished(): Promise<string> {
    const id = this.name()
    await writeBeginning(this.repository, this.source, {
      walback: 'base begun',
      format: 1,
      base: id,
      timeline: this.timeline.id,
      systemIdentifier: '1',
      database: 5,
      started: this.stamp(),
    })
    const key = `${basePrefix(this.source, id)}rows/1.00000.wbr`
    await this.storage.put(key, Buffer.from('rows'))
    const pieces = [{ key, size_bytes: 4, sha256: '', rows: 1 }]
    const table = { oid: 1, stamp: 's', snapshot: this.snapshot(), rows: 1, hash: '0', raw_bytes: 4, pieces }
    await writeStoredTables(this.repository, { source: this.source, base: id, name: 'a-000000' }, [table])
    return id
  }

  /** The snapshot as of now, for a base that is finished later. */
  currentSnapshot(): string {
    return this.snapshot()
  }

  /** A gap: a new timeline, whose history starts further on. */
  async breakTimeline(): Promise<void> {
    const end = (await readHead(this.repository, this.timeline)).end
    this.at += 0x1000n
    this.xid += 10n
    this.oldest = this.xid
    this.timeline = await beginTimeline(this.repository, {
      ...timelineDetails,
      start: formatLsn(lsn(this.at)),
      xid: this.xid.toString(),
      snapshot: `${this.xid}:${this.xid}:`,
      parent: { timeline: this.timeline.id, end: formatLsn(end), reason: 'the slot was lost' },
    })
    this.writer = await writerOf(this.repository, this.timeline)
  }

  /** What interrupted work leaves: a part that no segment names, and objects of a base that nothing names. */
  async litter(): Promise<void> {
    const start = this.segments.findLast(({ key }) => key.includes(`/timelines/${this.timeline.id}/`))?.start
    if (start !== undefined)
      await this.storage.put(partKey(this.source, this.timeline.id, start, 'deadbeef', 0), Buffer.from('part'))
    await this.storage.put(`${basePrefix(this.source, this.name())}rows/1.00000.wbr`, Buffer.from('rows'))
  }

  keys(): string[] {
    return [...this.storage.objects.keys()].filter((key) => key.startsWith(sourcesPrefix)).sort()
  }

  // Names that sort the other way round: nothing may be decided by them.
  private name(): string {
    return `b${String(9999 - this.names++)}`
  }

  private stamp(): string {
    return new Date(Number(this.now / 1000n)).toISOString()
  }
}

const writerOf = async (repository: Repository, timeline: Timeline): Promise<SegmentWriter> =>
  new SegmentWriter(repository, timeline, await readHead(repository, timeline))

const max = (a: bigint, b: bigint): bigint => (a > b ? a : b)

const emptyManifest = {
  walback: 'base',
  format: 1,
  walbackVersion: '0',
  serverVersion: 180000,
  systemIdentifier: '1',
  database: {
    name: 'app',
    encoding: 'UTF8',
    collate: 'C',
    ctype: 'C',
    provider: 'c',
    locale: null,
    icuRules: null,
    owner: 'postgres',
    connectionLimit: -1,
    comment: null,
    settings: [],
    roleSettings: [],
    grants: null,
  },
  tablesWithoutRows: [],
  sequences: [],
  materializedViews: [],
  largeObjects: { objects: [], data: [] },
  roles: [],
  raw_bytes: 10,
  stored_bytes: 10,
} as const satisfies Partial<Record<keyof BaseManifest, unknown>> as unknown as BaseManifest
