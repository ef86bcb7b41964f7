import { randomBytes } from 'node:crypto'
import { ahead } from '../base/ahead.ts'
import { WalbackError } from '../base/errors.ts'
import type { Block } from '../codec/block.ts'
import { formatLsn, type Lsn, parseLsn } from '../model/lsn.ts'
import { type FullXid, fullXid } from '../model/snapshot.ts'
import { type Micros, micros } from '../model/time.ts'
import { inMemory, type ObjectSource, readAll } from '../storage/storage.ts'
import { ContainerWriter, readTrailer, readTrailerOf } from './container.ts'
import { partKey, segmentKey, segmentStart, segmentsPrefix } from './layout.ts'
import type { Repository } from './repository.ts'
import type { SegmentContent } from './segment-builder.ts'
import {
  endOf,
  type partTrailer,
  type SegmentHeader,
  type SegmentSummary,
  type SegmentTrailer,
  segmentTrailer,
} from './segment-format.ts'
import type { Timeline } from './timeline.ts'

/** How far a timeline's archive reaches. */
export interface Head {
  /** Every transaction whose commit ends at or before this is stored. */
  readonly end: Lsn
  readonly sha256: string | null
  readonly xid: FullXid
}

/** Writes a timeline's segments, one after the other. A segment is part of the archive when its own object exists. */
export class SegmentWriter {
  private readonly repository: Repository
  private readonly timeline: Timeline
  private current: Head
  private readonly attempt = randomBytes(4).toString('hex')
  private parts: SegmentTrailer['parts'] = []

  constructor(repository: Repository, timeline: Timeline, head: Head) {
    this.repository = repository
    this.timeline = timeline
    this.current = head
  }

  get head(): Head {
    return this.current
  }

  /** Stores blocks of a transaction whose commit has not been seen. Without the segment that names it, a part is nothing. */
  async writePart(blocks: readonly Block[], signal?: AbortSignal): Promise<void> {
    const { source, id } = this.timeline
    const key = partKey(source, id, this.current.end, this.attempt, this.parts.length)
    const container = assemble(this.header('part'), blocks, { kind: 'part' } satisfies typeof partTrailer._output)
    await this.put(key, container, signal)
    this.parts.push({ key, size_bytes: container.size_bytes, sha256: container.sha256 })
  }

  /** Stores the next segment; when it resolves, everything up to the segment's end is durable. */
  async write(content: SegmentContent, time: Micros, signal?: AbortSignal): Promise<SegmentSummary> {
    const trailer: SegmentTrailer = {
      kind: 'segment',
      end: formatLsn(content.end),
      xid: content.xid.toString(),
      time: time.toString(),
      parts: this.parts,
      tables: [...content.tables],
      transactions: [...content.transactions],
    }
    const container = assemble(this.header('segment'), content.blocks, trailer)
    const key = segmentKey(this.timeline.source, this.timeline.id, this.current.end)
    await this.put(key, container, signal)
    const start = this.current.end
    this.current = { end: content.end, sha256: container.sha256, xid: content.xid }
    this.parts = []
    return { key, sha256: container.sha256, size_bytes: container.size_bytes, start, end: content.end, trailer }
  }

  /** Forgets the parts of a transaction that will be sent again from its beginning. */
  forgetParts(): void {
    this.parts = []
  }

  private header(kind: 'segment' | 'part'): SegmentHeader {
    const { source, id, systemIdentifier, encoding } = this.timeline
    const { end, sha256, xid } = this.current
    return {
      kind,
      source,
      timeline: id,
      start: formatLsn(end),
      previous: sha256,
      systemIdentifier,
      encoding,
      xid: xid.toString(),
    }
  }

  /**
   * Put-if-absent is the fence between two writers: a key is where a segment starts, so only one can extend the chain.
   * A write that was acknowledged late finds its own object there, which its hash shows.
   */
  private async put(key: string, container: Assembled, signal: AbortSignal | undefined): Promise<void> {
    if (await this.repository.storage.put(key, chunksOf(container.bytes), { ifAbsent: true, signal })) return
    const stored = await readTrailer(this.repository.storage, key, { signal })
    if (stored?.sha256 === container.sha256) return
    throw new WalbackError('locked', `another walback has written ${key}`, {
      hint: 'let only one agent write for a source; this one goes on from what is stored when it is started again',
    })
  }
}

async function* chunksOf(bytes: readonly Buffer[]): AsyncGenerator<Buffer> {
  yield* bytes
}

interface Assembled {
  readonly bytes: Buffer[]
  readonly sha256: string
  readonly size_bytes: number
}

function assemble(header: SegmentHeader, blocks: readonly Block[], trailer: object): Assembled {
  const container = new ContainerWriter()
  const bytes = [container.header(header)]
  for (const block of blocks) bytes.push(container.add(block))
  bytes.push(container.end(trailer))
  return { bytes, sha256: container.sha256, size_bytes: container.size_bytes }
}

/** A segment as a listing shows it. */
export interface StoredSegment {
  readonly key: string
  readonly start: Lsn
  readonly size_bytes: number
  /** What lies beside it of transactions that span objects; leftovers of interrupted attempts count too. */
  readonly parts_bytes: number
}

