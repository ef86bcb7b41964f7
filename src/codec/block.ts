import { hash } from 'node:crypto'
import { assert } from '../base/assert.ts'
import { WalbackError } from '../base/errors.ts'
import { compressFrame, decompressFrame } from './lz4.ts'

/**
 * Blocks: the unit of compression and of checking. A block is a head in a skippable LZ4 frame, which says what follows,
 * and one LZ4 frame of content, so that a file of blocks opens with `lz4 -d`, which passes over the heads.
 * The head carries length and hash because lz4-napi reads only the first of several frames and lets a cut end mark pass.
 */

/** Skippable frames have magic numbers 0x184D2A50 to 5F (LZ4 frame format 1.6.4); walback gives five of them a meaning. */
export const frameMagic = { header: 0x184d2a50, block: 0x184d2a51, trailer: 0x184d2a52, footer: 0x184d2a53 } as const

/** Bytes of a skippable frame before its content: magic and length, both 32-bit little-endian. */
export const frameHeadBytes = 8

/** Content of a block's head: raw length, stored length, items, reserved (4 bytes each), SHA-256 of the stored bytes. */
export const blockHeadBytes = 48

/** No block holds more raw bytes than this, so a reader can bound what it allocates. A single row may be this large. */
export const maxBlockRawBytes = 0x7fff0000

export function skippableFrame(magic: number, content: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(frameHeadBytes + content.length)
  frame.writeUInt32LE(magic, 0)
  frame.writeUInt32LE(content.length, 4)
  content.copy(frame, frameHeadBytes)
  return frame
}

export interface Block {
  /** Head and LZ4 frame, as stored. */
  readonly bytes: Buffer
  readonly rawBytes: number
  /** Rows of a base, or records of the stream. */
  readonly items: number
}

export async function compressBlock(raw: Buffer, items: number): Promise<Block> {
  assert(raw.length > 0 && raw.length <= maxBlockRawBytes, `a block of ${raw.length} bytes`)
  const stored = await compressFrame(raw, { blockChecksums: true, contentChecksum: true })
  const head = Buffer.alloc(blockHeadBytes)
  head.writeUInt32LE(raw.length, 0)
  head.writeUInt32LE(stored.length, 4)
  head.writeUInt32LE(items, 8)
  hash('sha256', stored, 'buffer').copy(head, 16)
  return { bytes: Buffer.concat([skippableFrame(frameMagic.block, head), stored]), rawBytes: raw.length, items }
}

export interface BlockHead {
  readonly rawBytes: number
  readonly storedBytes: number
  readonly items: number
  readonly sha256: Buffer
}

export function parseBlockHead(content: Buffer): BlockHead {
  return {
    rawBytes: content.readUInt32LE(0),
    storedBytes: content.readUInt32LE(4),
    items: content.readUInt32LE(8),
    sha256: content.subarray(16, blockHeadBytes),
  }
}

/** The raw bytes of a block; refuses stored bytes that are not exactly those that were written. */
export async function decompressBlock(head: BlockHead, stored: Buffer, where: string): Promise<Buffer> {
  if (!hash('sha256', stored, 'buffer').equals(head.sha256)) {
    throw new WalbackError('corrupt', `${where} is damaged: a block's bytes are not those that were written`)
  }
  const raw = await decompressFrame(stored)
  if (raw.length !== head.rawBytes) {
    throw new WalbackError(
      'corrupt',
      `${where} is damaged: a block unpacks to ${raw.length} bytes, not ${head.rawBytes}`,
    )
  }
  return raw
}
