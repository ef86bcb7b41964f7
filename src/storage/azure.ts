import { randomBytes } from 'node:crypto'
import type { BlockBlobClient, ContainerClient } from '@azure/storage-blob'
import { throwIfAborted } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { azureFailure, complaintOf, isPassing } from './azure-failure.ts'
import type { AzureLocation } from './azure-url.ts'
import { cutParts, maxParts, partBytes, stopping } from './cut.ts'
import { loadOptional } from './optional.ts'
import { ordered } from './ordered.ts'
import { type Piece, readOn } from './read-on.ts'
import type { GetOptions, PutOptions, Storage, StoredObject } from './storage.ts'
import { firstWait_ms, longestWait_ms, maxTries } from './tries.ts'

type Signal = AbortSignal | undefined

/**
 * A container of Azure's Blob Storage, or a prefix in one, as a store. What fits into one part is one request; what does
 * not is staged in blocks, which are nothing until their list is committed and which Azure drops after a week.
 * Put-if-absent is `If-None-Match: *`, of a put and of a list of blocks alike.
 */
export class AzureStorage implements Storage {
  readonly url: string
  private readonly location: AzureLocation
  private readonly partBytes: (number: number) => number
  private loaded: Promise<ContainerClient> | undefined
  private isKnown = false

  constructor(location: AzureLocation, options: { readonly partBytes?: (number: number) => number } = {}) {
    this.url = location.url
    this.location = location
    this.partBytes = options.partBytes ?? partBytes
  }

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options: PutOptions = {}): Promise<boolean> {
    const { signal, ifAbsent = false } = options
    throwIfAborted(signal)
    const token = randomBytes(12).toString('hex')
    const parts = cutParts(stopping(body, signal), this.partBytes)
    const conditions = ifAbsent ? { conditions: { ifNoneMatch: '*' } } : {}
    const details = { metadata: { [tokenName]: token }, ...conditions }
    try {
      const first = (await parts.next()).value ?? Buffer.alloc(0)
      const second = await parts.next()
      if (second.done) {
        return await this.write(key, token, ifAbsent, signal, (blob, abort) =>
          blob.upload(first, first.length, { ...details, ...abort }),
        )
      }
      const blocks: string[] = []
      const stage = async (part: Buffer): Promise<void> => {
        if (blocks.length === maxParts) throw new WalbackError('storage', `${this.where(key)} is too large`)
        // Drawn anew for each put, since blocks of all writers of a key lie together.
        const id = Buffer.from(`${token}-${String(blocks.length).padStart(5, '0')}`).toString('base64')
        blocks.push(id)
        await this.ask('write a block of', key, signal, (blob, abort) => blob.stageBlock(id, part, part.length, abort))
      }
      await stage(first)
      await stage(second.value)
      for await (const part of parts) await stage(part)
      return await this.write(key, token, ifAbsent, signal, (blob, abort) =>
        blob.commitBlockList(blocks, { ...details, ...abort }),
      )
    } finally {
      await parts.return(undefined)
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Buffer> {
    const { signal, range } = options
    throwIfAborted(signal)
    if (range !== undefined && range.end <= range.start) return
    const open = (at: number, version: string | undefined): Promise<Piece | undefined> =>
      this.ask('read', key, signal, async (blob, abort) => {
        const conditions = version === undefined ? {} : { conditions: { ifMatch: version } }
        const count = range === undefined ? undefined : range.end - at
        try {
          const answer = await blob.download(at, count, { ...abort, ...conditions })
          const { readableStreamBody: body, contentLength: length_bytes } = answer
          if (body === undefined || length_bytes === undefined)
            throw new WalbackError('storage', `the store does not say how long ${this.where(key)} is`)
          return { body: body as AsyncIterable<Uint8Array>, length_bytes, version: answer.etag }
        } catch (error) {
          const { status } = complaintOf(error)
          if (status === 416) return undefined
          if (status !== 412) throw error
          throw new WalbackError('storage', `${this.where(key)} was replaced while it was being read`, {
            retryable: true,
          })
        }
      })
    yield* readOn({ start: range?.start ?? 0, signal, open, isPassing })
  }

  async size(key: string, options: { readonly signal?: Signal } = {}): Promise<number | undefined> {
    return this.ask('look at', key, options.signal, async (blob, abort) => {
      try {
        const { contentLength } = await blob.getProperties(abort)
        this.isKnown = true
        return contentLength
      } catch (error) {
        const { status, code } = complaintOf(error)
        if (status !== 404 || code === 'ContainerNotFound') throw error
        // Not every answer to HEAD tells a container that is not there from a blob: asked once, by a listing.
        if (!this.isKnown) await this.blobs(key, options.signal).next()
        return undefined
      }
    })
  }

  async *list(prefix: string, options: { readonly signal?: Signal } = {}): AsyncGenerator<StoredObject> {
    yield* ordered(this.url, this.blobs(prefix, options.signal))
  }

  async delete(key: string): Promise<void> {
    await this.ask('delete', key, undefined, (blob) => blob.deleteIfExists())
  }

  private async *blobs(prefix: string, signal: Signal): AsyncGenerator<StoredObject> {
    const root = this.location.prefix
    try {
      const container = await this.load()
      const found = container.listBlobsFlat({ prefix: root + prefix, ...abortOptions(signal) })
      for await (const { name, properties } of found) {
        throwIfAborted(signal)
        this.isKnown = true
        yield { key: name.slice(root.length), size_bytes: properties.contentLength ?? 0 }
      }
      this.isKnown = true
    } catch (error) {
      throwIfAborted(signal)
      throw azureFailure('list', this.where(prefix), error)
    }
  }

  /** A write of which the answer false means that the key is taken, by somebody else. */
  private async write(
    key: string,
    token: string,
    ifAbsent: boolean,
    signal: Signal,
    request: (blob: BlockBlobClient, abort: { abortSignal?: AbortSignal }) => Promise<unknown>,
  ): Promise<boolean> {
    return this.ask('write', key, signal, async (blob, abort) => {
      try {
        await request(blob, abort)
        return true
      } catch (error) {
        throwIfAborted(signal)
        const { status, code } = complaintOf(error)
        // Committing drops the blocks that all others have staged for the key.
        const isRefused = ifAbsent && (status === 409 || status === 412 || code === 'InvalidBlockList')
        if (!isRefused && code !== 'InvalidBlockList') throw error
        const found = await this.tokenOf(blob)
        // After a lost answer the object that is in the way is our own.
        if (found === token) return true
        if (ifAbsent && found !== undefined) return false
        throw new WalbackError('storage', `another writer was at ${this.where(key)} at the same moment`, {
          retryable: true,
        })
      }
    })
  }

  private async tokenOf(blob: BlockBlobClient): Promise<string | undefined> {
    try {
      return (await blob.getProperties()).metadata?.[tokenName] ?? ''
    } catch (error) {
      if (complaintOf(error).status === 404) return undefined
      throw error
    }
  }

  private async ask<T>(
    doing: string,
    key: string,
    signal: Signal,
    request: (blob: BlockBlobClient, abort: { abortSignal?: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    throwIfAborted(signal)
    try {
      const container = await this.load()
      return await request(container.getBlockBlobClient(this.location.prefix + key), abortOptions(signal))
    } catch (error) {
      throwIfAborted(signal)
      throw azureFailure(doing, this.where(key), error)
    }
  }

  private where(key: string): string {
    return `az://${this.location.container}/${this.location.prefix}${key}`
  }

  private load(): Promise<ContainerClient> {
    this.loaded ??= this.connect()
    return this.loaded
  }

  private async connect(): Promise<ContainerClient> {
    const sdk = await loadOptional('@azure/storage-blob', '12.32', 'az://', () => import('@azure/storage-blob'))
    const { container, login } = this.location
    const options = { retryOptions: { maxTries, retryDelayInMs: firstWait_ms, maxRetryDelayInMs: longestWait_ms } }
    if (login.kind === 'connection string') return new sdk.ContainerClient(login.text, container, options)
    const credential =
      login.kind === 'key'
        ? new sdk.StorageSharedKeyCredential(login.account, login.key)
        : new sdk.AnonymousCredential()
    const query = login.kind === 'sas' ? `?${login.token.replace(/^\?/, '')}` : ''
    return new sdk.ContainerClient(`${login.endpoint}/${container}${query}`, credential, options)
  }
}

/** Names of metadata are identifiers here. */
const tokenName = 'walback_put'

const abortOptions = (signal: Signal): { abortSignal?: AbortSignal } =>
  signal === undefined ? {} : { abortSignal: AbortSignal.any([signal]) }
