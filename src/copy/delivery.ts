import { throwIfAborted } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import type { Repository } from '../repository/repository.ts'
import { isAbsent, type ObjectSource, type Storage } from '../storage/storage.ts'
import { type PassedReference, passContainer } from './pass.ts'

/** An object of the source that was not copied, and why. */
export interface Damage {
  readonly key: string
  readonly what: string
}

export interface CopyProgress {
  readonly phase: 'stream' | 'bases'
  readonly objects: number
  readonly bytes: number
  /** Of so many, as the listings say. */
  readonly of: { readonly objects: number; readonly bytes: number }
}

/** Brings objects from one repository to another, and counts. */
export class Delivery {
  readonly from: Repository
  readonly to: Repository
  readonly signal: AbortSignal
  readonly damage: Damage[] = []
  objects = 0
  bytes = 0
  private readonly onObject: () => void

  constructor(from: Repository, to: Repository, signal: AbortSignal, onObject: () => void) {
    this.from = from
    this.to = to
    this.signal = signal
    this.onObject = onObject
  }

  /**
   * Stores a container as it is, also one that is encrypted. What does not check out, or is not there, fails as
   * `corrupt` and leaves nothing at the target. `held`: something of another length is in its place, which is no whole
   * object of this name.
   */
  async container(
    reference: PassedReference,
    options: { readonly source?: ObjectSource; readonly held: boolean; readonly onHeader?: (header: unknown) => void },
  ): Promise<boolean> {
    const { source = this.from.clear, held, onHeader } = options
    let failed: { readonly error: unknown } | undefined
    const watch = { ...(onHeader ? { onHeader } : {}), signal: this.signal }
    const pass = passContainer(this.from, source, reference, watch)
    const body = async function* (): AsyncGenerator<Buffer> {
      try {
        yield* pass
      } catch (error) {
        failed = { error: asDamage(reference.key, error) }
        throw failed.error
      }
    }
    try {
      return await this.put(this.to.clear, reference.key, body(), { size_bytes: reference.size_bytes, held })
    } catch (error) {
      throw failed === undefined ? error : failed.error
    }
  }

  /** Stores bytes that were read, and checked, before. */
  document(key: string, bytes: Buffer, held = false): Promise<boolean> {
    return this.put(this.to.storage, key, bytes, { size_bytes: bytes.length, held })
  }

  /** Notes what could not be copied; throws what is no damage of the source. */
  note(key: string, error: unknown): void {
    if (!isDamage(error)) throw error
    const { message: what, facts } = asDamage(key, error) as WalbackError
    this.damage.push({ key: String(facts['key']), what })
  }

  /** False if there is an object of that name. An acknowledgement alone is not believed (docs/decisions/0007). */
  private async put(
    store: Storage,
    key: string,
    body: Buffer | AsyncIterable<Buffer>,
    { size_bytes, held }: { readonly size_bytes: number; readonly held: boolean },
  ): Promise<boolean> {
    const { storage } = this.to
    const { signal } = this
    throwIfAborted(signal)
    const isMade = await store.put(key, body, { ifAbsent: !held, signal })
    const held_bytes = await storage.size(key, { signal })
    if (held_bytes !== size_bytes) {
      throw new WalbackError(
        'storage',
        `${storage.url} has ${held_bytes ?? 'no'} bytes of ${key}, which is ${size_bytes} bytes long`,
        {
          hint: 'it acknowledged what it did not keep, or somebody else writes there; run the copy again',
          facts: { key, given_bytes: size_bytes, held_bytes: held_bytes ?? null },
          retryable: true,
        },
      )
    }
    if (!isMade) return false
    this.objects++
    this.bytes += size_bytes
    this.onObject()
    return true
  }
}

/** The error for an object that is damaged, which says its key; what is named and not there is damage as well. */
function asDamage(key: string, error: unknown): unknown {
  if (isAbsent(error)) return new WalbackError('corrupt', `${key} is missing`, { cause: error, facts: { key } })
  const isBare = error instanceof WalbackError && error.code === 'corrupt' && error.facts['key'] === undefined
  return isBare ? new WalbackError('corrupt', error.message, { cause: error, facts: { ...error.facts, key } }) : error
}

/** Whether an object of the source is damaged, or missing. */
export const isDamage = (error: unknown): boolean =>
  isAbsent(error) || (error instanceof WalbackError && error.code === 'corrupt')
