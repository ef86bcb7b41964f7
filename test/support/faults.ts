/** Stores that misbehave as real ones do: they hang, refuse for a while, or do the work and then say that they did not. */

import { sleep, throwIfAborted } from '../../src/base/abort.ts'
import { WalbackError } from '../../src/base/errors.ts'
import {
  type GetOptions,
  type PutOptions,
  readAll,
  type Storage,
  type StoredObject,
} from '../../src/storage/storage.ts'

export const storeIsAway = (what: string): WalbackError =>
  new WalbackError('storage', `injected: the store is away (${what})`, { retryable: true })

/**
 * How a put goes:
 * - `well`: as the store below does it;
 * - `hang`: waits, before anything is written, until released or aborted;
 * - `hang deaf`: the same, and an abort is not heard: the write is carried out whenever it is released;
 * - `fail`: a retryable storage error, and nothing is written;
 * - `fail late`: the object is written, and the answer is a retryable storage error;
 * - `answer late`: the object is written, and the answer waits until released or aborted;
 * - `cut short`: half of the object is written, and that is acknowledged;
 * - `lose`: nothing is written, and that is acknowledged.
 */
export type PutMode = 'well' | 'hang' | 'hang deaf' | 'fail' | 'fail late' | 'answer late' | 'cut short' | 'lose'

interface Options {
  readonly signal?: AbortSignal | undefined
}

/** A store whose puts can be told to hang, to fail or to answer late; everything else passes. */
export class StallingStorage implements Storage {
  readonly url: string
  mode: PutMode = 'well'
  /** Which keys are concerned. */
  concerns: (key: string) => boolean = () => true
  /** Runs before a list is answered, once the store below has been asked. */
  afterList: ((prefix: string) => Promise<void>) | undefined
  /** Puts that began since it was made, and those that hang now. */
  puts = 0
  hanging = 0
  private readonly inner: Storage
  private waiting: (() => void)[] = []

  constructor(inner: Storage) {
    this.inner = inner
    this.url = inner.url
  }

  /** Goes back to working well, and lets go of what hangs. */
  release(): void {
    this.mode = 'well'
    const waiting = this.waiting
    this.waiting = []
    for (const go of waiting) go()
  }

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options: PutOptions = {}): Promise<boolean> {
    this.puts++
    const mode = this.concerns(key) ? this.mode : 'well'
    if (mode === 'fail') throw storeIsAway(`put ${key}`)
    if (mode === 'lose') return true
    if (mode === 'cut short') {
      const whole = await readAll(Buffer.isBuffer(body) ? one(body) : body)
      return this.inner.put(key, whole.subarray(0, whole.length / 2), options)
    }
    if (mode === 'hang') await this.hang(options.signal)
    if (mode === 'hang deaf') {
      await this.hang(undefined)
      return this.inner.put(key, body, { ...options, signal: undefined })
    }
    const done = await this.inner.put(key, body, options)
    if (mode === 'fail late') throw storeIsAway(`put ${key}, which was done`)
    if (mode === 'answer late') await this.hang(options.signal)
    return done
  }

  get(key: string, options?: GetOptions): AsyncIterable<Buffer> {
    return this.inner.get(key, options)
  }

  size(key: string, options?: Options): Promise<number | undefined> {
    return this.inner.size(key, options)
  }

  async *list(prefix: string, options?: Options): AsyncGenerator<StoredObject> {
    const found: StoredObject[] = []
    for await (const object of this.inner.list(prefix, options)) found.push(object)
    await this.afterList?.(prefix)
    yield* found
  }

  delete(key: string): Promise<void> {
    return this.inner.delete(key)
  }

  private async hang(signal: AbortSignal | undefined): Promise<void> {
    this.hanging++
    try {
      await new Promise<void>((resolve) => {
        this.waiting.push(resolve)
        if (signal?.aborted) resolve()
        else signal?.addEventListener('abort', () => resolve(), { once: true })
      })
      throwIfAborted(signal)
    } finally {
      this.hanging--
    }
  }
}

async function* one(body: Buffer): AsyncGenerator<Buffer> {
  yield body
}

export type SweepKind = 'put before' | 'put after' | 'get' | 'list' | 'size'

/** A store that fails once: at the n-th call of one kind, counted from 0. */
export class FailingOnce implements Storage {
  readonly url: string
  /** Whether there were enough calls for the failure to come. */
  hasFailed = false
  private readonly inner: Storage
  private readonly kind: SweepKind
  private left: number

  constructor(inner: Storage, kind: SweepKind, n: number) {
    this.inner = inner
    this.url = inner.url
    this.kind = kind
    this.left = n
  }

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options?: PutOptions): Promise<boolean> {
    this.count('put before', key)
    const done = await this.inner.put(key, body, options)
    this.count('put after', key)
    return done
  }

  async *get(key: string, options?: GetOptions): AsyncGenerator<Buffer> {
    this.count('get', key)
    yield* this.inner.get(key, options)
  }

  async size(key: string, options?: Options): Promise<number | undefined> {
    this.count('size', key)
    return this.inner.size(key, options)
  }

  async *list(prefix: string, options?: Options): AsyncGenerator<StoredObject> {
    this.count('list', prefix)
    yield* this.inner.list(prefix, options)
  }

  delete(key: string): Promise<void> {
    return this.inner.delete(key)
  }

  private count(kind: SweepKind, what: string): void {
    if (kind !== this.kind || this.hasFailed || this.left-- > 0) return
    this.hasFailed = true
    throw storeIsAway(`${kind} ${what}`)
  }
}

/** A store that takes the rows of a base, but stands still once it has had the first of them: the first time, or every time for a while. */
export class SlowRows implements Storage {
  readonly url: string
  /** Resolves when it stands still for the first time. */
  readonly standing: Promise<void>
  private readonly inner: Storage
  private stand: () => void = () => undefined
  private letGo: () => void = () => undefined
  private readonly gate: Promise<void>
  private every_ms: number | undefined

  constructor(inner: Storage) {
    this.inner = inner
    this.url = inner.url
    this.standing = new Promise((resolve) => {
      this.stand = resolve
    })
    this.gate = new Promise((resolve) => {
      this.letGo = resolve
    })
  }

  /** Lets what stands go on; `every`: and what comes later stand still for half a second each. */
  release(which?: 'every'): void {
    if (which === 'every') this.every_ms = 500
    this.letGo()
  }

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options?: PutOptions): Promise<boolean> {
    const isRows = key.includes('/rows/') && !Buffer.isBuffer(body)
    return this.inner.put(key, isRows ? this.slowly(body) : body, options)
  }

  get(key: string, options?: GetOptions): AsyncIterable<Buffer> {
    return this.inner.get(key, options)
  }

  size(key: string, options?: Options): Promise<number | undefined> {
    return this.inner.size(key, options)
  }

  list(prefix: string, options?: Options): AsyncIterable<StoredObject> {
    return this.inner.list(prefix, options)
  }

  delete(key: string): Promise<void> {
    return this.inner.delete(key)
  }

  private async *slowly(body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    let count = 0
    for await (const chunk of body) {
      yield chunk
      // The header, and then a block of rows.
      if (++count !== 2) continue
      this.stand()
      await this.gate
      if (this.every_ms !== undefined) await sleep(this.every_ms)
    }
  }
}
