import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import type { Generation, KeyRing } from '../storage/sealed-keys.ts'
import type { Storage } from '../storage/storage.ts'
import type { Credential, KeyAccess, KeySecret } from './credential.ts'
import {
  checkRecord,
  fingerprintOf,
  generationOf,
  isVouched,
  type KeyRecord,
  type KeySecrets,
  keyRecord,
  makeRecord,
  secretsOf,
} from './key-record.ts'
import { keyKey, keysPrefix, recipientsPrefix } from './layout.ts'
import { Opener, type Recipient, readRecipients, writeRecipient } from './recipients.ts'
import { readJson, sealedJson } from './sealed-json.ts'

/** With what a repository is opened. */
export interface Access {
  readonly credential?: Credential | undefined
  /** The fingerprint of a generation that is known to be the repository's: no other key is written or read with. */
  readonly fingerprint?: string | undefined
}

const laterShape = keyRecord.extend({ walback: z.literal('key'), format: z.literal(1) })

/** A generation as far as it could be opened. */
interface Known {
  readonly record: KeyRecord
  readonly secrets: KeySecrets | undefined
  readonly isProven: boolean
}

/** A generation with all of its secrets. */
export interface OpenGeneration {
  readonly record: KeyRecord
  readonly secrets: KeySecrets & { readonly full: Buffer }
}

/**
 * What came of a look at whether the key was rotated. `followed`: what is written from now on is sealed to the new
 * generation; `left`: it goes on with its own, since who may only write cannot tell who made the new one.
 */
export type KeyNews = 'none' | 'followed' | 'left'

/**
 * The key of an encrypted repository, opened: all of its generations, of which one is written with: the newest there
 * was when it was opened, or when `refresh` last said so.
 */
export class RepositoryKey implements KeyRing {
  private readonly storage: Storage
  private readonly first: KeyRecord
  private readonly access: Access & { readonly credential: Credential }
  private known: readonly Known[] = []
  private generations = new Map<number, Generation>()
  /** The number of the generation that is written with. */
  private written = 0

  private constructor(storage: Storage, first: KeyRecord, access: Access & { readonly credential: Credential }) {
    this.storage = storage
    this.first = first
    this.access = access
  }

  /** `first`: the generation that `walback.json` begins with. Fails with `wrong_key` when the newest is not opened. */
  static async unlock(
    storage: Storage,
    first: KeyRecord,
    access: Access & { readonly credential: Credential },
  ): Promise<RepositoryKey> {
    const key = new RepositoryKey(storage, first, access)
    await key.read()
    key.written = key.records.at(-1)?.generation ?? 0
    return key
  }

  /**
   * Looks whether somebody has rotated the key, and goes on with the new generation if the one that was written with
   * vouches for it in full. Of a key that only writes a thief has as much as its owner, and could make a generation of
   * his own that it would vouch for; so that one is left to who starts a process anew. Fails with `wrong_key` when the
   * new generation is not to be trusted, or not for this key to open; all then stays as it was.
   */
  async refresh(signal?: AbortSignal): Promise<KeyNews> {
    const newest = this.records.at(-1)?.generation ?? 0
    if ((await this.storage.size(keyKey(newest + 1), { signal })) !== undefined) await this.read()
    const found = this.records.at(-1)?.generation ?? 0
    if (found === this.written) return 'none'
    if (!this.mayRead) return 'left'
    this.written = found
    return 'followed'
  }

  get newest(): Generation {
    const newest = this.generations.get(this.written)
    if (newest === undefined) throw cannotOpen(this.storage.url)
    return newest
  }

  /** The fingerprint of the generation that is written with. */
  get fingerprint(): string {
    return fingerprintOf(this.writtenWith.record)
  }

  get mayRead(): boolean {
    return this.writtenWith.secrets?.full !== undefined
  }

  get accessKind(): KeyAccess {
    return this.mayRead ? 'full' : 'write'
  }