/** The starts of all stored segments of a timeline, in order. */
export async function listSegments(
  repository: Repository,
  timeline: Timeline,
  signal?: AbortSignal,
): Promise<StoredSegment[]> {
  const found: StoredSegment[] = []
  // The parts of a segment are listed before it, since their keys go on where its key ends in `wbs`.
  let parts_bytes = 0
  for await (const { key, size_bytes } of repository.storage.list(segmentsPrefix(timeline.source, timeline.id), {
    signal,
  })) {
    const start = segmentStart(key)
    if (start === undefined) parts_bytes += size_bytes
    else {
      found.push({ key, start, size_bytes, parts_bytes })
      parts_bytes = 0
    }
  }
  return found
}

export async function readSegment(
  repository: Repository,
  stored: StoredSegment,
  signal?: AbortSignal,
): Promise<SegmentSummary> {
  return summaryFrom(repository.storage, stored, signal)
}

async function summaryFrom(source: ObjectSource, stored: StoredSegment, signal?: AbortSignal): Promise<SegmentSummary> {
  const { trailer, sha256, size_bytes } = await readTrailerOf(source, stored.key, stored.size_bytes, signal)
  const parsed = segmentTrailer.safeParse(trailer)
  if (!parsed.success) throw new WalbackError('corrupt', `${stored.key} is damaged: its trailer has an unknown form`)
  return { key: stored.key, sha256, size_bytes, start: stored.start, end: endOf(parsed.data), trailer: parsed.data }
}

/** A segment's trailer, and from where its blocks are to be read. */
export interface LoadedSegment {
  readonly segment: SegmentSummary
  readonly source: ObjectSource
}

/**
 * Segments in order, to be read whole: fetched ahead, several at a time and each in one request, within a bound of
 * memory. A chain of thousands would else be waited for round trip by round trip.
 */
export function loadSegments(
  repository: Repository,
  stored: readonly StoredSegment[],
  signal?: AbortSignal,
): AsyncGenerator<LoadedSegment> {
  const load = async (one: StoredSegment, stop: AbortSignal): Promise<LoadedSegment> => {
    const source = await fetch(repository, one, stop)
    return { segment: await summaryFrom(source, one, stop), source }
  }
  return ahead(stored, load, { ...fetchLimits, signal })
}

type PartReference = SegmentTrailer['parts'][number]

/** The parts of a segment's transaction, in order, fetched in the same way. */
export function loadParts(
  repository: Repository,
  parts: readonly PartReference[],
  signal?: AbortSignal,
): AsyncGenerator<{ readonly reference: PartReference; readonly source: ObjectSource }> {
  const load = async (reference: PartReference, stop: AbortSignal) => ({
    reference,
    source: await fetch(repository, reference, stop),
  })
  return ahead(parts, load, { ...fetchLimits, signal })
}

/** An object in memory, or the store itself for one that is too large to be held. */
async function fetch(
  { storage }: Repository,
  { key, size_bytes }: { readonly key: string; readonly size_bytes: number },
  signal: AbortSignal,
): Promise<ObjectSource> {
  return size_bytes > heldWhole_bytes ? storage : inMemory(await readAll(storage.get(key, { signal })))
}

const heldWhole_bytes = 16 << 20
/** Requests on their way at a time. */
const readers = 32
const fetchLimits = {
  most: readers,
  weigh: ({ size_bytes }: { readonly size_bytes: number }) => (size_bytes > heldWhole_bytes ? 0 : size_bytes),
  budget: 64 << 20,
}

/**
 * The trailers of a timeline's segments that reach past `from`, in order, read ahead several at a time; none is kept
 * here. Each must begin where the one before ends: a segment that is missing is `corrupt`, never passed over.
 */
export async function* scanSegments(
  repository: Repository,
  timeline: Timeline,
  options: { readonly from?: Lsn; readonly signal?: AbortSignal | undefined } = {},
): AsyncGenerator<SegmentSummary> {
  const stored = await listSegments(repository, timeline, options.signal)
  const { from } = options
  // The segment that holds `from` starts at or before it.
  const first =
    from === undefined
      ? 0
      : Math.max(
          0,
          stored.findLastIndex((segment) => segment.start <= from),
        )
  let end = first === 0 ? parseLsn(timeline.start) : stored[first]?.start
  for await (const summary of readAhead(repository, stored.slice(first), options.signal)) {
    if (summary.start !== end) {
      const [before, after] = [formatLsn(end as Lsn), formatLsn(summary.start)]
      throw new WalbackError('corrupt', `segments are missing: nothing is stored between ${before} and ${after}`, {
        hint: 'an object was deleted from the repository; bring it back from another copy, or take a new base backup',
        facts: { from: before, to: after },
      })
    }
    end = summary.end
    yield summary
  }
}

/** Reads trailers in order, with some requests on their way at a time. */
export const readAhead = (
  repository: Repository,
  stored: readonly StoredSegment[],
  signal?: AbortSignal,
): AsyncGenerator<SegmentSummary> =>
  ahead(stored, (one, stop) => readSegment(repository, one, stop), { most: readers, signal })

/** How far the archive of a timeline reaches now: what its last segment says. */
export async function readHead(repository: Repository, timeline: Timeline, signal?: AbortSignal): Promise<Head> {
  const last = (await listSegments(repository, timeline, signal)).at(-1)
  if (last === undefined) return { end: parseLsn(timeline.start), sha256: null, xid: fullXid(BigInt(timeline.xid)) }
  const { end, sha256, trailer } = await readSegment(repository, last, signal)
  return { end, sha256, xid: fullXid(BigInt(trailer.xid)) }
}

/** The time of a trailer or a transaction, for people. */
export const timeOf = (entry: { readonly time: string }): Micros => micros(BigInt(entry.time))
