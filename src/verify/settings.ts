import { z } from 'zod'
import { duration, size } from '../base/quantity.ts'
import { parseSubset, type ReadSubset, whole } from './subset.ts'

export const restoreTargets = ['latest', 'random'] as const

export const rehearsalShape = z.strictObject({
  every: duration('1m', '365d').prefault('7d'),
  /** The newest state, or one somewhere in what can be restored, another each time. */
  target: z.enum(restoreTargets, `one of ${restoreTargets.join(', ')}`).default('latest'),
})

/** How the configuration says when the agent verifies. */
export const verifyShape = z.strictObject({
  enabled: z.boolean('true or false').default(true),
  every: duration('1m', '365d').prefault('1d'),
  /** As the command line has it: each run reads another of the parts, in turn. */
  read_subset: z
    .string()
    .prefault('1/7')
    .transform((text, context): ReadSubset => {
      const subset = parseSubset(text)
      if (subset === undefined)
        context.addIssue({ code: 'custom', message: 'a part of a whole is needed, such as 1/7; 1/1 is all' })
      return subset ?? whole
    }),
  max_rate: size('64KiB', '100GB').optional(),
  /** When the agent restores to a throwaway server; never without it. */
  restore: rehearsalShape.optional(),
})

/** When the agent verifies the repository, and how much of it. */
export interface VerifySettings {
  readonly every_ms: number
  /** The part that is read first, and into how many the objects are divided; the others follow in turn. */
  readonly subset: ReadSubset
  /** Bytes a second. */
  readonly maxRate: number | undefined
}

/** When the agent proves by a restore that there is something to restore, and which. */
export interface RehearsalSettings {
  readonly every_ms: number
  readonly target: (typeof restoreTargets)[number]
}

/** Undefined: never. */
export const rehearsalSettings = (given: z.infer<typeof verifyShape> | undefined): RehearsalSettings | undefined =>
  given?.restore && { every_ms: given.restore.every, target: given.restore.target }

/** Undefined: never. */
export function verifySettings(given: z.infer<typeof verifyShape> | undefined): VerifySettings | undefined {
  const { enabled, every, read_subset, max_rate } = given ?? verifyShape.parse({})
  return enabled ? { every_ms: every, subset: read_subset, maxRate: max_rate } : undefined
}