  get records(): readonly KeyRecord[] {
    return this.known.map(({ record }) => record)
  }

  async find(number: number): Promise<Generation | undefined> {
    // Somebody may have rotated the key since.
    if (!this.known.some(({ record }) => record.generation === number)) await this.read()
    const found = this.generations.get(number)
    if (found !== undefined) return found
    if (!this.known.some(({ record }) => record.generation === number)) return undefined
    throw new WalbackError(
      'wrong_key',
      `the key that was given does not open generation ${number} of the repository's`,
      {
        hint: 'add it again as a recipient, with a key that opens all generations: `walback key add`',
      },
    )
  }

  /** Everything of every generation, for who changes recipients. */
  fullSecrets(): readonly OpenGeneration[] {
    return this.known.map(({ record, secrets }) => {
      if (secrets?.full !== undefined) return { record, secrets: { ...secrets, full: secrets.full } }
      throw new WalbackError('wrong_key', 'the key that was given may write, and change nothing about the key', {
        hint: 'give one that opens all of the repository',
      })
    })
  }

  private get writtenWith(): Known {
    const found = this.known.find(({ record }) => record.generation === this.written)
    if (found === undefined) throw cannotOpen(this.storage.url)
    return found
  }

  private async read(): Promise<void> {
    const records = [this.first, ...(await readLater(this.storage, this.first.generation))]
    const opener = new Opener(this.access.credential)
    const known: Known[] = []
    for (const record of records) known.push(await open(this.storage, record, opener, this.access.credential))
    if (known.every(({ secrets }) => secrets === undefined)) throw cannotOpen(this.storage.url)
    checkTrust(known, this.access, this.storage.url)
    this.known = known
    this.generations = new Map(
      known.flatMap(({ record, secrets }) =>
        secrets === undefined ? [] : [[record.generation, generationOf(record, secrets)]],
      ),
    )
  }
}

const cannotOpen = (url: string): WalbackError =>
  new WalbackError('wrong_key', `the key that was given does not open the repository at ${url}`, {
    hint: 'it is encrypted for others: check the passphrase, or the key file; `walback key list` shows for whom, to who can open it',
  })

/** The generations after the first, in order. */
export async function readLater(storage: Storage, after: number): Promise<KeyRecord[]> {
  const records: KeyRecord[] = []
  for (let next = after + 1; (await storage.size(keyKey(next))) !== undefined; next++) {
    const record = await readJson(storage, keyKey(next), laterShape)
    if (record.generation !== next)
      throw new WalbackError('corrupt', `${keyKey(next)} is the record of generation ${record.generation}`)
    records.push(record)
  }
  return records
}

async function open(storage: Storage, record: KeyRecord, opener: Opener, credential: Credential): Promise<Known> {
  const found = await openSecret(storage, record, opener, credential)
  if (found === undefined) return { record, secrets: undefined, isProven: false }
  const secrets = secretsOf(found)
  checkRecord(record, secrets)
  return { record, secrets, isProven: found.isProven }
}

/** What the credential gives of a generation: the most, where it is there twice. */
async function openSecret(
  storage: Storage,
  record: KeyRecord,
  opener: Opener,
  credential: Credential,
): Promise<(KeySecret & { readonly isProven: boolean }) | undefined> {
  const isBetter = (one: KeySecret, other: KeySecret | undefined) => other === undefined || one.access === 'full'
  if (credential.kind === 'secrets') {
    const own = credential.secrets.filter(({ generation }) => generation === record.generation)
    const best = own.find(({ access }) => access === 'full') ?? own[0]
    return best && { ...best, isProven: true }
  }
  let best: (KeySecret & { readonly isProven: boolean }) | undefined
  for (const entry of await readRecipients(storage, record)) {
    const opened = await opener.open(storage, entry, record)
    if (opened !== undefined && isBetter(opened, best)) best = opened
  }
  return best
}

