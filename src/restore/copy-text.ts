import type { Tuple } from '../model/pgoutput.ts'

/**
 * COPY's text format (PostgreSQL manual, "COPY", File Formats). A line is written here exactly as the server writes it
 * (CopyAttributeOutText), so that a row of the stream and the same row of a base are the same bytes.
 */
const escapes = new Map([
  [0x08, 0x62],
  [0x09, 0x74],
  [0x0a, 0x6e],
  [0x0b, 0x76],
  [0x0c, 0x66],
  [0x0d, 0x72],
  [0x5c, 0x5c],
])
const escapeOf = new Uint8Array(256)
for (const [byte, escape] of escapes) escapeOf[byte] = escape

const tab = 0x09
const backslash = 0x5c
const nullMark = Buffer.from('\\N')

/** Writes lines, without their newline, into memory that it reuses. */
export class LineEncoder {
  private scratch = Buffer.allocUnsafe(64 * 1024)
  private length = 0

  /** The line of some of a row's values, in the order of `places`. There must be no unchanged value among them. */
  line(values: Tuple, places: readonly number[]): Buffer {
    this.encode(values, places)
    return Buffer.from(this.scratch.subarray(0, this.length))
  }

  /** The same as a string of one character a byte, to look rows up by. */
  key(values: Tuple, places: readonly number[]): string {
    this.encode(values, places)
    return this.scratch.toString('latin1', 0, this.length)
  }

  private encode(values: Tuple, places: readonly number[]): void {
    this.length = 0
    for (let n = 0; n < places.length; n++) {
      const value = values[places[n] as number]
      if (n > 0) this.byte(tab)
      if (value === null || value === undefined) this.bytes(nullMark)
      else if (Buffer.isBuffer(value)) this.escaped(value)
      else throw new TypeError('an unchanged value has no text (a bug in walback)')
    }
  }

  private escaped(value: Buffer): void {
    this.room(value.length * 2)
    let at = this.length
    for (let i = 0; i < value.length; i++) {
      const byte = value[i] as number
      const escape = escapeOf[byte] as number
      if (escape !== 0) {
        this.scratch[at++] = backslash
        this.scratch[at++] = escape
      } else this.scratch[at++] = byte
    }
    this.length = at
  }

  private byte(value: number): void {
    this.room(1)
    this.scratch[this.length++] = value
  }

  private bytes(value: Buffer): void {
    this.room(value.length)
    this.length += value.copy(this.scratch, this.length)
  }

  private room(bytes: number): void {
    if (this.length + bytes <= this.scratch.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.scratch.length * 2, this.length + bytes))
    this.scratch.copy(larger, 0, 0, this.length)
    this.scratch = larger
  }
}

/** The fields of a line, still escaped. */
export function splitLine(line: Buffer): Buffer[] {
  const fields: Buffer[] = []
  for (let start = 0; ; ) {
    const end = line.indexOf(tab, start)
    if (end < 0) {
      fields.push(line.subarray(start))
      return fields
    }
    fields.push(line.subarray(start, end))
    start = end + 1
  }
}

/** A line of fields that are escaped already. */
export function joinFields(fields: readonly Buffer[]): Buffer {
  const length = fields.reduce((sum, field) => sum + field.length, 0) + Math.max(0, fields.length - 1)
  const line = Buffer.allocUnsafe(length)
  let at = 0
  fields.forEach((field, n) => {
    if (n > 0) line[at++] = tab
    at += field.copy(line, at)
  })
  return line
}

/** The fields in `places` (ascending) of the line in `text[start, end)`, as `LineEncoder.key` gives them for the same row. */
export function keyOfLine(text: Buffer, start: number, end: number, places: readonly number[]): string {
  let key = ''
  let [field, from, wanted] = [0, start, 0]
  while (wanted < places.length) {
    let to = text.indexOf(tab, from)
    if (to < 0 || to > end) to = end
    if (field === places[wanted]) {
      const part = text.toString('latin1', from, to)
      key = wanted === 0 ? part : `${key}\t${part}`
      wanted++
    }
    if (to === end) break
    from = to + 1
    field++
  }
  return key
}

const unescapes = new Map([...escapes].map(([byte, escape]) => [escape, byte]))

/** The bytes that a field of a line stands for; null for NULL. */
export function openField(field: Buffer): Buffer | null {
  if (!field.includes(backslash)) return field
  if (field.equals(nullMark)) return null
  const opened = Buffer.allocUnsafe(field.length)
  let length = 0
  for (let at = 0; at < field.length; at++) {
    const byte = field[at] as number
    opened[length++] = byte === backslash ? (unescapes.get(field[++at] as number) ?? (field[at] as number)) : byte
  }
  return opened.subarray(0, length)
}
