import { ahead } from '../base/ahead.ts'
import { formatLsn, type Lsn, lsn, parseLsn } from '../model/lsn.ts'
import { baseKind } from '../repository/base.ts'
import { segmentKey, timelineKey } from '../repository/layout.ts'
import { fetchLimits } from '../repository/load-segments.ts'
import { contains, covers, type Range, readPruned } from '../repository/pruned.ts'
import type { SegmentSummary } from '../repository/segment-format.ts'
import { timeOf } from '../repository/segments.ts'
import { readTimeline, type Timeline, timelineId } from '../repository/timeline.ts'
import type { Verification } from '../repository/verification.ts'
import type { StoredObject } from '../storage/storage.ts'
import { ChainMap, type Hole } from './chain-map.ts'
import { type CheckedSegment, checkSegment, wordsOf } from './check-segment.ts'
import type { DamageKind } from './finding.ts'
import type { ShelvedSegment, ShelvedTimeline } from './shelf.ts'
import { bringBack, type Walk } from './walk.ts'
import { tellFaults, type WalkedBase } from './walk-bases.ts'

/** A timeline's chain as far as it is sound, for the next verification to compare. */
export interface SoundHead {
  readonly id: string
  readonly end: string
  readonly sha256: string
}

export interface WalkedTimeline {
  readonly map: ChainMap
  readonly head: SoundHead | undefined
}

/** Checks a source's timelines, oldest first. `seen`: what an earlier verification found. */
export async function walkTimelines(
  walk: Walk,
  shelved: readonly ShelvedTimeline[],
  bases: readonly WalkedBase[],
  seen: Verification | undefined,
): Promise<WalkedTimeline[]> {
  walk.enter('segments')
  const byId = new Map(shelved.filter(({ id }) => isTimelineId(id)).map((one) => [one.id, one]))
  const ids = namedIds([
    ...byId.keys(),
    ...bases.map(({ head }) => head.timeline),
    ...(seen?.timelines ?? []).map(({ id }) => id),
  ])
  const records = new Map<string, Timeline | undefined>()
  const faults = new Map<string, Fault>()
  for (const id of ids) {
    const record = await recordOf(walk, id)
    if ('kind' in record) faults.set(id, record)
    else records.set(id, record)
  }
  const walked: WalkedTimeline[] = []
  for (const [place, id] of ids.entries()) {
    const record = records.get(id)
    const next = records.get(ids[place + 1] ?? '')
    const chain = new ChainWalk(walk, id, {
      record,
      pruned: record ? await readPruned(walk.options.repository, record, walk.options.signal) : [],
      fault: faults.get(id),
      bases: bases.filter(({ head }) => head.timeline === id),
      parentEnd: next?.parent?.timeline === id ? parseLsn(next.parent.end) : undefined,
      seen: seen?.timelines.find((one) => one.id === id),
      isLast: place === ids.length - 1,
    })
    walked.push(await chain.run(byId.get(id)))
  }
  return walked
}

const isTimelineId = (id: string): boolean => /^\d{8}$/.test(id)

/** All numbers up to the highest that anything names; of a hole that is absurdly wide only its ends. */
function namedIds(named: readonly string[]): string[] {
  const ids = [...new Set(named)].filter(isTimelineId).sort()
  const highest = Number(ids.at(-1) ?? 0)
  return highest > mostTimelines ? ids : Array.from({ length: highest }, (_, place) => timelineId(place + 1))
}

const mostTimelines = 10_000

interface Fault {
  readonly kind: DamageKind
  readonly key: string
  readonly message: string
}

async function recordOf(walk: Walk, id: string): Promise<Timeline | Fault> {
  const { repository, source, signal } = walk.options
  const key = timelineKey(source, id)
  if ((await repository.storage.size(key, { signal })) === undefined)
    return { kind: 'timeline-missing', key, message: `${key} is missing, the record of a timeline` }
  try {
    walk.objects++
    return await readTimeline(repository, source, id, signal)
  } catch (error) {
    return { kind: 'timeline-damaged', key, message: wordsOf(error) }
  }
}

interface Known {
  readonly record: Timeline | undefined
  /** What retention has removed of it. */
  readonly pruned: readonly Range[]
  readonly fault: Fault | undefined
  readonly bases: readonly WalkedBase[]
  /** Up to where the next timeline says that this one was stored. */
  readonly parentEnd: Lsn | undefined
  readonly seen: SoundHead | undefined
  readonly isLast: boolean
}

