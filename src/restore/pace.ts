import type { RestoreProgress } from './progress.ts'

/** How fast a phase is, and how long it goes on like this; undefined where that cannot be said yet. */
export interface Pace {
  /** Of the phase's unit, a second. */
  readonly rate_per_s: number | undefined
  readonly rows_per_s: number | undefined
  readonly left_ms: number | undefined
}

/** What has been done of a phase in the time that it was at work. */
export interface Stretch {
  readonly done: number
  readonly rows: number
  readonly active_ms: number
  /** What is left of its total; undefined if nobody knows that. */
  readonly left: number | undefined
}

/** Before that what a phase began with (connections, the first block) says more than its speed. */
const leastActive_ms = 1000

/** From the phase's own rate so far, over all of it: the sizes of what comes next are as mixed as those before. Pure. */
export function paceOf({ done, rows, active_ms, left }: Stretch): Pace {
  if (active_ms < leastActive_ms || done <= 0) {
    return { rate_per_s: undefined, rows_per_s: undefined, left_ms: left === 0 ? 0 : undefined }
  }
  const perSecond = (amount: number): number => (amount * 1000) / active_ms
  return {
    rate_per_s: perSecond(done),
    rows_per_s: rows > 0 ? perSecond(rows) : undefined,
    left_ms: left === undefined ? undefined : (Math.max(0, left) * active_ms) / done,
  }
}

interface Clock {
  active_ms: number
  readonly first: { readonly done: number; readonly rows: number }
}

/**
 * Keeps the time of each phase of one restore. Phases take turns: reading the stream stops while rows are loaded, and a
 * phase is at work only from one of its own reports to the next.
 */
export class PaceMeter {
  private readonly clocks = new Map<RestoreProgress['phase'], Clock>()
  private last: { readonly phase: RestoreProgress['phase']; readonly at_ms: number } | undefined

  /** The phase's pace as of this report, at a time of the monotonic clock. */
  observe({ phase, done, total, rows = 0 }: RestoreProgress, at_ms: number): Pace {
    // What was there at the first report was not done in this time.
    const clock = this.clocks.get(phase) ?? { active_ms: 0, first: { done, rows } }
    this.clocks.set(phase, clock)
    if (this.last?.phase === phase) clock.active_ms += at_ms - this.last.at_ms
    this.last = { phase, at_ms }
    return paceOf({
      done: done - clock.first.done,
      rows: rows - clock.first.rows,
      active_ms: clock.active_ms,
      left: total === undefined ? undefined : Math.max(0, total - done),
    })
  }
}
