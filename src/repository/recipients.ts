import { randomBytes } from 'node:crypto'
import { Decrypter, Encrypter } from 'age-encryption'
import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { readAll, type Storage } from '../storage/storage.ts'
import {
  ageIdentity,
  type Credential,
  credentialSecret,
  formatSecret,
  type KeyAccess,
  type KeySecret,
  leastPassphrase,
  parseSecret,
  recipientOfIdentity,
  type ScryptCost,
  scryptCost,
} from './credential.ts'
import { isSame, type KeyRecord, proofOf, recipientMac } from './key-record.ts'
import { readJson, sealedJson } from './sealed-json.ts'

/**
 * Who can open a generation of a repository's key. For each there is an age file with the secret and a note beside it;
 * a passphrase and a key file stand for an identity of age, so all are wrapped for alike, and later ones without asking.
 */
const recipientShape = z.object({
  walback: z.literal('recipient'),
  format: z.literal(1),
  generation: z.number(),
  name: z.string(),
  kind: z.enum(['passphrase', 'file', 'age']),
  access: z.enum(['full', 'write']),
  /** `age1…`, what the secret is encrypted to. */
  recipient: z.string(),
  scrypt: z
    .object({ salt: z.string(), log_n: z.number().int().min(10).max(20), r: z.literal(8), p: z.literal(1) })
    .optional(),
  /** The age file. */
  object: z.string(),
  created: z.string(),
  /** By the generation's secret: without it nobody adds a recipient that a rotation would wrap for. */
  mac: z.string(),
  /** By the recipient's own secret, where that was there when it was added. */
  proof: z.string().optional(),
})
export type RecipientEntry = z.infer<typeof recipientShape>

/** A recipient without what ties it to one generation. */
export interface Recipient {
  readonly name: string
  readonly kind: RecipientEntry['kind']
  readonly access: KeyAccess
  readonly recipient: string
  readonly scrypt?: ScryptCost | undefined
  /** Of a passphrase or a file that is there. */
  readonly secret?: Buffer | undefined
}

export type NewRecipient =
  | Extract<Credential, { kind: 'passphrase' | 'file' }>
  | { readonly kind: 'age'; readonly recipient: string }

/** Makes a recipient of a passphrase, a key file, or another's `age1…`. */
export async function makeRecipient(given: NewRecipient, name: string, access: KeyAccess): Promise<Recipient> {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,40}$/.test(name)) {
    throw new WalbackError('usage', `not a name for a recipient: ${JSON.stringify(name)}`, {
      hint: "use letters, digits, '_' and '-', at most 41",
    })
  }
  if (given.kind === 'age') {
    const { recipient } = given
    try {
      new Encrypter().addRecipient(recipient)
    } catch (error) {
      throw new WalbackError('usage', `not a recipient of age: ${JSON.stringify(recipient)}`, {
        cause: error,
        hint: 'it begins with age1, as `age-keygen` prints it',
      })
    }
    return { name, kind: 'age', access, recipient }
  }
  if (given.kind === 'passphrase' && given.passphrase.length < leastPassphrase) {
    throw new WalbackError('usage', `the passphrase is too short: at least ${leastPassphrase} characters are needed`, {
      hint: 'whoever can read the store can try passphrases as fast as they like: use five random words or more',
    })
  }
  const scrypt = given.kind === 'passphrase' ? { salt: randomBytes(16).toString('base64'), ...scryptCost } : undefined
  const secret = await credentialSecret(given, scrypt)
  const recipient = await recipientOfIdentity(ageIdentity(secret))
  return { name, kind: given.kind, access, recipient, scrypt, secret }
}

const signedText = ({ generation, name, kind, access, recipient, scrypt }: Omit<RecipientEntry, 'mac'>): string =>
  JSON.stringify([generation, name, kind, access, recipient, scrypt ?? null])

export const isGenuine = (entry: RecipientEntry, full: Buffer): boolean =>
  isSame(entry.mac, recipientMac(full, signedText(entry)))

