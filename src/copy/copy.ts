import { WalbackError } from '../base/errors.ts'
import { describeLease, Lease, readLeases, takeReadersLease } from '../repository/lease.ts'
import type { Repository } from '../repository/repository.ts'
import { copyAudit } from './copy-audit.ts'
import { copyBases, copyPins } from './copy-bases.ts'
import { copyTimeline } from './copy-stream.ts'
import { type CopyProgress, type Damage, Delivery } from './delivery.ts'
import { surveyCopy, surveyStream } from './survey.ts'

export interface CopyOptions {
  /** Ends the copy; what was copied stays, and the next one goes on from there. */
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: (progress: CopyProgress) => void
  /** How often leases are renewed; the default suits all but tests. */
  readonly lease_ms?: number
}

export interface CopyReport {
  readonly source: string
  readonly objects: number
  readonly bytes: number
  readonly bases: number
  readonly segments: number
  /** What is damaged at the source; it, and what cannot be read without it, was not copied. */
  readonly damage: readonly Damage[]
  /** Why a prune of the source does not know of the copy. */
  readonly note: string | undefined
}

/**
 * Copies a source from one repository to another, as far as the other does not have it: the stream, then bases, what is
 * named always before what names it. Nothing is removed at the target, and what was removed there by intent is not
 * brought back. Objects are checked on their way; what is damaged is told, and the rest copied.
 */
export async function copySource(
  from: Repository,
  to: Repository,
  source: string,
  options: CopyOptions = {},
): Promise<CopyReport> {
  const interval = options.lease_ms === undefined ? {} : { interval_ms: options.lease_ms }
  const { lease: reading, note } = await takeReadersLease(from, source, { purpose: 'copy', ...interval })
  await using _ = reading
  await using writing = await Lease.take(to, source, { purpose: 'receive', ...interval })
  await refuseBesidePrune(to, source)
  const signals = [options.signal, reading?.signal, writing.signal].filter((one) => one !== undefined)
  const signal = AbortSignal.any(signals)
  const survey = await surveyCopy(from, to, source, signal)
  let phase: CopyProgress['phase'] = 'stream'
  const delivery: Delivery = new Delivery(from, to, signal, () => {
    const { objects, bytes } = delivery
    options.onProgress?.({ phase, objects, bytes, of: survey })
  })
  let segments = 0
  for (const timeline of survey.timelines) segments += await copyTimeline(delivery, timeline)
  phase = 'bases'
  const bases = await copyBases(delivery, survey)
  await copyPins(delivery, source)
  await copyAudit(delivery, source)
  const { objects, bytes, damage } = delivery
  return { source, objects, bytes, bases, segments, damage, note }
}

/** The stream alone: it needs no lease, since a prune takes no segment or part for what interrupted work has left. */
export async function copyStream(
  from: Repository,
  to: Repository,
  source: string,
  signal: AbortSignal,
): Promise<readonly Damage[]> {
  const delivery = new Delivery(from, to, signal, () => undefined)
  for (const timeline of (await surveyStream(from, to, source, signal)).timelines)
    await copyTimeline(delivery, timeline)
  return delivery.damage
}

/** The error for damage that copies have found. */
export function damageError(from: Repository, damage: readonly Damage[]): WalbackError {
  const [first] = damage
  const more = damage.length > 1 ? ` (and ${damage.length - 1} more)` : ''
  return new WalbackError('corrupt', `damage at ${from.storage.url} was not copied: ${first?.what}${more}`, {
    hint: 'everything else was copied; bring the objects back from another copy, or take a new base backup',
    facts: { damage: damage.map(({ key, what }) => ({ key, what })) },
  })
}

/** A prune looks for copies after it has its lock, and this for a prune after its lease: of the two one sees the other. */
async function refuseBesidePrune(to: Repository, source: string): Promise<void> {
  const prune = (await readLeases(to, source)).find(({ purpose }) => purpose === 'prune')
  if (prune === undefined) return
  throw new WalbackError('locked', `a prune of ${to.storage.url} is at work: ${describeLease(prune)}`, {
    hint: 'try again when it is done; if its process is gone, `walback prune --break-stale-leases` finds that out',
    retryable: true,
  })
}
