import { unreachable } from '../base/assert.ts'
import { formatLsn, type Lsn, lsn, parseLsn } from '../model/lsn.ts'
import type { RecoveryTarget } from '../model/target.ts'
import { formatTime, type Micros } from '../model/time.ts'
import type { BaseManifest } from '../repository/base.ts'
import { changesAnything, type TransactionEntry } from '../repository/segment-format.ts'
import { timeOf } from '../repository/segments.ts'

/** Where a target cuts a timeline. */
export interface Cut {
  readonly kind: 'cut'
  /** Transactions that end at or before this are kept: it is just before the first left out, or the target itself. */
  readonly position: Lsn
  /** End of the last transaction that is kept, of those that were looked at. */
  readonly lastEnd: Lsn | undefined
  readonly time: Micros | undefined
  /** The last kept and the first left out of those that changed rows or the schema. */
  readonly lastKept: TransactionEntry | undefined
  readonly firstLeftOut: TransactionEntry | undefined
  /** How many of those are left out. */
  readonly leftOut: number
}

export interface Outside {
  readonly kind: 'outside'
  /** The target is past the archive's end, or names something that the archive does not have. */
  readonly why: 'after' | 'unknown'
  readonly message: string
}

/**
 * Finds where a target cuts a timeline, from its transactions shown one by one in the order of their commits. Pure, and
 * holds no more than a few of them.
 */
export class CutSearch {
  private readonly target: RecoveryTarget
  private isPast = false
  private matches = 0
  private lastEnd: Lsn | undefined
  private lastTime: Micros | undefined
  private firstLeftOutEnd: Lsn | undefined
  private lastKept: TransactionEntry | undefined
  private firstLeftOut: TransactionEntry | undefined
  private leftOut = 0

  constructor(target: RecoveryTarget) {
    this.target = target
  }

  /** Where the cut is, once it is decided. */
  get position(): Lsn | undefined {
    if (!this.isPast) return undefined
    if (this.target.kind === 'lsn') return this.target.lsn
    return this.firstLeftOutEnd === undefined ? this.lastEnd : lsn(this.firstLeftOutEnd - 1n)
  }

  /** Takes the next transaction; true if it is kept. */
  offer(entry: TransactionEntry): boolean {
    const isNamed = this.isNamed(entry)
    if (isNamed) this.matches++
    this.isPast ||= this.isFirstLeftOut(entry, isNamed)
    const isKept = !this.isPast
    const counts = changesAnything(entry)
    if (this.isPast) {
      this.firstLeftOutEnd ??= parseLsn(entry.end)
      if (counts) {
        this.firstLeftOut ??= entry
        this.leftOut++
      }
    } else {
      this.lastEnd = parseLsn(entry.end)
      this.lastTime = timeOf(entry)
      if (counts) this.lastKept = entry
    }
    // What an inclusive target names is the last that is kept.
    if (isNamed && this.matches === 1 && !this.isPast) this.isPast = true
    return isKept
  }

  /** The cut, when all transactions up to the archive's end have been offered. */
  result(end: Lsn): Cut | Outside {
    const { target } = this
    const outside = (why: Outside['why'], message: string): Outside => ({ kind: 'outside', why, message })
    if (target.kind === 'lsn' && target.lsn > end) {
      return outside('after', `the archive reaches ${formatLsn(end)}, not ${formatLsn(target.lsn)}`)
    }
    if (target.kind === 'time' && !this.isPast && this.lastTime !== target.time) {
      const reach =
        this.lastTime === undefined
          ? 'it holds no later transaction'
          : `its last transaction is of ${formatTime(this.lastTime)}`
      return outside('after', `the archive does not reach ${formatTime(target.time)}: ${reach}`)
    }
    if (target.kind === 'tx' || target.kind === 'mark') {
      const what = target.kind === 'tx' ? `transaction ${target.xid}` : `mark ${JSON.stringify(target.name)}`
      if (this.matches === 0) return outside('unknown', `${what} is not in the archive`)
      if (this.matches > 1)
        return outside(
          'unknown',
          `${what} is in the archive ${this.matches} times; restore to one by its position, which \`walback log\` and \`status\` show`,
        )
    }
    return {
      kind: 'cut',
      position:
        target.kind === 'lsn' ? target.lsn : this.firstLeftOutEnd === undefined ? end : lsn(this.firstLeftOutEnd - 1n),
      lastEnd: this.lastEnd,
      time: target.kind === 'time' ? target.time : undefined,
      lastKept: this.lastKept,
      firstLeftOut: this.firstLeftOut,
      leftOut: this.leftOut,
    }
  }

  private isNamed(entry: TransactionEntry): boolean {
    if (this.target.kind === 'tx') return isSameXid(entry.xid, this.target.xid)
    return this.target.kind === 'mark' && entry.marks?.includes(this.target.name) === true
  }

  private isFirstLeftOut(entry: TransactionEntry, isNamed: boolean): boolean {
    const { target } = this
    switch (target.kind) {
      case 'latest':
      case 'mark':
        return false
      case 'lsn':
        return parseLsn(entry.end) > target.lsn
      case 'time':
        // In the order of commits, up to the first that is later: as recovery_target_time does. A commit further on may
        // carry an earlier time; it is left out, for what it saw is left out.
        return timeOf(entry) > target.time
      case 'tx':
        return isNamed && !target.inclusive
      default:
        return unreachable(target)
    }
  }
}

/** A 32-bit id, as older functions and logs print it, or the full one. */
const isSameXid = (full: string, asked: bigint): boolean =>
  BigInt(full) === asked || (asked < 1n << 32n && (BigInt(full) & 0xffffffffn) === asked)

/** Whether the cut lies within what a base can be carried to: everything that is in the base must be kept. */
export function isReachable(base: BaseManifest, cut: Pick<Cut, 'position' | 'time'>, end: Lsn): boolean {
  const at = parseLsn(base.lsn)
  if (end < at || cut.position < at) return false
  return cut.time === undefined || cut.time >= BigInt(base.time)
}

/** The base from whose position on the stream is searched for the target: the newest that may carry to it. */
export function searchFrom(target: RecoveryTarget, bases: readonly BaseManifest[]): BaseManifest | undefined {
  const [oldest] = bases
  switch (target.kind) {
    case 'latest':
      return bases.at(-1)
    case 'lsn':
      return bases.findLast((base) => parseLsn(base.lsn) <= target.lsn) ?? oldest
    case 'time':
      return bases.findLast((base) => BigInt(base.time) <= target.time) ?? oldest
    case 'tx':
    case 'mark':
      return oldest
    default:
      return unreachable(target)
  }
}
