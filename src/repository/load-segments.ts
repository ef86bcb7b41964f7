import { ahead } from '../base/ahead.ts'
import { inMemory, type ObjectSource, readAll } from '../storage/storage.ts'
import { missingIfAbsent } from './container.ts'
import type { Repository } from './repository.ts'
import type { SegmentSummary, SegmentTrailer } from './segment-format.ts'
import { readers, type StoredSegment, summaryFrom } from './segments.ts'

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
    const source = await fetchObject(repository, one, stop)
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
    source: await fetchObject(repository, reference, stop),
  })
  return ahead(parts, load, { ...fetchLimits, signal })
}

/** An object in memory, or the store itself for one that is too large to be held. */
export async function fetchObject(
  { storage }: Pick<Repository, 'storage'>,
  { key, size_bytes }: { readonly key: string; readonly size_bytes: number },
  signal: AbortSignal,
): Promise<ObjectSource> {
  if (size_bytes > heldWhole_bytes) return storage
  try {
    return inMemory(await readAll(storage.get(key, { signal })))
  } catch (error) {
    throw missingIfAbsent(error, key)
  }
}

const heldWhole_bytes = 16 << 20
/** So many on their way, and so much of them in memory. */
export const fetchLimits = {
  most: readers,
  weigh: ({ size_bytes }: { readonly size_bytes: number }) => (size_bytes > heldWhole_bytes ? 0 : size_bytes),
  budget: 64 << 20,
}
