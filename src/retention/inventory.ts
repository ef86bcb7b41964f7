import { WalbackError } from '../base/errors.ts'
import { type Lsn, parseLsn } from '../model/lsn.ts'
import { type Micros, micros, nowMicros } from '../model/time.ts'
import { type BaseNames, readBaseNames, readManifest } from '../repository/base.ts'
import { type BegunBase, listBegun } from '../repository/base-progress.ts'
import { baseProgressPrefix, basesPrefix, manifestKey } from '../repository/layout.ts'
import { type LeaseRecord, readLeases } from '../repository/lease.ts'
import { type Pin, readPins } from '../repository/pins.ts'
import { contains, type Range } from '../repository/pruned.ts'
import type { Repository } from '../repository/repository.ts'
import type { SegmentSummary, TransactionEntry } from '../repository/segment-format.ts'
import { listStream, readAhead, type StreamObject, timeOf } from '../repository/segments.ts'
import { readTimelines, type Timeline } from '../repository/timeline.ts'

/** Of a segment, what retention asks. */
export interface StockSegment {
  readonly key: string
  readonly start: Lsn
  readonly end: Lsn
  readonly parts: readonly string[]
  readonly last: { readonly lsn: Lsn; readonly time: Micros } | undefined
  /** The server's clock at its end. */
  readonly time: Micros
  readonly heartbeats: readonly Pick<TransactionEntry, 'heartbeat'>[]
}

/** Of a complete base, what retention asks. */
export interface StockBase extends Omit<BaseNames, 'objects'> {
  /** An object that it names and that is not there. */
  readonly missing: string | undefined
  /** What lies below its name, and it does not name. */
  readonly unnamed: ReadonlySet<string>
}

/** An unbroken run of segments; at a timeline's start it may have none. */
export interface Run {
  readonly start: Lsn
  readonly end: Lsn
  readonly segments: readonly StockSegment[]
}

export interface TimelineStock {
  readonly timeline: Timeline
  readonly isCurrent: boolean
  readonly start: Lsn
  readonly runs: readonly Run[]
  readonly pruned: readonly Range[]
  readonly objects: readonly StreamObject[]
}

/** All that the repository holds of a source, and who is at work in it. */
export interface Inventory {
  readonly source: string
  readonly now: Micros
  readonly timelines: readonly TimelineStock[]
  /** In the order of their history. */
  readonly bases: readonly StockBase[]
  readonly begun: readonly BegunBase[]
  /** By the base's id, complete or not: the objects below its name, with their lengths. */
  readonly baseObjects: ReadonlyMap<string, ReadonlyMap<string, number>>
  /** Ids of bases that were given up: the mark stays, all else is left over. */
  readonly givenUp: ReadonlySet<string>
  readonly pins: readonly Pin[]
  readonly leases: readonly LeaseRecord[]
}

/** Reads listings, manifests and trailers; no rows. */
export async function readInventory(
  repository: Repository,
  source: string,
  options: { readonly now?: Micros | undefined; readonly signal?: AbortSignal | undefined } = {},
): Promise<Inventory> {
  const { signal, now = nowMicros() } = options
  const leases = await readLeases(repository, source, signal)
  const pins = await readPins(repository, source, signal)
  const begun = await listBegun(repository, source, signal)
  const timelines = await readTimelines(repository, source, signal)
  if (timelines.length === 0) {
    throw new WalbackError('no_repository', `the repository at ${repository.storage.url} holds no source ${source}`, {
      hint: 'check --source and --repo; `walback list` shows what is there',
    })
  }
  const stocks: TimelineStock[] = []
  for (const timeline of timelines)
    stocks.push(await readStock(repository, timeline, timeline === timelines.at(-1), signal))
  // After what says that a base is begun: what has been completed since is then found to be complete.
  const named = await readBaseNames(repository, source, { of: 'any', signal })
  const baseObjects = await listBaseObjects(repository, source, signal)
  const bases = named.map((base) => stockBase(base, baseObjects.get(base.id) ?? new Map()))
  const givenUp = await setYoungAside(repository, source, { bases, begun, baseObjects })
  return { source, now, timelines: stocks, bases, begun, baseObjects, givenUp, pins, leases }
}

function stockBase({ objects, ...head }: BaseNames, there: ReadonlyMap<string, number>): StockBase {
  const named = new Set(objects)
  const missing = objects.find((key) => !there.has(key))
  return { ...head, missing, unnamed: new Set([...there.keys()].filter((key) => !named.has(key))) }
}

async function listBaseObjects(
  repository: Repository,
  source: string,
  signal: AbortSignal | undefined,
): Promise<Map<string, Map<string, number>>> {
  const objects = new Map<string, Map<string, number>>()
  for await (const { key, size_bytes } of repository.storage.list(basesPrefix(source), { signal })) {
    const id = key.slice(basesPrefix(source).length).split('/')[0] ?? ''
    const own = objects.get(id) ?? new Map<string, number>()
    objects.set(id, own.set(key, size_bytes))
  }
  return objects
}

/**
 * Takes out the objects of bases that began, or were completed, while the rest was read, and tells those that were given
 * up. A base says that it is begun before its first object, and takes that back after its manifest; so what has
 * neither word, asked for in this order, belongs to nobody.
 */
async function setYoungAside(
  repository: Repository,
  source: string,
  { bases, begun, baseObjects }: Pick<Inventory, 'bases' | 'begun'> & { baseObjects: Map<string, unknown> },
): Promise<Set<string>> {
  const known = new Set([...bases.map(({ id }) => id), ...begun.filter((one) => !one.isEnded).map(({ id }) => id)])
  const givenUp = new Set<string>()
  for (const id of [...baseObjects.keys()].filter((one) => !known.has(one))) {
    const isBegun = (await repository.storage.size(`${baseProgressPrefix(source, id)}begun.json`)) !== undefined
    const isEnded = (await repository.storage.size(manifestKey(source, id))) !== undefined
    if (isEnded && (await readManifest(repository, source, id)) === undefined) givenUp.add(id)
    else if (isBegun || isEnded) baseObjects.delete(id)
  }
  return givenUp
}

async function readStock(
  repository: Repository,
  timeline: Timeline,
  isCurrent: boolean,
  signal: AbortSignal | undefined,
): Promise<TimelineStock> {
  const { objects, segments: stored, pruned } = await listStream(repository, timeline, signal)
  const start = parseLsn(timeline.start)
  // A base that was taken before anything was stored can be restored as well.
  const runs: { start: Lsn; end: Lsn; segments: StockSegment[] }[] = contains(pruned, start)
    ? []
    : [{ start, end: start, segments: [] }]
  for await (const { summary } of readAhead(repository, stored, signal)) {
    if (summary === undefined) continue
    const last = runs.at(-1)
    if (last?.end === summary.start) {
      last.segments.push(stockOf(summary))
      last.end = summary.end
    } else runs.push({ start: summary.start, end: summary.end, segments: [stockOf(summary)] })
  }
  return { timeline, isCurrent, start, runs, pruned, objects }
}

function stockOf({ key, start, end, trailer }: SegmentSummary): StockSegment {
  const last = trailer.transactions.at(-1)
  return {
    key,
    start,
    end,
    parts: trailer.parts.map((part) => part.key),
    last: last && { lsn: parseLsn(last.end), time: timeOf(last) },
    time: micros(BigInt(trailer.time)),
    heartbeats: trailer.transactions.flatMap(({ heartbeat }) => (heartbeat === undefined ? [] : [{ heartbeat }])),
  }
}
