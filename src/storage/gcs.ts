import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Bucket, CreateWriteStreamOptions, File } from '@google-cloud/storage'
import { throwIfAborted } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { cutParts, stopping } from './cut.ts'
import { complaintOf, gcsFailure, isPassing } from './gcs-failure.ts'
import type { GcsLocation } from './gcs-url.ts'
import { loadOptional } from './optional.ts'
import { ordered } from './ordered.ts'
import { type Piece, readOn } from './read-on.ts'
import type { GetOptions, PutOptions, Storage, StoredObject } from './storage.ts'
import { longestWait_ms, maxTries, trying } from './tries.ts'

type Signal = AbortSignal | undefined

interface Buckets {
  /** Single requests, which we repeat ourselves. */
  readonly single: Bucket
  /** Resumable uploads, whose parts the SDK repeats: it alone knows how far each one came. */
  readonly uploads: Bucket
}

/**
 * A bucket of Google Cloud Storage, or a prefix in one, as a store. What fits into one part is one request, with the MD5
 * that the store has to find; what does not is a resumable upload, whose CRC32C the SDK compares at its end. Neither is
 * seen before it is whole. Put-if-absent is `ifGenerationMatch=0`, of both alike.
 */
export class GcsStorage implements Storage {
  readonly url: string
  private readonly location: GcsLocation
  private readonly partBytes: number
  private loaded: Promise<Buckets> | undefined
  private isKnown = false

