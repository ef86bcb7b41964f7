/** What can be restored: windows, and the gaps between them. */
import { formatLsn, type Lsn, maxLsn, parseLsn } from '../model/lsn.ts'
import type { Micros } from '../model/time.ts'
import { type BaseManifest, baseKind, readManifests } from '../repository/base.ts'
import { covers, type Range } from '../repository/pruned.ts'
import type { Repository } from '../repository/repository.ts'
import type { SegmentSummary } from '../repository/segment-format.ts'
import { listStream, readAhead, timeOf } from '../repository/segments.ts'
import { readTimelines, type Timeline } from '../repository/timeline.ts'
import { UnseenChanges } from '../repository/unseen-changes.ts'
import { type UncertainSpan, uncertainSpans } from './uncertain.ts'

export interface Point {
  readonly lsn: Lsn
  readonly time: Micros
}

/** Every transaction that committed between the two is a valid recovery target. */
export interface Window {
  readonly timeline: string
  /** The base that opens it, as of its snapshot. */
  readonly from: Point
  /** The last commit that is archived. */
  readonly to: Point
}

/** What no target can name; `to` is undefined where nothing restorable follows yet. */
export interface Gap {
  readonly from: Point
  readonly to: Point | undefined
  readonly reason: string
  /** Retention has removed what was there: nothing was lost. */
  readonly isPruned: boolean
}

export interface Coverage {
  readonly windows: readonly Window[]
  readonly gaps: readonly Gap[]
}

/** An unbroken run of a timeline's segments; a second one exists only where objects were lost. */
interface Run {
  readonly timeline: Timeline
  readonly start: Lsn
  readonly segments: readonly SegmentSummary[]
  /** Why it does not carry on the run before it. */
  readonly reason: string | undefined
  readonly isPruned: boolean
}

/**
 * A base opens a window once the archive reaches the position it was taken at: before that, transactions whose commit
 * came before it and that the base does not see may be missing. The window ends at the last commit.
 */
export function coverageOf(
  timelines: readonly Timeline[],
  manifests: readonly BaseManifest[],
  segments: ReadonlyMap<string, readonly SegmentSummary[]>,
  pruned: ReadonlyMap<string, readonly Range[]> = new Map(),
): Coverage {
  const windows: Window[] = []
  const gaps: Gap[] = []
  let cause: Pick<Gap, 'reason' | 'isPruned'> | undefined
  for (const timeline of timelines) {
    for (const run of runsOf(timeline, segments.get(timeline.id) ?? [], pruned.get(timeline.id) ?? [])) {
      const { reason, isPruned } = run
      if (reason !== undefined) cause = { reason, isPruned }
      const window = windowOf(run, manifests)
      if (window === undefined) continue
      const last = windows.at(-1)
      if (last) gaps.push({ from: last.to, to: window.from, ...(cause ?? broken) })
      windows.push(window)
      cause = undefined
    }
  }
  const last = windows.at(-1)
  if (last && cause !== undefined) gaps.push({ from: last.to, to: undefined, ...cause })
  return { windows, gaps }
}

const broken = { reason: 'the stream was broken', isPruned: false }

function runsOf(timeline: Timeline, segments: readonly SegmentSummary[], pruned: readonly Range[]): Run[] {
  const runs: (Run & { segments: SegmentSummary[] })[] = [
    { timeline, start: parseLsn(timeline.start), segments: [], reason: timeline.parent?.reason, isPruned: false },
  ]
  let end = parseLsn(timeline.start)
  for (const segment of segments) {
    if (segment.start !== end) {
      const isPruned = covers(pruned, end, segment.start)
      const reason = isPruned
        ? 'removed by walback prune'
        : `segments are missing between ${formatLsn(end)} and ${formatLsn(segment.start)}`
      runs.push({ timeline, start: segment.start, segments: [], reason, isPruned })
    }
    runs.at(-1)?.segments.push(segment)
    end = segment.end
  }
  return runs
}

function windowOf(run: Run, manifests: readonly BaseManifest[]): Window | undefined {
  const end = run.segments.at(-1)?.end ?? run.start
  const bases = manifests
    .filter((base) => base.timeline === run.timeline.id)
    .map((base): Point => ({ lsn: parseLsn(base.lsn), time: timeOf(base) }))
    .filter((base) => base.lsn >= run.start && base.lsn <= end)
    .sort((a, b) => (a.lsn < b.lsn ? -1 : 1))
  const from = bases[0]
  if (from === undefined) return undefined
  const commit = lastCommit(run.segments)
  const to = commit === undefined || commit.lsn < from.lsn ? from : commit
  return { timeline: run.timeline.id, from, to: { lsn: maxLsn(to.lsn, from.lsn), time: to.time } }
}

