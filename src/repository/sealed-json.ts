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

const seal = /,"sha256":"([0-9a-f]{64})"\}\n$/

/** Reads an object of JSON and checks its seal, if it has one, and its shape; anything else there is damage. */
export async function readJson<T>(storage: Storage, key: string, shape: z.ZodType<T>): Promise<T> {
  const bytes = await readAll(storage.get(key))
  try {
    const json = bytes.toString('utf8')
    const sealed = seal.exec(json)
    if (sealed && hash('sha256', json.slice(0, sealed.index)) !== sealed[1]) throw new Error('its hash is another')
    return shape.parse(JSON.parse(json))
  } catch (error) {
    const what = error instanceof z.ZodError ? z.prettifyError(error) : messageOf(error)
    throw new WalbackError('corrupt', `${key} is damaged: ${what}`, { cause: error })
  }
}
