import { randomUUID } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { EncryptedStorage, OpenedSource } from '../storage/encrypted.ts'
import type { ObjectSource, Storage } from '../storage/storage.ts'
import { type KeyRecord, keyRecord } from './key-record.ts'
import { repositoryKey, sourcesPrefix } from './layout.ts'
import { type Recipient, readRecipients } from './recipients.ts'
import { type Access, makeGeneration, RepositoryKey, readLater } from './repository-key.ts'
import { newerFormat, readJson, sealedJson } from './sealed-json.ts'

/** Of a clear repository, and of an encrypted one: a reader that knows nothing of encryption has to refuse that. */
const [clearFormat, encryptedFormat] = [1, 2]

const repositoryHeader = z.object({
  walback: z.literal('repository'),
  format: z.number(),
  id: z.string(),
  created: z.string(),
  /** The first generation of the key; later ones have objects of their own. */
  encryption: keyRecord.optional(),
})

/** Before 0.2 a repository's own header had no seal. It is taken as it was written then, and in no other form. */
const isOlderHeader = (text: string): boolean =>
  /^\{"walback":"repository","format":1,"id":"[0-9a-f-]{36}","created":"[0-9T:.-]{23}Z"\}\n$/.test(text)

interface Parts {
  readonly storage: Storage
  readonly id: string
  readonly key: RepositoryKey | undefined
  readonly clear: Storage
}

/** A repository: a store that carries our header. Everything in it is written once and then only read or deleted. */
export class Repository {
  /** Where its objects are read and written as they are meant: of an encrypted repository the store that encrypts. */
  readonly storage: Storage
  readonly id: string
  /** How it is encrypted; undefined when it is not. */
  readonly key: RepositoryKey | undefined
  /** The store itself, where what wraps the key lies. */
  readonly clear: Storage

  private constructor({ storage, id, key, clear }: Parts) {
    this.storage = storage
    this.id = id
    this.key = key
    this.clear = clear
  }

  /** The same repository, its objects read and written through another store that stands before its own. */
  over(storage: Storage): Repository {
    return new Repository({ storage, id: this.id, key: this.key, clear: this.clear })
  }

  /** Whether there is one, of any kind. */
  static async exists(storage: Storage): Promise<boolean> {
    return (await storage.size(repositoryKey)) !== undefined
  }

  /** Whether there is one, and it is encrypted for a passphrase among others. */
  static async takesPassphrase(storage: Storage): Promise<boolean> {
    if (!(await Repository.exists(storage))) return false
    const { encryption } = await readRepositoryHeader(storage)
    if (encryption === undefined) return false
    const newest = (await readLater(storage, encryption.generation)).at(-1) ?? encryption
    return (await readRecipients(storage, newest)).some(({ kind }) => kind === 'passphrase')
  }

  /** Opens a repository that is there; an encrypted one needs `access`, and a clear one refuses it. */
  static async open(storage: Storage, access?: Access): Promise<Repository> {
    const found = await Repository.find(storage, access)
    if (found) return found
    throw new WalbackError('no_repository', `there is no repository at ${storage.url}`, {
      hint: 'check --repo, or set a source up with `walback init --db URL --repo URL`',
    })
  }

  /** Opens the repository, made now if there is none. */
  static async create(storage: Storage, access?: Access): Promise<Repository> {
    const found = await Repository.find(storage, access)
    if (found) return found
    if (access !== undefined)
      throw isClear(storage.url, 'there is no repository yet: `walback init --encrypt` makes one')
    await writeHeader(storage, undefined)
    return Repository.open(storage)
  }

  /**
   * Makes an encrypted repository for these recipients; false if there is one. What it wrote of the key before that
   * showed is left, and without meaning.
   */
  static async createEncrypted(storage: Storage, recipients: readonly Recipient[]): Promise<boolean> {
    if (await Repository.exists(storage)) return false
    const { record } = await makeGeneration(storage, recipients)
    return await writeHeader(storage, record)
  }

