import { ahead } from '../base/ahead.ts'
import { WalbackError } from '../base/errors.ts'
import { formatLsn, type Lsn, parseLsn } from '../model/lsn.ts'
import { timelineKey } from '../repository/layout.ts'
import { fetchLimits, fetchObject } from '../repository/load-segments.ts'
import { contains, readPruned, writePruned } from '../repository/pruned.ts'
import { type SegmentHeader, type SegmentSummary, segmentHeader } from '../repository/segment-format.ts'
import { readSegment, type StoredSegment, summaryFrom } from '../repository/segments.ts'
import { readTimelineBytes, type Timeline } from '../repository/timeline.ts'
import type { ObjectSource } from '../storage/storage.ts'
import { compareSegments, isCopied } from './compare.ts'
import { type Delivery, isDamage } from './delivery.ts'
import { forked, hashOf, soundly, type TimelineSurvey } from './survey.ts'

/** A segment that the target lacks, or has another length of, or lacks parts of. */
interface Wanted {
  readonly stored: StoredSegment
  readonly held: StoredSegment | undefined
  /** The source's segment before it, if that one is not copied now. */
  readonly before: StoredSegment | undefined
}

/** A segment in memory, or where it is read from; its parts are stored. Undefined: it cannot be copied. */
interface Ready {
  readonly wanted: Wanted
  readonly read: { readonly summary: SegmentSummary; readonly source: ObjectSource } | undefined
}

/** Where the stream has been followed to. */
interface Link {
  readonly end: Lsn
  readonly sha256: string | null
}

/**
 * Copies a timeline: its record, what is removed of it, and its segments in the order of the stream, each after its
 * parts. They are fetched and checked several at a time and stored one by one: whoever reads the target meanwhile, or
 * after this was killed, finds a stream that ends earlier, and no hole in it.
 */
export async function copyTimeline(delivery: Delivery, survey: TimelineSurvey): Promise<number> {
  const { timeline } = survey
  const { from, to, signal } = delivery
  const key = timelineKey(timeline.source, timeline.id)
  if (!survey.isHeld && !(await delivery.document(key, (await readTimelineBytes(from, timeline, signal)).bytes)))
    throw forked(from, to, timeline, 'was begun there just now')
  if (survey.told.length > 0) await writePruned(to, timeline, survey.told)
  const stream = new StreamCopy(delivery, survey)
  let before: StoredSegment | undefined
  let batch: Wanted[] = []
  const sides = { from: from.storage, to: to.storage }
  for await (const pair of compareSegments(sides, timeline, survey.pruned, signal)) {
    const { stored, held } = pair
    if (stored === undefined) continue
    if (isCopied(pair)) {
      before = stored
      continue
    }
    batch.push({ stored, held, before })
    before = undefined
    if (batch.length < most) continue
    await stream.run(batch)
    batch = []
  }
  await stream.run(batch)
  return stream.segments
}

/** Segments that are known of at a time. */
const most = 1000

class StreamCopy {
  segments = 0
  private readonly delivery: Delivery
  private readonly survey: TimelineSurvey
  private readonly timeline: Timeline
  private link: Link | undefined

  constructor(delivery: Delivery, survey: TimelineSurvey) {
    this.delivery = delivery
    this.survey = survey
    this.timeline = survey.timeline
    this.link = { end: parseLsn(survey.timeline.start), sha256: null }
  }

  async run(batch: readonly Wanted[]): Promise<void> {
    const { signal } = this.delivery
    const limits = { most: fetchLimits.most, budget: fetchLimits.budget, signal }
    const weigh = ({ stored }: Wanted): number => fetchLimits.weigh(stored)
    for await (const { wanted, read } of ahead(batch, (one, stop) => this.prepare(one, stop), { ...limits, weigh })) {
      if (wanted.before !== undefined) this.link = await this.linkTo(wanted.before)
      // What comes after a segment that is damaged has nothing to be held against.
      this.link = read === undefined ? undefined : await this.store(wanted, read)
    }
  }

  private async prepare(wanted: Wanted, signal: AbortSignal): Promise<Ready> {
    const { stored } = wanted
    const { from, to } = this.delivery
    try {
      const source = await fetchObject({ storage: from.clear }, stored, signal)
      const summary = await summaryFrom(from.opened(source), stored, signal)
      for (const part of summary.trailer.parts) {
        const held = await to.storage.size(part.key, { signal })
        if (held !== part.size_bytes) await this.delivery.container(part, { held: held !== undefined })
      }
      return { wanted, read: { summary, source } }
    } catch (error) {
      await this.note(stored, error)
      return { wanted, read: undefined }
    }
  }

  /** Gives where the stream goes on; undefined when the segment is damaged and was not stored. */
  private async store(
    { stored, held }: Wanted,
    { summary, source }: NonNullable<Ready['read']>,
  ): Promise<Link | undefined> {
    const { delivery, timeline } = this
    const { from, to, signal } = delivery
    const link = { end: summary.end, sha256: summary.sha256 }
    if (held !== undefined) {
      const there = await hashOf(to, stored, signal)
      if (there !== undefined && there !== summary.sha256) throw this.differs(stored)
      if (held.size_bytes === stored.size_bytes) return link
    }
    const reference = { key: stored.key, size_bytes: stored.size_bytes, sha256: summary.sha256 }
    const onHeader = (header: unknown): void => this.requirePlace(stored, header)
    try {
      const isMade = await delivery.container(reference, { source, held: held !== undefined, onHeader })
      // Another copy, or an agent, has stored it meanwhile.
      if (!isMade && (await hashOf(to, stored, signal)) !== summary.sha256)
        throw forked(from, to, timeline, `goes on differently there at ${formatLsn(stored.start)}`)
    } catch (error) {
      await this.note(stored, error)
      return undefined
    }
    this.segments++
    return link
  }

  /** A whole segment that lies under another's key, or does not follow the one before, is damage that no hash of its own shows. */
  private requirePlace({ key, start }: StoredSegment, json: unknown): void {
    const parsed = segmentHeader.safeParse(json)
    const { source, id } = this.timeline
    if (!parsed.success || !isAt(parsed.data, { source, timeline: id, start: formatLsn(start) }))
      throw new WalbackError('corrupt', `${key} is damaged: it is another object than its name says`)
    const { previous } = parsed.data
    const { heldEnd } = this.survey
    if (heldEnd.end === start && heldEnd.sha256 !== undefined && heldEnd.sha256 !== previous)
      throw this.differs({ start })
    if (this.link?.end === start && this.link.sha256 !== previous)
      throw new WalbackError('corrupt', `${key} is damaged: it does not follow the segment before it`)
  }

  private differs({ start }: Pick<StoredSegment, 'start'>): Error {
    const { from, to } = this.delivery
    return forked(from, to, this.timeline, `goes on differently there at ${formatLsn(start)}`)
  }

  private async linkTo(before: StoredSegment): Promise<Link | undefined> {
    const { from, signal } = this.delivery
    const read = await soundly(() => readSegment(from, before, signal))
    return read && { end: read.end, sha256: read.sha256 }
  }

  /** What a prune has removed since the listing is not missing. */
  private async note({ key, start }: StoredSegment, error: unknown): Promise<void> {
    const { from, signal } = this.delivery
    if (isDamage(error) && contains(await readPruned(from, this.timeline, signal), start)) return
    this.delivery.note(key, error)
  }
}

const isAt = (
  { kind, ...header }: SegmentHeader,
  { source, timeline, start }: { readonly source: string; readonly timeline: string; readonly start: string },
): boolean => kind === 'segment' && header.source === source && header.timeline === timeline && header.start === start
