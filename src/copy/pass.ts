import { WalbackError } from '../base/errors.ts'
import { readFrames } from '../repository/container.ts'
import type { Repository } from '../repository/repository.ts'
import type { GetOptions, ObjectSource } from '../storage/storage.ts'

export interface PassedReference {
  readonly key: string
  readonly size_bytes: number
  readonly sha256?: string | undefined
}

/**
 * The bytes of a container as they lie in their store, to be stored elsewhere as they are. What does not check out fails
 * before the last of them is given, so that a store that takes an object whole or not at all takes no damaged one.
 * Nothing is unpacked: the object's hash covers all. What is encrypted is opened for the check alone, and passes
 * unchecked where the key may write and not read.
 */
export async function* passContainer(
  repository: Repository,
  source: ObjectSource,
  reference: PassedReference,
  options: { readonly onHeader?: (header: unknown) => void; readonly signal?: AbortSignal | undefined } = {},
): AsyncGenerator<Buffer> {
  const { key, size_bytes } = reference
  if (repository.key?.mayRead === false) {
    yield* source.get(key, { signal: options.signal })
    return
  }
  const watched = new Watched(source)
  for await (const frame of readFrames(repository.opened(watched), reference, options.signal)) {
    if (frame.kind === 'header') options.onHeader?.(frame.header)
    if (frame.kind === 'end' && frame.size_bytes !== size_bytes)
      throw new WalbackError('corrupt', `${key} is damaged: it is ${frame.size_bytes} bytes long, not ${size_bytes}`)
    yield* watched.allButLast()
  }
  yield* watched.read
}

/** Keeps what is read of an object, until it is taken on. */
class Watched implements ObjectSource {
  readonly read: Buffer[] = []
  private readonly inner: ObjectSource

  constructor(inner: ObjectSource) {
    this.inner = inner
  }

  async *get(key: string, options?: GetOptions): AsyncGenerator<Buffer> {
    for await (const chunk of this.inner.get(key, options)) {
      if (chunk.length > 0) this.read.push(chunk)
      yield chunk
    }
  }

  size(key: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<number | undefined> {
    return this.inner.size(key, options)
  }

  allButLast(): Buffer[] {
    return this.read.splice(0, this.read.length - 1)
  }
}
