const [quote, backslash, comma, colon] = [0x22, 0x5c, 0x2c, 0x3a]
const [openObject, closeObject, openArray, closeArray] = [0x7b, 0x7d, 0x5b, 0x5d]

/** How a member is wanted: as one value, as the elements of an array one by one, or not at all. */
export type MemberUse = 'whole' | 'elements' | 'skipped'

/**
 * Cuts an object of JSON into its members as its bytes come, and arrays among them into their elements, so that one of
 * tens of megabytes is never in memory as a whole. Only what is wanted is parsed; the rest has to balance, no more.
 */
export class JsonMembers {
  private readonly use: (name: string) => MemberUse
  private readonly take: (name: string, value: unknown) => void
  private depth = 0
  private isInString = false
  private isEscaped = false
  private isEnded = false
  /** The member whose value is being read; undefined while a name is. */
  private name: string | undefined
  private wanted: MemberUse = 'skipped'
  /** Whether the value is an array that is taken element by element. */
  private isInArray = false
  /** What is being read: a name, a value, an element. Undefined where nothing is kept. */
  private kept: Buffer[] | undefined
  /** Where it goes on in the chunk. */
  private from = 0

  constructor(use: (name: string) => MemberUse, take: (name: string, value: unknown) => void) {
    this.use = use
    this.take = take
  }

  push(chunk: Buffer): void {
    this.from = 0
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] as number
      if (this.isInString) {
        if (this.isEscaped) this.isEscaped = false
        else if (byte === backslash) this.isEscaped = true
        else if (byte === quote) this.isInString = false
      } else if (byte === quote) this.isInString = true
      else if (byte === openObject || byte === openArray) this.open(byte, at)
      else if (byte === closeObject || byte === closeArray) this.close(chunk, at)
      else if (byte === comma) this.separate(chunk, at)
      else if (byte === colon && this.depth === 1) this.nameEnds(chunk, at)
    }
    this.kept?.push(chunk.subarray(this.from))
  }

  end(): void {
    if (!this.isEnded) throw new SyntaxError('it is not an object, or not the whole of one')
  }

  private open(byte: number, at: number): void {
    this.depth++
    if (this.depth === 1) {
      if (byte !== openObject || this.isEnded) throw new SyntaxError('it is not one object')
      this.begin(at)
    } else if (this.depth === 2 && byte === openArray && this.wanted === 'elements') {
      this.isInArray = true
      this.begin(at)
    } else if (this.depth === 2 && this.name === undefined) throw new SyntaxError('a member has no name')
  }

  private close(chunk: Buffer, at: number): void {
    this.depth--
    if (this.depth === 1 && this.isInArray) {
      this.elementEnds(chunk, at)
      this.isInArray = false
      this.wanted = 'skipped'
    } else if (this.depth === 0) {
      this.valueEnds(chunk, at)
      this.isEnded = true
    }
    if (this.depth < 0) throw new SyntaxError('it closes what was not opened')
  }

  private separate(chunk: Buffer, at: number): void {
    if (this.depth === 2 && this.isInArray) {
      this.elementEnds(chunk, at)
      this.begin(at)
    } else if (this.depth === 1) {
      this.valueEnds(chunk, at)
      this.begin(at)
    }
  }

  private nameEnds(chunk: Buffer, at: number): void {
    if (this.name !== undefined) throw new SyntaxError('a value goes on after its end')
    this.name = String(JSON.parse(this.text(chunk, at)))
    this.wanted = this.use(this.name)
    if (this.wanted !== 'skipped') this.begin(at)
  }

  private valueEnds(chunk: Buffer, at: number): void {
    const text = this.text(chunk, at)
    const { name, wanted } = this
    this.name = undefined
    this.wanted = 'skipped'
    if (name === undefined) {
      if (text.trim() !== '') throw new SyntaxError('a member has no value')
    } else if (wanted === 'elements') throw new SyntaxError(`${name} is not an array`)
    else if (wanted === 'whole') this.take(name, JSON.parse(text))
  }

  private elementEnds(chunk: Buffer, at: number): void {
    const text = this.text(chunk, at)
    if (text.trim() !== '') this.take(this.name as string, JSON.parse(text))
  }

  /** What is kept begins after this byte. */
  private begin(at: number): void {
    this.kept = []
    this.from = at + 1
  }

  /** What was kept, up to this byte; nothing more is. */
  private text(chunk: Buffer, at: number): string {
    const { kept } = this
    this.kept = undefined
    if (kept === undefined) return ''
    const last = chunk.subarray(this.from, at)
    return kept.length === 0 ? last.toString('utf8') : Buffer.concat([...kept, last]).toString('utf8')
  }
}
