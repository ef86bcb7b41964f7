import { type Lsn, parseLsn } from '../model/lsn.ts'
import { type BaseHead, readBaseHeads } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import { scanSegments, timeOf } from '../repository/segments.ts'
import type { Timeline } from '../repository/timeline.ts'
import { type Place, type UnseenChange, UnseenChanges } from '../repository/unseen-changes.ts'

/** Targets to which a restore may lack a change of the schema, or be refused for it: until the next base. */
export interface UncertainSpan {
  readonly timeline: string
  /** From here on, up to the next base, which is undefined where there is none yet. */
  readonly from: Place
  readonly to: Place | undefined
  /** What of, in order. */
  readonly changes: readonly UnseenChange[]
}

/**
 * `bases`: of one timeline, oldest first; those past the archive's end cannot be restored yet, and mend nothing.
 * `isCutOff`: what follows that end was removed, and the bases behind it say nothing of what was before.
 */
export function uncertainSpans(
  bases: readonly BaseHead[],
  end: Lsn,
  unseen: UnseenChanges,
  isCutOff = false,
): UncertainSpan[] {
  const restorable = bases.filter((base) => parseLsn(base.lsn) <= end)
  return restorable.flatMap((base, place): UncertainSpan[] => {
    const next = restorable[place + 1]
    const to = next && { lsn: parseLsn(next.lsn), time: timeOf(next) }
    const changes = unseen
      .since(base, isCutOff ? end : undefined)
      .filter(({ from }) => to === undefined || from.lsn < to.lsn)
    return changes[0] ? [{ timeline: base.timeline, from: changes[0].from, to, changes }] : []
  })
}

/** What a restore from a timeline's newest base to its end would lack; reads trailers. */
export async function readUnseen(
  repository: Repository,
  timeline: Timeline,
  signal?: AbortSignal,
): Promise<UnseenChange[]> {
  const bases = await readBaseHeads(repository, timeline.source, { signal })
  const base = bases.findLast((one) => one.timeline === timeline.id)
  if (base === undefined) return []
  const changes = new UnseenChanges([base])
  for await (const { trailer } of scanSegments(repository, timeline, { from: parseLsn(base.lsn), signal })) {
    for (const entry of trailer.transactions) changes.offer(entry)
  }
  return changes.since(base)
}
