import { createCipheriv, createDecipheriv } from 'node:crypto'
import { assert } from '../base/assert.ts'
import { WalbackError } from '../base/errors.ts'

/**
 * How an encrypted object lies in its store: a head, then frames of AES-256-GCM, each of 64 KiB of the object but the
 * last, which is shorter and may be empty (the STREAM construction: a frame's nonce is its place and whether it is the
 * last, so none can be left out, moved or cut off). An object is one section, of rows or of structure, or rows and then
 * structure, each sealed under a key of its own. Specified by byte offset in docs/repository-format.md.
 */
const magic = Buffer.from('WBSEALED', 'latin1')
const sealedVersion = 1
export const headBytes = 96
/** Fills the place that the second section's additional frame takes, so that a length tells the object's without its head. */
const fillerBytes = 16
export const frameBytes = 1 << 16
export const tagBytes = 16
const sealedFrameBytes = frameBytes + tagBytes

/** What is in an object: rows, or what tells of no value, or first the one and then the other. */
export type SealedKind = 'rows' | 'structure' | 'both'
const kinds: readonly SealedKind[] = ['rows', 'structure', 'both']

export type Section = 'rows' | 'structure'

export interface SealedHead {
  readonly kind: SealedKind
  readonly generation: number
  /** Of `both`: where the rows end. */
  readonly rows_bytes: number
  readonly salt: Buffer
  /** Of the session that the rows are sealed in. */
  readonly ephemeral: Buffer
}

export function encodeHead(head: SealedHead): Buffer {
  const bytes = Buffer.alloc(headBytes)
  magic.copy(bytes, 0)
  bytes[8] = sealedVersion
  bytes[9] = kinds.indexOf(head.kind) + 1
  bytes.writeUInt32LE(head.generation, 12)
  bytes.writeBigUInt64LE(BigInt(head.rows_bytes), 16)
  head.salt.copy(bytes, 24)
  head.ephemeral.copy(bytes, 56)
  return bytes
}

/** Reads a head. That it is unaltered shows when a frame opens: the keys are derived from all of its bytes. */
export function parseHead(bytes: Buffer, key: string): SealedHead {
  if (bytes.length < headBytes) throw damaged(key, 'it is cut short')
  if (!bytes.subarray(0, 8).equals(magic)) throw damaged(key, 'it is not an encrypted object')
  const kind = kinds[(bytes[9] ?? 0) - 1]
  if (bytes[8] !== sealedVersion || kind === undefined) throw damaged(key, 'its head has an unknown version or kind')
  return {
    kind,
    generation: bytes.readUInt32LE(12),
    rows_bytes: Number(bytes.readBigUInt64LE(16)),
    salt: bytes.subarray(24, 56),
    ephemeral: bytes.subarray(56, 88),
  }
}

export const damaged = (key: string, what: string): WalbackError =>
  new WalbackError('corrupt', `${key} is damaged: ${what}`)

/** The number of the frame that a byte of the object is in. */
export const frameAt = (offset: number): number => Math.floor(offset / frameBytes)

/** The length in its store of an object of so many bytes. */
export const sealedSize = (size_bytes: number): number =>
  headBytes + fillerBytes + size_bytes + tagBytes * (frameAt(size_bytes) + 1)

/** The length of an object whose length in its store is this; of what is cut short some smaller one. */
export function openedSize(sealed_bytes: number): number {
  const frames = sealed_bytes - headBytes - fillerBytes - tagBytes
  if (frames <= 0) return 0
  const whole = Math.floor(frames / sealedFrameBytes)
  return whole * frameBytes + Math.min(frames - whole * sealedFrameBytes, frameBytes - 1)
}

/** Bytes of the store in which frames lie, whatever the kind of the object. */
export const spanOf = (first: number, last: number): { start: number; end: number } => ({
  start: headBytes + first * sealedFrameBytes,
  end: headBytes + fillerBytes + (last + 1) * sealedFrameBytes,
})

/** A run of bytes that is sealed as one. */
export interface Piece {
  readonly section: Section
  readonly frame: number
  /** Where it begins in the object, and where it ends if it is not the object's last. */
  readonly start: number
  readonly end: number
  /** Of a piece that is always the last of its section; whether another is shows where the object ends. */
  readonly isLast: boolean
}

/** The pieces of an object from a frame on, in the order in which they lie; `filler`: before the first of them. */
export function* piecesFrom(
  head: Pick<SealedHead, 'kind' | 'rows_bytes'>,
  first: number,
): Generator<Piece | { readonly section: 'filler' }> {
  const { kind, rows_bytes } = head
  const cut = kind === 'both' ? frameAt(rows_bytes) : -1
  if (first > cut) yield { section: 'filler' }
  for (let frame = first; ; frame++) {
    const [start, end] = [frame * frameBytes, (frame + 1) * frameBytes]
    if (kind !== 'both') yield { section: kind, frame, start, end, isLast: false }
    else if (frame < cut) yield { section: 'rows', frame, start, end, isLast: false }
    else if (frame > cut) yield { section: 'structure', frame, start, end, isLast: false }
    else {
      yield { section: 'rows', frame, start, end: rows_bytes, isLast: true }
      yield { section: 'structure', frame, start: rows_bytes, end, isLast: false }
    }
  }
}

export const filler = (): Buffer => Buffer.alloc(fillerBytes)

function nonceOf({ section, frame }: Pick<Piece, 'section' | 'frame'>, isLast: boolean): Buffer {
  const nonce = Buffer.alloc(12)
  nonce[0] = section === 'rows' ? 1 : 2
  nonce[1] = isLast ? 1 : 0
  nonce.writeBigUInt64BE(BigInt(frame), 4)
  return nonce
}

const cipherName = 'aes-256-gcm'

export function sealPiece(key: Buffer, piece: Piece, isLast: boolean, content: Buffer): Buffer {
  assert(content.length <= frameBytes, 'a piece is at most a frame')
  const cipher = createCipheriv(cipherName, key, nonceOf(piece, isLast), { authTagLength: tagBytes })
  const sealed = cipher.update(content)
  cipher.final()
  return Buffer.concat([sealed, cipher.getAuthTag()])
}

/** The content of a piece, or undefined if these are not the bytes that were sealed in this place. */
export function openPiece(key: Buffer, piece: Piece, isLast: boolean, sealed: Buffer): Buffer | undefined {
  const decipher = createDecipheriv(cipherName, key, nonceOf(piece, isLast), { authTagLength: tagBytes })
  decipher.setAuthTag(sealed.subarray(sealed.length - tagBytes))
  const content = decipher.update(sealed.subarray(0, sealed.length - tagBytes))
  try {
    decipher.final()
    return content
  } catch {
    return undefined
  }
}
