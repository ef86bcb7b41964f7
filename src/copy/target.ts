import { isDeepStrictEqual } from 'node:util'
import { WalbackError } from '../base/errors.ts'
import { keysPrefix } from '../repository/layout.ts'
import type { Repository } from '../repository/repository.ts'
import { readLater } from '../repository/repository-key.ts'
import { readAll, type Storage } from '../storage/storage.ts'
import { compareListings } from './compare.ts'

/**
 * Opens the repository that is to be a copy of another, made now if there is none. A copy of an encrypted repository
 * has its key, wrapped for the same recipients, and needs no other to be copied to: so what wraps the key is copied
 * first.
 */
export async function openTarget(from: Repository, target: Storage, signal?: AbortSignal): Promise<Repository> {
  // What is copied of the key is what lies in the store, which has to be what is known of it here.
  await from.key?.refresh(signal)
  if ((await findTarget(from, target)) === undefined) {
    await copyKeys(from, target, signal)
    await from.makeCopy(target)
  } else await copyKeys(from, target, signal)
  const made = await findTarget(from, target)
  if (made !== undefined) return made
  throw new WalbackError('storage', `${target.url} has not kept the repository that was made there`, {
    hint: 'it acknowledged what it did not keep, or somebody has removed it; run the copy again',
    retryable: true,
  })
}

/** The same without making or copying anything; undefined if there is no repository. */
export async function findTarget(from: Repository, target: Storage): Promise<Repository | undefined> {
  const found = await from.findCopy(target)
  const records = from.key?.records ?? []
  if (found === undefined || records.length === 0) return found
  const later = await readLater(target, 1)
  if (isDeepStrictEqual(later.map(identity), records.slice(1, later.length + 1).map(identity))) return found
  throw new WalbackError('refused', `the key at ${target.url} was rotated otherwise than that at ${from.storage.url}`, {
    hint: 'rotate only at the repository that is copied; copy to a place that holds no repository yet',
  })
}

/** Records of later generations say also what they are. */
const identity = ({ generation, publicKey, structure, previous }: Awaited<ReturnType<typeof readLater>>[number]) => ({
  generation,
  publicKey,
  structure,
  previous,
})

/**
 * Recipients of a generation are listed before its record, and a recipient's wrapped key before the note that names it,
 * so what is copied in this order is whole wherever it stops. Who is no recipient any more is left to `key remove` there.
 */
async function copyKeys(from: Repository, target: Storage, signal: AbortSignal | undefined): Promise<void> {
  if (from.key === undefined) return
  const keys: string[] = []
  let differs = false
  for await (const pair of compareListings({ from: from.clear, to: target }, keysPrefix, signal)) {
    if (pair.size_bytes === undefined) continue
    keys.push(pair.key)
    differs ||= pair.size_bytes !== pair.held_bytes
  }
  if (!differs) return
  for (const key of keys) {
    const bytes = await readAll(from.clear.get(key, { signal }))
    const isHeld = (await target.size(key, { signal })) !== undefined
    if (isHeld && bytes.equals(await readAll(target.get(key, { signal })))) continue
    await target.put(key, bytes, { signal })
  }
}