/** Goes along one timeline's segments. */
class ChainWalk {
  private readonly walk: Walk
  private readonly id: string
  private readonly known: Known
  private readonly map: ChainMap
  /** Where the next segment must begin, and the hash that it must name; undefined where that is not known. */
  private end: Lsn | undefined
  private previous: { readonly sha256: string | null; readonly key: string; readonly start: Lsn } | undefined
  private readonly found: { readonly fault: Fault; readonly hole: Hole }[] = []
  /** A segment that is damaged, as far as the next one tells where it ended. */
  private open: { readonly fault: Fault; readonly from: Lsn } | undefined
  private head: SoundHead | undefined
  private hasSeen = false
  /** Where the segment begins in which what an earlier verification saw ends. */
  private seenIn: Lsn | undefined
  private readonly leftovers: StoredObject[] = []

  constructor(walk: Walk, id: string, known: Known) {
    this.walk = walk
    this.id = id
    this.known = known
    const { record, bases } = known
    this.end = record && parseLsn(record.start)
    this.previous = record && { sha256: null, key: timelineKey(record.source, id), start: parseLsn(record.start) }
    // One of some tables makes no target restorable, and costs none.
    const full = bases.filter(({ head }) => baseKind(head) === 'full')
    const mapped = full.map(({ head, at, faults }) => ({ id: head.id, at, isSound: faults.length === 0 }))
    this.map = new ChainMap(id, this.end ?? lsn(0n), mapped)
  }

  async run(shelved: ShelvedTimeline | undefined): Promise<WalkedTimeline> {
    const { walk, id } = this
    const { pruned } = this.known
    const isGone = ({ start }: ShelvedSegment): boolean => contains(pruned, start)
    const segments = (shelved?.segments ?? []).filter((segment) => !isGone(segment))
    // What retention was about to remove when it was interrupted.
    for (const { key, size_bytes, parts } of shelved?.segments.filter(isGone) ?? [])
      this.leftovers.push({ key, size_bytes }, ...parts)
    const check = (segment: ShelvedSegment, stop: AbortSignal) => this.check(segment, segments.at(-1) === segment, stop)
    const limits = { ...fetchLimits, most: walk.options.jobs, signal: walk.options.signal }
    for await (const checked of ahead(segments, check, limits)) {
      if (checked === undefined) continue
      this.take(checked)
      await walk.segmentDone(id, checked.summary?.end ?? lsn(checked.segment.start + 1n), checked.read_bytes)
    }
    this.close(lsn((segments.at(-1)?.start ?? 0n) + 1n))
    this.compare()
    this.tell()
    this.leftovers.push(...(shelved?.strays ?? []))
    this.tellLeftovers()
    return { map: this.map, head: this.head }
  }

  /** Undefined for the last segment of all if it is gone by now: its writer may be dealing with it. */
  private async check(
    segment: ShelvedSegment,
    isLast: boolean,
    stop: AbortSignal,
  ): Promise<CheckedSegment | undefined> {
    const { walk, id } = this
    const { repository, source } = walk.options
    const place = { repository, source, timeline: id }
    const isRead = walk.readsSegment(id, segment.key, segment.start, segment.parts)
    const first = await checkSegment(place, segment, isRead, stop)
    if (first.fault === undefined) return first
    // Once more: what the way from the store did is no damage.
    const size_bytes = await repository.storage.size(segment.key, { signal: stop })
    if (size_bytes === undefined && isLast && this.known.isLast) return undefined
    const again = await checkSegment(place, { ...segment, size_bytes: size_bytes ?? 0 }, isRead, stop)
    if (again.fault === undefined) walk.note('read-twice', first.fault.key, first.fault.message)
    return again
  }

  private take({ segment, header, summary, fault }: CheckedSegment): void {
    const { start, key } = segment
    this.close(start)
    this.join(start, key)
    if (header && this.previous && header.previous !== this.previous.sha256) {
      const message = `${key} does not follow ${this.previous.key}: it names another object before it, so one of the two is not the one that was stored`
      this.hole({ kind: 'chain-broken', key, message }, this.previous.start, summary?.end ?? lsn(start + 1n))
    }
    if (fault || summary === undefined) {
      this.open = { fault: fault ?? { kind: 'segment-damaged', key, message: `${key} is damaged` }, from: start }
      this.end = summary?.end
      this.previous = undefined
      if (summary) this.close(summary.end)
      return
    }
    this.end = summary.end
    this.previous = { sha256: summary.sha256, key, start }
    this.map.reach(summary.end, lastCommit(summary))
    this.head = { id: this.id, end: formatLsn(summary.end), sha256: summary.sha256 }
    const { seen } = this.known
    if (seen?.end === this.head.end && seen.sha256 === this.head.sha256) this.hasSeen = true
    if (seen && start < parseLsn(seen.end) && parseLsn(seen.end) <= summary.end) this.seenIn = start
    const named = new Set(summary.trailer.parts.map((part) => part.key))
    this.leftovers.push(...segment.parts.filter((part) => !named.has(part.key)))
  }

