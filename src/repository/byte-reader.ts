/** Takes exact numbers of bytes from a stream of chunks. */
export class ByteReader {
  position = 0
  private readonly chunks: AsyncIterator<Buffer>
  private readonly shortened: () => Error
  private rest: Buffer = Buffer.alloc(0)

  /** `shortened` makes the error for a stream that ends inside what was asked for. */
  constructor(source: AsyncIterable<Buffer>, shortened: () => Error) {
    this.chunks = source[Symbol.asyncIterator]()
    this.shortened = shortened
  }

  async take(bytes: number): Promise<Buffer> {
    const parts: Buffer[] = []
    let missing = bytes
    while (missing > 0) {
      if (this.rest.length === 0 && !(await this.fill())) throw this.shortened()
      const part = this.rest.subarray(0, missing)
      this.rest = this.rest.subarray(part.length)
      missing -= part.length
      parts.push(part)
    }
    this.position += bytes
    return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts)
  }

  async atEnd(): Promise<boolean> {
    return this.rest.length === 0 && !(await this.fill())
  }

  /** Lets go of the source, wherever the reader stands. */
  async close(): Promise<void> {
    await this.chunks.return?.()
  }

  private async fill(): Promise<boolean> {
    const next = await this.chunks.next()
    if (next.done) return false
    this.rest = next.value
    return true
  }
}
