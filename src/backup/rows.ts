import type pg from 'pg'
import type { Throttle } from '../base/throttle.ts'
import { compressBlock } from '../codec/block.ts'
import { RowHash } from '../codec/row-hash.ts'
import { copyOut, wholeLines } from '../postgres/copy.ts'
import type { ObjectReference } from '../repository/base.ts'
import type { StoredTable } from '../repository/base-progress.ts'
import { ContainerWriter } from '../repository/container.ts'
import type { Storage } from '../storage/storage.ts'

export interface StoredRows extends ObjectReference {
  readonly rows: number
  readonly hash: RowHash
  readonly raw_bytes: number
}

/** Where rows go. */
export interface RowsTarget {
  readonly storage: Storage
  readonly key: string
  readonly header: object
}

interface Options {
  readonly signal?: AbortSignal | undefined
  readonly onBytes?: ((raw: number) => void) | undefined
  /** Holds the reading to a rate; the server waits meanwhile. */
  readonly throttle?: Throttle | undefined
}

/** The rows of a query as COPY text, through compression into one object of the store. */
export const storeRows = (
  client: pg.Client,
  copySql: string,
  target: RowsTarget,
  options: Options = {},
): Promise<StoredRows> => storeLines(wholeLines(copyOut(client, copySql, options.signal)), target, options)

/**
 * Whole lines of COPY text, one pass that also counts and hashes them. Blocks end with whole rows, so that each can be
 * read alone.
 */
export async function storeLines(
  rows: AsyncIterable<Buffer>,
  target: RowsTarget,
  options: Options = {},
): Promise<StoredRows> {
  const container = new ContainerWriter()
  const hash = new RowHash()
  async function* body(): AsyncGenerator<Buffer> {
    yield container.header(target.header)
    for await (const lines of rows) {
      const block = await compressBlock(lines, hash.addLines(lines))
      options.onBytes?.(lines.length)
      yield container.add(block)
      await options.throttle?.pass(lines.length, options.signal)
    }
    yield container.end({ kind: 'rows', rows: hash.rows, hash: hash.digest() })
  }
  await target.storage.put(target.key, body(), { ifAbsent: true, signal: options.signal })
  return {
    key: target.key,
    size_bytes: container.size_bytes,
    sha256: container.sha256,
    rows: hash.rows,
    hash,
    raw_bytes: container.rawBytes,
  }
}

/** A table that is stored in these pieces, in their order. */
export function joined(stored: readonly StoredRows[]): Pick<StoredTable, 'rows' | 'hash' | 'raw_bytes' | 'pieces'> {
  const hash = new RowHash()
  for (const one of stored) hash.merge(one.hash)
  return {
    rows: hash.rows,
    hash: hash.digest(),
    raw_bytes: stored.reduce((sum, one) => sum + one.raw_bytes, 0),
    pieces: stored.map(({ key, size_bytes, sha256, rows }) => ({ key, size_bytes, sha256, rows })),
  }
}