  /** `partBytes` is a multiple of 256 KiB, which the protocol wants of all parts but the last. */
  constructor(location: GcsLocation, options: { readonly partBytes?: number } = {}) {
    this.url = location.url
    this.location = location
    this.partBytes = options.partBytes ?? 8 << 20
  }

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options: PutOptions = {}): Promise<boolean> {
    const { signal, ifAbsent = false } = options
    throwIfAborted(signal)
    const token = randomBytes(12).toString('hex')
    const details = {
      metadata: { contentType: 'application/octet-stream', metadata: { [tokenName]: token } },
      ...(ifAbsent ? { preconditionOpts: { ifGenerationMatch: 0 } } : {}),
    }
    const parts = cutParts(stopping(body, signal), () => this.partBytes)
    try {
      const first = (await parts.next()).value ?? Buffer.alloc(0)
      const second = await parts.next()
      if (second.done) {
        return await this.written(key, token, ifAbsent, signal, ({ single }) =>
          send(single.file(this.name(key)), [first], signal, {
            ...details,
            resumable: false,
            validation: false,
            metadata: { ...details.metadata, md5Hash: createHash('md5').update(first).digest('base64') },
          }),
        )
      }
      return await this.putParts(key, token, watched([first, second.value], parts), details, options)
    } finally {
      await parts.return(undefined)
    }
  }

  private async putParts(
    key: string,
    token: string,
    parts: Watched,
    details: CreateWriteStreamOptions,
    { signal, ifAbsent = false }: PutOptions,
  ): Promise<boolean> {
    let isSent = false
    try {
      return await this.written(key, token, ifAbsent, signal, async ({ uploads }) => {
        // The body is gone with the first attempt: what the SDK could not mend is not tried again here.
        if (isSent) throw new WalbackError('storage', `the upload of ${this.where(key)} broke off`, { retryable: true })
        isSent = true
        await send(uploads.file(this.name(key)), parts.body, signal, {
          ...details,
          resumable: true,
          chunkSize: this.partBytes,
          validation: 'crc32c',
        })
      })
    } catch (error) {
      throw parts.failure?.error ?? error
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Buffer> {
    const { signal, range } = options
    throwIfAborted(signal)
    if (range !== undefined && range.end <= range.start) return
    const open = (at: number, version: string | undefined): Promise<Piece | undefined> =>
      this.ask('read', key, signal, async ({ single }) => {
        const isOpen = this.location.endpoint !== undefined
        try {
          return await opened(single, this.name(key), { start: at, end: range?.end }, { version, isOpen, signal })
        } catch (error) {
          const { status } = complaintOf(error)
          if (status === 416) return undefined
          if (status !== 404 || version === undefined) throw error
          throw new WalbackError('storage', `${this.where(key)} was replaced while it was being read`, {
            retryable: true,
          })
        }
      })
    yield* readOn({ start: range?.start ?? 0, signal, open, isPassing })
  }

  async size(key: string, options: { readonly signal?: Signal } = {}): Promise<number | undefined> {
    return this.ask('look at', key, options.signal, async ({ single }) => {
      try {
        const [{ size }] = await single.file(this.name(key)).getMetadata()
        this.isKnown = true
        return Number(size)
      } catch (error) {
        if (complaintOf(error).status !== 404) throw error
        // 404 may be the bucket's as well: asked once, by a listing.
        if (!this.isKnown) await this.objects(`${key}/`, options.signal).next()
        return undefined
      }
    })
  }

  async *list(prefix: string, options: { readonly signal?: Signal } = {}): AsyncGenerator<StoredObject> {
    yield* ordered(this.url, this.objects(prefix, options.signal))
  }

  async delete(key: string): Promise<void> {
    await this.ask('delete', key, undefined, ({ single }) =>
      single.file(this.name(key)).delete({ ignoreNotFound: true }),
    )
  }

  private async *objects(prefix: string, signal: Signal): AsyncGenerator<StoredObject> {
    const root = this.location.prefix
    let pageToken: string | undefined
    do {
      const [files, next] = await this.ask('list', prefix, signal, ({ single }) =>
        single.getFiles({
          prefix: root + prefix,
          autoPaginate: false,
          ...(pageToken === undefined ? {} : { pageToken }),
        }),
      )
      this.isKnown = true
      for (const { name, metadata } of files) yield { key: name.slice(root.length), size_bytes: Number(metadata.size) }
      pageToken = (next as { readonly pageToken?: string } | null)?.pageToken
    } while (pageToken !== undefined)
  }

  /** A write of which the answer false means that the key is taken, by somebody else. */
  private async written(
    key: string,
    token: string,
    ifAbsent: boolean,
    signal: Signal,
    request: (buckets: Buckets) => Promise<void>,
  ): Promise<boolean> {
    return this.ask('write', key, signal, async (buckets) => {
      try {
        await request(buckets)
        return true
      } catch (error) {
        throwIfAborted(signal)
        const { status } = complaintOf(error)
        if (error instanceof WalbackError || !ifAbsent || (status !== 412 && status !== 409)) throw error
        const found = await tokenOf(buckets.single.file(this.name(key)))
        // After a lost answer the object that is in the way is our own.
        if (found !== undefined) return found === token
        throw new WalbackError('storage', `another writer was at ${this.where(key)} at the same moment`, {
          retryable: true,
        })
      }
    })
  }

  private async ask<T>(
    doing: string,
    key: string,
    signal: Signal,
    request: (buckets: Buckets) => Promise<T>,
  ): Promise<T> {
    const failure = (error: unknown): Error => gcsFailure(doing, this.where(key), error)
    return trying(() => this.load().then(request), { signal, isPassing, failure })
  }

  private name(key: string): string {
    return this.location.prefix + key
  }

  private where(key: string): string {
    return `gs://${this.location.bucket}/${this.name(key)}`
  }

  private load(): Promise<Buckets> {
    this.loaded ??= this.connect()
    return this.loaded
  }

  private async connect(): Promise<Buckets> {
    const sdk = await loadOptional('@google-cloud/storage', '7', 'gs://', () => import('@google-cloud/storage'))
    const { bucket, endpoint } = this.location
    const client = (autoRetry: boolean): Bucket =>
      new sdk.Storage({
        ...(endpoint === undefined ? {} : { apiEndpoint: endpoint }),
        timeout: request_ms,
        retryOptions: {
          autoRetry,
          maxRetries: maxTries - 1,
          maxRetryDelay: longestWait_ms / 1000,
          retryableErrorFn: isPassing,
          // Each put names itself by its token, so that repeating one is safe.
          idempotencyStrategy: sdk.IdempotencyStrategy.RetryAlways,
        },
      }).bucket(bucket)
    return { single: client(false), uploads: client(true) }
  }
}

const tokenName = 'walback_put'
/** For one request and its answer. */
const request_ms = 120_000

async function send(
  file: File,
  body: Iterable<Buffer> | AsyncIterable<Buffer>,
  signal: Signal,
  options: CreateWriteStreamOptions,
): Promise<void> {
  const source = Readable.from(body, { objectMode: true, highWaterMark: 1 })
  await pipeline(source, file.createWriteStream(options), signal === undefined ? {} : { signal })
}

interface Watched {
  readonly body: AsyncIterable<Buffer>
  /** What the body itself failed with, which is not the store's failure. */
  readonly failure: { readonly error: unknown } | undefined
}

function watched(first: readonly Buffer[], rest: AsyncIterable<Buffer>): Watched {
  let failure: Watched['failure']
  async function* body(): AsyncGenerator<Buffer> {
    yield* first
    try {
      yield* rest
    } catch (error) {
      failure = { error }
      throw error
    }
  }
  return {
    body: body(),
    get failure() {
      return failure
    },
  }
}

/**
 * The bytes [start, end) of an object, once the store has begun to answer. Not by the SDK, whose streams (node-fetch 2)
 * stay silent for ever when a body breaks off.
 */
async function opened(
  bucket: Bucket,
  name: string,
  range: { readonly start: number; readonly end: number | undefined },
  options: { readonly version: string | undefined; readonly isOpen: boolean; readonly signal: Signal },
): Promise<Piece> {
  const { apiEndpoint, authClient } = bucket.storage
  const url = new URL(`${apiEndpoint}/storage/v1/b/${bucket.name}/o/${encodeURIComponent(name)}?alt=media`)
  if (options.version !== undefined) url.searchParams.set('generation', options.version)
  const login = options.isOpen ? {} : await authClient.getRequestHeaders(url.href)
  const last = range.end === undefined ? '' : range.end - 1
  const answer = await fetch(url, {
    headers: { ...login, range: `bytes=${range.start}-${last}` },
    signal: options.signal === undefined ? null : AbortSignal.any([options.signal]),
  })
  if (!answer.ok) throw Object.assign(new Error(await answer.text()), { status: answer.status })
  const [, from, to] = /^bytes (\d+)-(\d+)\//.exec(answer.headers.get('content-range') ?? '') ?? []
  if (answer.body === null || Number(from) !== range.start)
    throw new WalbackError('storage', `the store does not give the range of ${name} asked for`)
  const version = answer.headers.get('x-goog-generation') ?? undefined
  return { body: answer.body, length_bytes: Number(to) + 1 - range.start, version }
}

async function tokenOf(file: File): Promise<string | undefined> {
  try {
    const [{ metadata }] = await file.getMetadata()
    return String(metadata?.[tokenName] ?? '')
  } catch (error) {
    if (complaintOf(error).status === 404) return undefined
    throw error
  }
}