function lastCommit(segments: readonly SegmentSummary[]): Point | undefined {
  for (const { trailer } of segments.toReversed()) {
    const last = trailer.transactions.at(-1)
    if (last) return { lsn: parseLsn(last.end), time: timeOf(last) }
  }
  return undefined
}

export interface MarkPoint extends Point {
  readonly timeline: string
  readonly name: string
}

/** Every mark in the archive, oldest first. */
export function marksOf(
  timelines: readonly Timeline[],
  segments: ReadonlyMap<string, readonly SegmentSummary[]>,
): MarkPoint[] {
  return timelines.flatMap((timeline) =>
    (segments.get(timeline.id) ?? []).flatMap(({ trailer }) =>
      trailer.transactions.flatMap((entry) =>
        (entry.marks ?? []).map((name) => ({
          timeline: timeline.id,
          name,
          lsn: parseLsn(entry.end),
          time: timeOf(entry),
        })),
      ),
    ),
  )
}

/** Everything the repository says about a source. */
export interface Holdings extends Coverage {
  readonly source: string
  readonly timelines: readonly Timeline[]
  readonly bases: readonly BaseManifest[]
  /** Those of some tables, which no window rests on. */
  readonly partialBases: readonly BaseManifest[]
  readonly marks: readonly MarkPoint[]
  /** Where a restore may lack a change of the schema, oldest first. */
  readonly uncertain: readonly UncertainSpan[]
  /** Where the archive of the last timeline ends, with the server's clock then. */
  readonly end: Point | undefined
  readonly segments: {
    readonly count: number
    /** Of the transactions in the stream, before compression. */
    readonly raw_bytes: number
    readonly stored_bytes: number
    readonly transactions: number
  }
}

/** Reads manifests and trailers, no rows. A segment that is missing or damaged shows as a gap, not as a failure. */
export async function readHoldings(repository: Repository, source: string, signal?: AbortSignal): Promise<Holdings> {
  const timelines = await readTimelines(repository, source, signal)
  const all = await readManifests(repository, source, { of: 'any', signal })
  const [bases, partialBases] = [
    all.filter((base) => baseKind(base) === 'full'),
    all.filter((base) => baseKind(base) === 'partial'),
  ]
  const segments = new Map<string, SegmentSummary[]>()
  const pruned = new Map<string, readonly Range[]>()
  const uncertain: UncertainSpan[] = []
  let [count, raw_bytes, stored_bytes, transactions] = [0, 0, 0, 0]
  for (const timeline of timelines) {
    const own = bases.filter((base) => base.timeline === timeline.id)
    let unseen = new UnseenChanges(own)
    let start = parseLsn(timeline.start)
    const { objects, segments: stored, pruned: removed } = await listStream(repository, timeline, signal)
    const summaries: SegmentSummary[] = []
    for await (const { summary } of readAhead(repository, stored, signal)) {
      if (summary === undefined) continue
      const before = summaries.at(-1)?.end ?? start
      if (summary.start !== before && covers(removed, before, summary.start)) {
        // What was removed may have told of a change: looks on both sides of it say nothing of each other.
        uncertain.push(...uncertainSpans(within(own, start, before), before, unseen, true))
        start = summary.start
        unseen = new UnseenChanges(within(own, start))
      }
      transactions += summary.trailer.transactions.length
      for (const entry of summary.trailer.transactions) {
        unseen.offer(entry)
        raw_bytes += entry.bytes
      }
      summaries.push(withoutDetails(summary))
    }
    segments.set(timeline.id, summaries)
    pruned.set(timeline.id, removed)
    uncertain.push(...uncertainSpans(within(own, start), summaries.at(-1)?.end ?? start, unseen))
    count += summaries.length
    // With the parts of transactions that span segments.
    for (const { size_bytes } of objects) stored_bytes += size_bytes
  }
  const last = timelines.at(-1)
  const newest = last === undefined ? undefined : segments.get(last.id)?.at(-1)
  return {
    source,
    timelines,
    bases,
    partialBases,
    marks: marksOf(timelines, segments),
    uncertain,
    end: newest === undefined ? undefined : { lsn: newest.end, time: timeOf(newest.trailer) },
    segments: { count, raw_bytes, stored_bytes, transactions },
    ...coverageOf(timelines, bases, segments, pruned),
  }
}

const within = (bases: readonly BaseManifest[], from: Lsn, to?: Lsn): BaseManifest[] =>
  bases.filter(({ lsn }) => parseLsn(lsn) >= from && (to === undefined || parseLsn(lsn) <= to))

/** Of a segment's transactions only the last and those with marks: an archive has millions. */
function withoutDetails(segment: SegmentSummary): SegmentSummary {
  const { transactions } = segment.trailer
  const kept = transactions.filter((entry, place) => entry.marks !== undefined || place === transactions.length - 1)
  return { ...segment, trailer: { ...segment.trailer, transactions: kept } }
}
