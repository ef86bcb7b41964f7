/**
 * Message boundaries in a stream of PostgreSQL's protocol, either way: one byte of type, four of length (which count
 * themselves), then the body. See "Message Formats" in the manual.
 */
export class MessageBoundaries {
  readonly #header = Buffer.alloc(5)
  #headerLength = 0
  #bodyRemaining = 0

  /** Takes the next bytes; gives the types of the messages that end in them. */
  push(bytes: Uint8Array): string[] {
    const ended: string[] = []
    let at = 0
    while (at < bytes.length) {
      if (this.#headerLength < 5) {
        const part = bytes.subarray(at, at + 5 - this.#headerLength)
        this.#header.set(part, this.#headerLength)
        this.#headerLength += part.length
        at += part.length
        if (this.#headerLength < 5) break
        this.#bodyRemaining = this.#header.readUInt32BE(1) - 4
      }
      const body = Math.min(this.#bodyRemaining, bytes.length - at)
      this.#bodyRemaining -= body
      at += body
      if (this.#bodyRemaining > 0) break
      ended.push(String.fromCharCode(this.#header.readUInt8(0)))
      this.#headerLength = 0
    }
    return ended
  }

  /** Whether the last message is whole. */
  get atBoundary(): boolean {
    return this.#headerLength === 0
  }
}

/** One message of the server's. */
export function message(type: string, body: Uint8Array): Buffer {
  const header = Buffer.alloc(5)
  header.write(type, 'latin1')
  header.writeUInt32BE(body.length + 4, 1)
  return Buffer.concat([header, body])
}
