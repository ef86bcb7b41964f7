/** Where a part of a message belongs: it is all of it, or one of several that come one after the other. */
export type Part = 'whole' | 'first' | 'middle' | 'last'

/**
 * Splits what a server sends into messages of the frontend/backend protocol: a type byte, a length that counts itself,
 * and a body. Messages are views of the chunks that they came in; only one that spans chunks is copied. The body of one
 * that is very long, as a row of a gigabyte is, comes in parts, about as it arrives.
 */
export class MessageSplitter {
  private readonly longBytes: number
  private readonly partBytes: number
  private parts: Buffer[] = []
  /** Bytes in `parts`. */
  private held = 0
  /** Bytes of the message that were handed on already. */
  private passed = 0
  /** Type and length of a message that is handed on in parts. */
  private head: { readonly type: number; readonly length: number } | undefined

  /** Of messages that are longer than `longBytes` parts are handed on as soon as they have `partBytes`. */
  constructor(longBytes: number = Number.POSITIVE_INFINITY, partBytes: number = longBytes) {
    this.longBytes = longBytes
    this.partBytes = partBytes
  }

  /** Calls back for every message, or part of one, that is complete with this chunk: its type, its body, and the whole of it. */
  push(chunk: Buffer, onMessage: (type: number, body: Buffer, whole: Buffer, part: Part) => void): void {
    let at = 0
    while (this.held > 0 || this.head !== undefined) {
      // Only as much of the chunk as the message that was begun still lacks, so that no more is copied than that.
      const taken = chunk.subarray(at, at + this.lacks())
      if (taken.length === 0) return
      this.parts.push(taken)
      this.held += taken.length
      at += taken.length
      if (this.held < headBytes && this.head === undefined) continue
      const isLast = this.lacks() === 0
      const isPart = this.head !== undefined || this.length() > this.longBytes
      if (!isLast && !(isPart && this.held >= this.partBytes)) continue
      const bytes = this.parts.length === 1 ? (this.parts[0] as Buffer) : Buffer.concat(this.parts)
      this.parts = []
      this.held = 0
      if (isPart) this.passPart(bytes, isLast, onMessage)
      else onMessage(bytes[0] as number, bytes.subarray(headBytes), bytes, 'whole')
    }
    while (at + headBytes <= chunk.length) {
      const end = at + 1 + chunk.readUInt32BE(at + 1)
      if (end > chunk.length) break
      onMessage(chunk[at] as number, chunk.subarray(at + headBytes, end), chunk.subarray(at, end), 'whole')
      at = end
    }
    if (at < chunk.length) {
      this.parts = [chunk.subarray(at)]
      this.held = chunk.length - at
    }
  }

  private passPart(
    bytes: Buffer,
    isLast: boolean,
    onMessage: (type: number, body: Buffer, whole: Buffer, part: Part) => void,
  ): void {
    if (this.head === undefined) {
      const [type, body] = [bytes[0] as number, bytes.subarray(headBytes)]
      this.head = { type, length: 1 + bytes.readUInt32BE(1) }
      this.passed = bytes.length
      onMessage(type, body, bytes, isLast ? 'whole' : 'first')
    } else {
      this.passed += bytes.length
      onMessage(this.head.type, bytes, bytes, isLast ? 'last' : 'middle')
    }
    if (isLast) this.head = undefined
    if (isLast) this.passed = 0
  }

  /** Bytes that the message that was begun lacks; only of its head while that is incomplete. */
  private lacks(): number {
    return this.length() - this.passed - this.held
  }

  private length(): number {
    if (this.head !== undefined) return this.head.length
    if (this.held < headBytes) return headBytes
    if ((this.parts[0] as Buffer).length < headBytes) this.parts = [Buffer.concat(this.parts)]
    return 1 + (this.parts[0] as Buffer).readUInt32BE(1)
  }
}

const headBytes = 5
