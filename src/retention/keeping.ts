import { formatLsn, type Lsn, parseLsn } from '../model/lsn.ts'
import { type Micros, micros } from '../model/time.ts'
import { describeLease, type LeaseRecord } from '../repository/lease.ts'
import type { Pin } from '../repository/pins.ts'
import { merged, type Range } from '../repository/pruned.ts'
import type { GoodBase } from './base-standing.ts'
import type { Inventory, Run, TimelineStock } from './inventory.ts'
import type { KeptMoment, KeptWindow } from './plan.ts'

/** Gathers what is needed, and why. */
export class Keeping {
  private readonly bases = new Map<GoodBase, string[]>()
  private readonly streams = new Map<string, Range[]>()
  private readonly points = new Map<string, Range[]>()
  private readonly pinned: KeptMoment[] = []

  /** Keeps a base as the moment that it is of: with the stream that its restore reads. */
  keepBase(base: GoodBase, reason: string): void {
    const reasons = this.bases.get(base) ?? []
    if (!reasons.includes(reason)) this.bases.set(base, [...reasons, reason])
    this.keepPoint(base, { lsn: base.lsn, time: base.time })
  }

  /** Keeps what brings a base to a point after it. */
  keepPoint({ stock, run, from }: GoodBase, point: { readonly lsn: Lsn; readonly time: Micros }): void {
    add(this.points, stock, { from, to: passed(run, point) })
  }

  keepPin(moment: KeptMoment): void {
    this.pinned.push(moment)
  }

  /** Keeps a stretch of which nothing is promised. */
  keepRange(stock: TimelineStock, range: Range): void {
    add(this.points, stock, range)
  }

  /** Keeps a stretch of which every moment is to be restorable. */
  keepStream(stock: TimelineStock, range: Range): void {
    add(this.streams, stock, range)
  }

  reasons(base: GoodBase): readonly string[] {
    return this.bases.get(base) ?? []
  }

  /** By timeline. */
  ranges(): Map<string, Range[]> {
    const all = new Map<string, Range[]>()
    for (const id of [...this.streams.keys(), ...this.points.keys()])
      all.set(id, merged([...(this.streams.get(id) ?? []), ...(this.points.get(id) ?? [])]))
    return all
  }

  /** What can be restored afterwards: stretches that a kept base opens, and moments outside of them. */
  restorable(
    { timelines }: Inventory,
    good: readonly GoodBase[],
  ): { readonly windows: KeptWindow[]; readonly moments: KeptMoment[] } {
    const windows: KeptWindow[] = []
    const moments: KeptMoment[] = []
    for (const stock of timelines) {
      const timeline = stock.timeline.id
      const own = good.filter((base) => base.stock === stock && this.bases.has(base))
      const streams = merged(this.streams.get(timeline) ?? [])
      const inside: GoodBase[] = []
      for (const run of stock.runs) {
        for (const range of streams) {
          const bases = own.filter((base) => base.run === run && range.from <= base.from && base.lsn <= range.to)
          const first = bases[0]
          if (first === undefined) continue
          inside.push(...bases)
          const last = run.segments.findLast(({ last: commit, end }) => commit !== undefined && end <= range.to)?.last
          const from = { lsn: first.lsn, time: first.time }
          windows.push({ timeline, from, to: last !== undefined && last.lsn > from.lsn ? last : from })
        }
      }
      const isInside = ({ lsn }: { readonly lsn: Lsn }): boolean =>
        windows.some((window) => window.timeline === timeline && window.from.lsn <= lsn && lsn <= window.to.lsn)
      for (const base of own)
        if (!inside.includes(base))
          moments.push({ timeline, of: `base ${base.base.id}`, lsn: base.lsn, time: base.time })
      moments.push(...this.pinned.filter((pin) => pin.timeline === timeline && !isInside(pin)))
    }
    return { windows, moments }
  }
}

function add(ranges: Map<string, Range[]>, { timeline }: TimelineStock, range: Range): void {
  ranges.set(timeline.id, [...(ranges.get(timeline.id) ?? []), range])
}

/**
 * The end of the segment with which a run is past a point: a target that is a position needs the stream up to it, and one
 * that is a time is only reached when a later commit is there.
 */
function passed(run: Run, { lsn, time }: { readonly lsn: Lsn; readonly time: Micros }): Lsn {
  const segment = run.segments.find(
    ({ end, last }) => end >= lsn && last !== undefined && last.lsn > lsn && last.time > time,
  )
  return segment?.end ?? run.end
}

/**
 * Gives a warning for each that cannot be kept. `good`: bases of all tables; `counted`: those of them that are in every
 * required repository; `sound`: those of some tables too, which carry nothing but themselves.
 */
export function keepPinsAndLeases(
  inventory: Inventory,
  { good, counted, sound }: { readonly [kind in 'good' | 'counted' | 'sound']: readonly GoodBase[] },
  keeping: Keeping,
): string[] {
  const warnings: string[] = []
  for (const pin of inventory.pins)
    if (![counted, good, pin.base === null ? [] : sound].some((bases) => keepPin(pin, bases, keeping)))
      warnings.push(lostPin(pin))
  for (const lease of inventory.leases) {
    const stock = inventory.timelines.find(({ timeline }) => timeline.id === lease.reads?.timeline)
    if (lease.reads === null || stock === undefined) continue
    const base = sound.find((one) => one.base.id === lease.reads?.base)
    if (base) keeping.keepBase(base, `read by ${describeLease(lease)}`)
    const range = streamOf(lease)
    if (range) keeping.keepRange(stock, range)
  }
  return warnings
}

export function streamOf({ reads }: LeaseRecord): Range | undefined {
  return reads?.stream ? { from: parseLsn(reads.stream.from), to: parseLsn(reads.stream.to) } : undefined
}

function keepPin(pin: Pin, good: readonly GoodBase[], keeping: Keeping): boolean {
  const [lsn, time] = [parseLsn(pin.lsn), micros(BigInt(pin.time))]
  const own = good.filter((base) => base.stock.timeline.id === pin.timeline)
  const base =
    pin.base === null
      ? own.findLast((one) => one.lsn <= lsn && lsn <= one.run.end && one.time <= time)
      : own.find((one) => one.base.id === pin.base)
  if (base === undefined) return false
  keeping.keepBase(base, `pin ${pin.id}${pin.note === null ? '' : ` (${pin.note})`}`)
  keeping.keepPoint(base, { lsn, time })
  if (pin.base === null) keeping.keepPin({ timeline: pin.timeline, of: `pin ${pin.id}`, lsn, time })
  return true
}

const lostPin = ({ id, timeline, lsn }: Pin): string =>
  `pin ${id}: ${formatLsn(parseLsn(lsn))} of timeline ${timeline} cannot be restored any more`