/**
 * Anybody can encrypt to a recipient: that a secret could be unwrapped does not say that it is the repository's, and a
 * store could put one of its own there, to read what is written from then on. So a generation has to be known: by the
 * pinned fingerprint, by what a passphrase or key file itself signed when it was added, or by the one before it. Who
 * comes with an identity of age, and pins nothing, takes the first for granted.
 */
function checkTrust(known: readonly Known[], { credential, fingerprint }: Access, url: string): void {
  const pinned =
    fingerprint === undefined ? undefined : known.findIndex(({ record }) => fingerprintOf(record) === fingerprint)
  if (pinned === -1) {
    throw new WalbackError('wrong_key', `the repository at ${url} has another key than the one that is pinned`, {
      hint: `expected ${fingerprint}; somebody has made the repository anew, or put a key of their own there: do not write to it before you know`,
      facts: { pinned: fingerprint, found: known.map(({ record }) => fingerprintOf(record)) },
    })
  }
  const proven = known.findIndex(({ isProven }) => isProven)
  const root = pinned ?? (credential?.kind === 'age' ? 0 : proven)
  if (root === -1) throw unvouched(known[0]?.record, url)
  for (let next = 1; next < known.length; next++) {
    const [before, one] = [known[next - 1], known[next]] as [Known, Known]
    // Each generation names the one before, so what is known to be the repository's says it of all that came earlier.
    if (one.record.previous !== fingerprintOf(before.record)) throw unvouched(before.record, url)
    if (next <= root || one.isProven) continue
    if (before.secrets === undefined || !isVouched(one.record, before.secrets)) throw unvouched(one.record, url)
  }
  const newest = known.at(-1)
  if (newest?.secrets === undefined) {
    throw new WalbackError('wrong_key', `the key that was given does not open what is written to ${url} now`, {
      hint: 'the key was rotated since, without it; add it again as a recipient',
    })
  }
}

const unvouched = (record: KeyRecord | undefined, url: string): WalbackError =>
  new WalbackError(
    'wrong_key',
    `nothing that is known vouches for generation ${record?.generation} of the key at ${url}`,
    {
      hint: 'somebody who can write to the store may have put a key of their own there: do not write to it before you know',
    },
  )

/** A new generation, wrapped for its recipients; it counts once its record is stored. */
export async function makeGeneration(
  storage: Storage,
  recipients: readonly Recipient[],
  before?: OpenGeneration,
): Promise<OpenGeneration> {
  const generation = (before?.record.generation ?? 0) + 1
  const full = randomBytes(32)
  const secrets = { ...secretsOf({ generation, access: 'full', secret: full }), full }
  const record = makeRecord(secrets, recipientsPrefix(generation, randomBytes(8).toString('hex')), before)
  for (const recipient of recipients) await writeRecipient(storage, record, secrets, recipient)
  return { record, secrets }
}

/** Makes a generation the newest. */
export async function writeLater(storage: Storage, record: KeyRecord): Promise<void> {
  const bytes = sealedJson({ walback: 'key', format: 1, ...record })
  if (await storage.put(keyKey(record.generation), bytes, { ifAbsent: true })) return
  throw new WalbackError('locked', 'another walback has rotated the key just now', {
    hint: 'look at `walback key list`, and rotate again if it is still needed',
    retryable: true,
  })
}

/** Removes what an interrupted rotation, or a repository that was begun and not made, left of recipients. */
export async function removeLeftovers(storage: Storage, records: readonly KeyRecord[]): Promise<void> {
  const [newest, kept] = [records.at(-1)?.generation ?? 0, records.map(({ recipients }) => recipients)]
  const left: string[] = []
  for await (const { key } of storage.list(keysPrefix)) {
    const generation = Number(/^keys\/(\d{8})-/.exec(key)?.[1] ?? Number.POSITIVE_INFINITY)
    if (generation <= newest && !kept.some((prefix) => key.startsWith(prefix))) left.push(key)
  }
  for (const key of left) await storage.delete(key)
}
