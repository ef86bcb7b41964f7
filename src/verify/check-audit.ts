import { type AuditHead, readAudit } from '../repository/audit-record.ts'
import { auditKey } from '../repository/layout.ts'
import type { Verification } from '../repository/verification.ts'
import type { Walk } from './walk.ts'

/**
 * Looks whether the chains of the audit record are whole. That the newest records were taken away no chain tells: an
 * earlier verification does, which noted how far each went.
 */
export async function checkAudit(walk: Walk, seen: Verification | undefined): Promise<readonly AuditHead[]> {
  const { repository, source, signal } = walk.options
  const { breaks, heads, hashes } = await readAudit(repository, source, signal)
  walk.objects += hashes.size
  const hint = 'no restore needs it; a copy of the repository may have what was there'
  for (const { key, message } of breaks) walk.damage({ kind: 'audit-broken', key, message, lost: [], hint })
  const told = new Set(breaks.map(({ key }) => key))
  for (const head of seen?.audit ?? []) {
    const key = auditKey(source, head.repository, head.number)
    if (hashes.get(key) === head.sha256 || told.has(key)) continue
    const message = hashes.has(key)
      ? `${key} is another record than an earlier verification found`
      : `${key} was there at an earlier verification, and is not any more`
    walk.damage({ kind: 'rolled-back', key, message, lost: [], hint })
  }
  return heads
}
