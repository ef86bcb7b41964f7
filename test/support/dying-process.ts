import { WalbackError } from '../../src/base/errors.ts'
import type { GetOptions, PutOptions, Storage, StoredObject } from '../../src/storage/storage.ts'

/** A process that dies at its n-th call to the store, before or after the store has carried it out. */
export class DyingProcess implements Storage {
  readonly url = 'memory:'
  calls = 0
  private readonly inner: Storage
  private readonly last: number
  private readonly isCarriedOut: boolean

  constructor(inner: Storage, last: number, isCarriedOut: boolean) {
    this.inner = inner
    this.last = last
    this.isCarriedOut = isCarriedOut
  }

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options?: PutOptions): Promise<boolean> {
    return this.call(() => this.inner.put(key, body, options))
  }

  async *get(key: string, options?: GetOptions): AsyncGenerator<Buffer> {
    await this.call(async () => undefined)
    yield* this.inner.get(key, options)
  }

  async size(key: string): Promise<number | undefined> {
    return this.call(() => this.inner.size(key))
  }

  async *list(prefix: string): AsyncGenerator<StoredObject> {
    await this.call(async () => undefined)
    yield* this.inner.list(prefix)
  }

  async delete(key: string): Promise<void> {
    return this.call(() => this.inner.delete(key))
  }

  private async call<T>(work: () => Promise<T>): Promise<T> {
    const n = this.calls++
    if (n > this.last || (n === this.last && !this.isCarriedOut)) throw dead()
    const done = await work()
    if (n === this.last) throw dead()
    return done
  }
}

const dead = (): WalbackError => new WalbackError('storage', 'injected: the process is dead', { retryable: true })
