import { isUtf8 } from 'node:buffer'
import type pg from 'pg'
import { z } from 'zod'
import { codeOf, messageOf } from '../base/errors.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified } from '../model/identifier.ts'

export const leftOutShape = z.object({ rows: z.number(), refusal: z.string().nullable() })
type LeftOutRows = z.infer<typeof leftOutShape>

/**
 * Rows that no server takes, and no dump restores. Those whose bytes are not text in the database's encoding (functions
 * in C, and servers of long ago, let such values in) are left out one by one; of a type that reads no values
 * (pg_node_tree), or whose input function refuses what its output function wrote, the table's. They are told.
 */
export class UnreadableRows {
  private readonly isReadable: ((text: Buffer) => boolean) | undefined
  private readonly counts = new Map<string, number>()
  private readonly refusals = new Map<string, string>()

  /** `encoding`: the database's. In UTF-8 bytes can be wrong; the rest is left to the server to judge. */
  constructor(encoding: string) {
    this.isReadable = encoding === 'UTF8' ? (text) => isUtf8(text) && !text.includes(0) : undefined
  }

  /** Whether any were left out, so that the stream may name rows that are not there. (Tables get other names on the way.) */
  get areMissing(): boolean {
    return this.counts.size > 0 || this.refusals.size > 0
  }

  /** What was left out of a table, for a restore that goes on from there. */
  of(table: QualifiedName): LeftOutRows {
    return { rows: this.counts.get(qualified(table)) ?? 0, refusal: this.refusals.get(qualified(table)) ?? null }
  }

  recall(table: QualifiedName, { rows, refusal }: LeftOutRows): void {
    if (rows > 0) this.counts.set(qualified(table), rows)
    if (refusal !== null) this.refusals.set(qualified(table), refusal)
  }

  /** Rows of the table were refused by an error; false: it is not one of the values' own. */
  refuse(table: QualifiedName, error: unknown): boolean {
    if (!/^(0A000|22)/.test(codeOf(error) ?? '')) return false
    this.refusals.set(qualified(table), messageOf(error))
    return true
  }

  /** The lines (with their newlines) that the server takes; `onLeftOut` is told of each other, which counts as a row. */
  async *readable(
    table: QualifiedName,
    lines: AsyncIterable<Buffer> | Iterable<Buffer>,
    onLeftOut?: (line: Buffer) => void,
  ): AsyncGenerator<Buffer> {
    for await (const text of lines) {
      if (this.isReadable === undefined || this.isReadable(text)) yield text
      else yield this.filtered(table, text, onLeftOut)
    }
  }

  /** What was left out, a line for each table that is still there. */
  async warnings(client: pg.Client): Promise<string[]> {
    const lines = new Map<string, string>()
    for (const [name, rows] of this.counts)
      lines.set(name, `left out: ${rows} row${rows === 1 ? '' : 's'} of table ${name}, with bytes that are no UTF-8`)
    for (const [name, why] of this.refusals) lines.set(name, `left out (${why}): rows of table ${name}`)
    if (lines.size === 0) return []
    const { rows } = await client.query<{ name: string }>(
      'SELECT name FROM pg_catalog.unnest($1::text[]) name WHERE pg_catalog.to_regclass(name) IS NOT NULL',
      [[...lines.keys()]],
    )
    return rows.flatMap(({ name }) => lines.get(name) ?? [])
  }

  private filtered(table: QualifiedName, text: Buffer, onLeftOut: ((line: Buffer) => void) | undefined): Buffer {
    const parts: Buffer[] = []
    for (let start = 0; start < text.length; ) {
      const end = text.indexOf(newline, start)
      const line = text.subarray(start, end + 1)
      if (this.isReadable?.(line)) parts.push(line)
      else if (onLeftOut) {
        this.counts.set(qualified(table), (this.counts.get(qualified(table)) ?? 0) + 1)
        onLeftOut(line.subarray(0, -1))
      }
      start = end + 1
    }
    return Buffer.concat(parts)
  }
}

const newline = 10
