import { ahead } from '../base/ahead.ts'
import { WalbackError } from '../base/errors.ts'
import { formatLsn, type Lsn, lsn, parseLsn } from '../model/lsn.ts'
import { type FullXid, fullXid } from '../model/snapshot.ts'
import { type Micros, micros } from '../model/time.ts'
import type { ObjectSource } from '../storage/storage.ts'
import { readTrailerOf } from './container.ts'
import { partStart, segmentStart, segmentsPrefix } from './layout.ts'
import { contains, covers, type Range, readPruned } from './pruned.ts'
import type { Repository } from './repository.ts'
import {
  endOf,
  type SegmentSummary,
  type SegmentTrailer,
  segmentTrailer,
  type TransactionEntry,
} from './segment-format.ts'
import type { Timeline } from './timeline.ts'

/** How far a timeline's archive reaches. */
export interface Head {
  /** Every transaction whose commit ends at or before this is stored. */
  readonly end: Lsn
  readonly sha256: string | null
  readonly xid: FullXid
  /** The timeline of the server that the end lies on, and where that began; undefined in archives of walback 0.1. */
  readonly server?: ServerTimeline | undefined
  /** The last transaction that is stored, if the last segment holds any. */
  readonly last?: Pick<TransactionEntry, 'commit' | 'xid'> | undefined
}

export interface ServerTimeline {
  readonly timeline: number
  readonly since: Lsn
}

/** A segment as a listing shows it. */
export interface StoredSegment {
  readonly key: string
  readonly start: Lsn
  readonly size_bytes: number
  /** What lies beside it of transactions that span objects; leftovers of interrupted attempts count too. */
  readonly parts_bytes: number
}

/** An object of a stream: a segment, or a part of the one that begins at `start`. */
export interface StreamObject {
  readonly key: string
  readonly size_bytes: number
  readonly kind: 'segment' | 'part'
  readonly start: Lsn
}

/** What a listing shows of a timeline's stream. */
export interface StoredStream {
  /** All that lies there, also what is being removed. */
  readonly objects: readonly StreamObject[]
  /** The segments, in order; without what is being removed. */
  readonly segments: StoredSegment[]
  /** What retention has removed, or is removing. */
  readonly pruned: readonly Range[]
}

export async function listStream(
  repository: Repository,
  timeline: Pick<Timeline, 'source' | 'id'>,
  signal?: AbortSignal,
): Promise<StoredStream> {
  const objects: StreamObject[] = []
  for await (const { key, size_bytes } of repository.storage.list(segmentsPrefix(timeline.source, timeline.id), {
    signal,
  })) {
    const [segment, part] = [segmentStart(key), partStart(key)]
    if (segment !== undefined) objects.push({ key, size_bytes, kind: 'segment', start: segment })
    else if (part !== undefined) objects.push({ key, size_bytes, kind: 'part', start: part })
  }
  // After the listing: what a prune has taken from it, it has said before.
  const pruned = await readPruned(repository, timeline, signal)
  const segments: StoredSegment[] = []
  // The parts of a segment are listed before it, since their keys go on where its key ends in `wbs`.
  let parts_bytes = 0
  for (const { key, size_bytes, kind, start } of objects) {
    if (contains(pruned, start)) continue
    if (kind === 'part') parts_bytes += size_bytes
    else {
      segments.push({ key, start, size_bytes, parts_bytes })
      parts_bytes = 0
    }
  }
  return { objects, segments, pruned }
}

/** The segments alone. */
export const listSegments = async (
  repository: Repository,
  timeline: Pick<Timeline, 'source' | 'id'>,
  signal?: AbortSignal,
): Promise<StoredSegment[]> => (await listStream(repository, timeline, signal)).segments

export async function readSegment(
  repository: Repository,
  stored: StoredSegment,
  signal?: AbortSignal,
): Promise<SegmentSummary> {
  return summaryFrom(repository.storage, stored, signal)
}

export async function summaryFrom(
  source: ObjectSource,
  stored: StoredSegment,
  signal?: AbortSignal,
): Promise<SegmentSummary> {
  const { trailer, sha256, size_bytes } = await readTrailerOf(source, stored.key, stored.size_bytes, signal)
  const parsed = segmentTrailer.safeParse(trailer)
  if (!parsed.success) throw new WalbackError('corrupt', `${stored.key} is damaged: its trailer has an unknown form`)
  if (!isOf(stored.start, parsed.data)) {
    throw new WalbackError('corrupt', `${stored.key} is damaged: it is another segment than its key says`)
  }
  return { key: stored.key, sha256, size_bytes, start: stored.start, end: endOf(parsed.data), trailer: parsed.data }
}

/** Whether what a trailer tells of lies after the segment's start: an older one in its place would cut the chain short. */
function isOf(start: Lsn, { end, transactions }: SegmentTrailer): boolean {
  const [first, last] = [transactions.at(0), transactions.at(-1)]
  if (first && parseLsn(first.end) <= start) return false
  return parseLsn(end) > start && (last === undefined || parseLsn(last.end) <= parseLsn(end))
}

/** Requests on their way at a time. */
export const readers = 32

/** Where objects of a timeline are missing, in positions of the log. */
export interface Hole {
  readonly from: Lsn
  readonly to: Lsn
  /** Retention has removed them. */
  readonly isPruned?: boolean
}

