import { z } from 'zod'
import { duration } from '../base/quantity.ts'
import type { RetentionPolicy } from './policy.ts'

/** Who removes what retention lets go: walback, or a rule of the store, which walback then only tells what it may. */
export const retentionModes = ['managed', 'external'] as const
export type RetentionMode = (typeof retentionModes)[number]

const bases = z.int('a whole number of bases is needed').min(1, 'at least 1').max(100_000, 'at most 100000').optional()
const span = duration('1h', '36500d').optional()

/** `retention:` in the configuration. */
export const retentionShape = z.strictObject({
  window: span,
  last: bases,
  within: span,
  daily: bases,
  weekly: bases,
  monthly: bases,
  yearly: bases,
  mode: z.enum(retentionModes, `one of ${retentionModes.join(', ')}`).default('managed'),
  /** How often the agent prunes; it does not if not given. */
  prune_every: duration('1m', '365d').optional(),
})

export interface RetentionSettings {
  readonly policy: RetentionPolicy
  readonly mode: RetentionMode
  readonly pruneEvery_ms: number | undefined
}

export function retentionSettings(given: z.infer<typeof retentionShape> = retentionShape.parse({})): RetentionSettings {
  const { mode, prune_every, window, within, ...counts } = given
  return { policy: { ...counts, window_ms: window, within_ms: within }, mode, pruneEvery_ms: prune_every }
}
