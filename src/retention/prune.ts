import { throwIfAborted } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { forEachParallel } from '../base/parallel.ts'
import type { Micros } from '../model/time.ts'
import { abandonBase } from '../repository/base.ts'
import { describeLease, Lease, type LeaseRecord, readLeases } from '../repository/lease.ts'
import { contains, merged, writePruned } from '../repository/pruned.ts'
import type { Repository } from '../repository/repository.ts'
import { readInventory } from './inventory.ts'
import { streamOf } from './keeping.ts'
import { type LackingBases, type PrunePlan, planPrune } from './plan.ts'
import type { RetentionPolicy } from './policy.ts'
import type { Doomed } from './removal.ts'

export interface PruneOptions {
  readonly signal?: AbortSignal | undefined
  /** What a policy counts back from at the latest; the machine's clock if not given. */
  readonly now?: Micros | undefined
  /** Which bases other repositories have to have as well, and have not yet. Asked once it is read what is here. */
  readonly lacking?: ((signal: AbortSignal | undefined) => Promise<LackingBases>) | undefined
  /** How often the lock is renewed; its default suits all but tests. */
  readonly lease_ms?: number
}

export interface PruneReport {
  readonly objects: number
  readonly bytes: number
  /** Objects that were left for the next prune, because a restore that began meanwhile reads them. */
  readonly spared: { readonly objects: number; readonly for: readonly string[] }
}

/** What a prune would do now; takes no lock and writes nothing. */
export async function previewPrune(
  repository: Repository,
  source: string,
  policy: RetentionPolicy,
  options: Pick<PruneOptions, 'now' | 'lacking' | 'signal'> = {},
): Promise<PrunePlan> {
  const inventory = await readInventory(repository, source, options)
  return planPrune(inventory, policy, await options.lacking?.(options.signal))
}

/** A prune that has the source's lock from its plan to its end, so that what was shown is what is done. */
export class Prune implements AsyncDisposable {
  readonly plan: PrunePlan
  private readonly repository: Repository
  private readonly lock: Lease

  private constructor(repository: Repository, lock: Lease, plan: PrunePlan) {
    this.repository = repository
    this.lock = lock
    this.plan = plan
  }

  /** Fails as `locked` when another prune is at work. */
  static async begin(
    repository: Repository,
    source: string,
    policy: RetentionPolicy,
    options: PruneOptions = {},
  ): Promise<Prune> {
    const { lease_ms } = options
    const lock = await Lease.take(repository, source, {
      purpose: 'prune',
      ...(lease_ms === undefined ? {} : { interval_ms: lease_ms }),
    })
    try {
      await refuseBesideCopy(repository, source)
      return new Prune(repository, lock, await previewPrune(repository, source, policy, options))
    } catch (error) {
      await lock[Symbol.asyncDispose]()
      throw error
    }
  }

  /**
   * Removes what the plan says: names first, so that whoever reads from names finds whole things only, wherever this
   * stops; what it had come to is collected by the next. A restore says what it reads and then looks whether that is
   * still named, and this takes names away and then looks who reads: so of the two one sees the other.
   */
  async run(options: { readonly signal?: AbortSignal | undefined } = {}): Promise<PruneReport> {
    const { source, removal } = this.plan
    const signal = options.signal === undefined ? this.lock.signal : AbortSignal.any([options.signal, this.lock.signal])
    for (const id of removal.givenUp) await abandonBase(this.repository, source, id)
    for (const [id, bases] of this.removedBases()) await writePruned(this.repository, { source, id }, [], bases)
    for (const { key } of removal.names) await this.remove(key, signal)
    for (const [id, ranges] of removal.ranges) {
      throwIfAborted(signal)
      await writePruned(this.repository, { source, id }, ranges)
    }
    await this.lock.check()
    const readers = (await readLeases(this.repository, source, signal)).filter(
      ({ reads, purpose }) => reads !== null || purpose === 'copy',
    )
    const spared = new Set<string>()
    const doomed = removal.data.filter((one) => {
      const reader = readers.find((lease) => isRead(one, lease))
      if (reader !== undefined) spared.add(describeLease(reader))
      return reader === undefined
    })
    // A segment names its parts, so all of those go before any of these.
    for (const isPart of [false, true])
      await forEachParallel(
        doomed.filter(({ key }) => key.endsWith('.wbp') === isPart),
        deleters,
        ({ key }) => this.remove(key, signal),
      )
    const gone = [...removal.names, ...doomed]
    return {
      objects: gone.length,
      bytes: gone.reduce((sum, { size_bytes }) => sum + size_bytes, 0),
      spared: { objects: removal.data.length - doomed.length, for: [...spared] },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lock[Symbol.asyncDispose]()
  }

  /** By timeline: told before any of them goes, so that what is left of one is no damage, and no copy brings it back. */
  private removedBases(): Map<string, string[]> {
    const removed = new Map<string, string[]>()
    for (const { base, isKept } of this.plan.bases)
      if (!isKept) removed.set(base.timeline, [...(removed.get(base.timeline) ?? []), base.id])
    return removed
  }

  private async remove(key: string, signal: AbortSignal): Promise<void> {
    throwIfAborted(signal)
    try {
      await this.repository.storage.delete(key)
    } catch (error) {
      if (!(error instanceof WalbackError) || error.code !== 'storage' || error.retryable) throw error
      throw new WalbackError('storage', `the store does not let ${key} be deleted: ${error.message}`, {
        cause: error,
        hint: 'these credentials may only add, or the object is locked or held: prune with credentials that may delete, after the lock has run out; or let a rule of the store remove what `walback prune --external` names',
        facts: { key, ...error.facts },
      })
    }
  }
}

/** A copy puts objects before what names them: a prune would take them for what interrupted work left. */
async function refuseBesideCopy(repository: Repository, source: string): Promise<void> {
  const copy = (await readLeases(repository, source)).find(({ purpose }) => purpose === 'receive')
  if (copy === undefined) return
  throw new WalbackError('locked', `a copy into this repository is at work: ${describeLease(copy)}`, {
    hint: 'try again when it is done; if its process is gone, `walback prune --break-stale-leases` finds that out',
    retryable: true,
  })
}

function isRead({ of }: Doomed, lease: LeaseRecord): boolean {
  if (of === undefined) return false
  if (lease.purpose === 'copy') return true
  if ('base' in of) return lease.reads?.base === of.base
  const range = streamOf(lease)
  return lease.reads?.timeline === of.timeline && range !== undefined && contains(merged([range]), of.at)
}

/** Deletes on their way at a time. */
const deleters = 16
