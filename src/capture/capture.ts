import { sleep } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import type { Lsn } from '../model/lsn.ts'
import { type Micros, nowMicros } from '../model/time.ts'
import type { ReplicationStream, StreamBatch } from '../postgres/replication.ts'
import { SegmentBuilder } from '../repository/segment-builder.ts'
import type { SegmentSummary } from '../repository/segment-format.ts'
import type { SegmentWriter } from '../repository/segment-writer.ts'
import type { Head } from '../repository/segments.ts'
import type { Timeline } from '../repository/timeline.ts'

/** Another repository that has to have what is confirmed to the server. */
export interface RequiredRepository {
  /** Brings it up to the archive's end, or fails. */
  level(timeline: Timeline, head: Head, signal: AbortSignal): Promise<void>
  /** Stores there too what was just stored; when it resolves, that is durable there. */
  add(timeline: Timeline, segment: SegmentSummary, signal: AbortSignal): Promise<void>
}

export interface CaptureOptions {
  readonly encoding: string
  /** A segment is cut at the first commit after it has grown to this size, compressed. */
  readonly segmentBytes: number
  /** A commit waits at most about this long until it is on its way to the repository: the recovery point objective. */
  readonly segmentAge_ms: number
  /** How long the store may leave a full queue waiting before the stream is let go; a minute if not given. */
  readonly storePatience_ms?: number | undefined
  /** Ends capture once everything that committed before this position is durable. */
  readonly until?: Lsn | undefined
  /** Ends capture in good order: what has been received is made durable and confirmed. */
  readonly stop: AbortSignal
  /** Fires when the server is known to be shutting down, which a paused stream cannot show. */
  readonly draining?: AbortSignal | undefined
  /** What is confirmed is stored in each of these too. */
  readonly required?: readonly RequiredRepository[] | undefined
  readonly onSegment?: (segment: SegmentSummary) => void
}

/**
 * The stream into segments: batches are taken in, compressed, cut at commits, stored one after the other, and only then
 * confirmed. While one segment is being stored the next one grows, up to its size; past that, reading waits.
 */
export class Capture {
  private readonly stream: ReplicationStream
  private readonly writer: SegmentWriter
  private readonly options: CaptureOptions
  private readonly builder: SegmentBuilder
  private readonly abort = new AbortController()
  /** The write under way; it never rejects, `failure` holds what went wrong. */
  private writing: Promise<void> | undefined
  private failure: unknown
  private age_start: number | undefined
  /** Since when nothing has been read because the store is behind (monotonic, ms). */
  private fullSince: number | undefined
  private idleEnd: Lsn | undefined
  private idleSince = performance.now()
  private time: Micros = nowMicros()

  constructor(stream: ReplicationStream, writer: SegmentWriter, options: CaptureOptions) {
    this.stream = stream
    this.writer = writer
    this.options = options
    this.builder = new SegmentBuilder({
      xid: writer.head.xid,
      encoding: options.encoding,
      blockBytes: Math.min(1 << 20, options.segmentBytes),
    })
  }

  /** Runs until the stream ends (which throws), `until` is durable, `stop` fires, or the server is shutting down. */
  async run(): Promise<'reached' | 'stopped' | 'draining'> {
    try {
      for (;;) {
        const outcome = this.reason()
        if (outcome !== undefined) {
          await this.finish(outcome)
          return outcome
        }
        if (this.isFull) await this.outlast()
        else {
          this.fullSince = undefined
          const batch = await this.read()
          if (batch) await this.takeIn(batch)
        }
        if (this.failure !== undefined) throw this.failure
        await this.store()
      }
    } finally {
      this.abort.abort()
      // A store that hangs does not keep the slot: what it may still write is found, or fenced off, by the next start.
      await Promise.race([this.writing, sleep(tick_ms)])
    }
  }

  /**
   * Waits for the store. Not for ever with the stream open: a walsender that cannot send cannot be ended either, and
   * the checkpointer that wants its slot gone (max_slot_wal_keep_size) waits for it, while the server's disk fills.
   * What is on its way to the store is still let arrive.
   */
  private async outlast(): Promise<void> {
    const now = performance.now()
    this.fullSince ??= now
    const patience_ms = this.options.storePatience_ms ?? storePatience_ms
    if (now - this.fullSince < patience_ms) {
      await Promise.race([this.writing, sleep(tick_ms)])
      return
    }
    await this.stream[Symbol.asyncDispose]()
    const end = performance.now() + patiencesWithoutStream * patience_ms
    while (this.writing !== undefined && performance.now() < end && !this.options.stop.aborted) {
      await Promise.race([this.writing, sleep(tick_ms)])
    }
    if (this.failure !== undefined) throw this.failure
    throw new WalbackError('storage', `the repository did not take a segment within ${patience_ms / 1000} s`, {
      hint: 'is the store slow, or unreachable? the server keeps the log meanwhile, as far as max_slot_wal_keep_size lets it',
      retryable: true,
    })
  }

  /** A stream that is lost may be so for good: what it had brought by then may be nowhere else, so it is stored first. */
  private async read(): Promise<StreamBatch | undefined> {
    try {
      return await this.stream.read(this.patience_ms())
    } catch (error) {
      await this.finish('lost').catch(() => undefined)
      throw error
    }
  }

