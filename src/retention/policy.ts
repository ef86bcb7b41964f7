import { Temporal } from 'temporal-polyfill'
import type { Micros } from '../model/time.ts'

/** What is kept. Without any of these a policy is empty, and nothing is removed by it. */
export interface RetentionPolicy {
  /** The newest so many bases. */
  readonly last?: number | undefined
  /** Every base that is younger. */
  readonly within_ms?: number | undefined
  /** The newest base of each of the newest so many days (weeks, months, years) that have one, in UTC. */
  readonly daily?: number | undefined
  readonly weekly?: number | undefined
  readonly monthly?: number | undefined
  readonly yearly?: number | undefined
  /** Every moment that is younger stays restorable; without it, every moment since the oldest base that a rule keeps. */
  readonly window_ms?: number | undefined
}

export const isEmptyPolicy = (policy: RetentionPolicy): boolean =>
  Object.values(policy).every((value: number | undefined) => value === undefined || value === 0)

const calendarRules = ['daily', 'weekly', 'monthly', 'yearly'] as const

/** Which of the bases, given newest first, the rules for bases keep, and by which; pure. */
export function selectBases<Base extends { readonly time: Micros }>(
  bases: readonly Base[],
  policy: RetentionPolicy,
  now: Micros,
): Map<Base, string[]> {
  const kept = new Map<Base, string[]>()
  const keep = (base: Base, reason: string): void => {
    kept.set(base, [...(kept.get(base) ?? []), reason])
  }
  for (const base of bases.slice(0, policy.last ?? 0)) keep(base, 'last')
  if (policy.within_ms !== undefined) {
    for (const base of bases) if (base.time >= now - BigInt(policy.within_ms) * 1000n) keep(base, 'within')
  }
  for (const rule of calendarRules) {
    let left = policy[rule] ?? 0
    let before: string | undefined
    for (const base of bases) {
      const period = periodOf(rule, base.time)
      if (left === 0) break
      if (period === before) continue
      before = period
      left--
      keep(base, `${rule} ${period}`)
    }
  }
  return kept
}

/** `2026-11-23`, `2026-W48`, `2026-11` or `2026`. */
function periodOf(rule: (typeof calendarRules)[number], time: Micros): string {
  const day = Temporal.Instant.fromEpochNanoseconds(time * 1000n)
    .toZonedDateTimeISO('UTC')
    .toPlainDate()
  switch (rule) {
    case 'daily':
      return day.toString()
    case 'weekly':
      return `${day.yearOfWeek}-W${String(day.weekOfYear).padStart(2, '0')}`
    case 'monthly':
      return day.toString().slice(0, 7)
    case 'yearly':
      return String(day.year)
  }
}
