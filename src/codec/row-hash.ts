import { assert } from '../base/assert.ts'

/**
 * The hash of a table's rows that depends on their number and text, and not on their order: each row's COPY line
 * (without its newline) through MurmurHash3_x86_128 (seed 0), summed lane by lane modulo 2^32.
 * It proves that a restored table is the one that was read; damage to stored objects is what their SHA-256 is for.
 * Algorithm: Austin Appleby, MurmurHash3.cpp, public domain.
 */
const [c1, c2, c3, c4] = [0x239b961b, 0xab0e9789, 0x38b34ae5, 0xa1e38b93]
const rotate = (x: number, r: number): number => (x << r) | (x >>> (32 - r))

function finish(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return h ^ (h >>> 16)
}

const word = (b: Buffer, i: number): number =>
  (b[i] as number) | ((b[i + 1] as number) << 8) | ((b[i + 2] as number) << 16) | ((b[i + 3] as number) << 24)

/** Up to four bytes from `i`, as far as `end`, little-endian. */
function partialWord(b: Buffer, i: number, end: number): number {
  let value = 0
  for (let k = Math.min(end, i + 4) - 1; k >= i; k--) value = (value << 8) | (b[k] as number)
  return value
}

export class RowHash {
  rows = 0
  private a = 0
  private b = 0
  private c = 0
  private d = 0

  /** Adds (sign 1) or takes away (sign -1) the row in `bytes[start, end)`. */
  add(bytes: Buffer, start: number, end: number, sign: 1 | -1 = 1): void {
    let [h1, h2, h3, h4] = [0, 0, 0, 0]
    let i = start
    for (; i + 16 <= end; i += 16) {
      h1 ^= Math.imul(rotate(Math.imul(word(bytes, i), c1), 15), c2)
      h1 = (Math.imul((rotate(h1, 19) + h2) | 0, 5) + 0x561ccd1b) | 0
      h2 ^= Math.imul(rotate(Math.imul(word(bytes, i + 4), c2), 16), c3)
      h2 = (Math.imul((rotate(h2, 17) + h3) | 0, 5) + 0x0bcaa747) | 0
      h3 ^= Math.imul(rotate(Math.imul(word(bytes, i + 8), c3), 17), c4)
      h3 = (Math.imul((rotate(h3, 15) + h4) | 0, 5) + 0x96cd1c35) | 0
      h4 ^= Math.imul(rotate(Math.imul(word(bytes, i + 12), c4), 18), c1)
      h4 = (Math.imul((rotate(h4, 13) + h1) | 0, 5) + 0x32ac3b17) | 0
    }
    if (i + 12 < end) h4 ^= Math.imul(rotate(Math.imul(partialWord(bytes, i + 12, end), c4), 18), c1)
    if (i + 8 < end) h3 ^= Math.imul(rotate(Math.imul(partialWord(bytes, i + 8, end), c3), 17), c4)
    if (i + 4 < end) h2 ^= Math.imul(rotate(Math.imul(partialWord(bytes, i + 4, end), c2), 16), c3)
    if (i < end) h1 ^= Math.imul(rotate(Math.imul(partialWord(bytes, i, end), c1), 15), c2)
    const length = end - start
    h1 ^= length
    h2 ^= length
    h3 ^= length
    h4 ^= length
    h1 = (h1 + h2 + h3 + h4) | 0
    h2 = (h2 + h1) | 0
    h3 = (h3 + h1) | 0
    h4 = (h4 + h1) | 0
    h1 = finish(h1)
    h2 = finish(h2)
    h3 = finish(h3)
    h4 = finish(h4)
    h1 = (h1 + h2 + h3 + h4) | 0
    this.a = (this.a + sign * h1) | 0
    this.b = (this.b + sign * (h2 + h1)) | 0
    this.c = (this.c + sign * (h3 + h1)) | 0
    this.d = (this.d + sign * (h4 + h1)) | 0
    this.rows += sign
  }

  /** Adds the rows of another hash; the sum of the parts of a table is the hash of the table. */
  merge(other: RowHash): void {
    this.a = (this.a + other.a) | 0
    this.b = (this.b + other.b) | 0
    this.c = (this.c + other.c) | 0
    this.d = (this.d + other.d) | 0
    this.rows += other.rows
  }

  /** Forgets all rows. */
  clear(): void {
    this.a = this.b = this.c = this.d = this.rows = 0
  }

  /** Adds every newline-ended line of COPY text; `text` must end at the end of a line. */
  addLines(text: Buffer): number {
    let rows = 0
    for (let start = 0; start < text.length; rows++) {
      const end = text.indexOf(10, start)
      assert(end >= 0, 'COPY text ends with a newline')
      this.add(text, start, end)
      start = end + 1
    }
    return rows
  }

  /** 32 hexadecimal digits. */
  digest(): string {
    return [this.a, this.b, this.c, this.d].map((lane) => (lane >>> 0).toString(16).padStart(8, '0')).join('')
  }

  static from(rows: number, digest: string): RowHash {
    const result = new RowHash()
    const lane = (i: number): number => Number.parseInt(digest.slice(i * 8, i * 8 + 8), 16) | 0
    result.a = lane(0)
    result.b = lane(1)
    result.c = lane(2)
    result.d = lane(3)
    result.rows = rows
    return result
  }
}
