import { randomBytes } from 'node:crypto'
import { throwIfAborted } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { type ClaimStore, type ClaimTimes, claimTimes, ownPrefix, putUnderClaim } from './claims.ts'
import { cutParts, maxParts, partBytes, stopping } from './cut.ts'
import { ordered } from './ordered.ts'
import { readOn } from './read-on.ts'
import { type ListedObject, S3Bucket, type Upload, type UploadedPart } from './s3-bucket.ts'
import { isPassing } from './s3-failure.ts'
import type { S3Location } from './s3-url.ts'
import type { GetOptions, PutOptions, Storage, StoredObject } from './storage.ts'

type Signal = AbortSignal | undefined

/** What a test sets otherwise. */
export interface S3Options {
  readonly partBytes?: (number: number) => number
  readonly claimTimes?: ClaimTimes
}

/**
 * A bucket, or a prefix in one, as a store: AWS S3 and what speaks its protocol. An object has its name once its last
 * byte is acknowledged, by itself for what fits into one part, else as a multipart upload that is completed or aborted.
 * Put-if-absent is `If-None-Match: *` where the store honours it, which is tried once, and a claim where it does not.
 */
export class S3Storage implements Storage {
  readonly url: string
  private readonly bucket: S3Bucket
  private readonly partBytes: (number: number) => number
  private readonly claimTimes: ClaimTimes
  private honours: Promise<boolean> | undefined

