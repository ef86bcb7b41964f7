import { WalbackError } from '../base/errors.ts'
import { type Lsn, lsn, zeroLsn } from '../model/lsn.ts'

/**
 * Records: how messages of the change stream lie in a segment's blocks. Each is its length (30 bits: the rest of the
 * record), the position the server gave it (64 bits), and the pgoutput message as it came; network byte order. A row
 * that is very long is divided over several records, since neither writer nor store are to hold a gigabyte: the two
 * bits above the length say that the message goes on in a later record, and that it began in an earlier one. (The server
 * builds a message in one piece of memory of less than 2^30 bytes, so that they are free in undivided ones, too.)
 */
const recordHeadBytes = 12
const [goesOn, began, lengthBits] = [0x80000000, 0x40000000, 0x3fffffff]

export type RecordPart = 'whole' | 'first' | 'middle' | 'last'

const bitsOf: Readonly<Record<RecordPart, number>> = { whole: 0, first: goesOn, middle: goesOn + began, last: began }

export interface StreamRecord {
  readonly lsn: Lsn
  readonly message: Buffer
  readonly part: RecordPart
}

/** The records of a block; a block never ends inside one. */
export function* readRecords(block: Buffer): Generator<StreamRecord> {
  for (let at = 0; at < block.length; ) {
    const head = block.readUInt32BE(at)
    const end = at + 4 + (head & lengthBits)
    const [isFirst, isLast] = [(head & began) === 0, (head & goesOn) === 0]
    const part = isFirst ? (isLast ? 'whole' : 'first') : isLast ? 'last' : 'middle'
    yield { lsn: lsn(block.readBigUInt64BE(at + 4)), message: block.subarray(at + recordHeadBytes, end), part }
    at = end
  }
}

/** Reads the blocks of a segment, its parts' first, and puts divided messages together again. */
export class MessageReader {
  private begun: Buffer[] = []
  /** Where reading begins in the midst of a segment, the rest of a message whose beginning was not read may come first. */
  private mayLackBeginning: boolean

  constructor(options: { readonly mayBeginInside?: boolean } = {}) {
    this.mayLackBeginning = options.mayBeginInside ?? false
  }

  /** Whether a message lacks its end, which at the end of a segment none does. */
  get isInside(): boolean {
    return this.begun.length > 0
  }

  /** The messages that end in the block. */
  *messages(block: Buffer): Generator<Buffer> {
    for (const { message, part } of readRecords(block)) {
      // Relation messages that a block opens with may come between.
      if (part === 'whole') yield message
      else if (this.mayLackBeginning && !this.isInside && part !== 'first') this.mayLackBeginning = part === 'middle'
      else if (this.isInside === (part === 'first'))
        throw new WalbackError('corrupt', 'a segment holds a message without its beginning or end')
      else if (part === 'last') {
        const whole = Buffer.concat([...this.begun, message])
        this.begun = []
        yield whole
      } else this.begun.push(Buffer.from(message))
    }
  }
}

/** Raw records on their way into a block, with the relation messages that they rely on. */
export class RecordFrame {
  length = 0
  items = 0
  /** Relation messages within the frame: the last of each relation. */
  readonly declared = new Map<number, Buffer>()
  /** Relation messages that the rows at its beginning were sent under, and that must precede the frame. */
  readonly needs = new Map<number, Buffer>()
  private bytes: Buffer

  /** `bytes`: memory to use, which grows as needed. */
  constructor(bytes: Buffer = Buffer.allocUnsafe(initialFrameBytes)) {
    this.bytes = bytes
  }

  add(position: Lsn, message: Buffer, part: RecordPart = 'whole'): void {
    const at = this.room(recordHeadBytes + message.length)
    this.bytes.writeUInt32BE(8 + message.length + bitsOf[part], at)
    this.bytes.writeBigUInt64BE(position, at + 4)
    message.copy(this.bytes, at + recordHeadBytes)
    this.items++
  }

  /** Adds another frame's records, preceded by those of its needs that are not met here. */
  append(other: RecordFrame): void {
    for (const [oid, message] of other.needs) {
      if (this.declared.get(oid) === message) continue
      this.add(zeroLsn, message)
      this.declared.set(oid, message)
    }
    for (const [oid, message] of other.declared) this.declared.set(oid, message)
    // The room first: it may put the frame into a larger buffer.
    const at = this.room(other.length)
    other.bytes.copy(this.bytes, at, 0, other.length)
    this.items += other.items
  }

  /** The records with their needs before them, and the memory that they lie in. The frame is not used afterwards. */
  seal(): { readonly raw: Buffer; readonly items: number; readonly memory: Buffer } {
    if (this.needs.size > 0) {
      const whole = new RecordFrame(Buffer.allocUnsafe(this.length + initialFrameBytes))
      whole.append(this)
      return whole.seal()
    }
    return { raw: this.bytes.subarray(0, this.length), items: this.items, memory: this.bytes }
  }

  /** The same memory for another frame, when what is in this one has been copied elsewhere. */
  emptied(): RecordFrame {
    return new RecordFrame(this.bytes)
  }

  private room(bytes: number): number {
    const at = this.length
    if (at + bytes > this.bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, at + bytes))
      this.bytes.copy(larger, 0, 0, at)
      this.bytes = larger
    }
    this.length += bytes
    return at
  }
}

const initialFrameBytes = 64 * 1024
