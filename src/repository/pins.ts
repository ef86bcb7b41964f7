import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { pinsPrefix } from './layout.ts'
import { describeLease, readLeases } from './lease.ts'
import type { Repository } from './repository.ts'
import { readJson, readJsonBytes, sealedJson } from './sealed-json.ts'

/** A recovery point that retention keeps whatever its policy says, until the pin is taken away. */
const pinShape = z.object({
  walback: z.literal('pin'),
  format: z.literal(1),
  id: z.string(),
  /** By the clock of the machine that made it. */
  created: z.string(),
  timeline: z.string(),
  /** What is kept by this point is everything that ends at or before `lsn`; `time` is what was asked for, or its commit's. */
  lsn: z.string(),
  time: z.string(),
  /** The one base that is meant, or null: then the newest that carries to the point will do. */
  base: z.string().nullable(),
  mark: z.string().nullable(),
  note: z.string().nullable(),
})
export type Pin = z.infer<typeof pinShape>

const pinKey = (source: string, id: string): string => `${pinsPrefix(source)}${id}.json`

/**
 * Pins a point. Fails as `locked` while a prune is at work: it may have read the pins already, and remove what this one
 * keeps. The caller looks afterwards whether the point can still be restored.
 */
export async function addPin(
  repository: Repository,
  source: string,
  point: Pick<Pin, 'timeline' | 'lsn' | 'time' | 'base' | 'mark' | 'note'>,
): Promise<Pin> {
  const id = randomBytes(4).toString('hex')
  const pin: Pin = { walback: 'pin', format: 1, id, created: new Date().toISOString(), ...point }
  await repository.storage.put(pinKey(source, id), sealedJson(pin), { ifAbsent: true })
  const prune = (await readLeases(repository, source)).find(({ purpose }) => purpose === 'prune')
  if (prune === undefined) return pin
  await removePin(repository, source, id)
  throw new WalbackError('locked', `a prune is at work: ${describeLease(prune)}`, {
    hint: 'try again when it is done',
    retryable: true,
  })
}

/** The bytes of a pin, as they are stored. */
export const readPinBytes = async ({ storage }: Repository, key: string, signal?: AbortSignal): Promise<Buffer> =>
  (await readJsonBytes(storage, key, pinShape, { signal })).bytes

/** Oldest first. */
export async function readPins(repository: Repository, source: string, signal?: AbortSignal): Promise<Pin[]> {
  const pins: Pin[] = []
  for await (const { key } of repository.storage.list(pinsPrefix(source), { signal }))
    pins.push(await readJson(repository.storage, key, pinShape))
  return pins.sort((a, b) => (a.created < b.created ? -1 : 1))
}

export const removePin = (repository: Repository, source: string, id: string): Promise<void> =>
  repository.storage.delete(pinKey(source, id))
