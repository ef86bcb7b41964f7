import { type Lsn, lsn, maxLsn } from '../model/lsn.ts'
import { baseProgressPrefix, manifestKey } from '../repository/layout.ts'
import { contains, covers, merged, type Range } from '../repository/pruned.ts'
import type { Inventory, TimelineStock } from './inventory.ts'

/** An object that goes, and what it belongs to. */
export interface Doomed {
  readonly key: string
  readonly size_bytes: number
  /** The base that it belongs to, or the place in a timeline's stream; undefined if nobody can have read its name. */
  readonly of: { readonly base: string } | { readonly timeline: string; readonly at: Lsn } | undefined
}

/** What is removed, in this order: what names a thing goes before the thing. */
export interface Removal {
  /** Unfinished bases that are given up: a mark in their manifest's place. */
  readonly givenUp: readonly string[]
  /** Notes of what was done of bases, and then their manifests. */
  readonly names: readonly Doomed[]
  /** By timeline, what of its stream is said to be gone. */
  readonly ranges: ReadonlyMap<string, readonly Range[]>
  /** Objects that nothing names any more. */
  readonly data: readonly Doomed[]
  readonly bytes: number
  readonly segments: number
  /** Of the data, what interrupted work had left behind, and no removed base or segment names. */
  readonly leftovers: number
}

export interface Needed {
  readonly keptBases: ReadonlySet<string>
  readonly givenUp: readonly string[]
  readonly kept: ReadonlyMap<string, readonly Range[]>
}

export function planRemoval(inventory: Inventory, needed: Needed): Removal {
  const names: Doomed[] = []
  const data: Doomed[] = []
  const ranges = new Map<string, Range[]>()
  let [segments, leftovers] = [0, 0]
  const bases = new Map(inventory.bases.map((base) => [base.id, base]))
  for (const [id, objects] of inventory.baseObjects) {
    const base = bases.get(id)
    const doomed = doomedOf(inventory, id, objects, needed, base?.unnamed)
    names.push(...doomed.names)
    data.push(...doomed.data)
    leftovers += doomed.leftovers
  }
  for (const stock of inventory.timelines) {
    const stream = doomedStream(stock, needed.kept.get(stock.timeline.id) ?? [])
    if (stream.ranges.length > 0) ranges.set(stock.timeline.id, stream.ranges)
    data.push(...stream.data)
    segments += stream.segments
    leftovers += stream.leftovers
  }
  const bytes = [...names, ...data].reduce((sum, { size_bytes }) => sum + size_bytes, 0)
  return { givenUp: needed.givenUp, names, ranges, data, bytes, segments, leftovers }
}

/** Of what lies below a base's name, what goes. `unnamed`: by its manifest, if it is complete. */
function doomedOf(
  { source, begun, givenUp }: Inventory,
  id: string,
  objects: ReadonlyMap<string, number>,
  needed: Needed,
  unnamed: ReadonlySet<string> | undefined,
): { readonly names: Doomed[]; readonly data: Doomed[]; readonly leftovers: number } {
  const isUnfinished = unnamed === undefined && begun.some((one) => one.id === id && !one.isEnded) && !givenUp.has(id)
  const none = { names: [], data: [], leftovers: 0 }
  if (isUnfinished && !needed.givenUp.includes(id)) return none
  const manifest = manifestKey(source, id)
  const progress = baseProgressPrefix(source, id)
  const isKept = needed.keptBases.has(id)
  const doomed = [...objects].map(([key, size_bytes]): Doomed => {
    const isRead = unnamed?.has(key) !== true
    return { key, size_bytes, of: isRead ? { base: id } : undefined }
  })
  const names = doomed.filter(({ key }) => key.startsWith(progress))
  // Who says that a base is begun goes last of them.
  names.sort((a, b) => Number(a.key.endsWith('/begun.json')) - Number(b.key.endsWith('/begun.json')))
  const isMark = unnamed === undefined
  if (!isKept && !isMark) names.push(...doomed.filter(({ key }) => key === manifest))
  const data = doomed.filter(
    ({ key }) => key !== manifest && !key.startsWith(progress) && !(isKept && unnamed?.has(key) === false),
  )
  const leftovers = data.filter(({ key }) => unnamed?.has(key) !== false).length
  return { names, data, leftovers }
}

function doomedStream(
  stock: TimelineStock,
  kept: readonly Range[],
): { readonly ranges: Range[]; readonly data: Doomed[]; readonly segments: number; readonly leftovers: number } {
  const timeline = stock.timeline.id
  const stored = stock.objects.filter(({ kind }) => kind === 'segment').map(({ start }) => start)
  const ends = [...stock.runs.map(({ end }) => end), ...stored.map((start) => lsn(start + 1n))]
  const end = ends.reduce(maxLsn, stock.start)
  const gone = complement(kept, stock.start, end).filter(
    (range) => stored.some((start) => contains([range], start)) || stock.pruned.some((one) => overlap(one, range)),
  )
  const all = merged([...gone, ...stock.pruned])
  const known = new Map(
    stock.runs.flatMap((run) => run.segments.map((one) => [one.start, new Set(one.parts)] as const)),
  )
  const data: Doomed[] = []
  let leftovers = 0
  for (const { key, size_bytes, kind, start } of stock.objects) {
    const isGone = contains(all, start)
    const isLeft = kind === 'part' && known.get(start)?.has(key) === false
    if (!isGone && !isLeft) continue
    if (isLeft || (isGone && contains(stock.pruned, start))) leftovers++
    data.push({ key, size_bytes, of: isLeft ? undefined : { timeline, at: start } })
  }
  // A segment names its parts.
  data.sort((a, b) => Number(a.key.endsWith('.wbp')) - Number(b.key.endsWith('.wbp')))
  const fresh = gone.filter((range) => !covers(stock.pruned, range.from, range.to))
  return { ranges: fresh, data, segments: data.filter(({ key }) => key.endsWith('.wbs')).length, leftovers }
}

const overlap = (a: Range, b: Range): boolean => a.from < b.to && b.from < a.to

/** What of `from` up to `to` lies in none of the ranges, which are merged. */
function complement(ranges: readonly Range[], from: Lsn, to: Lsn): Range[] {
  const left: Range[] = []
  let at = from
  for (const range of ranges) {
    if (range.from > at) left.push({ from: at, to: range.from < to ? range.from : to })
    if (range.to > at) at = range.to
  }
  if (at < to) left.push({ from: at, to })
  return left.filter((range) => range.from < range.to)
}
