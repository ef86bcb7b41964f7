import { throwIfAborted } from '../../src/base/abort.ts'
import { WalbackError } from '../../src/base/errors.ts'
import type { GetOptions, PutOptions, Storage, StoredObject } from '../../src/storage/storage.ts'

/** A store in memory, for tests that read thousands of damaged objects. `chunkBytes` is how it cuts what it gives. */
export class MemoryStorage implements Storage {
  readonly url: string = 'memory:'
  readonly objects = new Map<string, Buffer>()
  chunkBytes = 1 << 20

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options: PutOptions = {}): Promise<boolean> {
    const parts: Buffer[] = []
    for await (const part of Buffer.isBuffer(body) ? [body] : body) {
      throwIfAborted(options.signal)
      parts.push(part)
    }
    if (options.ifAbsent && this.objects.has(key)) return false
    this.objects.set(key, Buffer.concat(parts))
    return true
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Buffer> {
    const object = this.objects.get(key)
    if (object === undefined) {
      throw new WalbackError('storage', `cannot read ${key}: it is absent`, { facts: { absent: true } })
    }
    const { start, end } = options.range ?? { start: 0, end: object.length }
    const wanted = object.subarray(start, end)
    for (let at = 0; at < wanted.length; at += this.chunkBytes) {
      throwIfAborted(options.signal)
      yield wanted.subarray(at, at + this.chunkBytes)
    }
  }

  async size(key: string): Promise<number | undefined> {
    return this.objects.get(key)?.length
  }

  async *list(prefix: string): AsyncGenerator<StoredObject> {
    const keys = [...this.objects.keys()].filter((key) => key.startsWith(prefix)).sort()
    for (const key of keys) {
      const size_bytes = this.objects.get(key)?.length
      if (size_bytes !== undefined) yield { key, size_bytes }
    }
  }

  async delete(key: string): Promise<void> {
    this.objects.delete(key)
  }
}
