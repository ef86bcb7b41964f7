import type { Readable } from 'node:stream'
import type { S3Client, S3ClientConfig } from '@aws-sdk/client-s3'
import { throwIfAborted } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import type { Piece } from './read-on.ts'
import { complaintOf, s3Failure } from './s3-failure.ts'
import type { S3Location } from './s3-url.ts'

type Signal = AbortSignal | undefined
type Sdk = typeof import('@aws-sdk/client-s3')

export interface ListedObject {
  readonly key: string
  readonly size_bytes: number
  readonly modified: Date
}

export interface PutRequest {
  /** Drawn for each put, and stored with the object: tells our own from another's when an answer was lost. */
  readonly token: string
  readonly ifAbsent: boolean
  readonly signal: Signal
}

export interface Upload {
  readonly key: string
  readonly id: string
  readonly token: string
}

export interface UploadedPart {
  readonly PartNumber: number
  readonly ETag: string | undefined
}

/**
 * Single requests to one bucket, keys without the repository's prefix, failures in walback's words. The SDK is loaded
 * with the first of them, and repeats what failed in passing: five attempts, with backoff.
 */
export class S3Bucket {
  private readonly location: S3Location
  private loaded: Promise<{ readonly sdk: Sdk; readonly client: S3Client }> | undefined
  private isKnown = false

  constructor(location: S3Location) {
    this.location = location
  }

  where(key: string): string {
    const { bucket, prefix } = this.location
    return `s3://${bucket}/${prefix}${key}`
  }

  /** False when the key exists and `ifAbsent` forbids to replace it. */
  async put(key: string, body: Buffer, { token, ifAbsent, signal }: PutRequest): Promise<boolean> {
    return this.ask('write', key, signal, async ({ sdk, client }, abort) => {
      const command = new sdk.PutObjectCommand({
        ...this.at(key),
        Body: body,
        ContentLength: body.length,
        Metadata: { [tokenName]: token },
        ...(ifAbsent ? { IfNoneMatch: '*' } : {}),
      })
      try {
        await client.send(command, abort)
        return true
      } catch (error) {
        if (!ifAbsent) throw error
        return this.outcome(key, token, error)
      }
    })
  }

  async createUpload(key: string, token: string, signal: Signal): Promise<Upload> {
    return this.ask('begin to write', key, signal, async ({ sdk, client }, abort) => {
      const command = new sdk.CreateMultipartUploadCommand({ ...this.at(key), Metadata: { [tokenName]: token } })
      const { UploadId: id } = await client.send(command, abort)
      if (id === undefined) throw new WalbackError('storage', `the store gave no upload for ${this.where(key)}`)
      return { key, id, token }
    })
  }

  async putPart(upload: Upload, number: number, body: Buffer, signal: Signal): Promise<UploadedPart> {
    return this.ask(`write part ${number} of`, upload.key, signal, async ({ sdk, client }, abort) => {
      const part = { UploadId: upload.id, PartNumber: number, Body: body, ContentLength: body.length }
      const { ETag } = await client.send(new sdk.UploadPartCommand({ ...this.at(upload.key), ...part }), abort)
      return { PartNumber: number, ETag }
    })
  }

  /** Gives the parts their name; false as for `put`. */
  async complete(
    { key, id, token }: Upload,
    parts: readonly UploadedPart[],
    { ifAbsent, signal }: { readonly ifAbsent: boolean; readonly signal: Signal },
  ): Promise<boolean> {
    return this.ask('end the writing of', key, signal, async ({ sdk, client }, abort) => {
      const command = new sdk.CompleteMultipartUploadCommand({
        ...this.at(key),
        UploadId: id,
        MultipartUpload: { Parts: [...parts] },
        ...(ifAbsent ? { IfNoneMatch: '*' } : {}),
      })
      try {
        await client.send(command, abort)
        return true
      } catch (error) {
        throwIfAborted(signal)
        // A repeated request finds that the first one has ended the upload.
        if (complaintOf(error).code === 'NoSuchUpload' && (await this.tokenOf(key)) === token) return true
        if (!ifAbsent) throw error
        return this.outcome(key, token, error)
      }
    })
  }

  async abortUpload({ key, id }: Upload): Promise<void> {
    await this.ask('abandon', key, undefined, ({ sdk, client }) =>
      client.send(new sdk.AbortMultipartUploadCommand({ ...this.at(key), UploadId: id })),
    )
  }

  /** What lies in the range [start, end) of an object; undefined when it ends before `start`. */
  async get(
    key: string,
    range: { readonly start: number; readonly end: number | undefined },
    options: { readonly version?: string | undefined; readonly signal: Signal },
  ): Promise<Piece | undefined> {
    const { start, end } = range
    return this.ask('read', key, options.signal, async ({ sdk, client }, abort) => {
      const command = new sdk.GetObjectCommand({
        ...this.at(key),
        // Also for the whole of it: the answer then says twice how long it is.
        Range: `bytes=${start}-${end === undefined ? '' : end - 1}`,
        ...(options.version === undefined ? {} : { IfMatch: options.version }),
      })
      try {
        const { Body, ContentRange, ETag } = await client.send(command, abort)
        const [, first, last] = /^bytes (\d+)-(\d+)\//.exec(ContentRange ?? '') ?? []
        if (Body === undefined || Number(first) !== start) throw noRange(this.where(key))
        return { body: Body as Readable, length_bytes: Number(last) + 1 - start, version: ETag }
      } catch (error) {
        const { status } = complaintOf(error)
        if (status === 416) return undefined
        if (status === 412) throw changed(this.where(key))
        throw error
      }
    })
  }

