import type { Lsn } from '../model/lsn.ts'
import { partStart, segmentStart, segmentsPrefix } from '../repository/layout.ts'
import { contains, type Range } from '../repository/pruned.ts'
import type { StoredSegment } from '../repository/segments.ts'
import type { Timeline } from '../repository/timeline.ts'
import type { Storage, StoredObject } from '../storage/storage.ts'

/** What two stores hold under one key; undefined: nothing. */
export interface Pair {
  readonly key: string
  readonly size_bytes: number | undefined
  readonly held_bytes: number | undefined
}

/** The two stores that are compared; there may be nothing yet where a copy goes to. */
export interface Sides {
  readonly from: Storage
  readonly to: Storage | undefined
}

/** Both listings in one, in the order of keys: neither is held in memory. */
export async function* compareListings(
  { from, to }: Sides,
  prefix: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<Pair> {
  const [left, right] = [from.list(prefix, { signal }), to?.list(prefix, { signal })].map((listing) =>
    listing?.[Symbol.asyncIterator](),
  )
  const next = async (of: AsyncIterator<StoredObject> | undefined): Promise<StoredObject | undefined> => {
    const step = await of?.next()
    return step === undefined || step.done ? undefined : step.value
  }
  try {
    let [ours, theirs] = [await next(left), await next(right)]
    while (ours !== undefined || theirs !== undefined) {
      const isOurs = ours !== undefined && (theirs === undefined || ours.key <= theirs.key)
      const isTheirs = theirs !== undefined && (ours === undefined || theirs.key <= ours.key)
      const key = (isOurs ? ours?.key : theirs?.key) as string
      yield {
        key,
        size_bytes: isOurs ? ours?.size_bytes : undefined,
        held_bytes: isTheirs ? theirs?.size_bytes : undefined,
      }
      if (isOurs) ours = await next(left)
      if (isTheirs) theirs = await next(right)
    }
  } finally {
    await left?.return?.()
    await right?.return?.()
  }
}

/** A segment of either side, with what lies beside it of its parts. */
export interface SegmentPair {
  readonly start: Lsn
  /** Undefined: the source does not have it. */
  readonly stored: StoredSegment | undefined
  /** Undefined: the target does not have it. */
  readonly held: StoredSegment | undefined
}

/** Whether there is nothing to do about a segment: immutable objects of one length under one key are one object. */
export const isCopied = ({ stored, held }: SegmentPair): boolean =>
  stored === undefined ||
  (held !== undefined && held.size_bytes === stored.size_bytes && held.parts_bytes >= stored.parts_bytes)

/** The segments of a timeline on both sides, in the order of the stream; without what either side has removed by intent. */
export async function* compareSegments(
  sides: Sides,
  { source, id }: Pick<Timeline, 'source' | 'id'>,
  pruned: readonly Range[],
  signal: AbortSignal | undefined,
): AsyncGenerator<SegmentPair> {
  // Parts are listed before their segment.
  let [parts_bytes, heldParts_bytes] = [0, 0]
  for await (const { key, size_bytes, held_bytes } of compareListings(sides, segmentsPrefix(source, id), signal)) {
    const start = segmentStart(key)
    const at = start ?? partStart(key)
    if (at === undefined || contains(pruned, at)) continue
    if (start === undefined) {
      parts_bytes += size_bytes ?? 0
      heldParts_bytes += held_bytes ?? 0
      continue
    }
    yield {
      start,
      stored: size_bytes === undefined ? undefined : { key, start, size_bytes, parts_bytes },
      held: held_bytes === undefined ? undefined : { key, start, size_bytes: held_bytes, parts_bytes: heldParts_bytes },
    }
    parts_bytes = 0
    heldParts_bytes = 0
  }
}
