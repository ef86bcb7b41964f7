import type pg from 'pg'
import type { Throttle } from '../base/throttle.ts'
import { compressBlock } from '../codec/block.ts'
import { RowHash } from '../codec/row-hash.ts'
import { copyOut, wholeLines } from '../postgres/copy.ts'
import type { ObjectReference } from '../repository/base.ts'
import { ContainerWriter } from '../repository/container.ts'
import type { Storage } from '../storage/storage.ts'

export interface StoredRows extends ObjectReference {
  readonly rows: number
  readonly hash: RowHash
  readonly raw_bytes: number
}

/**
 * The rows of a query as COPY text, through compression into one object of the store: one pass that also counts and
 * hashes them. Blocks end with whole rows, so that each can be read alone.
 */
export async function storeRows(
  client: pg.Client,
  copySql: string,
  target: { readonly storage: Storage; readonly key: string; readonly header: object },
  options: {
    readonly signal?: AbortSignal | undefined
    readonly onBytes?: ((raw: number) => void) | undefined
    /** Holds the reading to a rate; the server waits meanwhile. */
    readonly throttle?: Throttle | undefined
  } = {},
): Promise<StoredRows> {
  const container = new ContainerWriter()
  const hash = new RowHash()
  async function* body(): AsyncGenerator<Buffer> {
    yield container.header(target.header)
    for await (const lines of wholeLines(copyOut(client, copySql, options.signal))) {
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
