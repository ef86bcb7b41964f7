import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import {
  blockHeadBytes,
  compressBlock,
  decompressBlock,
  frameHeadBytes,
  frameMagic,
  parseBlockHead,
} from '../../src/codec/block.ts'

const contentStart = frameHeadBytes + blockHeadBytes
const content = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 3000 }).map((bytes) => Buffer.from(bytes)),
  // Text that compresses, long enough for several LZ4 sequences.
  fc
    .array(fc.constantFrom('1\tann\t\\N\n', '2\tbob\t7\n', 'x'.repeat(99)), { minLength: 1, maxLength: 300 })
    .map((lines) => Buffer.from(lines.join(''))),
)

function unpack(bytes: Buffer): Promise<Buffer> {
  const head = parseBlockHead(bytes.subarray(frameHeadBytes, contentStart))
  return decompressBlock(head, bytes.subarray(contentStart), 'here')
}

/** True when reading fails as damage, and not as a bug. */
const refused = (reading: Promise<Buffer>): Promise<boolean> =>
  reading.then(
    () => false,
    (error: unknown) => error instanceof WalbackError && error.code === 'corrupt',
  )

describe('a block', () => {
  test('gives back what went in', async () => {
    await fc.assert(
      fc.asyncProperty(content, fc.nat(), async (raw, items) => {
        const block = await compressBlock(raw, items)
        const head = parseBlockHead(block.bytes.subarray(frameHeadBytes, contentStart))
        expect(block.bytes.readUInt32LE(0)).toBe(frameMagic.block)
        expect(block.bytes.readUInt32LE(4)).toBe(blockHeadBytes)
        expect(head.items).toBe(items)
        expect(head.rawBytes).toBe(raw.length)
        expect(head.storedBytes).toBe(block.bytes.length - contentStart)
        expect((await unpack(block.bytes)).equals(raw)).toBe(true)
      }),
    )
  })

  test('of nothing is a bug of the caller', async () => {
    await expect(compressBlock(Buffer.alloc(0), 0)).rejects.toThrow('a bug in walback')
  })

  test('refuses stored bytes with any bit flipped', async () => {
    await fc.assert(
      fc.asyncProperty(content, fc.nat(), fc.integer({ min: 0, max: 7 }), async (raw, at, bit) => {
        const { bytes } = await compressBlock(raw, 1)
        const damaged = Buffer.from(bytes)
        const where = contentStart + (at % (bytes.length - contentStart))
        damaged[where] = (damaged[where] as number) ^ (1 << bit)
        expect(await refused(unpack(damaged))).toBe(true)
      }),
    )
  })

  test('refuses stored bytes cut at any place, or with more after them', async () => {
    await fc.assert(
      fc.asyncProperty(content, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 20 }), async (raw, at, more) => {
        const { bytes } = await compressBlock(raw, 1)
        const end = contentStart + (at % (bytes.length - contentStart))
        expect(await refused(unpack(bytes.subarray(0, end)))).toBe(true)
        expect(await refused(unpack(Buffer.concat([bytes, more])))).toBe(true)
      }),
    )
  })

  test('refuses a head whose length or hash is another', async () => {
    const { bytes } = await compressBlock(Buffer.from('1\tann\n'.repeat(50)), 50)
    const { length } = createHash('sha256').digest()
    for (const at of [0, 1, 2, 3, ...Array.from({ length }, (_, i) => 16 + i)]) {
      const damaged = Buffer.from(bytes)
      damaged[frameHeadBytes + at] = (damaged[frameHeadBytes + at] as number) ^ 1
      expect(await refused(unpack(damaged)), `byte ${at} of the head`).toBe(true)
    }
  })
})
