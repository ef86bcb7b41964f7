import { isDeepStrictEqual } from 'node:util'
import { WalbackError } from '../base/errors.ts'
import { formatLsn, type Lsn, lsn, maxLsn, parseLsn } from '../model/lsn.ts'
import { auditPrefix, basesPrefix, manifestKey, pinsPrefix } from '../repository/layout.ts'
import { contains, covers, merged, type Range, readRemoved } from '../repository/pruned.ts'
import type { Repository } from '../repository/repository.ts'
import { readSegment, type StoredSegment } from '../repository/segments.ts'
import { readTimelines, type Timeline } from '../repository/timeline.ts'
import { compareListings, compareSegments, isCopied, type Pair, type Sides } from './compare.ts'

/** Where the target's stream of a timeline ends. */
export interface HeldEnd {
  readonly end: Lsn
  /** Undefined when the last segment there does not read. */
  readonly sha256: string | null | undefined
}

export interface TimelineSurvey {
  readonly timeline: Timeline
  readonly isHeld: boolean
  /** What either side has removed of the stream by intent: that is not copied. */
  readonly pruned: readonly Range[]
  /** What the source has removed and the target never had: to be told there from what was lost. */
  readonly told: readonly Range[]
  readonly heldEnd: HeldEnd
}

/** What is to be copied of a source. */
export interface Survey {
  readonly source: string
  readonly timelines: readonly TimelineSurvey[]
  /** Ids of bases that were removed at the target by intent. */
  readonly removed: ReadonlySet<string>
  readonly bases: number
  readonly segments: number
  readonly pins: number
  readonly objects: number
  /** With what interrupted work left beside segments and in bases, which is not copied in the end. */
  readonly bytes: number
}

interface Count {
  bases: number
  segments: number
  pins: number
  objects: number
  bytes: number
}

/**
 * Compares what two repositories hold of a source, by listings and a few trailers, and refuses a target whose history is
 * another one.
 */
export async function surveyCopy(
  from: Repository,
  to: Repository | undefined,
  source: string,
  signal?: AbortSignal,
): Promise<Survey> {
  const survey = await surveyStream(from, to, source, signal)
  const count: Count = { ...survey }
  await countBases({ from: from.storage, to: to?.storage }, source, survey.removed, count, signal)
  const { bases, segments, pins, objects, bytes } = count
  return { ...survey, bases, segments, pins, objects, bytes }
}

/** The same without bases and pins. */
export async function surveyStream(
  from: Repository,
  to: Repository | undefined,
  source: string,
  signal?: AbortSignal,
): Promise<Survey> {
  const timelines = await readTimelines(from, source, signal)
  if (timelines.length === 0) {
    throw new WalbackError('no_repository', `the repository at ${from.storage.url} holds no source ${source}`, {
      hint: 'check --source and --from',
    })
  }
  const held = to === undefined ? [] : await readTimelines(to, source, signal)
  const count: Count = { bases: 0, segments: 0, pins: 0, objects: 0, bytes: 0 }
  const surveys: TimelineSurvey[] = []
  const removed = new Set<string>()
  requireSameTimelines(from, to, timelines, held)
  for (const [index, timeline] of timelines.entries()) {
    const there = to === undefined ? { ranges: [], bases: new Set<string>() } : await readRemoved(to, timeline, signal)
    for (const id of there.bases) removed.add(id)
    const surveyed = await surveyTimeline({ from, to, timeline, there: there.ranges, signal, count })
    if (held[index] === undefined) count.objects++
    surveys.push({ ...surveyed, isHeld: held[index] !== undefined })
  }
  return { source, timelines: surveys, removed, ...count }
}

function requireSameTimelines(
  from: Repository,
  to: Repository | undefined,
  timelines: readonly Timeline[],
  held: readonly Timeline[],
): void {
  for (const [index, there] of held.entries()) {
    const here = timelines[index]
    if (here !== undefined && isDeepStrictEqual(here, there)) continue
    throw forked(from, to, there, here === undefined ? 'is not known at the source' : 'is another one there')
  }
}

/** The refusal to mix two histories. */
export const forked = (from: Repository, to: Repository | undefined, { source, id }: Timeline, how: string): Error =>
  new WalbackError(
    'refused',
    `${to?.storage.url} holds another history of ${source} than ${from.storage.url}: timeline ${id} ${how}`,
    {
      hint: 'nothing was mixed: copy into another repository, or look with `walback list` on both which one goes on',
      facts: { source, timeline: id },
    },
  )

interface Work {
  readonly from: Repository
  readonly to: Repository | undefined
  readonly timeline: Timeline
  readonly there: readonly Range[]
  readonly count: Count
  readonly signal: AbortSignal | undefined
}

