import { assert, present } from '../base/assert.ts'
import { type Block, compressBlock } from '../codec/block.ts'
import type { Lsn } from '../model/lsn.ts'
import { isRowTag, parseCommit, parseTruncate, tags } from '../model/pgoutput.ts'
import type { FullXid } from '../model/snapshot.ts'
import { RecordFrame, type RecordPart } from './record.ts'
import type { TransactionEntry } from './segment-format.ts'
import { type TableName, TransactionCounter } from './transaction-counter.ts'

/** What goes into one segment. */
export interface SegmentContent {
  readonly blocks: readonly Block[]
  readonly transactions: readonly TransactionEntry[]
  readonly tables: readonly TableName[]
  /** End of the last commit in it. */
  readonly end: Lsn
  readonly xid: FullXid
}

/** A block to be: raw until `compress` has seen to it. */
interface Slot {
  sealed: ReturnType<RecordFrame['seal']> | undefined
  block: Block | undefined
}

/**
 * Turns the stream into blocks that may be cut after any commit. Whole transactions gather in one frame, the
 * transaction that is arriving in another; so a cut never divides a transaction, and memory holds two frames besides
 * the compressed blocks since the last cut or part. Every block opens with the relation messages that its rows need.
 */
export class SegmentBuilder {
  private readonly blockBytes: number
  private readonly counter: TransactionCounter
  /** The relation message in force, by relation id. */
  private readonly known = new Map<number, Buffer>()
  private done = new RecordFrame()
  private doneSlots: Slot[] = []
  private transactions: TransactionEntry[] = []
  private open = new RecordFrame()
  private openSlots: Slot[] = []
  private inside = false
  /** A long message that is no row, as far as it has come. */
  private gathered: Buffer[] | undefined
  /** Blocks of the coming segment that are stored already, as parts. */
  private partBlocks = 0
  /** The block of the coming segment in which the open transaction begins, once it fills blocks of its own. */
  private openBegin: number | undefined
  private lastEnd: Lsn | undefined
  /** Memory of frames that have been compressed, for the next ones. */
  private readonly spare: Buffer[] = []

  constructor(options: { readonly xid: FullXid; readonly encoding: string; readonly blockBytes?: number }) {
    this.blockBytes = options.blockBytes ?? defaultBlockBytes
    this.counter = new TransactionCounter(options.xid, options.encoding)
  }

  /**
   * Takes the next message, or a part of one; the bytes are copied. The caller awaits `compress` at least once per few
   * messages. Only rows stay divided: what else is long is read here.
   */
  append(position: Lsn, message: Buffer, part: RecordPart = 'whole'): void {
    const tag = message[0] as number
    if (part === 'first' && !(this.inside && isRowTag(tag))) this.gathered = []
    if (this.gathered !== undefined) {
      this.gathered.push(Buffer.from(message))
      if (part !== 'last') return
      const whole = Buffer.concat(this.gathered)
      this.gathered = undefined
      this.append(position, whole)
      return
    }
    if (part === 'middle' || part === 'last') {
      this.open.add(position, message, part)
      this.counter.more(message)
      if (this.open.length >= this.blockBytes) this.sealOpen()
      return
    }
    if (!this.inside && tag !== tags.begin) {
      // Only messages that were not transactional come between transactions.
      this.done.add(position, message)
      if (this.done.length >= this.blockBytes) this.sealDone()
      return
    }
    if (isRowTag(tag)) this.need(message.readUInt32BE(1))
    else if (tag === tags.begin) this.inside = true
    else if (tag === tags.relation) this.declare(message)
    else if (tag === tags.truncate) for (const oid of parseTruncate(message).relations) this.need(oid)
    this.open.add(position, message, part)
    this.counter.count(tag, message)
    if (tag === tags.commit) this.commit(message)
    else if (this.open.length >= this.blockBytes) this.sealOpen()
  }

  /** Compresses what is full. */
  async compress(): Promise<void> {
    for (const slots of [this.doneSlots, this.openSlots]) {
      for (const slot of slots) {
        if (slot.sealed === undefined) continue
        const { raw, items, memory } = slot.sealed
        slot.block = await compressBlock(raw, items)
        slot.sealed = undefined
        if (memory.length <= 4 * this.blockBytes && this.spare.length < 4) this.spare.push(memory)
      }
    }
  }