/** Wraps a generation for a recipient: the age file first, then the note that names it. */
export async function writeRecipient(
  storage: Storage,
  record: KeyRecord,
  { full, structure }: { readonly full: Buffer; readonly structure: Buffer },
  recipient: Recipient,
): Promise<void> {
  const { name, kind, access, scrypt } = recipient
  const { generation } = record
  const object = `${record.recipients}${name}.${randomBytes(4).toString('hex')}.age`
  const facts = {
    walback: 'recipient' as const,
    format: 1 as const,
    generation,
    name,
    kind,
    access,
    recipient: recipient.recipient,
    ...(scrypt === undefined ? {} : { scrypt: { ...scrypt, r: 8 as const, p: 1 as const } }),
    object,
    created: new Date().toISOString(),
  }
  const entry: RecipientEntry = {
    ...facts,
    mac: recipientMac(full, signedText(facts)),
    ...(recipient.secret === undefined ? {} : { proof: proofOf(recipient.secret, record) }),
  }
  const encrypter = new Encrypter()
  encrypter.addRecipient(recipient.recipient)
  const secret = access === 'full' ? full : structure
  const wrapped = await encrypter.encrypt(formatSecret({ generation, access, secret }))
  await storage.put(object, Buffer.from(wrapped), { ifAbsent: true })
  if (await storage.put(`${record.recipients}${name}.json`, sealedJson(entry), { ifAbsent: true })) return
  await storage.delete(object)
  throw new WalbackError('refused', `the repository has a recipient ${name}`, {
    hint: 'give another name, or remove that one first: `walback key list`, `walback key remove NAME`',
  })
}

export async function readRecipients(storage: Storage, record: KeyRecord): Promise<RecipientEntry[]> {
  const entries: RecipientEntry[] = []
  for await (const { key } of storage.list(record.recipients)) {
    if (key.endsWith('.json')) entries.push(await readJson(storage, key, recipientShape))
  }
  return entries
}

export async function removeRecipient(storage: Storage, record: KeyRecord, entry: RecipientEntry): Promise<void> {
  await storage.delete(`${record.recipients}${entry.name}.json`)
  await storage.delete(entry.object)
}

/** Tries a credential on recipients; what a passphrase comes to is worked out once for each salt. */
export class Opener {
  private readonly credential: Credential
  private readonly secrets = new Map<string, Promise<Buffer>>()

  constructor(credential: Credential) {
    this.credential = credential
  }

  /** The secret that is wrapped for this recipient; undefined when it is another's. */
  async open(storage: Storage, entry: RecipientEntry, record: KeyRecord): Promise<OpenedSecret | undefined> {
    const { credential } = this
    if (credential.kind === 'secrets' || credential.kind !== entry.kind) return undefined
    const secret = credential.kind === 'age' ? undefined : await this.secretFor(credential, entry.scrypt)
    const identities = credential.kind === 'age' ? credential.identities : [ageIdentity(secret as Buffer)]
    const recipients = await Promise.all(identities.map(recipientOfIdentity))
    const identity = identities[recipients.indexOf(entry.recipient)]
    if (identity === undefined) return undefined
    const opened = await unwrap(storage, entry, identity)
    const isProven = secret !== undefined && entry.proof !== undefined && isSame(entry.proof, proofOf(secret, record))
    return { ...opened, isProven }
  }

  private secretFor(credential: Extract<Credential, { kind: 'passphrase' | 'file' }>, scrypt: ScryptCost | undefined) {
    const name = scrypt === undefined ? '' : `${scrypt.salt} ${scrypt.log_n}`
    const known = this.secrets.get(name)
    if (known !== undefined) return known
    const secret = credentialSecret(credential, scrypt)
    this.secrets.set(name, secret)
    return secret
  }
}

export interface OpenedSecret extends KeySecret {
  /** The credential itself says that this generation is the one that it was added to. */
  readonly isProven: boolean
}

async function unwrap(storage: Storage, entry: RecipientEntry, identity: string): Promise<KeySecret> {
  const decrypter = new Decrypter()
  decrypter.addIdentity(identity)
  const damaged = (cause?: unknown): WalbackError =>
    new WalbackError('corrupt', `${entry.object} is damaged: the key that is wrapped in it does not open`, { cause })
  const file = await readAll(storage.get(entry.object))
  let text: string
  try {
    text = await decrypter.decrypt(new Uint8Array(file), 'text')
  } catch (error) {
    throw damaged(error)
  }
  const secret = parseSecret(text)
  if (secret?.generation !== entry.generation || secret.access !== entry.access) throw damaged()
  return secret
}