  static async find(storage: Storage, access?: Access): Promise<Repository | undefined> {
    if (!(await Repository.exists(storage))) return undefined
    const { id, encryption } = await readRepositoryHeader(storage)
    const hasKey = access?.credential !== undefined || access?.fingerprint !== undefined
    if (encryption === undefined) {
      // A store that answers with a clear repository, where an encrypted one was, would be written to in the clear.
      if (hasKey) throw isClear(storage.url, 'check --repo; to use it as it is, give no key')
      return new Repository({ storage, id, key: undefined, clear: storage })
    }
    const credential = access?.credential
    if (credential === undefined) throw isEncrypted(storage.url)
    const key = await RepositoryKey.unlock(storage, encryption, { ...access, credential })
    return new Repository({ storage: new EncryptedStorage(storage, key), id, key, clear: storage })
  }

  /**
   * Opens a copy of this repository in another store, with this one's key: objects are copied as they are, so no other
   * will do. Undefined if there is no repository.
   */
  async findCopy(storage: Storage): Promise<Repository | undefined> {
    if (!(await Repository.exists(storage))) return undefined
    const { key } = this
    const { id, encryption } = await readRepositoryHeader(storage)
    if (!isDeepStrictEqual(encryption, key?.records[0])) throw isNoCopy(storage.url, this, encryption)
    return new Repository({ storage: key ? new EncryptedStorage(storage, key) : storage, id, key, clear: storage })
  }

  /** Makes an empty one; of an encrypted repository what wraps the key has to be there before. */
  async makeCopy(storage: Storage): Promise<void> {
    await writeHeader(storage, this.key?.records[0])
  }

  /** Objects that lie somewhere as they lie in this repository's store, as they are read. */
  opened(source: ObjectSource): ObjectSource {
    return this.key === undefined ? source : new OpenedSource(source, this.key)
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

const isEncrypted = (url: string): WalbackError =>
  new WalbackError('wrong_key', `the repository at ${url} is encrypted, and no key was given`, {
    hint: 'give --key-file FILE, or WALBACK_PASSPHRASE, WALBACK_PASSPHRASE_FILE or WALBACK_KEY_FILE, or `encryption` in walback.yaml',
  })

const isClear = (url: string, hint: string): WalbackError =>
  new WalbackError('wrong_key', `a key was given, and the repository at ${url} is not encrypted`, { hint })

function isNoCopy(url: string, { key, storage }: Repository, encryption: KeyRecord | undefined): WalbackError {
  const how =
    encryption === undefined
      ? `is not encrypted, and ${storage.url} is`
      : key === undefined
        ? `is encrypted, and ${storage.url} is not`
        : `is encrypted with another key than ${storage.url}`
  return new WalbackError('refused', `the repository at ${url} ${how}: objects are copied as they are stored`, {
    hint: 'copy to a place that holds no repository yet: it is made with the same key, or without one',
  })
}

async function readRepositoryHeader(storage: Storage): Promise<z.infer<typeof repositoryHeader>> {
  const header = await readJson(storage, repositoryKey, repositoryHeader, {
    mayLackSeal: isOlderHeader,
    latest: encryptedFormat,
  })
  if (header.format === (header.encryption === undefined ? clearFormat : encryptedFormat)) return header
  throw newerFormat(repositoryKey, header.format, clearFormat)
}

/** False if there is one. */
async function writeHeader(storage: Storage, encryption: KeyRecord | undefined): Promise<boolean> {
  const header: z.infer<typeof repositoryHeader> = {
    walback: 'repository',
    format: encryption === undefined ? clearFormat : encryptedFormat,
    id: randomUUID(),
    created: new Date().toISOString(),
    ...(encryption === undefined ? {} : { encryption }),
  }
  return await storage.put(repositoryKey, sealedJson(header), { ifAbsent: true })
}