  constructor(location: S3Location, options: S3Options = {}) {
    this.url = location.url
    this.bucket = new S3Bucket(location)
    this.partBytes = options.partBytes ?? partBytes
    this.claimTimes = options.claimTimes ?? claimTimes
  }

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options: PutOptions = {}): Promise<boolean> {
    const { signal, ifAbsent = false } = options
    throwIfAborted(signal)
    const token = randomBytes(12).toString('hex')
    const parts = cutParts(stopping(body, signal), this.partBytes)
    try {
      const first = await parts.next()
      const second = await parts.next()
      const head = first.value ?? Buffer.alloc(0)
      if (second.done) return await this.putWhole(key, head, token, ifAbsent, signal)
      return await this.putParts(key, rejoin([head, second.value], parts), token, ifAbsent, signal)
    } finally {
      await parts.return(undefined)
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Buffer> {
    const { signal, range } = options
    const end = range?.end
    const start = range?.start ?? 0
    throwIfAborted(signal)
    if (end !== undefined && end <= start) return
    yield* readOn({
      start,
      signal,
      isPassing,
      open: async (at, version) => this.bucket.get(key, { start: at, end }, { version, signal }),
    })
  }

  async size(key: string, options: { readonly signal?: Signal } = {}): Promise<number | undefined> {
    return this.bucket.size(key, options.signal)
  }

  async *list(prefix: string, options: { readonly signal?: Signal } = {}): AsyncGenerator<StoredObject> {
    yield* ordered(this.url, this.listed(prefix, options.signal))
  }

  async delete(key: string): Promise<void> {
    await this.bucket.delete(key)
  }

  /** Whether the store honours `If-None-Match: *`, of single puts and of uploads in parts. */
  honoursIfAbsent(signal?: AbortSignal): Promise<boolean> {
    this.honours ??= this.probe(signal).catch((error: unknown) => {
      // Not known is not an answer: the next put asks again.
      this.honours = undefined
      throw error
    })
    return this.honours
  }

  /**
   * Puts one object twice that may be there only once. It stays, so that later a single refused put is the answer. Some
   * honour the header on single puts and pass over it on uploads; the two must not be mixed, so both are tried.
   */
  private async probe(signal: Signal): Promise<boolean> {
    const key = `${ownPrefix}probe`
    const put = async (): Promise<boolean> => {
      const token = randomBytes(12).toString('hex')
      return this.bucket.put(key, Buffer.from('does the store honour If-None-Match?\n'), {
        token,
        ifAbsent: true,
        signal,
      })
    }
    try {
      if ((await put()) && (await put())) return false
      const upload = await this.bucket.createUpload(key, randomBytes(12).toString('hex'), signal)
      const part = await this.bucket.putPart(upload, 1, Buffer.from('or on uploads?\n'), signal)
      if (await this.bucket.complete(upload, [part], { ifAbsent: true, signal })) return false
      await this.bucket.abortUpload(upload)
      return true
    } catch (error) {
      // 501 is the honest way of not having it.
      if (error instanceof WalbackError && error.facts['status'] === 501) return false
      throw error
    }
  }

  private async putWhole(
    key: string,
    body: Buffer,
    token: string,
    ifAbsent: boolean,
    signal: Signal,
  ): Promise<boolean> {
    if (!ifAbsent || (await this.honoursIfAbsent(signal)))
      return this.bucket.put(key, body, { token, ifAbsent, signal })
    if (body.length > wholeUnderClaimBytes) return this.putParts(key, rejoin([body]), token, ifAbsent, signal)
    return this.underClaim(key, token, signal, async (inTime) => {
      await this.bucket.put(key, body, { token, ifAbsent: false, signal: inTime })
    })
  }

  private async putParts(
    key: string,
    parts: AsyncIterable<Buffer>,
    token: string,
    ifAbsent: boolean,
    signal: Signal,
  ): Promise<boolean> {
    const honours = ifAbsent && (await this.honoursIfAbsent(signal))
    const upload = await this.bucket.createUpload(key, token, signal)
    let done = false
    try {
      const uploaded = await this.sendParts(upload, parts, signal)
      if (!ifAbsent || honours) done = await this.bucket.complete(upload, uploaded, { ifAbsent, signal })
      else {
        done = await this.underClaim(key, token, signal, async (inTime) => {
          await this.bucket.complete(upload, uploaded, { ifAbsent: false, signal: inTime })
        })
      }
      return done
    } finally {
      // Without it the parts would be kept, and paid for, unseen. A failure here does not hide the first one.
      if (!done) await this.bucket.abortUpload(upload).catch(() => undefined)
    }
  }

  /** Sends parts while the next ones are gathered, few and small enough that memory stays bounded. */
  private async sendParts(upload: Upload, parts: AsyncIterable<Buffer>, signal: Signal): Promise<UploadedPart[]> {
    const uploaded: UploadedPart[] = []
    const sending: Promise<UploadedPart>[] = []
    let number = 0
    try {
      for await (const part of parts) {
        if (++number > maxParts) throw tooLarge(this.bucket.where(upload.key))
        const sent = this.bucket.putPart(upload, number, part, signal)
        // A failure is thrown when its turn comes; until then it is no unhandled one.
        sent.catch(() => undefined)
        sending.push(sent)
        const most = part.length > severalAtOnceBytes ? 1 : partsAtOnce
        while (sending.length >= most) uploaded.push(await (sending.shift() as Promise<UploadedPart>))
      }
      for (const sent of sending) uploaded.push(await sent)
      return uploaded
    } finally {
      // A part that arrives after its upload was aborted would be kept.
      await Promise.allSettled(sending)
    }
  }

  private underClaim(
    key: string,
    token: string,
    signal: Signal,
    write: (inTime: AbortSignal) => Promise<void>,
  ): Promise<boolean> {
    const { bucket } = this
    const store: ClaimStore = {
      put: async (claim) => void (await bucket.put(claim, Buffer.alloc(0), { token, ifAbsent: false, signal })),
      delete: (claim) => bucket.delete(claim),
      exists: async (looked) => (await bucket.size(looked, signal)) !== undefined,
      list: async (prefix) => collect(this.pages(prefix, signal)),
    }
    return putUnderClaim(store, key, token, write, { signal, times: this.claimTimes })
  }

  private async *listed(prefix: string, signal: Signal): AsyncGenerator<StoredObject> {
    for await (const { key, size_bytes } of this.pages(prefix, signal)) {
      if (!key.startsWith(ownPrefix)) yield { key, size_bytes }
    }
  }

  private async *pages(prefix: string, signal: Signal): AsyncGenerator<ListedObject> {
    let next: string | undefined
    do {
      const page = await this.bucket.list(prefix, next, signal)
      yield* page.objects
      next = page.next
    } while (next !== undefined)
  }
}

const partsAtOnce = 3
const severalAtOnceBytes = 16 << 20
/** What is larger goes up as a part before there is a claim, so that the claim is held for one short request. */
const wholeUnderClaimBytes = 64 << 10

async function* rejoin(first: readonly Buffer[], rest?: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  yield* first
  if (rest) yield* rest
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}

const tooLarge = (where: string): WalbackError =>
  new WalbackError('storage', `${where} is larger than an object can be`, {
    hint: 'S3 takes 10,000 parts and 5 TiB for an object',
  })