  private reason(): 'reached' | 'stopped' | 'draining' | undefined {
    if (this.isDraining) return 'draining'
    if (this.options.stop.aborted) return 'stopped'
    const until = this.options.until
    if (until === undefined) return undefined
    const reached = this.builder.lastCommitEnd ?? this.writer.head.end
    if (reached > until) return 'reached'
    return this.isIdle && (this.idleEnd ?? this.writer.head.end) >= until ? 'reached' : undefined
  }

  private async takeIn(batch: StreamBatch): Promise<void> {
    this.time = batch.time
    if (batch.messages.length > 0) this.idleEnd = undefined
    for (const { lsn, message, part } of batch.messages) this.builder.append(lsn, message, part)
    if (this.builder.hasCommit) this.age_start ??= performance.now()
    await this.builder.compress()
    if (batch.keepalive && this.isIdle) this.idleEnd = batch.keepalive.walEnd
  }

  /** Starts storing what is due, one object at a time. */
  private async store(): Promise<void> {
    if (this.writing !== undefined) return
    const { hasCommit } = this.builder
    const isLarge = this.isLarge
    if (hasCommit && (isLarge || this.isOld)) {
      await this.startSegment()
    } else if (isLarge && !hasCommit) {
      const part = await this.builder.takePart()
      if (part.length > 0) this.startWriting(() => this.writer.writePart(part, this.abort.signal))
    } else if (this.isIdle && performance.now() - this.idleSince >= idleSegment_ms) {
      this.storeIdle()
    }
  }

  /** On a quiet database without heartbeats: a segment without transactions, so that the slot still moves. */
  private storeIdle(): void {
    this.idleSince = performance.now()
    const end = this.idleEnd
    if (end === undefined || end <= this.writer.head.end) return
    const content = { blocks: [], transactions: [], tables: [], end, xid: this.builder.xid }
    this.startWriting(() => this.writeAndConfirm(content))
  }

  private async startSegment(): Promise<void> {
    const content = await this.builder.cut()
    this.age_start = undefined
    this.startWriting(() => this.writeAndConfirm(content))
  }

  private async writeAndConfirm(content: Parameters<SegmentWriter['write']>[0]): Promise<void> {
    const segment = await this.writer.write(content, this.time, this.abort.signal)
    const { timeline } = this.writer
    await Promise.all((this.options.required ?? []).map((copy) => copy.add(timeline, segment, this.abort.signal)))
    this.idleSince = performance.now()
    this.stream.confirm(segment.end)
    this.options.onSegment?.(segment)
  }

  private startWriting(write: () => Promise<unknown>): void {
    this.writing = write().then(
      () => {
        this.writing = undefined
      },
      (error: unknown) => {
        this.failure = error
        this.writing = undefined
      },
    )
  }

  /** Makes every commit that has been received durable. A server that is shutting down is not kept waiting for a slow store. */
  private async finish(outcome: 'reached' | 'stopped' | 'draining' | 'lost'): Promise<void> {
    const work = (async () => {
      await this.writing
      if (this.failure === undefined && this.builder.hasCommit) {
        await this.startSegment()
        await this.writing
      }
      return true
    })()
    if (!(await this.inTime(work))) {
      this.abort.abort()
      if (outcome === 'draining') return
      throw new WalbackError('storage', 'the repository did not take the last segment in time', {
        hint: 'nothing is lost: the server keeps what was not confirmed, and the next start goes on from there',
        retryable: true,
      })
    }
    if (this.failure !== undefined) throw this.failure
  }

  /** Whether the last work ends within our patience, which is short from the moment that the server wants to stop. */
  private async inTime(work: Promise<boolean>): Promise<boolean> {
    const begun = performance.now()
    let drainingSince: number | undefined
    for (;;) {
      if (await Promise.race([work, sleep(tick_ms).then(() => false)])) return true
      const now = performance.now()
      if (this.isDraining) drainingSince ??= now
      if (now - begun >= stopPatience_ms) return false
      if (drainingSince !== undefined && now - drainingSince >= drainingPatience_ms) return false
    }
  }

  private get isDraining(): boolean {
    return this.stream.isDraining || this.options.draining?.aborted === true
  }

  /** While one object is being stored, as much again may gather and no more. */
  private get isFull(): boolean {
    return this.writing !== undefined && this.isLarge
  }

  /** Small transactions weigh more by what the trailer says of them than by their rows. */
  private get isLarge(): boolean {
    const { doneBytes, openBytes, commits } = this.builder
    return doneBytes + openBytes >= this.options.segmentBytes || commits >= segmentTransactions
  }

  private get isIdle(): boolean {
    return !this.builder.inTransaction && !this.builder.hasCommit
  }

  private get isOld(): boolean {
    return this.age_start !== undefined && performance.now() - this.age_start >= this.options.segmentAge_ms
  }

  /** How long reading may sleep before there is something else to do. */
  private patience_ms(): number {
    if (this.age_start === undefined) return tick_ms
    return Math.max(1, Math.min(tick_ms, this.options.segmentAge_ms - (performance.now() - this.age_start)))
  }
}

const tick_ms = 200
/** A segment of these is about ten megabytes in memory. */
const segmentTransactions = 10_000
/** Well above the heartbeat's interval, so that it matters only where heartbeats cannot be written. */
const idleSegment_ms = 150_000
const drainingPatience_ms = 3000
const stopPatience_ms = 60_000
/** As long as a server waits for a silent walsender's client by default (wal_sender_timeout). */
const storePatience_ms = 60_000
const patiencesWithoutStream = 10
