import { WalbackError } from '../base/errors.ts'
import { auditHash, readAuditRecord } from '../repository/audit-record.ts'
import { auditPrefix } from '../repository/layout.ts'
import { compareListings } from './compare.ts'
import type { Delivery } from './delivery.ts'
import { soundly } from './survey.ts'

/**
 * Copies the audit records that the target lacks, each repository's chain in its order. The target's own is another
 * one, of what was done with the copy. Where the target has another record than one that is copied next names before
 * it, two repositories have gone on from one that was duplicated by other means, and nothing is mixed.
 */
export async function copyAudit(delivery: Delivery, source: string): Promise<void> {
  const { from, to, signal } = delivery
  let before: { readonly chain: string; readonly key: string; hash: string | undefined } | undefined
  let forkedChain: string | undefined
  const sides = { from: from.storage, to: to.storage }
  for await (const { key, size_bytes, held_bytes } of compareListings(sides, auditPrefix(source), signal)) {
    const chain = key.slice(0, key.lastIndexOf('/'))
    const previous = before?.chain === chain ? before : undefined
    before = { chain, key, hash: undefined }
    if (size_bytes === undefined || held_bytes !== undefined || forkedChain === chain) continue
    try {
      const { bytes, value } = await readAuditRecord(from.storage, key, signal)
      const hash = previous?.hash ?? (previous && (await hashAt(delivery, previous.key)))
      if (hash !== undefined && value.previous !== null && hash !== value.previous) {
        forkedChain = chain
        throw new WalbackError('corrupt', `${key} was not copied: before it ${to.storage.url} has another record`, {
          facts: { key },
        })
      }
      await delivery.document(key, bytes)
      before.hash = auditHash(bytes)
    } catch (error) {
      delivery.note(key, error)
    }
  }
}

/** Of the record there; undefined if that is damaged or missing, which a verification tells. */
async function hashAt({ to, signal }: Delivery, key: string): Promise<string | undefined> {
  const isHeld = (await to.storage.size(key, { signal })) !== undefined
  const read = isHeld ? await soundly(() => readAuditRecord(to.storage, key, signal)) : undefined
  return read && auditHash(read.bytes)
}
