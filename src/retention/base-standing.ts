import { type Lsn, parseLsn } from '../model/lsn.ts'
import type { Micros } from '../model/time.ts'
import { streamStart } from '../repository/reach.ts'
import { timeOf } from '../repository/segments.ts'
import type { Inventory, Run, StockBase, TimelineStock } from './inventory.ts'

/** A base that can be restored. */
export interface GoodBase {
  readonly kind: 'good'
  readonly base: StockBase
  readonly stock: TimelineStock
  readonly run: Run
  readonly lsn: Lsn
  readonly time: Micros
  /** Where the segment begins that a restore from it reads first. */
  readonly from: Lsn
}

export type BaseStanding =
  | GoodBase
  /** Complete, and the stream has not come to its position yet. */
  | { readonly kind: 'ahead'; readonly base: StockBase }
  /** Objects that a restore needs are missing. `isKept`: they may come back, and it is not sure that nobody wants it. */
  | { readonly kind: 'broken'; readonly base: StockBase; readonly why: string; readonly isKept: boolean }

/** Whether a base can be restored, as listings and trailers tell. */
export function standingOf(inventory: Inventory, base: StockBase): BaseStanding {
  const stock = inventory.timelines.find(({ timeline }) => timeline.id === base.timeline)
  const broken = (why: string, isKept: boolean): BaseStanding => ({ kind: 'broken', base, why, isKept })
  if (stock === undefined) return broken(`timeline ${base.timeline} is missing`, true)
  if (base.missing !== undefined) return broken(`${base.missing} is missing`, true)
  const lsn = parseLsn(base.lsn)
  const run = stock.runs.findLast(({ start, end }) => start <= lsn && lsn <= end)
  if (run === undefined) {
    const end = stock.runs.at(-1)?.end ?? stock.start
    if (lsn <= end) return broken('segments at its position are missing', true)
    if (stock.isCurrent) return { kind: 'ahead', base }
    return broken('its timeline ended before the stream had come to it', false)
  }
  const from = firstNeeded(base, stock, run, lsn)
  if (from === undefined) return broken('segments before it, which its restore reads, are missing', true)
  return { kind: 'good', base, stock, run, lsn, time: timeOf(base), from }
}

/** Undefined if the run does not reach back far enough. */
function firstNeeded(base: StockBase, stock: TimelineStock, run: Run, lsn: Lsn): Lsn | undefined {
  const upTo = run.segments.slice(0, run.segments.findLastIndex(({ start }) => start <= lsn) + 1)
  const horizon = streamStart(
    base,
    upTo.flatMap(({ heartbeats }) => heartbeats),
  )
  if (horizon === undefined) return run.start === stock.start ? run.start : undefined
  // A heartbeat may have begun before the run, and been stored in it.
  if (horizon < run.start) return run.start === stock.start ? run.start : undefined
  return upTo.findLast(({ start }) => start <= horizon)?.start
}
