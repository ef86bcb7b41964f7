import { hash } from 'node:crypto'
import { z } from 'zod'
import { messageOf, WalbackError } from '../base/errors.ts'
import { readAll, type Storage } from '../storage/storage.ts'

/**
 * The bytes of an object of JSON, closed with the hash of all that is before it: what steers a restore (a snapshot, the
 * position of a sequence) is text in which a flipped bit makes another valid text.
 */
export function sealedJson(value: object): Buffer {
  const json = JSON.stringify(value)
  return Buffer.from(`${json.slice(0, -1)},"sha256":"${hash('sha256', json.slice(0, -1))}"}\n`)
}

/** `,"sha256":"…"}` and a newline: what `sealedJson` ends in. */
const seal = /^,"sha256":"([0-9a-f]{64})"\}\n$/
const sealBytes = 78

export interface ReadJsonOptions {
  /** Whether an object without a seal is taken all the same. */
  readonly mayLackSeal?: (text: string) => boolean
  /** The latest format that is known; 1 if not given. */
  readonly latest?: number
  readonly signal?: AbortSignal | undefined
}

/**
 * Reads an object of JSON and checks its seal and its shape; anything else there is damage. What is whole, or has no
 * seal, and says that it has a later format is for a later walback.
 */
export const readJson = async <T>(
  storage: Storage,
  key: string,
  shape: z.ZodType<T>,
  options: ReadJsonOptions = {},
): Promise<T> => (await readJsonBytes(storage, key, shape, options)).value

/** The same, with its bytes as they were given to the store. */
export async function readJsonBytes<T>(
  storage: Storage,
  key: string,
  shape: z.ZodType<T>,
  options: ReadJsonOptions = {},
): Promise<{ readonly bytes: Buffer; readonly value: T }> {
  const bytes = await readAll(storage.get(key, { signal: options.signal }))
  const damaged = (what: string, cause?: unknown): WalbackError =>
    new WalbackError('corrupt', `${key} is damaged: ${what}`, { cause })
  const cut = Math.max(0, bytes.length - sealBytes)
  const sealed = seal.exec(bytes.toString('latin1', cut))
  if (sealed && hash('sha256', bytes.subarray(0, cut)) !== sealed[1]) throw damaged('its hash is another')
  const text = bytes.toString('utf8')
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw damaged(messageOf(error), error)
  }
  const format = z.object({ format: z.int() }).safeParse(json).data?.format ?? 0
  const latest = options.latest ?? 1
  if (format > latest) throw newerFormat(key, format, latest)
  if (!sealed && options.mayLackSeal?.(text) !== true) throw damaged('its seal is missing')
  const parsed = shape.safeParse(json)
  if (!parsed.success) throw damaged(z.prettifyError(parsed.error))
  return { bytes, value: parsed.data }
}

/** What a walback says of an object that a later one wrote. */
export const newerFormat = (key: string, found: number, known: number): WalbackError =>
  new WalbackError('failed', `${key} has format ${found}, and this walback reads ${known}`, {
    hint: 'use the walback that wrote it, or a newer one',
    facts: { key, format: found, known },
  })
