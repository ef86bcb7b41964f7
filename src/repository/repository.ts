import { hash, randomUUID } from 'node:crypto'
import { z } from 'zod'
import { messageOf, WalbackError } from '../base/errors.ts'
import { readAll, type Storage } from '../storage/storage.ts'
import { repositoryKey, sourcesPrefix } from './layout.ts'

export const repositoryFormat = 1

const repositoryHeader = z.object({
  walback: z.literal('repository'),
  format: z.literal(repositoryFormat),
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
    await storage.put(repositoryKey, sealedJson(header), { ifAbsent: true })
    return Repository.open(storage)
  }

  static async find(storage: Storage): Promise<Repository | undefined> {
    if ((await storage.size(repositoryKey)) === undefined) return undefined
    const json = await readJson(storage, repositoryKey, repositoryHeader, { mayLackSeal: isOlderHeader })
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

/** `,"sha256":"…"}` and a newline: what `sealedJson` ends in. */
const seal = /^,"sha256":"([0-9a-f]{64})"\}\n$/
const sealBytes = 78

/** Before 0.2 a repository's own header had no seal. It is taken as it was written then, and in no other form. */
const isOlderHeader = (text: string): boolean =>
  /^\{"walback":"repository","format":1,"id":"[0-9a-f-]{36}","created":"[0-9T:.-]{23}Z"\}\n$/.test(text)

/**
 * Reads an object of JSON and checks its seal and its shape; anything else there is damage. What is whole, or has no
 * seal, and says that it has a later format is for a later walback.
 */
export async function readJson<T>(
  storage: Storage,
  key: string,
  shape: z.ZodType<T>,
  options: { readonly mayLackSeal?: (text: string) => boolean; readonly signal?: AbortSignal | undefined } = {},
): Promise<T> {
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
  if (format > repositoryFormat) throw newerFormat(key, format, repositoryFormat)
  if (!sealed && options.mayLackSeal?.(text) !== true) throw damaged('its seal is missing')
  const parsed = shape.safeParse(json)
  if (!parsed.success) throw damaged(z.prettifyError(parsed.error))
  return parsed.data
}

/** What a walback says of an object that a later one wrote. */
export const newerFormat = (key: string, found: number, known: number): WalbackError =>
  new WalbackError('failed', `${key} has format ${found}, and this walback reads ${known}`, {
    hint: 'use the walback that wrote it, or a newer one',
    facts: { key, format: found, known },
  })