export const holeError = ({ from, to }: Hole): WalbackError =>
  new WalbackError(
    'corrupt',
    `segments are missing: nothing is stored between ${formatLsn(from)} and ${formatLsn(to)}`,
    {
      hint: 'an object was deleted from the repository; bring it back from another copy, or take a new base backup',
      facts: { from: formatLsn(from), to: formatLsn(to) },
    },
  )

/**
 * The trailers of a timeline's segments that reach past `from`, in order, read ahead several at a time; none is kept
 * here. Each must begin where the one before ends, and have its parts: a segment that is missing or damaged is `corrupt`,
 * or, with `onHole`, told there before the next one is given; it is never passed over. What was removed by intent is a
 * hole as well, but no damage.
 */
export async function* scanSegments(
  repository: Repository,
  timeline: Timeline,
  options: {
    readonly from?: Lsn
    readonly onHole?: (hole: Hole) => void
    readonly signal?: AbortSignal | undefined
  } = {},
): AsyncGenerator<SegmentSummary> {
  const { segments: stored, pruned } = await listStream(repository, timeline, options.signal)
  const { from, onHole } = options
  // The segment that holds `from` starts at or before it.
  const first =
    from === undefined
      ? 0
      : Math.max(
          0,
          stored.findLastIndex((segment) => segment.start <= from),
        )
  let end = (first === 0 ? parseLsn(timeline.start) : stored[first]?.start) as Lsn
  let broken: StoredSegment | undefined
  for await (const { segment, summary, damage } of readAhead(repository, stored.slice(first), options.signal)) {
    if (damage !== undefined && onHole === undefined) throw damage
    broken = damage && segment
    if (summary === undefined) continue
    if (summary.start !== end) {
      const hole = { from: end, to: summary.start, isPruned: covers(pruned, end, summary.start) }
      if (onHole === undefined && !hole.isPruned) throw holeError(hole)
      onHole?.(hole)
    }
    end = summary.end
    yield summary
  }
  // Of the last of them only the start is known.
  if (broken !== undefined) onHole?.({ from: end, to: lsn(broken.start + 1n) })
}

/** What reading a segment's trailer came to. */
interface Read {
  readonly segment: StoredSegment
  readonly summary: SegmentSummary | undefined
  /** Why there is none: the segment is damaged, or a part of a transaction that it holds is gone. */
  readonly damage: WalbackError | undefined
}

async function tryToRead(repository: Repository, segment: StoredSegment, signal?: AbortSignal): Promise<Read> {
  try {
    const summary = await readSegment(repository, segment, signal)
    const parts_bytes = summary.trailer.parts.reduce((sum, { size_bytes }) => sum + size_bytes, 0)
    // What an interrupted writer left beside them counts too, so this finds less than a look at each would.
    if (parts_bytes <= segment.parts_bytes) return { segment, summary, damage: undefined }
    return { segment, summary: undefined, damage: holeError({ from: summary.start, to: summary.end }) }
  } catch (error) {
    if (!(error instanceof WalbackError) || error.code !== 'corrupt') throw error
    return { segment, summary: undefined, damage: error }
  }
}

/** Reads trailers in order, with some requests on their way at a time. */
export const readAhead = (
  repository: Repository,
  stored: readonly StoredSegment[],
  signal?: AbortSignal,
): AsyncGenerator<Read> => ahead(stored, (one, stop) => tryToRead(repository, one, stop), { most: readers, signal })

/** How far the archive of a timeline reaches now: what its last segment says. */
export async function readHead(repository: Repository, timeline: Timeline, signal?: AbortSignal): Promise<Head> {
  return headAfter((await listSegments(repository, timeline, signal)).at(-1), repository, timeline, signal)
}

/**
 * The same for who writes: what lies after the last sound segment is damaged, as a store leaves it that acknowledged
 * what it did not keep. Whether the server still has the log of it is the caller's question.
 */
export async function readSoundHead(
  repository: Repository,
  timeline: Timeline,
  signal?: AbortSignal,
): Promise<{ readonly head: Head; readonly damaged: readonly StoredSegment[] }> {
  const stored = await listSegments(repository, timeline, signal)
  const damaged: StoredSegment[] = []
  for (;;) {
    try {
      return { head: await headAfter(stored.at(-1), repository, timeline, signal), damaged }
    } catch (error) {
      const last = stored.pop()
      if (last === undefined || !(error instanceof WalbackError) || error.code !== 'corrupt') throw error
      damaged.push(last)
    }
  }
}

async function headAfter(
  last: StoredSegment | undefined,
  repository: Repository,
  timeline: Timeline,
  signal: AbortSignal | undefined,
): Promise<Head> {
  if (last === undefined) {
    const { start, xid, server } = timeline
    return { end: parseLsn(start), sha256: null, xid: fullXid(BigInt(xid)), server: serverOf(server) }
  }
  const { end, sha256, trailer } = await readSegment(repository, last, signal)
  return {
    end,
    sha256,
    xid: fullXid(BigInt(trailer.xid)),
    server: serverOf(trailer.server),
    last: trailer.transactions.at(-1),
  }
}

/** The time of a trailer or a transaction, for people. */
export const timeOf = (entry: { readonly time: string }): Micros => micros(BigInt(entry.time))

const serverOf = (entry: { timeline: number; since: string } | undefined): ServerTimeline | undefined =>
  entry && { timeline: entry.timeline, since: parseLsn(entry.since) }
