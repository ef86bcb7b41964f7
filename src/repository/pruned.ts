import { hash } from 'node:crypto'
import { z } from 'zod'
import { formatLsn, type Lsn, maxLsn, parseLsn } from '../model/lsn.ts'
import { isAbsent } from '../storage/storage.ts'
import { prunedPrefix } from './layout.ts'
import type { Repository } from './repository.ts'
import { readJson, sealedJson } from './sealed-json.ts'
import type { Timeline } from './timeline.ts'

/**
 * What retention has removed of a timeline's stream, put before the segments go: what is missing by intent is thereby
 * told from what was lost, and a removal that was interrupted leaves nothing that a reader would take for a stream.
 */
const prunedShape = z.object({
  walback: z.literal('pruned'),
  format: z.literal(1),
  timeline: z.string(),
  ranges: z.array(z.object({ from: z.string(), to: z.string() })),
  /** Ids of the timeline's bases that were removed: what is left of one is no damage, and a copy does not bring it back. */
  bases: z.array(z.string()).default([]),
})

/** Positions from `from` up to `to`, which is not part of it; both lie between segments. */
export interface Range {
  readonly from: Lsn
  readonly to: Lsn
}

/** In order, and those that meet made one. */
export function merged(ranges: readonly Range[]): Range[] {
  const found: { from: Lsn; to: Lsn }[] = []
  for (const { from, to } of [...ranges].sort((a, b) => (a.from < b.from ? -1 : a.from > b.from ? 1 : 0))) {
    const last = found.at(-1)
    if (from >= to) continue
    if (last !== undefined && from <= last.to) last.to = maxLsn(last.to, to)
    else found.push({ from, to })
  }
  return found
}

/** Whether all of `from` up to `to` lies in the ranges, which are merged. */
export const covers = (ranges: readonly Range[], from: Lsn, to: Lsn): boolean =>
  ranges.some((range) => range.from <= from && to <= range.to)

export const contains = (ranges: readonly Range[], at: Lsn): boolean =>
  ranges.some(({ from, to }) => from <= at && at < to)

/** What is removed, or is being removed, of a timeline's stream. */
export const readPruned = async (
  repository: Repository,
  timeline: Pick<Timeline, 'source' | 'id'>,
  signal?: AbortSignal,
): Promise<Range[]> => (await readRemoved(repository, timeline, signal)).ranges

/** The same, and the ids of bases. */
export async function readRemoved(
  repository: Repository,
  { source, id }: Pick<Timeline, 'source' | 'id'>,
  signal?: AbortSignal,
): Promise<{ readonly ranges: Range[]; readonly bases: Set<string> }> {
  for (let attempt = 1; ; attempt++) {
    try {
      const ranges: Range[] = []
      const bases = new Set<string>()
      for (const key of await recordsOf(repository, source, id, signal)) {
        const record = await readJson(repository.storage, key, prunedShape)
        ranges.push(...record.ranges.map(({ from, to }) => ({ from: parseLsn(from), to: parseLsn(to) })))
        for (const base of record.bases) bases.add(base)
      }
      return { ranges: merged(ranges), bases }
    } catch (error) {
      // A record may have been replaced by one that holds more, between the listing and the look.
      if (!isAbsent(error) || attempt === attempts) throw error
    }
  }
}

/** Adds to what is removed; records that the new one holds go. */
export async function writePruned(
  repository: Repository,
  { source, id }: Pick<Timeline, 'source' | 'id'>,
  ranges: readonly Range[],
  bases: readonly string[] = [],
): Promise<void> {
  const before = await recordsOf(repository, source, id)
  const known = await readRemoved(repository, { source, id })
  const all = merged([...known.ranges, ...ranges])
  const record: z.infer<typeof prunedShape> = {
    walback: 'pruned',
    format: 1,
    timeline: id,
    ranges: all.map(({ from, to }) => ({ from: formatLsn(from), to: formatLsn(to) })),
    bases: [...new Set([...known.bases, ...bases])].sort(),
  }
  const bytes = sealedJson(record)
  const key = `${prunedPrefix(source, id)}${hash('sha256', bytes).slice(0, 16)}.json`
  await repository.storage.put(key, bytes, { ifAbsent: true })
  for (const old of before) if (old !== key) await repository.storage.delete(old)
}

async function recordsOf(
  repository: Repository,
  source: string,
  timeline: string,
  signal?: AbortSignal,
): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of repository.storage.list(prunedPrefix(source, timeline), { signal })) keys.push(key)
  return keys
}

const attempts = 5
