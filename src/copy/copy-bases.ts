import { isDeepStrictEqual } from 'node:util'
import { WalbackError } from '../base/errors.ts'
import { forEachParallel } from '../base/parallel.ts'
import {
  type BaseManifest,
  type ObjectReference,
  readManifest,
  readManifestBytes,
  referencesOf,
} from '../repository/base.ts'
import { manifestKey, pinsPrefix } from '../repository/layout.ts'
import { readPinBytes } from '../repository/pins.ts'
import { isAbsent } from '../storage/storage.ts'
import { compareListings } from './compare.ts'
import type { Delivery } from './delivery.ts'
import { type BaseGroup, basesOf, type Survey, soundly } from './survey.ts'

/** Copies the bases that the target has not, or not whole: what a manifest names, and then the manifest. */
export async function copyBases(delivery: Delivery, { source, removed }: Survey): Promise<number> {
  const { from, to, signal } = delivery
  let bases = 0
  for await (const group of basesOf({ from: from.storage, to: to.storage }, source, signal))
    if (group.differs && !removed.has(group.id) && (await copyBase(delivery, source, group))) bases++
  return bases
}

/** Whether it was completed. */
async function copyBase(delivery: Delivery, source: string, group: BaseGroup): Promise<boolean> {
  const { from, signal } = delivery
  const key = manifestKey(source, group.id)
  const isHeld = group.manifest.held_bytes !== undefined
  const isSame = group.manifest.held_bytes === group.manifest.size_bytes
  let read: Awaited<ReturnType<typeof readManifestBytes>>
  try {
    read = await readManifestBytes(from, source, group.id, signal)
  } catch (error) {
    // One that a prune has removed since the listing is no base any more.
    if (!isAbsent(error)) delivery.note(key, error)
    return false
  }
  // It was given up.
  if (read === undefined) return false
  if (isHeld && !isSame && !(await mayReplace(delivery, read.manifest))) return false
  const known = delivery.damage.length
  const listed = new Map(group.objects.map((pair) => [pair.key, pair]))
  await forEachParallel(referencesOf(read.manifest), writers, async (reference) => {
    const held_bytes = listed.has(reference.key)
      ? listed.get(reference.key)?.held_bytes
      : await delivery.to.storage.size(reference.key, { signal })
    if (held_bytes !== reference.size_bytes) await copyObject(delivery, reference, held_bytes !== undefined)
  })
  if (isSame || delivery.damage.length > known) return false
  return delivery.document(key, read.bytes, isHeld)
}

async function copyObject(delivery: Delivery, reference: ObjectReference, held: boolean): Promise<void> {
  try {
    await delivery.container(reference, { held })
  } catch (error) {
    delivery.note(reference.key, error)
  }
}

/** What lies in a manifest's place may be damaged, and then it is replaced; or say that the base was given up there. */
async function mayReplace({ to, from }: Delivery, manifest: BaseManifest): Promise<boolean> {
  const { source, id } = manifest
  const held = await soundly(async () => ({ manifest: await readManifest(to, source, id) }))
  if (held === undefined || isDeepStrictEqual(held.manifest, manifest)) return true
  if (held.manifest === undefined) return false
  throw new WalbackError(
    'refused',
    `${to.storage.url} holds another base ${id} of ${source} than ${from.storage.url}`,
    {
      hint: 'nothing was mixed: copy into another repository',
      facts: { source, base: id },
    },
  )
}

/** Pins are copied as well: what is never to go is not to go at the target either. */
export async function copyPins(delivery: Delivery, source: string): Promise<void> {
  const { from, to, signal } = delivery
  const sides = { from: from.storage, to: to.storage }
  for await (const { key, size_bytes, held_bytes } of compareListings(sides, pinsPrefix(source), signal)) {
    if (size_bytes === undefined || held_bytes !== undefined) continue
    try {
      await delivery.document(key, await readPinBytes(from, key, signal))
    } catch (error) {
      // One that was taken away since the listing is none.
      if (!isAbsent(error)) delivery.note(key, error)
    }
  }
}

/** Objects on their way at a time. */
const writers = 8
