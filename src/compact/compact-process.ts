/**
 * The process in which an agent's compaction runs (`apart.ts` starts it): it opens the repository by itself, yields to
 * all other processes, and gives back what it has taken of memory by ending.
 */
import { setPriority } from 'node:os'
import { takeOrder } from '../base/own-process.ts'
import { headOf } from '../repository/base.ts'
import { Repository } from '../repository/repository.ts'
import { openStorage } from '../storage/open.ts'
import type { CompactionOrder, CompactionOutcome } from './apart.ts'
import { compact } from './compact.ts'
import { changeInWords, nothingInWords, planCompaction } from './plan.ts'

async function carryOut(order: CompactionOrder, signal: AbortSignal): Promise<CompactionOutcome> {
  const { place, source, memory_bytes, maxRate } = order
  const repository = await Repository.open(openStorage(place.url, place.env), place.access)
  const plan = await planCompaction(repository, source, { kind: 'latest' }, { signal })
  const { base, end, stop } = plan
  const stoppedBy = stop && changeInWords(stop)
  const isStuck = stop !== undefined || base.catalog === undefined
  if (end === undefined || end.plan.transactions === 0 || (isStuck && !order.evenIfStopped))
    return { kind: 'none', why: nothingInWords(plan), isStuck, stoppedBy }
  const made = await compact(repository, end, { jobs: 1, memory_bytes, maxRate, signal })
  return { kind: 'made', base: headOf(made), transactions: end.plan.transactions, stoppedBy, peak_bytes: peak_bytes() }
}

const peak_bytes = (): number => process.resourceUsage().maxRSS * 1024

/** Long enough to remove what it has written so far. */
const grace_ms = 10_000

takeOrder<CompactionOrder>(async (order, signal) => {
  setPriority(order.niceness)
  const outcome = await carryOut(order, signal)
  await new Promise<void>((sent) => process.send?.({ outcome }, () => sent()))
}, grace_ms)
