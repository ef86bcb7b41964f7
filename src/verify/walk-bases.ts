import { ahead } from '../base/ahead.ts'
import { parseLsn } from '../model/lsn.ts'
import { type BaseHead, type BaseManifest, baseKind, headOf, readManifest } from '../repository/base.ts'
import { checkProgress } from '../repository/base-progress.ts'
import { baseProgressPrefix, manifestKey } from '../repository/layout.ts'
import { readRemoved } from '../repository/pruned.ts'
import { timeOf } from '../repository/segments.ts'
import { absenceOf, type BaseObject, contradictionIn, objectsIn, readBaseObject, TableHashes } from './check-base.ts'
import { wordsOf } from './check-segment.ts'
import type { DamageKind, LostTargets, Place } from './finding.ts'
import type { Shelf, ShelvedBase } from './shelf.ts'
import { bringBack, type Walk } from './walk.ts'

/** A base, and what is wrong with it; what that costs depends on its timeline. */
export interface WalkedBase {
  readonly head: BaseHead
  readonly at: Place
  readonly faults: readonly BaseFault[]
}

interface BaseFault {
  readonly kind: DamageKind
  readonly key: string
  readonly message: string
}

/** Checks the bases of a source, one after the other, each with its objects several at a time; gives those that have a manifest. */
export async function walkBases(walk: Walk, shelf: Pick<Shelf, 'bases' | 'timelines'>): Promise<WalkedBase[]> {
  walk.enter('bases')
  const found: WalkedBase[] = []
  let removed: Promise<ReadonlySet<string>> | undefined
  const isRemoved = async (id: string): Promise<boolean> => {
    removed ??= removedBases(walk, shelf)
    return (await removed).has(id)
  }
  for (const base of shelf.bases) {
    const manifest = base.hasManifest ? await manifestOf(walk, base) : await withoutManifest(walk, base, isRemoved)
    // What was made of a manifest is let go before the next is read.
    if (manifest)
      found.push({ head: headOf(manifest), at: placeOf(manifest), faults: await faultsOf(walk, base, manifest) })
  }
  return found
}

/** What retention says that it has removed, or is removing. */
async function removedBases(walk: Walk, { timelines }: Pick<Shelf, 'timelines'>): Promise<ReadonlySet<string>> {
  const { repository, source, signal } = walk.options
  const removed = new Set<string>()
  for (const { id } of timelines)
    for (const base of (await readRemoved(repository, { source, id }, signal)).bases) removed.add(base)
  return removed
}

const placeOf = (manifest: BaseManifest): Place => ({ lsn: parseLsn(manifest.lsn), time: timeOf(manifest) })

async function manifestOf(walk: Walk, { id, objects }: ShelvedBase): Promise<BaseManifest | undefined> {
  const { repository, source } = walk.options
  const key = manifestKey(source, id)
  try {
    walk.objects++
    const manifest = await readManifest(repository, source, id)
    if (manifest === undefined) leftovers(walk, id, objects, 'a base that was given up')
    return manifest
  } catch (error) {
    const message = wordsOf(error)
    // It may have been removed meanwhile.
    if ((await repository.storage.size(key)) !== undefined)
      walk.damage({ kind: 'manifest-damaged', key, message, lost: undefined, hint: bringBack })
    return undefined
  }
}

/** A base that is being taken; or objects whose manifest is gone. */
async function withoutManifest(
  walk: Walk,
  { id, objects }: ShelvedBase,
  isRemoved: (id: string) => Promise<boolean>,
): Promise<undefined> {
  const { repository, source, signal } = walk.options
  const progress = baseProgressPrefix(source, id)
  if ([...objects.keys()].some((key) => key.startsWith(progress))) {
    walk.note(
      'base-unfinished',
      progress,
      `base ${id} is not finished: the next backup of the same tables carries it on, or one removes it`,
    )
    for (const key of objects.keys()) {
      if (!key.startsWith(progress)) continue
      try {
        await checkProgress(repository, key, signal)
      } catch (error) {
        const message = wordsOf(error)
        const isThere = (await repository.storage.size(key, { signal })) !== undefined
        const hint = 'delete it: the base that it belongs to is not finished, and is begun anew'
        if (isThere) walk.damage({ kind: 'progress-damaged', key, message, lost: [], hint })
      }
    }
    return
  }
  if (await isRemoved(id)) {
    leftovers(walk, id, objects, 'a base that retention was removing when it was interrupted')
    return
  }
  const key = manifestKey(source, id)
  const [one] = objects.keys()
  // It may have been finished, or removed, since the listing.
  if (one === undefined || (await repository.storage.size(key, { signal })) !== undefined) return
  if ((await repository.storage.size(one, { signal })) === undefined) return
  walk.damage({
    kind: 'manifest-missing',
    key,
    message: `${key} is missing: ${objects.size} objects of the base are there, and cannot be used without it`,
    lost: undefined,
    hint: bringBack,
  })
}

