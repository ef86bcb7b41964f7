import { formatLsn } from '../model/lsn.ts'
import type { Audited } from '../repository/audit.ts'
import type { PrunePlan } from './plan.ts'
import type { PruneReport } from './prune.ts'

/** What the audit record has of a prune: bases by name, segments by where they were. */
export function pruneAudited({ bases, removal, unfinished }: PrunePlan): Audited<PruneReport> {
  const gone = bases.flatMap(({ base, isKept }) => (isKept ? [] : [base.id]))
  const objects = removal.names.length + removal.data.length
  return {
    action: 'prune',
    role: null,
    asked: `${gone.length} bases, ${removal.segments} segments: ${objects} objects, ${removal.bytes} bytes`,
    facts: {
      bases: gone,
      unfinished_bases: unfinished.flatMap(({ begun, isKept }) => (isKept ? [] : [begun.id])),
      segments: removal.segments,
      ranges: [...removal.ranges].flatMap(([timeline, ranges]) =>
        ranges.map(({ from, to }) => ({ timeline, from: formatLsn(from), to: formatLsn(to) })),
      ),
      leftovers: removal.leftovers,
      objects,
      bytes: removal.bytes,
    },
    came: (report) => ({
      words: `removed ${report.objects} objects, ${report.bytes} bytes`,
      facts: { objects: report.objects, bytes: report.bytes, spared: report.spared.objects },
    }),
  }
}

/** A prune that would remove nothing is nothing to record. */
export const removesNothing = ({ removal }: PrunePlan): boolean =>
  removal.givenUp.length + removal.names.length + removal.data.length + removal.ranges.size === 0
