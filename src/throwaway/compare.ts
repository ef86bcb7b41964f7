/** Compares a table of one database with the same table of another, row by row, in memory that does not grow with it. */
import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { nameDecoder } from '../model/encoding.ts'
import { qualified, quoteIdent } from '../model/identifier.ts'
import { copyOut, wholeLines } from '../postgres/copy.ts'
import { copyOptions } from '../postgres/row-session.ts'
import { openField, splitLine } from '../restore/copy-text.ts'
import type { TableShape } from './tables.ts'

/** A row's values by their columns, as the server writes them. */
export type SampleRow = Readonly<Record<string, string | null>>

export type RowDifference =
  | { readonly kind: 'inserted'; readonly after: SampleRow }
  | { readonly kind: 'updated'; readonly before: SampleRow; readonly after: SampleRow }
  | { readonly kind: 'deleted'; readonly before: SampleRow }

export interface RowDifferences {
  readonly inserted: number
  readonly updated: number
  readonly deleted: number
  /** The first of them, in the order of their keys. */
  readonly samples: readonly RowDifference[]
}

/** A table in one of the databases; undefined where that has no such table. */
export interface Side {
  readonly client: pg.Client
  readonly table: TableShape | undefined
}

export interface CompareOptions {
  /** Which columns both have, and the key by which a row of one is known in the other: all of them where there is none. */
  readonly columns: readonly string[]
  readonly key: readonly string[]
  readonly encoding: string
  /** How many differing rows are kept. */
  readonly limit: number
  readonly signal?: AbortSignal | undefined
}

export async function compareTable(before: Side, after: Side, options: CompareOptions): Promise<RowDifferences> {
  const counts = { inserted: 0, updated: 0, deleted: 0 }
  const samples: RowDifference[] = []
  const { columns, limit } = options
  const decode = nameDecoder(options.encoding)
  const rowOf = ({ line }: Row): SampleRow => {
    const fields = columns.length === 0 ? [] : splitLine(line)
    const values = fields.map((field) => openField(field))
    return Object.fromEntries(columns.map((name, place) => [name, textOf(values[place] ?? null, decode)]))
  }
  const note = (kind: RowDifference['kind'], make: () => RowDifference): void => {
    counts[kind]++
    if (samples.length < limit) samples.push(make())
  }
  const [left, right] = [readSide(before, options), readSide(after, options)]
  try {
    let [old, now] = [await next(left), await next(right)]
    while (old !== undefined || now !== undefined) {
      throwIfAborted(options.signal)
      const order = old === undefined ? 1 : now === undefined ? -1 : Buffer.compare(old.key, now.key)
      const [was, is] = [order <= 0 ? old : undefined, order >= 0 ? now : undefined]
      if (was && is) {
        if (!was.line.equals(is.line))
          note('updated', () => ({ kind: 'updated', before: rowOf(was), after: rowOf(is) }))
      } else if (was) note('deleted', () => ({ kind: 'deleted', before: rowOf(was) }))
      else if (is) note('inserted', () => ({ kind: 'inserted', after: rowOf(is) }))
      if (was) old = await next(left)
      if (is) now = await next(right)
    }
  } finally {
    await Promise.all([left.return(undefined), right.return(undefined)])
  }
  return { ...counts, samples }
}

const textOf = (value: Buffer | null, decode: (bytes: Buffer) => string): string | null =>
  value === null ? null : decode(value)

interface Row {
  readonly key: Buffer
  /** Its values as COPY writes them. */
  readonly line: Buffer
}

async function next(rows: AsyncGenerator<Row>): Promise<Row | undefined> {
  const { value, done } = await rows.next()
  return done ? undefined : value
}

/**
 * The rows in the order of their keys, by the bytes of the keys' text: an order that does not hang on a locale, and that
 * both databases share. (A type's own order, such as that of numeric, holds 1.0 and 1.00 for the same.)
 */
async function* readSide({ client, table }: Side, options: CompareOptions): AsyncGenerator<Row> {
  if (table === undefined) return
  const { columns, key, encoding, signal } = options
  const known = key.length > 0 ? key : columns
  const list = ['', ...columns.map(quoteIdent)].join(', ')
  const sql = `SELECT (ROW(${known.map(quoteIdent).join(', ')})::text) COLLATE "C"${list} FROM ONLY ${qualified(table)} ORDER BY 1`
  for await (const block of wholeLines(copyOut(client, `COPY (${sql}) TO STDOUT ${copyOptions(encoding)}`, signal))) {
    for (let start = 0; start < block.length; ) {
      const end = block.indexOf(newline, start)
      const tabAt = columns.length === 0 ? end : block.indexOf(tab, start)
      const keyText = openField(block.subarray(start, tabAt)) ?? Buffer.alloc(0)
      yield { key: keyText, line: block.subarray(Math.min(tabAt + 1, end), end) }
      start = end + 1
    }
  }
}

const [tab, newline] = [0x09, 0x0a]
