import { WalbackError } from '../base/errors.ts'
import { formatLsn, lsn, maxLsn } from '../model/lsn.ts'
import { manifestKey } from '../repository/layout.ts'
import { type LeaseReads, takeReadersLease } from '../repository/lease.ts'
import { contains, readPruned } from '../repository/pruned.ts'
import type { Repository } from '../repository/repository.ts'
import type { PlannedReading } from './plan.ts'

/** What a restore says to the repository while it reads. */
export interface Reading {
  /** Fires when the lease was broken. */
  readonly signal: AbortSignal | undefined
  /** The lease's; undefined if the store took none, which `note` then says. */
  readonly token: string | undefined
  readonly note: string | undefined
}

interface ReadingOptions {
  readonly purpose?: 'restore' | 'compact'
  readonly interval_ms?: number | undefined
}

/** Works under a lease, if the store takes one, so that nothing of what the plan names is removed meanwhile. */
export async function underLease<T>(
  repository: Repository,
  plan: PlannedReading,
  work: (reading: Reading) => Promise<T>,
  { purpose = 'restore', interval_ms }: ReadingOptions = {},
): Promise<T> {
  const options = { purpose, reads: readsOf(plan), ...(interval_ms ? { interval_ms } : {}) }
  const { lease, note } = await takeReadersLease(repository, plan.source, options)
  await using _ = lease
  // After the lease is there to be seen: what is still named now is not removed any more.
  await requireNamed(repository, plan)
  try {
    return await work({ signal: lease?.signal, token: lease?.token, note })
  } catch (error) {
    // What was removed under the restore's hands is missing for a reason.
    await lease?.check().catch((broken: unknown) => {
      if (lease.signal.aborted) throw broken
    })
    throw error
  }
}

function readsOf({ timeline, base, earlier, segments, cut }: PlannedReading): LeaseReads {
  const starts = [...earlier, ...segments].map(({ start }) => start).sort((a, b) => (a < b ? -1 : 1))
  const [from, last] = [starts[0], starts.at(-1)]
  const stream =
    from === undefined || last === undefined
      ? null
      : { from: formatLsn(from), to: formatLsn(maxLsn(cut, lsn(last + 1n))) }
  return { timeline: timeline.id, base: base.id, stream }
}

async function requireNamed(
  repository: Repository,
  { source, timeline, base, earlier, segments }: PlannedReading,
): Promise<void> {
  const pruned = await readPruned(repository, timeline)
  const isThere = (await repository.storage.size(manifestKey(source, base.id))) !== undefined
  if (isThere && ![...earlier, ...segments].some(({ start }) => contains(pruned, start))) return
  throw new WalbackError('refused', `base ${base.id}, or the stream after it, was pruned since the plan was made`, {
    hint: 'run the command again: it plans anew',
  })
}
