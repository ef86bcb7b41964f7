import { scrypt } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { bech32 } from '@scure/base'
import { identityToRecipient } from 'age-encryption'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { derive } from '../storage/sealed-keys.ts'

/** What somebody has that opens an encrypted repository. */
export type Credential =
  | { readonly kind: 'passphrase'; readonly passphrase: string }
  /** A file of random bytes. */
  | { readonly kind: 'file'; readonly secret: Buffer }
  /** Identities of age, `AGE-SECRET-KEY-1…`. */
  | { readonly kind: 'age'; readonly identities: readonly string[] }
  /** The key itself, as its age files hold it. */
  | { readonly kind: 'secrets'; readonly secrets: readonly KeySecret[] }

/** `full` reads and writes; `write` writes, and reads what holds no rows. */
export type KeyAccess = 'full' | 'write'

/** What an age file of a repository holds: a generation's secret, or of it what a writer needs. */
export interface KeySecret {
  readonly generation: number
  readonly access: KeyAccess
  readonly secret: Buffer
}

const secretLine = /^walback-key (\d{8}) (full|write) ([A-Za-z0-9+/]{43}=)$/

export const formatSecret = ({ generation, access, secret }: KeySecret): string =>
  `walback-key ${String(generation).padStart(8, '0')} ${access} ${secret.toString('base64')}\n`

export function parseSecret(line: string): KeySecret | undefined {
  const [, generation, access, secret] = secretLine.exec(line.trim()) ?? []
  if (generation === undefined || access === undefined || secret === undefined) return undefined
  return { generation: Number(generation), access: access as KeyAccess, secret: Buffer.from(secret, 'base64') }
}

/** Cost of a passphrase: about a third of a second, and 128 MiB. */
export const scryptCost = { log_n: 17, r: 8, p: 1 }
export const leastPassphrase = 12

/** Reads a key file: of age, of walback, or of at least 32 random bytes. No part of it is ever in a message. */
export async function readKeyFile(file: string): Promise<Credential> {
  const bytes = await readSecretFile(file, 'key file')
  const text = bytes.toString('utf8')
  const lines = text.split(/\r?\n/).map((line) => line.trim())
  const identities = lines.filter((line) => line.startsWith('AGE-SECRET-KEY-'))
  if (identities.length > 0) return { kind: 'age', identities }
  const secrets = lines.flatMap((line) => parseSecret(line) ?? [])
  if (secrets.length > 0) return { kind: 'secrets', secrets }
  // Editors and `echo` end a text with a newline; 32 raw bytes stay as they are.
  const secret = bytes.length === 32 ? bytes : Buffer.from(text.trim(), 'utf8')
  const raw = isText(bytes) ? secret : bytes
  if (raw.length >= 32) return { kind: 'file', secret: raw }
  throw new WalbackError('usage', `the key file ${file} holds ${raw.length} bytes: too little for a key`, {
    hint: 'make one with `openssl rand -base64 32`, or give an identity of age',
  })
}

const isText = (bytes: Buffer): boolean => Buffer.from(bytes.toString('utf8'), 'utf8').equals(bytes)

/** The first line of a file. */
export async function readPassphraseFile(file: string): Promise<string> {
  return (await readSecretFile(file, 'passphrase file')).toString('utf8').split(/\r?\n/)[0] ?? ''
}

async function readSecretFile(file: string, what: string): Promise<Buffer> {
  try {
    return await readFile(file)
  } catch (error) {
    throw new WalbackError('usage', `cannot read the ${what} ${file}: ${messageOf(error)}`, {
      cause: error,
      ...(codeOf(error) === 'ENOENT'
        ? { hint: 'nothing is at this path; a key that is lost cannot be made again' }
        : {}),
    })
  }
}

export interface ScryptCost {
  readonly salt: string
  readonly log_n: number
  readonly r: number
  readonly p: number
}

/** 32 bytes that a passphrase or a file comes to. Text is composed (NFC): keyboards differ in what they send. */
export async function credentialSecret(
  credential: Extract<Credential, { kind: 'passphrase' | 'file' }>,
  cost: ScryptCost | undefined,
): Promise<Buffer> {
  if (credential.kind === 'file') return derive(credential.secret, Buffer.alloc(0), 'walback key file 1')
  if (cost === undefined) throw new WalbackError('corrupt', 'a recipient with a passphrase has no salt')
  const { log_n, r, p } = cost
  const run = promisify<string, Buffer, number, object, Buffer>(scrypt)
  const limits = { N: 2 ** log_n, r, p, maxmem: 256 * r * 2 ** log_n }
  return await run(credential.passphrase.normalize('NFC'), Buffer.from(cost.salt, 'base64'), 32, limits)
}

/** The identity of age whose scalar these 32 bytes are: passphrases and files are recipients of age files like others. */
export const ageIdentity = (secret: Buffer): string =>
  bech32.encodeFromBytes('AGE-SECRET-KEY-', derive(secret, Buffer.alloc(0), 'walback identity 1')).toUpperCase()

/** What age encrypts to so that this identity opens it. */
export async function recipientOfIdentity(identity: string): Promise<string> {
  try {
    return await identityToRecipient(identity)
  } catch (error) {
    throw new WalbackError('usage', 'the key file holds something that is not an identity of age', { cause: error })
  }
}
