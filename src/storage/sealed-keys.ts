import {
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
} from 'node:crypto'

/** What a holder of one generation of a repository's key has of it (docs/repository-format.md, "Encryption"). */
export interface Generation {
  readonly number: number
  /** X25519, 32 bytes: what rows are sealed to. */
  readonly publicKey: Buffer
  /** 32 bytes: opens what has no rows in it. Whoever writes has it. */
  readonly structureSecret: Buffer
  /** X25519, 32 bytes; undefined for who may write and not read. */
  readonly privateKey: Buffer | undefined
}

/** The generations of a key: one is written with, all of them are read with. */
export interface KeyRing {
  readonly newest: Generation
  /** Undefined when the repository has none of this number; fails with `wrong_key` when it is not ours to open. */
  find(number: number): Promise<Generation | undefined>
}

/** The secret that a writer shares with who holds the private key, and what the latter needs to find it. */
export interface Session {
  readonly ephemeral: Buffer
  readonly secret: Buffer
}

/** One for many objects: what makes each object's key its own is its salt. */
export function beginSession(publicKey: Buffer): Session {
  const pair = generateKeyPairSync('x25519')
  const ephemeral = rawPublic(pair.publicKey)
  const shared = diffieHellman({ privateKey: pair.privateKey, publicKey: publicKeyOf(publicKey) })
  return { ephemeral, secret: sessionSecret(shared, ephemeral, publicKey) }
}

/** The same secret on the reader's side. */
export function joinSession(ephemeral: Buffer, { privateKey, publicKey }: Generation & { privateKey: Buffer }): Buffer {
  const shared = diffieHellman({ privateKey: privateKeyOf(privateKey), publicKey: publicKeyOf(ephemeral) })
  return sessionSecret(shared, ephemeral, publicKey)
}

const sessionSecret = (shared: Buffer, ephemeral: Buffer, publicKey: Buffer): Buffer =>
  derive(shared, Buffer.concat([ephemeral, publicKey]), 'walback session 1')

/** HKDF-SHA256 (RFC 5869), 32 bytes. */
export const derive = (secret: Buffer, salt: Buffer, info: string | Buffer): Buffer =>
  Buffer.from(hkdfSync('sha256', secret, salt, info, 32))

/** The 32 bytes of the public key that belongs to a private one. */
export const publicOf = (privateKey: Buffer): Buffer => rawPublic(createPublicKey(privateKeyOf(privateKey)))

const rawPublic = (key: KeyObject): Buffer => key.export({ format: 'der', type: 'spki' }).subarray(spkiHead.length)

// RFC 8410: the bytes that come before the 32 of an X25519 key in DER.
const pkcs8Head = Buffer.from('302e020100300506032b656e04220420', 'hex')
const spkiHead = Buffer.from('302a300506032b656e032100', 'hex')

const privateKeyOf = (raw: Buffer): KeyObject =>
  createPrivateKey({ key: Buffer.concat([pkcs8Head, raw]), format: 'der', type: 'pkcs8' })

const publicKeyOf = (raw: Buffer): KeyObject =>
  createPublicKey({ key: Buffer.concat([spkiHead, raw]), format: 'der', type: 'spki' })
