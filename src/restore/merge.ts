import type { BaseTable } from '../repository/base.ts'
import { readContainer } from '../repository/container.ts'
import type { Repository } from '../repository/repository.ts'
import { keep, type NetChanges } from './net-changes.ts'

/**
 * A table's rows in a base, merged on their way with the net changes to it: lines of COPY, many at a time. `mayLack`: of
 * rows that the changes draw on some may be missing.
 */
export async function* mergedRows(
  repository: Repository,
  table: BaseTable,
  changes: NetChanges | undefined,
  options: {
    readonly mayLack?: boolean
    readonly onBytes?: ((raw: number, rows: number) => void) | undefined
    readonly signal?: AbortSignal | undefined
  },
): AsyncGenerator<Buffer> {
  const pieces = changes?.replacesAll ? [] : table.pieces.filter((piece) => piece.rows > 0)
  for (const piece of pieces) {
    for await (const part of readContainer(repository.storage, { ...piece, kind: 'rows' }, options.signal)) {
      if (part.kind !== 'block') continue
      options.onBytes?.(part.raw.length, part.items)
      const lines = changes ? absorb(part.raw, changes) : part.raw
      if (lines.length > 0) yield lines
    }
  }
  if (changes) yield* batches(changes.rest(options.mayLack))
}

/** A block of base rows as it is after the changes. Runs of rows that stay are copied as one. */
function absorb(text: Buffer, changes: NetChanges): Buffer {
  const parts: Buffer[] = []
  let kept = 0
  for (let start = 0; start < text.length; ) {
    const end = text.indexOf(newline, start)
    const becomes = changes.absorb(text, start, end)
    if (becomes !== keep) {
      parts.push(text.subarray(kept, start))
      kept = end + 1
      if (becomes) parts.push(becomes, newlineBytes)
    }
    start = end + 1
  }
  if (kept === 0) return text
  parts.push(text.subarray(kept))
  return Buffer.concat(parts)
}

/** Rows as lines, many at a time. */
export function* batches(lines: Iterable<Buffer>): Generator<Buffer> {
  let parts: Buffer[] = []
  let length = 0
  for (const line of lines) {
    parts.push(line, newlineBytes)
    length += line.length + 1
    if (length < batchBytes) continue
    yield Buffer.concat(parts)
    parts = []
    length = 0
  }
  if (length > 0) yield Buffer.concat(parts)
}

export const newline = 10
export const batchBytes = 256 * 1024
const newlineBytes = Buffer.from('\n')
