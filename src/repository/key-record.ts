import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { derive, type Generation, publicOf } from '../storage/sealed-keys.ts'
import type { KeySecret } from './credential.ts'

const base64Key = z.string().regex(/^[A-Za-z0-9+/]{43}=$/)
const hex = z.string().regex(/^[0-9a-f]{64}$/)

/** One generation of a repository's key: what is known of it without it, and who says that it is the repository's. */
export const keyRecord = z.object({
  generation: z.number().int().min(1).max(99_999_999),
  created: z.string(),
  /** X25519, what rows are sealed to. */
  publicKey: base64Key,
  /** A hash of the structure secret. */
  structure: hex,
  /** The fingerprint of the generation before. */
  previous: z.string().nullable(),
  /** The prefix of the objects that wrap this generation for its recipients. */
  recipients: z.string().regex(/^keys\/\d{8}-[0-9a-f]{16}\/$/),
  /** By this generation's own structure secret. */
  mac: hex,
  /** By the secrets of the generation before: for who has all of that, and for who has what a writer has. */
  vouched: z.object({ full: hex, write: hex }).optional(),
})
export type KeyRecord = z.infer<typeof keyRecord>

/** The secrets of a generation, as they were unwrapped. */
export interface KeySecrets {
  readonly generation: number
  /** 32 bytes from which all else is derived; undefined for who may only write. */
  readonly full: Buffer | undefined
  readonly structure: Buffer
}

const none = Buffer.alloc(0)

export const secretsOf = ({ generation, access, secret }: KeySecret): KeySecrets =>
  access === 'full'
    ? { generation, full: secret, structure: derive(secret, none, 'walback structure 1') }
    : { generation, full: undefined, structure: secret }

const privateOf = (full: Buffer): Buffer => derive(full, none, 'walback x25519 1')

/** What objects of this generation are sealed and opened with. */
export const generationOf = (record: KeyRecord, { full, structure }: KeySecrets): Generation => ({
  number: record.generation,
  publicKey: Buffer.from(record.publicKey, 'base64'),
  structureSecret: structure,
  privateKey: full && privateOf(full),
})

const macOf = (secret: Buffer, purpose: string, message: string): string =>
  createHmac('sha256', derive(secret, none, purpose))
    .update(message)
    .digest('hex')

type Identifying = Pick<KeyRecord, 'generation' | 'publicKey' | 'structure' | 'previous'>

/** All that identifies a generation; through `previous` all those before it too. */
const messageOf = ({ generation, publicKey, structure, previous }: Identifying): string =>
  `walback key 1\n${generation}\n${publicKey}\n${structure}\n${previous ?? ''}\n`

/** What people compare and configurations pin, in groups of four: 128 bits of a hash of the generation. */
export function fingerprintOf(record: KeyRecord): string {
  const digest = createHash('sha256').update(messageOf(record)).digest('hex')
  return (digest.slice(0, 32).match(/.{4}/g) ?? []).join('-')
}

export function makeRecord(
  secrets: KeySecrets & { readonly full: Buffer },
  recipients: string,
  before: { readonly record: KeyRecord; readonly secrets: KeySecrets & { readonly full: Buffer } } | undefined,
): KeyRecord {
  const facts = {
    generation: secrets.generation,
    publicKey: publicOf(privateOf(secrets.full)).toString('base64'),
    structure: macOf(secrets.structure, 'walback structure check 1', ''),
    previous: before === undefined ? null : fingerprintOf(before.record),
  }
  const message = messageOf(facts)
  return {
    ...facts,
    created: new Date().toISOString(),
    recipients,
    mac: macOf(secrets.structure, 'walback record 1', message),
    ...(before === undefined
      ? {}
      : {
          vouched: {
            full: macOf(before.secrets.full, 'walback vouch 1', message),
            write: macOf(before.secrets.structure, 'walback vouch 1', message),
          },
        }),
  }
}

export const isSame = (a: string, b: string): boolean =>
  a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b))

/** Refuses a record that is not of the secrets that were unwrapped beside it. */
export function checkRecord(record: KeyRecord, secrets: KeySecrets): void {
  const isOurs =
    isSame(record.structure, macOf(secrets.structure, 'walback structure check 1', '')) &&
    isSame(record.mac, macOf(secrets.structure, 'walback record 1', messageOf(record))) &&
    (secrets.full === undefined || publicOf(privateOf(secrets.full)).toString('base64') === record.publicKey)
  if (isOurs) return
  throw new WalbackError(
    'corrupt',
    `generation ${record.generation} of the repository's key is not what its record says`,
    {
      hint: 'somebody has altered objects below keys/, or walback.json; bring them back from another copy',
    },
  )
}

/** Whether the secrets of the generation before say that this one is the repository's. */
export function isVouched(record: KeyRecord, before: KeySecrets): boolean {
  if (record.vouched === undefined) return false
  const message = messageOf(record)
  return before.full === undefined
    ? isSame(record.vouched.write, macOf(before.structure, 'walback vouch 1', message))
    : isSame(record.vouched.full, macOf(before.full, 'walback vouch 1', message))
}

/** Says, by a passphrase or a key file, that a generation is the one that it was made a recipient of. */
export const proofOf = (credentialSecret: Buffer, record: KeyRecord): string =>
  macOf(credentialSecret, 'walback proof 1', messageOf(record))

/** Says, by a generation, that somebody who has all of it has made this its recipient. */
export const recipientMac = (full: Buffer, text: string): string => macOf(full, 'walback recipient 1', text)