async function surveyTimeline({
  from,
  to,
  timeline,
  there,
  count,
  signal,
}: Work): Promise<Omit<TimelineSurvey, 'isHeld'>> {
  const gone = (await readRemoved(from, timeline, signal)).ranges
  const sides: Sides = { from: from.storage, to: to?.storage }
  // The newest that both have: one of them may be damaged.
  let common: StoredSegment[] = []
  let last: StoredSegment | undefined
  for await (const pair of compareSegments(sides, timeline, there, signal)) {
    const { stored, held } = pair
    if (held !== undefined) last = held
    if (stored !== undefined && held !== undefined) common = [...common, stored].slice(-looks)
    if (isCopied(pair) || stored === undefined || contains(gone, stored.start)) continue
    const isSame = held?.size_bytes === stored.size_bytes
    if (to !== undefined && isSame && !(await lacksParts(from, to, stored, signal))) continue
    count.segments++
    count.objects++
    count.bytes += stored.size_bytes + stored.parts_bytes
  }
  if (to !== undefined) await requireSameChain(from, to, timeline, common, signal)
  const heldEnd = await endOf(to, timeline, last, signal)
  const told = merged(gone.map((range) => ({ from: maxLsn(range.from, heldEnd.end), to: range.to }))).filter(
    (range) => !covers(there, range.from, range.to),
  )
  return { timeline, pruned: merged([...gone, ...there]), told, heldEnd }
}

/** What interrupted writers left beside a segment makes it look as if the target lacked some of it. */
async function lacksParts(
  from: Repository,
  to: Repository,
  stored: StoredSegment,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const read = await soundly(() => readSegment(from, stored, signal))
  for (const { key, size_bytes } of read?.trailer.parts ?? [])
    if ((await to.storage.size(key, { signal })) !== size_bytes) return true
  return read === undefined
}

/** So many of the segments that both have are looked at, newest first, until one reads on both sides. */
const looks = 8

/** Each segment's header has the hash of the one before, so one that is the same says that all before it are. */
async function requireSameChain(
  from: Repository,
  to: Repository,
  timeline: Timeline,
  common: readonly StoredSegment[],
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const segment of common.toReversed()) {
    const here = await hashOf(from, segment, signal)
    const there = await hashOf(to, segment, signal)
    if (here === undefined || there === undefined) continue
    if (here === there) return
    throw forked(from, to, timeline, `goes on differently there at or before ${formatLsn(segment.start)}`)
  }
}

/** Undefined if it is damaged. `stored.size_bytes` is the source's. */
export async function hashOf(
  repository: Repository,
  stored: StoredSegment,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const size_bytes = await repository.storage.size(stored.key, { signal })
  if (size_bytes === undefined) return undefined
  return (await soundly(() => readSegment(repository, { ...stored, size_bytes }, signal)))?.sha256
}

async function endOf(
  to: Repository | undefined,
  timeline: Timeline,
  last: StoredSegment | undefined,
  signal: AbortSignal | undefined,
): Promise<HeldEnd> {
  if (to === undefined || last === undefined) return { end: parseLsn(timeline.start), sha256: null }
  const read = await soundly(() => readSegment(to, last, signal))
  return read === undefined ? { end: lsn(last.start + 1n), sha256: undefined } : { end: read.end, sha256: read.sha256 }
}

/** What was read; undefined where there is damage. */
export async function soundly<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if (error instanceof WalbackError && error.code === 'corrupt') return undefined
    throw error
  }
}

/** By listings alone: which of a base's objects count, its manifest says. */
async function countBases(
  sides: Sides,
  source: string,
  removed: ReadonlySet<string>,
  count: Count,
  signal: AbortSignal | undefined,
): Promise<void> {
  for await (const group of basesOf(sides, source, signal)) {
    if (removed.has(group.id) || !group.differs) continue
    const wanted = group.objects.filter(
      ({ size_bytes, held_bytes }) => size_bytes !== undefined && size_bytes !== held_bytes,
    )
    if (group.manifest.held_bytes === undefined) count.bases++
    count.objects += wanted.length
    count.bytes += wanted.reduce((sum, { size_bytes }) => sum + (size_bytes ?? 0), 0)
  }
  for await (const { size_bytes, held_bytes } of compareListings(sides, pinsPrefix(source), signal)) {
    if (size_bytes === undefined || held_bytes !== undefined) continue
    count.pins++
    count.objects++
    count.bytes += size_bytes
  }
  for await (const { size_bytes, held_bytes } of compareListings(sides, auditPrefix(source), signal)) {
    if (size_bytes === undefined || held_bytes !== undefined) continue
    count.objects++
    count.bytes += size_bytes
  }
}

/** A base that the source has complete, or has given up. */
export interface BaseGroup {
  readonly id: string
  readonly manifest: { readonly size_bytes: number; readonly held_bytes: number | undefined }
  /** What lies below its name on either side, without notes of what was done of it. */
  readonly objects: readonly Pair[]
  /** Whether the source has anything that the target has not. */
  readonly differs: boolean
}

/** The source's bases, one after the other, so that no more than one's keys are held. */
export async function* basesOf(
  sides: Sides,
  source: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<BaseGroup> {
  const prefix = basesPrefix(source)
  let [id, objects] = ['', [] as Pair[]]
  const group = (): BaseGroup | undefined => {
    const manifest = objects.find(({ key }) => key === manifestKey(source, id))
    if (manifest?.size_bytes === undefined) return undefined
    const { size_bytes, held_bytes } = manifest
    const differs = objects.some((one) => one.size_bytes !== undefined && one.size_bytes !== one.held_bytes)
    return { id, manifest: { size_bytes, held_bytes }, objects, differs }
  }
  for await (const pair of compareListings(sides, prefix, signal)) {
    const [name = '', folder] = pair.key.slice(prefix.length).split('/')
    if (name !== id) {
      const whole = group()
      if (whole) yield whole
      id = name
      objects = []
    }
    if (folder !== 'progress') objects.push(pair)
  }
  const whole = group()
  if (whole) yield whole
}
