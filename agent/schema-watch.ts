import type { Logger } from 'pino'
import {
  type BaseHead,
  type Lsn,
  parseLsn,
  type Repository,
  readBaseHeads,
  requireTimeline,
  type SegmentSummary,
  scanSegments,
  sleep,
  type TransactionEntry,
  type UnseenChange,
  UnseenChanges,
  WalbackError,
} from '../src/index.ts'
import type { Events } from './events.ts'

export interface SchemaWatchOptions {
  readonly repository: Repository
  readonly source: string
  readonly log: Logger
  readonly events: Events
  readonly signal: AbortSignal
  /** Hears of each change of the schema that a restore from the newest base would lack, and that the stream does not tell of. */
  readonly onUnseen: (change: UnseenChange) => void
  /** What is archived since the newest base is not whole, so nothing later can be restored from it. */
  readonly onHole: () => void
}

/** Looks through the segments, as they are stored, for unseen changes of the schema, and for holes in what is archived. */
export class SchemaWatch {
  private readonly options: SchemaWatchOptions
  private readonly stop = new AbortController()
  private base: BaseHead | undefined
  private changes = new UnseenChanges([])
  /** Where the last segment that was looked through ends. */
  private end: Lsn | undefined
  /** Segments that were stored while the archive was being read; undefined while it is not. */
  private waiting: Stored[] | undefined = []
  private reading: Promise<void> = Promise.resolve()
  private isBroken = false
  /** Ends of the changes that have been told. */
  private readonly told = new Set<Lsn>()

  constructor(options: SchemaWatchOptions) {
    this.options = options
    options.signal.addEventListener('abort', () => this.stop.abort(), { once: true })
  }

  async close(): Promise<void> {
    this.stop.abort()
    await this.reading
  }

  /** Reads what is archived since the newest base, and goes on from there: at the start, and when there is a new base. */
  restart(): Promise<void> {
    this.waiting ??= []
    this.reading = this.reading.then(() => this.read())
    return this.reading
  }

  /** Takes in a segment that has just been stored. */
  stored({ start, end, trailer }: SegmentSummary): void {
    // Nothing else of a trailer matters here, and reading the archive may take long.
    const transactions = trailer.transactions.filter(({ ddl, heartbeat }) => ddl ?? heartbeat)
    if (this.waiting) this.waiting.push({ start, end, transactions })
    else if (start === this.end) this.look({ start, end, transactions })
    // A new timeline, or somebody else has captured in between.
    else void this.restart()
  }

  /** What a restore from the newest base to now would lack. */
  unseen(): UnseenChange[] {
    return this.base === undefined ? [] : this.changes.since(this.base)
  }

  /** Whether objects of the archive are missing or damaged that a restore from the newest base to now would need. */
  get hasHole(): boolean {
    return this.isBroken
  }

  private look({ end, transactions }: Stored): void {
    this.end = end
    for (const entry of transactions) this.changes.offer(entry)
    for (const change of this.unseen()) {
      if (this.told.has(change.to.lsn)) continue
      this.told.add(change.to.lsn)
      this.options.onUnseen(change)
    }
  }

  private async read(): Promise<void> {
    const { log, source, events, onHole } = this.options
    const { signal } = this.stop
    while (!signal.aborted) {
      try {
        this.waiting ??= []
        await this.readArchive()
        this.isBroken = false
        const later = this.waiting.filter(({ start }) => this.end === undefined || start >= this.end)
        this.waiting = undefined
        for (const segment of later) this.look(segment)
        return
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof WalbackError && error.code === 'corrupt') {
          this.isBroken = true
          events.raise('archive-damaged', {
            severity: 'error',
            message: `ARCHIVE DAMAGED: ${error.message}; what comes after it can be restored from the next base backup on, which follows`,
            facts: error.facts,
          })
          onHole()
          return
        }
        log.warn({ source, err: error }, 'could not look for unseen changes of the schema; trying again in a minute')
        await sleep(retry_ms, signal).catch(() => undefined)
      }
    }
  }

  private async readArchive(): Promise<void> {
    const { repository, source } = this.options
    const { signal } = this.stop
    const timeline = await requireTimeline(repository, source)
    const bases = await readBaseHeads(repository, source, { signal })
    this.base = bases.findLast((base) => base.timeline === timeline.id)
    this.changes = new UnseenChanges(this.base ? [this.base] : [])
    this.end = undefined
    // Without a base nothing is restored that could lack anything.
    if (this.base === undefined) return
    for await (const segment of scanSegments(repository, timeline, { from: parseLsn(this.base.lsn), signal })) {
      this.look({ start: segment.start, end: segment.end, transactions: segment.trailer.transactions })
    }
  }
}

interface Stored extends Pick<SegmentSummary, 'start' | 'end'> {
  readonly transactions: readonly TransactionEntry[]
}

const retry_ms = 60_000
