import type { Lsn } from '../../src/model/lsn.ts'
import type { Repository } from '../../src/repository/repository.ts'
import type { SegmentSummary } from '../../src/repository/segment-format.ts'
import { scanSegments } from '../../src/repository/segments.ts'
import type { Timeline } from '../../src/repository/timeline.ts'

/** The trailers of a timeline's segments, all at once: tests have few. */
export async function readSegments(
  repository: Repository,
  timeline: Timeline,
  options: { readonly from?: Lsn } = {},
): Promise<SegmentSummary[]> {
  const segments: SegmentSummary[] = []
  for await (const segment of scanSegments(repository, timeline, options)) segments.push(segment)
  return segments
}
