/** Takes a body in pieces of chosen lengths. */
export class Taker {
  /** Bytes that were taken. */
  position = 0
  private readonly chunks: AsyncIterator<Buffer>
  private held: Buffer = Buffer.alloc(0)

  constructor(body: AsyncIterable<Buffer>) {
    this.chunks = body[Symbol.asyncIterator]()
  }

  /** Asks for the first chunk, so that it is on its way, or waits for it. */
  async begin(): Promise<void> {
    if (this.held.length === 0) await this.pull()
  }

  /** The next bytes; fewer only where the body ends. */
  async take(bytes: number): Promise<Buffer> {
    const parts: Buffer[] = []
    for (let missing = bytes; missing > 0; ) {
      if (this.held.length === 0 && !(await this.pull())) break
      const part = this.held.subarray(0, missing)
      this.held = this.held.subarray(part.length)
      missing -= part.length
      parts.push(part)
      this.position += part.length
    }
    return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts)
  }

  async atEnd(): Promise<boolean> {
    return this.held.length === 0 && !(await this.pull())
  }

  /** Lets go of a body that is not read to its end. */
  async close(): Promise<void> {
    await this.chunks.return?.()
  }

  private async pull(): Promise<boolean> {
    for (;;) {
      const { done, value } = await this.chunks.next()
      if (done) return false
      this.held = value
      if (value.length > 0) return true
    }
  }
}