  /** Whether the chain goes on where it ended. */
  private join(start: Lsn, key: string): void {
    if (this.end === undefined || this.end === start) return
    if (this.end < start) this.missing(this.end, start)
    else {
      const message = `${key} begins before the segment before it ends, at ${formatLsn(this.end)}`
      this.hole({ kind: 'chain-broken', key, message }, start, this.end)
    }
    this.previous = undefined
  }

  private missing(from: Lsn, to: Lsn, why = ''): void {
    if (covers(this.known.pruned, from, to)) {
      this.map.addHole({ from, to })
      return
    }
    const key = segmentKey(this.walk.options.source, this.id, from)
    const message = `${key} is missing: nothing is stored between ${formatLsn(from)} and ${formatLsn(to)}${why}`
    this.hole({ kind: 'segment-missing', key, message }, from, to)
  }

  private hole(fault: Fault, from: Lsn, to: Lsn): void {
    const hole = { from, to }
    this.map.addHole(hole)
    this.found.push({ fault, hole })
  }

  /** A damaged segment ends where the next begins. */
  private close(to: Lsn): void {
    if (this.open === undefined) return
    const { fault, from } = this.open
    this.open = undefined
    this.hole(fault, from, to)
  }

  /** With what the next timeline and an earlier verification say of the end. */
  private compare(): void {
    const { parentEnd, seen } = this.known
    const { end } = this.map
    if (parentEnd !== undefined && end < parentEnd)
      this.missing(end, parentEnd, ', up to where the record of the timeline after it says that it was')
    if (seen === undefined || this.hasSeen) return
    const seenEnd = parseLsn(seen.end)
    if (contains(this.known.pruned, lsn(seenEnd - 1n))) return
    if (this.found.some(({ hole }) => hole.from < seenEnd && seenEnd <= hole.to)) return
    if (this.map.end < seenEnd) {
      const from = this.map.end
      const key = segmentKey(this.walk.options.source, this.id, from)
      const message = `${key} is missing: an earlier verification found the archive to reach ${seen.end}, and it ends at ${formatLsn(from)}`
      this.hole({ kind: 'rolled-back', key, message }, from, seenEnd)
    } else if (this.seenIn !== undefined) {
      const key = segmentKey(this.walk.options.source, this.id, this.seenIn)
      const message = `${key} is not the object that an earlier verification found, which ended at ${seen.end}`
      this.hole({ kind: 'rolled-back', key, message }, this.seenIn, seenEnd)
    }
  }

  private tell(): void {
    const { walk, map, found } = this
    const { fault, bases, record, isLast } = this.known
    if (fault) walk.damage({ ...fault, lost: map.lostAltogether(), hint: bringBack })
    for (const { fault: of, hole } of found) walk.damage({ ...of, lost: map.lostToHole(hole), hint: bringBack })
    for (const base of bases) {
      tellFaults(walk, base, map.lostToBase(base.head.id))
      if (record === undefined || base.at.lsn <= map.end) continue
      const { key, message } = aheadOf(base, map.end, isLast)
      walk.note('base-ahead', key, message)
    }
  }

  /** Parts that no segment names, and what is no object of ours. */
  private tellLeftovers(): void {
    const [first] = this.leftovers
    if (first === undefined) return
    const bytes = this.leftovers.reduce((sum, { size_bytes }) => sum + size_bytes, 0)
    const message = `${this.leftovers.length} objects of timeline ${this.id} are named by no segment, ${bytes} bytes`
    this.walk.note('leftover', first.key, message)
  }
}

function lastCommit({ trailer }: SegmentSummary) {
  const last = trailer.transactions.at(-1)
  return last && { lsn: parseLsn(last.end), time: timeOf(last) }
}

function aheadOf({ head }: WalkedBase, end: Lsn, isLast: boolean): { key: string; message: string } {
  const key = `sources/${head.source}/bases/${head.id}/manifest.json`
  const why = isLast
    ? 'the agent has not stored it yet, or segments at the end were deleted'
    : 'it cannot be restored from, since the timeline ended before'
  return {
    key,
    message: `base ${head.id} was taken at ${head.lsn}, and the archive ends at ${formatLsn(end)}: ${why}`,
  }
}