async function faultsOf(walk: Walk, base: ShelvedBase, manifest: BaseManifest): Promise<BaseFault[]> {
  const { repository, source, jobs, signal } = walk.options
  const key = manifestKey(source, base.id)
  const faults: BaseFault[] = []
  const contradiction = contradictionIn(manifest)
  if (contradiction) faults.push({ kind: 'manifest-damaged', key, message: `${key} is damaged: ${contradiction}` })
  const objects = objectsIn(manifest)
  const named = new Set(objects.map(({ reference }) => reference.key))
  leftovers(walk, base.id, new Map([...base.objects].filter(([one]) => !named.has(one))), 'the base')
  const hashes = new TableHashes()
  const check = async (object: BaseObject, stop: AbortSignal): Promise<Checked> => {
    const first = await checkObject(walk, base, object, stop)
    if (first.fault === undefined) return first
    // Once more: what was stored since the listing, and what the way from the store did, is no damage.
    const size_bytes = await repository.storage.size(object.reference.key, { signal: stop })
    const now = new Map(size_bytes === undefined ? [] : [[object.reference.key, size_bytes]])
    const again = await checkObject(walk, { ...base, objects: now }, object, stop)
    if (again.fault === undefined) walk.note('read-twice', object.reference.key, first.fault.message)
    return again
  }
  for await (const { object, fault, hash, read_bytes } of ahead(objects, check, { most: jobs, signal })) {
    if (fault) faults.push(fault)
    hashes.add(object, hash)
    await walk.baseObjectDone(base.id, object.reference.key, read_bytes)
  }
  const wrong = hashes.wrong()
  if (wrong) {
    const message = `${key} is damaged: its hash of the rows of ${wrong.schema}.${wrong.name} is not that of their pieces`
    faults.push({ kind: 'manifest-damaged', key, message })
  }
  // What was removed while it was read is not damaged.
  return faults.length > 0 && (await repository.storage.size(key, { signal })) === undefined ? [] : faults
}

interface Checked {
  readonly object: BaseObject
  readonly fault: BaseFault | undefined
  readonly hash: string | undefined
  readonly read_bytes: number
}

async function checkObject(walk: Walk, base: ShelvedBase, object: BaseObject, stop: AbortSignal): Promise<Checked> {
  const { key, size_bytes } = object.reference
  const found = (fault: BaseFault | undefined, hash?: string, read_bytes = 0): Checked => ({
    object,
    fault,
    hash,
    read_bytes,
  })
  const absence = absenceOf(object, base)
  if (absence === 'missing')
    return found({ kind: 'base-object-missing', key, message: `${key} is missing, an object of base ${base.id}` })
  if (absence !== undefined)
    return found({
      kind: 'base-object-damaged',
      key,
      message: `${key} is damaged: it has ${base.objects.get(key)} bytes, not ${size_bytes}`,
    })
  if (!walk.readsBaseObject(base.id, key)) return found(undefined)
  try {
    const hash = await readBaseObject(walk.options.repository, object, stop)
    return found(undefined, hash, size_bytes)
  } catch (error) {
    return found({ kind: 'base-object-damaged', key, message: wordsOf(error) })
  }
}

const bringBackSome = `${bringBack}; or delete what lies below its name: it is of some tables, and \`walback restore --base\` names another`

/** Tells of a base's faults, once it is known what they cost. */
export function tellFaults(walk: Walk, { head, faults }: WalkedBase, lost: readonly LostTargets[]): void {
  const hint = baseKind(head) === 'full' ? bringBack : bringBackSome
  for (const fault of faults) walk.damage({ ...fault, lost, hint })
}

function leftovers(walk: Walk, id: string, objects: ReadonlyMap<string, number>, of: string): void {
  const [first] = objects.keys()
  if (first === undefined) return
  const bytes = [...objects.values()].reduce((sum, size) => sum + size, 0)
  walk.note('leftover', first, `${objects.size} objects beside ${of} (${id}) are named by nothing, ${bytes} bytes`)
}
