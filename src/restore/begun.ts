import { createHash } from 'node:crypto'
import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { version } from '../base/version.ts'
import { deferredCheck } from './deferred-checks.ts'
import type { RestorePlan } from './plan.ts'
import type { RestoreOptions } from './restore.ts'
import { rolesDone } from './roles.ts'

/** What was noted once the schema was there: from here on a restore can be gone on with. */
export const begunShape = z.object({
  /** By which it is known that the same comes out of it. */
  plan: z.string(),
  request: z.unknown(),
  checks: z.array(deferredCheck),
  /** Ids of the tables for which there is one beside. */
  staged: z.array(z.number()),
  roles: rolesDone,
  warnings: z.array(z.string()),
})

/** What the work hangs on, beside the database itself: another attempt has to do the same. */
export function fingerprintOf(plan: RestorePlan, { memory_bytes, roles }: RestoreOptions): string {
  const { source, timeline, base, cut, selected } = plan
  const asked = [memory_bytes ?? null, { ...roles, map: [...(roles?.map ?? [])] }, selected?.selection ?? null]
  const all = [version, source, timeline.id, base.id, String(cut), asked]
  return createHash('sha256').update(JSON.stringify(all)).digest('hex')
}

export const isAnother = (): WalbackError =>
  new WalbackError('refused', 'what was interrupted was another restore: of another plan, or by another walback', {
    hint: 'remove it with `walback restore discard`, and restore anew',
  })