  async size(key: string, signal: Signal): Promise<number | undefined> {
    return this.ask('look at', key, signal, async ({ sdk, client }, abort) => {
      try {
        const { ContentLength } = await client.send(new sdk.HeadObjectCommand(this.at(key)), abort)
        this.isKnown = true
        return ContentLength
      } catch (error) {
        const { status } = complaintOf(error)
        if (status === 404) return await this.absent(signal)
        if (status === undefined || status >= 500) throw error
        // The answer to HEAD has no body, and so no reason: the same asked as GET has one.
        await client.send(new sdk.GetObjectCommand({ ...this.at(key), Range: 'bytes=0-0' }), abort)
        throw error
      }
    })
  }

  /** One page of a listing, in the order of keys, and how to ask for the next. */
  async list(
    prefix: string,
    after: string | undefined,
    signal: Signal,
  ): Promise<{ readonly objects: ListedObject[]; readonly next: string | undefined }> {
    const { bucket, prefix: root } = this.location
    return this.ask('list', prefix, signal, async ({ sdk, client }, abort) => {
      const command = new sdk.ListObjectsV2Command({ Bucket: bucket, Prefix: root + prefix, ContinuationToken: after })
      const page = await client.send(command, abort)
      this.isKnown = true
      const objects = (page.Contents ?? []).flatMap(({ Key, Size, LastModified }) =>
        Key === undefined
          ? []
          : { key: Key.slice(root.length), size_bytes: Size ?? 0, modified: LastModified ?? new Date(0) },
      )
      return { objects, next: page.IsTruncated ? page.NextContinuationToken : undefined }
    })
  }

  async delete(key: string): Promise<void> {
    await this.ask('delete', key, undefined, ({ sdk, client }) =>
      client.send(new sdk.DeleteObjectCommand(this.at(key))),
    )
  }

  /**
   * What became of a conditional put that was refused. After a lost answer the object that is in the way is our own.
   * 409 is S3's word for two such puts at the same moment: one of them wins, or neither.
   */
  private async outcome(key: string, token: string, error: unknown): Promise<boolean> {
    const { status, code, attempts } = complaintOf(error)
    if (status === 412) return attempts > 1 && (await this.tokenOf(key)) === token
    if (status !== 409 && code !== 'ConditionalRequestConflict') throw error
    const found = await this.tokenOf(key)
    if (found !== undefined) return found === token
    throw new WalbackError('storage', `another writer was at ${this.where(key)} at the same moment`, {
      retryable: true,
    })
  }

  /** The token that an object was put with: empty for a foreign object, undefined where there is none. */
  private async tokenOf(key: string): Promise<string | undefined> {
    const { sdk, client } = await this.load()
    try {
      const { Metadata } = await client.send(new sdk.HeadObjectCommand(this.at(key)))
      return Metadata?.[tokenName] ?? ''
    } catch (error) {
      if (complaintOf(error).status === 404) return undefined
      throw error
    }
  }

  /** HEAD says 404 of a bucket that is not there too, which is asked for once. */
  private async absent(signal: Signal): Promise<undefined> {
    if (!this.isKnown) await this.list('.walback/', undefined, signal)
    return undefined
  }

  private async ask<T>(
    doing: string,
    key: string,
    signal: Signal,
    request: (
      loaded: { readonly sdk: Sdk; readonly client: S3Client },
      abort: { readonly abortSignal?: AbortSignal },
    ) => Promise<T>,
  ): Promise<T> {
    throwIfAborted(signal)
    try {
      // A signal of its own for each request: the SDK listens to it, and one signal may serve thousands.
      return await request(await this.load(), signal === undefined ? {} : { abortSignal: AbortSignal.any([signal]) })
    } catch (error) {
      throwIfAborted(signal)
      throw s3Failure(doing, this.where(key), error)
    }
  }

  private at(key: string): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.location.bucket, Key: this.location.prefix + key }
  }

  /** The SDK takes a fifth of a second to load, which a repository in a folder need not wait for. */
  private load(): Promise<{ readonly sdk: Sdk; readonly client: S3Client }> {
    this.loaded ??= import('@aws-sdk/client-s3').then((sdk) => ({
      sdk,
      client: new sdk.S3Client(clientConfig(this.location)),
    }))
    return this.loaded
  }
}

const tokenName = 'walback-put'

function clientConfig({ region, endpoint, pathStyle }: S3Location): S3ClientConfig {
  return {
    ...(region === undefined ? {} : { region }),
    ...(endpoint === undefined ? {} : { endpoint }),
    // Many that speak S3 refuse the checksums that newer SDKs add by themselves.
    ...(endpoint === undefined
      ? {}
      : { requestChecksumCalculation: 'WHEN_REQUIRED' as const, responseChecksumValidation: 'WHEN_REQUIRED' as const }),
    forcePathStyle: pathStyle,
    maxAttempts: 5,
    requestHandler: {
      connectionTimeout: 10_000,
      // A store that neither takes nor sends a byte for so long does not do it any more.
      socketTimeout: 60_000,
      httpAgent: { keepAlive: true, maxSockets: 64 },
      httpsAgent: { keepAlive: true, maxSockets: 64 },
    },
  }
}

const noRange = (where: string): WalbackError =>
  new WalbackError('storage', `the store does not give the range of ${where} that it was asked for`)

const changed = (where: string): WalbackError =>
  new WalbackError('storage', `${where} was replaced while it was being read`, { retryable: true })
