/**
 * Splits what a server sends into messages of the frontend/backend protocol: a type byte, a length that counts itself,
 * and a body. Messages are views of the chunks that they came in; only one that spans chunks is copied.
 */
export class MessageSplitter {
  private parts: Buffer[] = []
  private held = 0

  /** Calls back for every message that is complete with this chunk: its type, its body, and the whole of it. */
  push(chunk: Buffer, onMessage: (type: number, body: Buffer, whole: Buffer) => void): void {
    let at = 0
    while (this.held > 0) {
      // Only as much of the chunk as the message that was begun still lacks, so that no more is copied than that.
      const lacks = this.length() - this.held
      const part = chunk.subarray(at, at + lacks)
      if (part.length === 0) return
      this.parts.push(part)
      this.held += part.length
      at += part.length
      if (this.held < headBytes || this.held < this.length()) continue
      const whole = Buffer.concat(this.parts)
      this.parts = []
      this.held = 0
      onMessage(whole[0] as number, whole.subarray(headBytes), whole)
    }
    while (at + headBytes <= chunk.length) {
      const end = at + 1 + chunk.readUInt32BE(at + 1)
      if (end > chunk.length) break
      onMessage(chunk[at] as number, chunk.subarray(at + headBytes, end), chunk.subarray(at, end))
      at = end
    }
    if (at < chunk.length) {
      this.parts = [chunk.subarray(at)]
      this.held = chunk.length - at
    }
  }

  /** Bytes of the message that was begun; only its head's while that is incomplete. */
  private length(): number {
    if (this.held < headBytes) return headBytes
    if ((this.parts[0] as Buffer).length < headBytes) this.parts = [Buffer.concat(this.parts)]
    return 1 + (this.parts[0] as Buffer).readUInt32BE(1)
  }
}

const headBytes = 5
