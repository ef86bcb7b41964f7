import { type Lsn, maxLsn } from '../model/lsn.ts'
import type { LostTargets, Place } from './finding.ts'

/** Positions of the log that a timeline has lost: after `from`, up to and including `to`. */
export interface Hole {
  readonly from: Lsn
  readonly to: Lsn
}

interface MappedBase {
  readonly id: string
  readonly at: Place
  readonly isSound: boolean
}

/**
 * Where a timeline is whole, and what that makes restorable: a base, and what follows it without a hole. So a hole
 * costs the targets from where it begins up to the next sound base after it; a damaged base those up to the next,
 * unless an earlier one can be carried over it.
 */
export class ChainMap {
  readonly id: string
  private readonly bases: readonly MappedBase[]
  private readonly holes: Hole[] = []
  /** The last commit of each segment that holds any, in order. */
  private readonly commits: Place[] = []
  end: Lsn

  constructor(id: string, start: Lsn, bases: readonly MappedBase[]) {
    this.id = id
    this.end = start
    this.bases = bases.toSorted((a, b) => (a.at.lsn < b.at.lsn ? -1 : 1))
  }

  /** What is there up to a position, damaged or not. */
  reach(end: Lsn, lastCommit?: Place): void {
    this.end = maxLsn(this.end, end)
    if (lastCommit) this.commits.push(lastCommit)
  }

  addHole(hole: Hole): void {
    this.holes.push(hole)
    this.end = maxLsn(this.end, hole.to)
  }

  lostToHole({ from, to }: Hole): LostTargets[] {
    const sound = this.bases.filter(({ isSound }) => isSound)
    const before = sound.some(({ at }) => at.lsn <= from)
    const first = before ? this.placeAt(from) : sound.find(({ at }) => at.lsn > from && at.lsn < to)?.at
    return first === undefined ? [] : [this.span(first, sound.find(({ at }) => at.lsn >= to)?.at)]
  }

  lostToBase(id: string): LostTargets[] {
    const base = this.bases.find((one) => one.id === id)
    if (base === undefined || base.at.lsn > this.end) return []
    const isCarried = this.bases.some(
      (one) => one.isSound && one.at.lsn <= base.at.lsn && !this.isBroken(one.at.lsn, base.at.lsn),
    )
    if (isCarried) return []
    return [this.span(base.at, this.bases.find((one) => one.isSound && one.at.lsn > base.at.lsn)?.at)]
  }

  /** All targets from the first base on: what goes with the timeline's record. */
  lostAltogether(): LostTargets[] {
    const first = this.bases.find(({ isSound }) => isSound)
    return first === undefined || first.at.lsn > this.end ? [] : [this.span(first.at, undefined)]
  }

  /** What can be restored as it is. */
  windows(): LostTargets[] {
    const found: LostTargets[] = []
    const holes = this.holes.toSorted((a, b) => (a.from < b.from ? -1 : 1))
    for (const [place, { from: end }] of [...holes, { from: this.end }].entries()) {
      const start = place === 0 ? undefined : holes[place - 1]?.to
      const base = this.bases.find(
        ({ at, isSound }) => isSound && at.lsn <= end && (start === undefined || at.lsn >= start),
      )
      if (base) found.push({ timeline: this.id, from: base.at, to: this.placeAt(end) })
    }
    return found
  }

  private isBroken(from: Lsn, to: Lsn): boolean {
    return this.holes.some((hole) => hole.from < to && hole.to > from)
  }

  private span(from: Place, to: Place | undefined): LostTargets {
    return { timeline: this.id, from, to }
  }

  /** A position with the time of the last commit up to it. */
  private placeAt(lsn: Lsn): Place {
    const base = this.bases.findLast(({ at }) => at.lsn <= lsn)?.at
    const commit = this.commits.findLast((one) => one.lsn <= lsn)
    const last = commit !== undefined && (base === undefined || commit.lsn > base.lsn) ? commit : base
    return { lsn, time: last?.time }
  }
}
