import { z } from 'zod'
import { duration, size } from '../base/quantity.ts'

/** What to do where a compaction cannot go past a change of the schema: take a base from the source, or say so. */
export const schemaStopPolicies = ['backup', 'alert'] as const
export type SchemaStopPolicy = (typeof schemaStopPolicies)[number]

/** `compact:` in the configuration. */
export const compactShape = z.strictObject({
  /** How old the newest base becomes before the agent makes another; it does not if not given. */
  every: duration('1m', '365d').optional(),
  memory: size('16MiB', '1TB').prefault('256MiB'),
  /** Bytes a second. */
  max_rate: size('64KiB', '100GB').optional(),
  on_schema_change: z.enum(schemaStopPolicies, `one of ${schemaStopPolicies.join(', ')}`).default('backup'),
})

/** When the agent compacts, and how. */
export interface CompactSettings {
  readonly every_ms: number
  readonly memory_bytes: number
  readonly maxRate: number | undefined
  readonly onSchemaChange: SchemaStopPolicy
}

/** Undefined: never. */
export function compactSettings(given: z.infer<typeof compactShape> | undefined): CompactSettings | undefined {
  if (given?.every === undefined) return undefined
  const { every, memory, max_rate, on_schema_change } = given
  return { every_ms: every, memory_bytes: memory, maxRate: max_rate, onSchemaChange: on_schema_change }
}
