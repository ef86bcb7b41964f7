import type { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import { formatLsn, type Lsn, lsn, maxLsn, zeroLsn } from '../model/lsn.ts'
import { fromPostgresTime, type Micros, nowMicros, toPostgresTime } from '../model/time.ts'
import type { Conninfo } from './conninfo.ts'
import { MessageSplitter, type Part } from './message-splitter.ts'
import { explainReplicationFailure, explainReplicationNotice } from './replication-failure.ts'
import { openRowSession } from './row-session.ts'
import { readServerHistory, type ServerHistory } from './server-history.ts'

/** A message of the stream; one that is very long comes in several, in order, all with its position. */
export interface StreamedMessage {
  readonly lsn: Lsn
  readonly message: Buffer
  readonly part: Part
}

/** What arrived together. */
export interface StreamBatch {
  readonly messages: readonly StreamedMessage[]
  /** Set when a keepalive came after the last message: everything up to `walEnd` has been sent. */
  readonly keepalive: { readonly walEnd: Lsn } | undefined
  /** The server's clock when it sent the last of it. */
  readonly time: Micros
}

export interface ReplicationOptions {
  readonly slot: string
  readonly publications: readonly string[]
  /** Where to begin: the server sends whole transactions whose commit record starts at or after it. */
  readonly start: Lsn
  readonly application: string
  /** Hears which server this is, before anything of it is read; what it throws ends the attempt. */
  readonly onServer?: (server: ServerHistory) => void
  readonly signal?: AbortSignal | undefined
}

/**
 * The change stream of a slot: CopyData of a walsender, taken from a `pg` client in replication mode. The server hears
 * of positions that were `confirm`ed here and of no others (docs/decisions/0002).
 *
 * Received bytes that nobody has read yet are bounded: past the bound the socket is paused, and TCP holds the server.
 * A status message goes out on a timer, whatever the reader is doing, so that the server does not give us up.
 */
export class ReplicationStream implements AsyncDisposable {
  private readonly client: pg.Client
  private readonly connection: WalsenderConnection
  private messages: StreamedMessage[] = []
  private queuedBytes = 0
  /** Of the message that is arriving. */
  private position: Lsn = zeroLsn
  private keepalive: { walEnd: Lsn } | undefined
  private time: Micros = nowMicros()
  private wake: () => void = () => undefined
  private outcome: { readonly error: WalbackError | undefined } | undefined
  private finished: Promise<void> = Promise.resolve()
  private timer: NodeJS.Timeout | undefined
  private isClosing = false
  /** The queue has its fill: the socket is paused until it is read. */
  private isFull = false
  /** More comes than is worth gathering. */
  private isBusy = false
  private gathered_bytes = 0
  private gatheredSince_ms = 0
  private gathering: NodeJS.Timeout | undefined
  private confirmed: Lsn
  private received: Lsn
  private askedAt: Lsn = zeroLsn
  private asked_ms: number[] = []
  private heard_ms = performance.now()
  private patience_ms = 0

  /** Connects and starts streaming. A slot that is taken, lost or absent is an error of its own. */
  static async open(conninfo: Conninfo, options: ReplicationOptions): Promise<ReplicationStream> {
    const signal = options.signal === undefined ? {} : { signal: options.signal }
    let stream: ReplicationStream | undefined
    try {
      const client = await openRowSession(conninfo, { replication: true, application: options.application, ...signal })
      stream = new ReplicationStream(client, options.start)
      await stream.begin(options)
      return stream
    } catch (error) {
      await stream?.[Symbol.asyncDispose]()
      throw explainReplicationFailure(error, options)
    }
  }

  private constructor(client: pg.Client, start: Lsn) {
    this.client = client
    // The types of `pg` leave out what its replication mode emits.
    this.connection = (client as unknown as { connection: WalsenderConnection }).connection
    this.confirmed = start
    this.received = start
  }

  private async begin(options: ReplicationOptions): Promise<void> {
    const { rows } = await this.client.query<{ ms: string }>(
      `SELECT setting AS ms FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'`,
    )
    this.patience_ms = Number(rows[0]?.ms ?? 0)
    options.onServer?.(await readServerHistory(this.client))
    // Whatever the role's default: the server tells by a warning that it leaves changes out.
    await this.client.query(`SET client_min_messages = 'warning'`)
    const started = new Promise<void>((resolve) => this.connection.once('replicationStart', resolve))
    this.takeOver()
    this.client.on('notice', (notice) => {
      const failure = explainReplicationNotice(notice, options)
      if (failure) this.fail(failure)
    })
    this.finished = this.client
      .query(
        `START_REPLICATION SLOT ${quoteIdent(options.slot)} LOGICAL ${formatLsn(options.start)} ` +
          `(proto_version '1', publication_names ${quoteLiteral(options.publications.map(quoteIdent).join(','))}, messages 'true')`,
      )
      .then(
        () => this.end(undefined),
        (error: unknown) => this.end(explainReplicationFailure(error, options)),
      )
    await Promise.race([started, this.finished])
    if (this.outcome) throw this.outcome.error ?? streamEnded()
    this.heard_ms = performance.now()
    this.timer = setInterval(() => this.sendStatus(true), statusInterval_ms(this.patience_ms))
  }

  /**
   * Reads the socket itself from now on. pg's parser would copy every message, and hand out memory that it writes later
   * messages into, so that what is queued here would change; it still gets what is not CopyData.
   */
  private takeOver(): void {
    const { stream } = this.connection
    const [parse] = stream.listeners('data') as ((chunk: Buffer) => void)[]
    stream.removeAllListeners('data')
    const splitter = new MessageSplitter(longMessage_bytes, part_bytes)
    const rest: Buffer[] = []
    stream.on('data', (chunk: Buffer) => {
      this.heard_ms = performance.now()
      // Node reads into 64 KiB, however little comes: a queue of short reads would hold many times what it counts.
      const bytes = chunk.length < wholeRead_bytes ? Buffer.from(chunk) : chunk
      this.gather(chunk.length)
      splitter.push(bytes, (type, body, whole, part) => {
        if (type === copyData) {
          if (part === 'whole' || part === 'first') this.take(body, part)
          else this.takeMore(body, part)
          return
        }
        rest.push(whole)
        if (part === 'whole' || part === 'last') parse?.(rest.length === 1 ? whole : Buffer.concat(rest))
        if (part === 'whole' || part === 'last') rest.length = 0
      })
    })
  }

  /**
   * What has arrived since the last call; waits up to `timeout_ms` for something, and gives undefined when nothing came.
   * Throws once the stream has ended and everything that came has been read.
   */
  async read(timeout_ms: number): Promise<StreamBatch | undefined> {
    if (this.isEmpty && !this.outcome && timeout_ms > 0) await this.arrival(timeout_ms)
    if (this.isEmpty) {
      if (this.outcome) throw this.outcome.error ?? streamEnded()
      return undefined
    }
    const batch: StreamBatch = { messages: this.messages, keepalive: this.keepalive, time: this.time }
    this.messages = []
    this.keepalive = undefined
    this.queuedBytes = 0
    if (this.isFull) {
      this.isFull = false
      this.heard_ms = performance.now()
      this.connection.stream.resume()
    }
    return batch
  }

  /** Tells the server that everything up to `position` is durable, so that it may let go of the log before it. */
  confirm(position: Lsn): void {
    this.confirmed = maxLsn(this.confirmed, position)
    this.sendStatus()
  }

  /** When something last came in (monotonic, ms); nothing is read while the stream is paused. */
  get heardAt_ms(): number {
    return this.heard_ms
  }

  /** Whether nothing more will come; `read` says why. */
  get hasEnded(): boolean {
    return this.outcome !== undefined
  }

  /** Whether nothing is read because what was read before has not been taken. */
  get isPaused(): boolean {
    return this.isFull
  }

  /** The server's wal_sender_timeout: how long it bears our silence; 0 is for ever. */
  get serverPatience_ms(): number {
    return this.patience_ms
  }

  /** Ends the stream for a reason of ours: what came before can still be read, and then `read` throws this. */
  fail(error: WalbackError): void {
    this.end(error)
  }

  /**
   * True once the server behaves as one that is shutting down: it asks for replies in quick succession without sending
   * anything (WalSndDone repeats a keepalive until we have confirmed the end of its log). A server at work asks once
   * in half of wal_sender_timeout.
   */
  get isDraining(): boolean {
    const [first, last] = [this.asked_ms.at(0), this.asked_ms.at(-1)]
    return this.asked_ms.length === drainingRequests && first !== undefined && (last ?? 0) - first < drainingWithin_ms
  }

  /** Says goodbye, so that the server frees the slot at once; waits briefly for its answer. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.timer)
    clearTimeout(this.gathering)
    this.isClosing = true
    if (!this.outcome && this.timer !== undefined) {
      this.sendStatus()
      this.connection.stream.resume()
      this.connection.endCopyFrom()
      await Promise.race([this.finished, new Promise((resolve) => setTimeout(resolve, goodbye_ms).unref())])
    }
    this.connection.stream.destroy()
    await this.client.end().catch(() => undefined)
  }

  private get isEmpty(): boolean {
    return this.messages.length === 0 && this.keepalive === undefined
  }

  private async arrival(timeout_ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeout_ms)
      this.wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.wake = () => undefined
  }

  private take(chunk: Buffer, part: Part): void {
    // What still comes while we say goodbye would fill the queue, and a full queue stops the reading.
    if (this.isClosing || this.outcome) return
    if (chunk[0] === xLogData) {
      this.time = fromPostgresTime(chunk.readBigInt64BE(17))
      this.position = lsn(chunk.readBigUInt64BE(1))
      this.messages.push({ lsn: this.position, message: chunk.subarray(25), part })
      this.received = maxLsn(this.received, lsn(chunk.readBigUInt64BE(9)))
      this.keepalive = undefined
      this.asked_ms = []
      this.queued(chunk.length)
    } else if (chunk[0] === primaryKeepalive) {
      const walEnd = lsn(chunk.readBigUInt64BE(1))
      this.time = fromPostgresTime(chunk.readBigInt64BE(9))
      this.received = maxLsn(this.received, walEnd)
      this.keepalive = { walEnd }
      if (chunk[17] === 1) this.replyRequested(walEnd)
    }
    this.wake()
  }

  private takeMore(message: Buffer, part: Part): void {
    if (this.isClosing) return
    this.messages.push({ lsn: this.position, message, part })
    this.queued(message.length)
    this.wake()
  }

  private queued(bytes: number): void {
    this.queuedBytes += bytes
    if (this.queuedBytes <= queueBytes) return
    this.isFull = true
    this.connection.stream.pause()
  }

  /**
   * Small transactions come one by one, and to wake for each would take from the database's machine what its clients
   * want. So a stream that brings little is read now and then; never so seldom that the socket's buffer could fill.
   */
  private gather(bytes: number): void {
    this.gathered_bytes += bytes
    const elapsed_ms = this.heard_ms - this.gatheredSince_ms
    // Behind a read that was full more is waiting, and so it may behind what was read while the stream was left alone:
    // Node hands that out read by read, as small as they were.
    const isWaiting = this.connection.stream.readableLength > 0 || bytes >= wholeRead_bytes
    if (this.isBusy ? elapsed_ms < busy_ms : isWaiting) return
    this.isBusy = this.gathered_bytes > littleBytesPerMs * elapsed_ms
    this.gathered_bytes = 0
    this.gatheredSince_ms = this.heard_ms
    if (this.isBusy || this.isClosing) return
    this.connection.stream.pause()
    this.gathering = setTimeout(() => {
      if (!this.isFull) this.connection.stream.resume()
    }, gather_ms)
  }

  private replyRequested(walEnd: Lsn): void {
    if (walEnd !== this.askedAt) this.asked_ms = []
    this.askedAt = walEnd
    this.asked_ms = [...this.asked_ms, performance.now()].slice(-drainingRequests)
    this.sendStatus()
  }

  private end(error: WalbackError | undefined): void {
    this.outcome ??= { error }
    clearInterval(this.timer)
    this.wake()
  }

  /**
   * Standby status update: written, flushed and applied positions, our clock, and whether a reply is wanted. It is on the
   * timer, so that a connection that lives is never silent for long (capture/link-watch.ts).
   */
  private sendStatus(wantsReply = false): void {
    if (this.outcome) return
    const status = Buffer.alloc(34)
    status[0] = standbyStatus
    status.writeBigUInt64BE(maxLsn(this.received, this.confirmed), 1)
    status.writeBigUInt64BE(this.confirmed, 9)
    status.writeBigUInt64BE(this.confirmed, 17)
    status.writeBigInt64BE(toPostgresTime(nowMicros()), 25)
    status[33] = wantsReply ? 1 : 0
    this.connection.sendCopyFromChunk(status)
  }
}

/** The part of pg's Connection that replication needs. */
interface WalsenderConnection extends EventEmitter {
  readonly stream: Duplex
  once(event: 'replicationStart', listener: () => void): this
  sendCopyFromChunk(chunk: Buffer): void
  endCopyFrom(): void
}

const [copyData, xLogData, primaryKeepalive, standbyStatus] = [0x64, 0x77, 0x6b, 0x72]
// Small: a message of 80 bytes costs several times that in objects, which outlive a batch as garbage.
const queueBytes = 1 << 20
/** Messages that are longer come in parts, which have at least so many bytes but for the last. */
const [longMessage_bytes, part_bytes] = [1 << 20, 16 << 10]
const wholeRead_bytes = 32 << 10
/** How long a stream is left alone that brings little, what is little, and how long one that brings more counts as such. */
const [gather_ms, littleBytesPerMs, busy_ms] = [20, 4 << 10, 200]
const goodbye_ms = 2000
const drainingRequests = 3
// Far below half of the shortest wal_sender_timeout in use: a server at work that asks so often is not to be left.
const drainingWithin_ms = 250

/** A third of the server's patience, at most ten seconds; zero means that the server waits for ever. */
export function statusInterval_ms(walSenderTimeout_ms: number): number {
  const third = walSenderTimeout_ms > 0 ? walSenderTimeout_ms / 3 : Number.POSITIVE_INFINITY
  return Math.max(100, Math.min(10_000, third))
}

const streamEnded = (): WalbackError =>
  new WalbackError('database', 'the server ended the change stream', { retryable: true })
