import { WalbackError } from '../base/errors.ts'

/**
 * Where objects live. Keys are relative paths of `[A-Za-z0-9._-]` parts joined by `/`. What the methods promise:
 * - `put` resolves once the whole object is durable under its key; until then, and if it fails, the key is as it was.
 *   With `ifAbsent` an existing key is left alone and the answer is false, also when two writers race.
 * - `get` fails with `absent` for a key that is not there; with `range` it gives bytes [start, end), fewer at the end.
 * - `list` yields every object below a prefix, sorted by key, each once; objects put meanwhile may or may not appear.
 * - `delete` of an absent key succeeds.
 * - Failures are `WalbackError` with code `storage`; `retryable` says whether the same call may succeed later.
 * - A store over a network repeats single requests that failed in passing, a few times and with backoff, and goes on
 *   reading where a body broke off: a body can be read but once, so nobody above could repeat a part of it. It never
 *   guesses: what `put` answers is true of this call also when the answer to an earlier attempt was lost.
 */
export interface Storage {
  /** For people: `file:///var/backups/app`, without secrets. */
  readonly url: string
  put(key: string, body: Buffer | AsyncIterable<Buffer>, options?: PutOptions): Promise<boolean>
  get(key: string, options?: GetOptions): AsyncIterable<Buffer>
  /** The object's length in bytes, or undefined when it is absent. */
  size(key: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<number | undefined>
  list(prefix: string, options?: { readonly signal?: AbortSignal | undefined }): AsyncIterable<StoredObject>
  delete(key: string): Promise<void>
}

export interface PutOptions {
  readonly ifAbsent?: boolean
  /**
   * How many bytes from the start hold rows, where what follows tells of no value: an encrypted store lets those see
   * that who may write and not read. Others take no notice.
   */
  readonly rows_bytes?: number
  /** Abandons the write; the key is then as it was. */
  readonly signal?: AbortSignal | undefined
}

export interface GetOptions {
  readonly range?: { readonly start: number; readonly end: number }
  readonly signal?: AbortSignal | undefined
}

export interface StoredObject {
  readonly key: string
  readonly size_bytes: number
}

/** What objects are read from: a store, or the bytes of one that were fetched before. */
export type ObjectSource = Pick<Storage, 'get' | 'size'>

/** An object that is in memory, read as it would be from its store. */
export const inMemory = (bytes: Buffer): ObjectSource => ({
  get: async function* (_key, { range } = {}) {
    yield range === undefined ? bytes : bytes.subarray(range.start, range.end)
  },
  size: async () => bytes.length,
})

/** The whole of an object, which the caller knows to be small. */
export async function readAll(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const chunk of chunks) parts.push(chunk)
  return Buffer.concat(parts)
}

/** Whether a request failed because there is no object under its key. */
export const isAbsent = (error: unknown): boolean =>
  error instanceof WalbackError && error.code === 'storage' && error.facts['absent'] === true
