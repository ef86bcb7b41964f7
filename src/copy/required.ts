import { isDeepStrictEqual } from 'node:util'
import { messageOf, WalbackError } from '../base/errors.ts'
import { formatLsn, lsn } from '../model/lsn.ts'
import { readTrailer } from '../repository/container.ts'
import { timelineKey } from '../repository/layout.ts'
import { contains, readPruned } from '../repository/pruned.ts'
import type { Repository } from '../repository/repository.ts'
import type { SegmentSummary } from '../repository/segment-format.ts'
import { type Head, readHead } from '../repository/segments.ts'
import { readTimeline, type Timeline } from '../repository/timeline.ts'
import type { Storage } from '../storage/storage.ts'
import { copyStream } from './copy.ts'
import { Delivery, isDamage } from './delivery.ts'
import type { PassedReference } from './pass.ts'
import { forked, soundly } from './survey.ts'
import { openTarget } from './target.ts'

/**
 * A repository that has to have a segment too before that is confirmed to the server. Segments are copied there one by
 * one, as they are stored; before a stream is opened, which confirms the archive's end, it is brought up to that.
 */
export class RequiredCopy {
  private readonly from: Repository
  private readonly target: Storage
  private to: Repository | undefined
  /** The generation of the key that was written with when that was opened. */
  private generation: number | undefined

  constructor(from: Repository, target: Storage) {
    this.from = from
    this.target = target
  }

  /** Brings its stream up to the archive's end; fails if it does not come to that. */
  async level(timeline: Timeline, head: Head, signal: AbortSignal): Promise<void> {
    const { from } = this
    // Anew each time: the key may have been given a generation, or the repository been removed.
    const to = await this.open(signal)
    if (await this.holds(to, timeline, head, signal)) return
    await copyStream(from, to, timeline.source, signal)
    if (await this.holds(to, timeline, head, signal)) return
    throw new WalbackError(
      'storage',
      `the required repository ${this.target.url} could not be brought up to ${formatLsn(head.end)}`,
      {
        hint: `nothing is lost, and nothing is confirmed before it is; what does \`walback verify --repo ${from.storage.url}\` say?`,
        facts: { required: this.target.url, end: formatLsn(head.end) },
        retryable: true,
      },
    )
  }

  /** Stores a segment that the repository has just stored, after its parts. */
  async add(timeline: Timeline, segment: SegmentSummary, signal: AbortSignal): Promise<void> {
    // What is sealed to a new generation of the key is of no use there without that.
    const isCurrent = this.generation === this.from.key?.newest.number
    const to = this.to !== undefined && isCurrent ? this.to : await this.open(signal)
    const delivery = new Delivery(this.from, to, signal, () => undefined)
    try {
      for (const part of segment.trailer.parts) await this.store(delivery, timeline, segment, part)
      await this.store(delivery, timeline, segment, segment)
    } catch (error) {
      if (!isDamage(error)) throw error
      throw new WalbackError(
        'storage',
        `${this.from.storage.url} does not give back what it has just stored: ${messageOf(error)}`,
        {
          cause: error,
          hint: 'nothing is lost: the server still has the log, and it is tried again; but the store is not to be trusted',
          retryable: true,
        },
      )
    }
  }

  private async open(signal: AbortSignal): Promise<Repository> {
    const to = await openTarget(this.from, this.target, signal)
    this.to = to
    this.generation = this.from.key?.newest.number
    return to
  }

  private async store(
    delivery: Delivery,
    timeline: Timeline,
    { start }: SegmentSummary,
    { key, size_bytes, sha256 }: PassedReference,
  ): Promise<void> {
    if (await delivery.container({ key, size_bytes, sha256 }, { held: false })) return
    // An earlier attempt, or a copy that is at work, has stored it.
    const held = await soundly(() => readTrailer(delivery.to.storage, key, { size_bytes, signal: delivery.signal }))
    if (held?.sha256 !== sha256)
      throw forked(delivery.from, delivery.to, timeline, `goes on differently there at ${formatLsn(start)}`)
  }

  private async holds(to: Repository, timeline: Timeline, head: Head, signal: AbortSignal): Promise<boolean> {
    const { source, id } = timeline
    if ((await to.storage.size(timelineKey(source, id), { signal })) === undefined) return false
    if (!isDeepStrictEqual(await readTimeline(to, source, id, signal), timeline)) return false
    const there = await soundly(() => readHead(to, timeline, signal))
    if (there !== undefined && there.end > head.end) throw ahead(this.from, to, there, head)
    if (there?.end === head.end && there.sha256 === head.sha256) return true
    // What a prune has removed there is not brought back, and was there.
    return contains(await readPruned(to, timeline, signal), lsn(head.end - 1n))
  }
}

const ahead = (from: Repository, to: Repository, there: Head, head: Head): WalbackError =>
  new WalbackError(
    'refused',
    `${to.storage.url} holds more than ${from.storage.url}: it reaches ${formatLsn(there.end)}, and not ${formatLsn(head.end)}`,
    {
      hint: `the first repository has lost its newest segments: bring them back with \`walback copy --from ${to.storage.url} --to ${from.storage.url}\``,
      facts: { required: to.storage.url, end: formatLsn(there.end), archive_end: formatLsn(head.end) },
    },
  )
