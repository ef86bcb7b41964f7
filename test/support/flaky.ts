/** A store that flaps: drawn from a seed, a call fails before or after it is done, or takes its time. */
import { sleep } from '../../src/base/abort.ts'
import type { GetOptions, PutOptions, Storage, StoredObject } from '../../src/storage/storage.ts'
import { storeIsAway } from './faults.ts'
import { Random } from './random.ts'

export interface StoreFaults {
  readonly seed: number
  /** How many of the calls go wrong, from 0 to 1. */
  readonly rate: number
  /** A call that takes its time takes at most this. */
  readonly stall_ms: number
}

interface Options {
  readonly signal?: AbortSignal | undefined
}

export class FlakyStorage implements Storage {
  readonly url: string
  private readonly inner: Storage
  private readonly faults: StoreFaults
  private readonly random: Random
  private isSound = false

  constructor(inner: Storage, faults: StoreFaults) {
    this.inner = inner
    this.url = inner.url
    this.faults = faults
    this.random = new Random(faults.seed)
  }

  /** Nothing goes wrong from now on. */
  mend(): void {
    this.isSound = true
  }

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options?: PutOptions): Promise<boolean> {
    const failLate = await this.fate(`put ${key}`, options)
    const done = await this.inner.put(key, body, options)
    failLate()
    return done
  }

  async *get(key: string, options?: GetOptions): AsyncGenerator<Buffer> {
    const failLate = await this.fate(`get ${key}`, options)
    yield* this.inner.get(key, options)
    failLate()
  }

  async size(key: string, options?: Options): Promise<number | undefined> {
    const failLate = await this.fate(`size ${key}`, options)
    const size = await this.inner.size(key, options)
    failLate()
    return size
  }

  async *list(prefix: string, options?: Options): AsyncGenerator<StoredObject> {
    const failLate = await this.fate(`list ${prefix}`, options)
    yield* this.inner.list(prefix, options)
    failLate()
  }

  async delete(key: string): Promise<void> {
    const failLate = await this.fate(`delete ${key}`, {})
    await this.inner.delete(key)
    failLate()
  }

  /** Draws how a call goes: throws, waits, or gives what throws once it is done. */
  private async fate(what: string, options: Options | undefined): Promise<() => void> {
    const { rate, stall_ms } = this.faults
    const goesWrong = this.random.chance(rate) && !this.isSound
    const kind = this.random.int(0, 2)
    const time_ms = this.random.int(0, stall_ms)
    if (goesWrong && kind === 0) throw storeIsAway(what)
    if (goesWrong && kind === 1) await sleep(time_ms, options?.signal)
    return () => {
      if (goesWrong && kind === 2) throw storeIsAway(`${what}, which was done`)
    }
  }
}
