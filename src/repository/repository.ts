import { hash, randomUUID } from 'node:crypto'
import { z } from 'zod'
import { messageOf, WalbackError } from '../base/errors.ts'
import { readAll, type Storage } from '../storage/storage.ts'
import { repositoryKey, sourcesPrefix } from './layout.ts'

export const repositoryFormat = 1

const repositoryHeader = z.object({
  walback: z.literal('repository'),
  format: z.number(),
  id: z.string(),
  created: z.string(),
})

/** A repository: a store that carries our header. Everything in it is written once and then only read or deleted. */
export class Repository {
  readonly storage: Storage
  readonly id: string

  private constructor(storage: Storage, id: string) {
    this.storage = storage
    this.id = id
  }

  /** Opens a repository that is there. */
  static async open(storage: Storage): Promise<Repository> {
    const found = await Repository.find(storage)
    if (found) return found
    throw new WalbackError('no_repository', `there is no repository at ${storage.url}`, {
      hint: 'check --repo, or set a source up with `walback init --db URL --repo URL`',
    })
  }

  /** Opens the repository, made now if there is none. */
  static async create(storage: Storage): Promise<Repository> {
    const found = await Repository.find(storage)
    if (found) return found
    const header = {
      walback: 'repository',
      format: repositoryFormat,
      id: randomUUID(),
      created: new Date().toISOString(),
    }
    await storage.put(repositoryKey, Buffer.from(`${JSON.stringify(header)}\n`), { ifAbsent: true })
    return Repository.open(storage)
  }

  static async find(storage: Storage): Promise<Repository | undefined> {
    if ((await storage.size(repositoryKey)) === undefined) return undefined
    const json = await readJson(storage, repositoryKey, repositoryHeader)
    if (json.format !== repositoryFormat) {
      throw new WalbackError(
        'failed',
        `the repository has format ${json.format}, and this walback reads ${repositoryFormat}`,
        {
          hint: 'use the walback that wrote it, or a newer one',
        },
      )
    }
    return new Repository(storage, json.id)
  }

  /** Names of the sources that have anything here. */
  async sources(signal?: AbortSignal): Promise<string[]> {
    const names = new Set<string>()
    for await (const { key } of this.storage.list(sourcesPrefix, { signal })) {
      const name = key.slice(sourcesPrefix.length).split('/')[0]
      if (name) names.add(name)
    }
    return [...names]
  }
}

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
export const readJson = async <T>(storage: Storage, key: string, shape: z.ZodType<T>): Promise<T> =>
  (await readJsonBytes(storage, key, shape)).value

/** The same, with its bytes as they are stored. */
export async function readJsonBytes<T>(
  storage: Storage,
  key: string,
  shape: z.ZodType<T>,
  signal?: AbortSignal,
): Promise<{ readonly bytes: Buffer; readonly value: T }> {
  const bytes = await readAll(storage.get(key, { signal }))
  try {
    const json = bytes.toString('utf8')
    const sealed = seal.exec(json)
    if (sealed && hash('sha256', json.slice(0, sealed.index)) !== sealed[1]) throw new Error('its hash is another')
    return { bytes, value: shape.parse(JSON.parse(json)) }
  } catch (error) {
    const what = error instanceof z.ZodError ? z.prettifyError(error) : messageOf(error)
    throw new WalbackError('corrupt', `${key} is damaged: ${what}`, { cause: error })
  }
}
