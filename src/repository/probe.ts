import { randomBytes } from 'node:crypto'
import { WalbackError } from '../base/errors.ts'
import { readAll, type Storage } from '../storage/storage.ts'
import { probeKey } from './layout.ts'

/**
 * Whether a store takes an object, holds it, and gives it back as it was. What it leaves behind where deleting is not
 * allowed is a few bytes under a prefix of its own.
 */
export async function probeStorage(storage: Storage, signal?: AbortSignal): Promise<void> {
  const body = randomBytes(64)
  const key = probeKey(body.toString('hex', 0, 8))
  await storage.put(key, body, { ifAbsent: true, signal })
  const held = await storage.size(key, { signal })
  const back = held === body.length ? await readAll(storage.get(key, { signal })) : undefined
  await storage.delete(key).catch(() => undefined)
  if (back?.equals(body)) return
  throw new WalbackError('storage', `the store at ${storage.url} does not give back what it was given`, {
    hint: 'it acknowledged an object and then held none, or another one; do not trust it with a backup',
    facts: { key, given_bytes: body.length, held_bytes: held ?? null },
    retryable: true,
  })
}