  /** Whether there is a commit that a cut would make durable. */
  get hasCommit(): boolean {
    return this.transactions.length > 0
  }

  /** How many there are. */
  get commits(): number {
    return this.transactions.length
  }

  get inTransaction(): boolean {
    return this.inside
  }

  /** End of the last commit that was taken in, cut off or not. */
  get lastCommitEnd(): Lsn | undefined {
    return this.lastEnd
  }

  /** A 64-bit transaction id near those in the stream now. */
  get xid(): FullXid {
    return this.counter.xid
  }

  /** Bytes held of whole transactions, compressed where that has been done. */
  get doneBytes(): number {
    return this.done.length + bytesOf(this.doneSlots)
  }

  /** Bytes held of the transaction that is arriving. */
  get openBytes(): number {
    return this.open.length + bytesOf(this.openSlots)
  }

  /** Everything up to the end of the last commit; what belongs to the open transaction stays. */
  async cut(): Promise<SegmentContent> {
    assert(this.hasCommit, 'a cut follows a commit')
    this.sealDone()
    await this.compress()
    const content: SegmentContent = {
      blocks: this.doneSlots.map((slot) => present(slot.block, 'a compressed block')),
      transactions: this.transactions,
      tables: this.counter.takeTables(),
      end: present(this.lastEnd, 'the end of the last commit'),
      xid: this.counter.xid,
    }
    // The blocks of an open transaction are the first of the next segment.
    if (this.openBegin !== undefined) this.openBegin = 0
    this.doneSlots = []
    this.transactions = []
    this.partBlocks = 0
    return content
  }

  /** Full blocks of what is still without a commit, to be stored before it comes. There must be nothing to cut. */
  async takePart(): Promise<readonly Block[]> {
    assert(!this.hasCommit, 'what can be cut is no part')
    this.sealDone()
    await this.compress()
    const part = [...this.doneSlots, ...this.openSlots].map((slot) => present(slot.block, 'a compressed block'))
    this.doneSlots = []
    this.openSlots = []
    this.partBlocks += part.length
    return part
  }

  private need(oid: number): void {
    if (this.open.declared.has(oid) || this.open.needs.has(oid)) return
    this.open.needs.set(
      oid,
      present(this.known.get(oid), `the relation message of ${oid}, which the server sends first`),
    )
  }

  private declare(message: Buffer): void {
    const oid = message.readUInt32BE(1)
    const copy = Buffer.from(message)
    this.known.set(oid, copy)
    this.open.declared.set(oid, copy)
  }

  private commit(message: Buffer): void {
    const commit = parseCommit(message)
    this.lastEnd = commit.endLsn
    this.inside = false
    this.transactions.push(this.counter.finish(commit, this.openBegin ?? this.nextBlock))
    if (this.openBegin !== undefined) {
      this.sealOpen()
      this.openBegin = undefined
      this.doneSlots.push(...this.openSlots)
      this.openSlots = []
      return
    }
    this.done.append(this.open)
    this.open = this.open.emptied()
    if (this.done.length >= this.blockBytes) this.sealDone()
  }

  /** Number of the next block of the coming segment, when none of the open transaction has been filled. */
  private get nextBlock(): number {
    return this.partBlocks + this.doneSlots.length
  }

  private sealDone(): void {
    if (this.done.length === 0) return
    this.doneSlots.push({ sealed: this.done.seal(), block: undefined })
    this.done = new RecordFrame(this.spare.pop())
  }

  private sealOpen(): void {
    this.sealDone()
    this.openBegin ??= this.nextBlock
    this.openSlots.push({ sealed: this.open.seal(), block: undefined })
    this.open = new RecordFrame(this.spare.pop())
  }
}

const bytesOf = (slots: readonly Slot[]): number =>
  slots.reduce((sum, slot) => sum + (slot.block?.bytes.length ?? slot.sealed?.raw.length ?? 0), 0)

const defaultBlockBytes = 1 << 20
