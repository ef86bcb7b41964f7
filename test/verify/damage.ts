import { compressBlock } from '../../src/codec/block.ts'
import { ContainerWriter, readContainer } from '../../src/repository/container.ts'
import type { MemoryStorage } from '../repository/memory-storage.ts'
import type { Random } from '../support/random.ts'

/** One thing that happened to an archive, and how it is undone. */
export interface Harm {
  readonly kind: (typeof kinds)[number]
  readonly what: string
  /** Keys whose objects are another or gone. */
  readonly keys: readonly string[]
  undo(): void
}

const kinds = ['flip', 'truncate', 'swap', 'delete', 'replay', 'other version', 'roll back'] as const

/**
 * Does something to an archive that may happen to one: a bit turns over, an object is cut short, two are exchanged, one
 * is deleted, an older one is put back in the place of a newer one, or another version of it that is sound by itself, or
 * the newest segments are gone, as in a store that was itself restored from a backup. Undefined where the draw comes to
 * nothing.
 */
export async function harm(storage: MemoryStorage, random: Random): Promise<Harm | undefined> {
  const { objects } = storage
  const keys = [...objects.keys()].sort()
  const kind = random.pick(kinds)
  const key = random.pick(keys)
  const object = objects.get(key) as Buffer
  const before = new Map(objects)
  const undo = (): void => {
    objects.clear()
    for (const [name, bytes] of before) objects.set(name, bytes)
  }
  const done = (what: string, ...touched: string[]): Harm => ({ kind, what, keys: touched, undo })
  switch (kind) {
    case 'flip': {
      // Most bytes are rows; the first and last are looked at as often as those between.
      const at = random.pick([
        random.int(0, object.length - 1),
        random.int(0, Math.min(200, object.length) - 1),
        object.length - 1 - random.int(0, Math.min(200, object.length) - 1),
      ])
      const bit = random.int(0, 7)
      const flipped = Buffer.from(object)
      flipped[at] = (flipped[at] as number) ^ (1 << bit)
      objects.set(key, flipped)
      return done(`bit ${bit} of byte ${at} of ${key}`, key)
    }
    case 'truncate': {
      const length = random.pick([0, object.length - 1, random.int(0, object.length - 1)])
      objects.set(key, object.subarray(0, length))
      return done(`${key} to ${length} of ${object.length} bytes`, key)
    }
    case 'swap': {
      const other = random.pick(keys)
      const bytes = objects.get(other) as Buffer
      if (bytes.equals(object)) return undefined
      objects.set(key, bytes)
      objects.set(other, object)
      return done(`${key} with ${other}`, key, other)
    }
    case 'delete':
      // What remembers an earlier look is no part of the archive, and nobody remembers that.
      if (key.includes('/verifications/')) return undefined
      objects.delete(key)
      return done(key, key)
    case 'replay': {
      const olders = keys.filter((one) => endOf(one) === endOf(key) && one < key)
      const older = olders.length === 0 ? undefined : random.pick(olders)
      const bytes = older === undefined ? undefined : objects.get(older)
      if (older === undefined || bytes === undefined || bytes.equals(object)) return undefined
      objects.set(key, bytes)
      return done(`${older} in the place of ${key}`, key)
    }
    case 'other version': {
      const other = random.pick(keys.filter((one) => /\.wb[sprt]$/.test(one)))
      objects.set(other, await otherVersion(storage, other))
      return done(other, other)
    }
    case 'roll back': {
      const segments = keys.filter((one) => one.endsWith('.wbs'))
      const gone = segments.slice(-random.int(1, 3))
      for (const one of gone) objects.delete(one)
      return done(gone.join(', '), ...gone)
    }
  }
}

/** The same content in an object that is sound and was not stored: a writer's that was given up, say. */
async function otherVersion(storage: MemoryStorage, key: string): Promise<Buffer> {
  const container = new ContainerWriter()
  const bytes: Buffer[] = []
  for await (const part of readContainer(storage, { key })) {
    if (part.kind === 'header') bytes.push(container.header(part.header as object))
    else if (part.kind === 'block') bytes.push(container.add(await compressBlock(part.raw, part.items)))
    else bytes.push(container.end({ ...(part.trailer as object), time: '1', version: 'another' }))
  }
  return Buffer.concat(bytes)
}

const endOf = (key: string): string => key.slice(key.lastIndexOf('.'))
