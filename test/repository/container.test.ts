import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import { compressBlock } from '../../src/codec/block.ts'
import {
  type ContainerReference,
  ContainerWriter,
  footerBytes,
  readContainer,
  readTrailer,
  sha256Hex,
} from '../../src/repository/container.ts'
import { storageContract } from '../storage/contract.ts'
import { MemoryStorage } from './memory-storage.ts'

// The store of these tests is held to what every store promises, so that it does not flatter the reader.
storageContract('memory', async () => {
  const storage = new MemoryStorage()
  return { storage, another: () => storage, [Symbol.asyncDispose]: async () => undefined }
})

interface Written {
  readonly bytes: Buffer
  readonly sha256: string
  readonly size_bytes: number
}

async function write(
  contents: readonly Buffer[],
  header: object = { kind: 'rows' },
  trailer: object = { rows: 1 },
): Promise<Written> {
  const container = new ContainerWriter()
  const parts = [container.header(header)]
  for (const [items, raw] of contents.entries()) parts.push(container.add(await compressBlock(raw, items)))
  parts.push(container.end(trailer))
  return { bytes: Buffer.concat(parts), sha256: container.sha256, size_bytes: container.size_bytes }
}

interface Read {
  readonly header: unknown
  readonly blocks: readonly Buffer[]
  readonly trailer: unknown
  readonly sha256: string
  readonly size_bytes: number
}

async function read(bytes: Buffer, sha256?: string, chunkBytes = 1 << 20): Promise<Read> {
  const storage = new MemoryStorage()
  storage.chunkBytes = chunkBytes
  await storage.put('object', bytes)
  const reference: ContainerReference = { key: 'object', sha256 }
  let header: unknown
  const blocks: Buffer[] = []
  for await (const part of readContainer(storage, reference)) {
    if (part.kind === 'header') header = part.header
    else if (part.kind === 'block') blocks.push(part.raw)
    else return { header, blocks, trailer: part.trailer, sha256: part.sha256, size_bytes: part.size_bytes }
  }
  throw new Error('the reader stopped without an end')
}

/** What reading made of it: an expected error's code, `read`, or the stack of what must not happen. */
const outcome = (reading: Promise<unknown>): Promise<string> =>
  reading.then(
    () => 'read',
    (error: unknown) => (error instanceof WalbackError ? error.code : `not an expected error: ${String(error)}`),
  )

const readTail = (bytes: Buffer): Promise<unknown> => {
  const storage = new MemoryStorage()
  storage.objects.set('object', bytes)
  return readTrailer(storage, 'object')
}

describe('a container', () => {
  test('gives back what went in, however its bytes arrive', async () => {
    const contents = fc.array(
      fc.uint8Array({ minLength: 1, maxLength: 500 }).map((bytes) => Buffer.from(bytes)),
      { maxLength: 5 },
    )
    await fc.assert(
      fc.asyncProperty(
        contents,
        fc.jsonValue(),
        fc.integer({ min: 1, max: 300 }),
        async (blocks, value, chunkBytes) => {
          // JSON has no negative zero.
          const trailer = JSON.parse(JSON.stringify({ value }))
          const written = await write(blocks, { kind: 'text', größe: '🐘' }, trailer)
          const got = await read(written.bytes, written.sha256, chunkBytes)
          expect(got.header).toEqual({ kind: 'text', größe: '🐘' })
          expect(Buffer.concat(got.blocks).equals(Buffer.concat(blocks))).toBe(true)
          expect(got.trailer).toEqual(trailer)
          expect([got.sha256, got.size_bytes]).toEqual([written.sha256, written.bytes.length])
          expect(written.sha256).toBe(sha256Hex(written.bytes.subarray(0, -footerBytes)))
        },
      ),
    )
  })

  test('is written in order, and named when it is ended', async () => {
    const container = new ContainerWriter()
    expect(() => container.sha256).toThrow('a bug in walback')
    container.header({})
    expect(() => container.header({})).toThrow('a bug in walback')
  })

  test('is not checked by who leaves it early: its end has not come', async () => {
    const { bytes } = await write([Buffer.from('one'), Buffer.from('two')])
    const storage = new MemoryStorage()
    await storage.put('object', bytes.subarray(0, bytes.length - 1))
    const kinds: string[] = []
    const reading = (async () => {
      for await (const part of readContainer(storage, { key: 'object' })) kinds.push(part.kind)
    })()
    expect(await outcome(reading)).toBe('corrupt')
    expect(kinds).toEqual(['header', 'block', 'block'])
  })
})

describe('damage to a container', () => {
  let written: Written
  let other: Written
  beforeAll(async () => {
    written = await write([Buffer.from('1\tann\n2\tbob\n'), Buffer.from('3\t\\N\n')])
    other = await write([Buffer.from('1\tann\n2\tbob\n'), Buffer.from('4\t\\N\n')])
  })

  test('is found wherever one byte is another', async () => {
    const passed: number[] = []
    for (let at = 0; at < written.bytes.length; at++) {
      for (const mask of [0x01, 0x80, 0xff]) {
        const damaged = Buffer.from(written.bytes)
        damaged[at] = (damaged[at] as number) ^ mask
        const found = await outcome(read(damaged, written.sha256))
        if (found !== 'corrupt') passed.push(at - written.bytes.length)
      }
    }
    expect([...new Set(passed)], 'offsets from the end at which a change was not refused').toEqual([])
  })

  test('is found wherever the object is cut', async () => {
    for (let length = 0; length < written.bytes.length; length++) {
      expect(await outcome(read(written.bytes.subarray(0, length), written.sha256)), `cut to ${length}`).toBe('corrupt')
    }
  })

  test('is found where bytes follow, be it a whole object again', async () => {
    const { bytes, sha256 } = written
    for (const more of [Buffer.of(0), bytes.subarray(-footerBytes), bytes]) {
      expect(await outcome(read(Buffer.concat([bytes, more]), sha256))).toBe('corrupt')
    }
  })

  test('is found where another object lies under the key', async () => {
    expect(await outcome(read(other.bytes, other.sha256))).toBe('read')
    expect(await outcome(read(other.bytes, written.sha256))).toBe('corrupt')
  })

  test('is found where a block is missing, twice, or in another place', async () => {
    const frames = framesOf(written.bytes)
    const [header, one, two, trailer, footer] = frames as [Buffer, Buffer, Buffer, Buffer, Buffer]
    const orders = [
      [header, two, one, trailer, footer],
      [header, one, trailer, footer],
      [header, one, one, two, trailer, footer],
      [header, one, two, footer],
      [header, one, two, trailer, trailer, footer],
      [header, one, trailer, two, footer],
      [one, two, trailer, footer],
      [header, header, one, two, trailer, footer],
      [footer],
    ]
    expect(await outcome(read(Buffer.concat(frames), written.sha256))).toBe('read')
    for (const order of orders) expect(await outcome(read(Buffer.concat(order)))).toBe('corrupt')
  })

  test('in what is no container at all is found', async () => {
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.from('{"walback":"base"}\n'),
      Buffer.alloc(500),
      Buffer.alloc(500, 0xff),
    ]) {
      expect(await outcome(read(bytes))).toBe('corrupt')
      expect(await outcome(readTail(bytes))).toBe('corrupt')
    }
  })
})

test('an object of a later version is left to a later walback, however large it is', async () => {
  for (const blocks of [[], [Buffer.alloc(200_000, 'row')], Array.from({ length: 8 }, () => randomBytes(30_000))]) {
    const later = Buffer.from((await write(blocks)).bytes)
    later[16] = 2
    Buffer.from(sha256Hex(later.subarray(0, -footerBytes)), 'hex').copy(later, later.length - footerBytes + 8 + 24)
    await expect(read(later)).rejects.toMatchObject({ code: 'failed', facts: { format: 2 } })
    later[17] = 1
    await expect(read(later)).rejects.toMatchObject({ code: 'corrupt' })
  }
})

test('a sound object of another kind gives nothing of itself', async () => {
  const storage = new MemoryStorage()
  for (const header of [{ kind: 'part' }, {}, null]) {
    await storage.put('object', (await write([Buffer.from('no rows of a table')], header as object)).bytes)
    const first = readContainer(storage, { key: 'object', kind: 'rows' }).next()
    await expect(first).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining('it should be rows'),
    })
  }
})

describe('a trailer read from the end', () => {
  test('is the one that the whole object gives, be it short or long', async () => {
    for (const names of [1, 10_000]) {
      // Text that hardly compresses, so that the trailer is longer than what the first read takes.
      const trailer = { names: Array.from({ length: names }, (_, n) => sha256Hex(Buffer.from(`${n}`))) }
      const written = await write([Buffer.from('raw bytes')], { kind: 'segment' }, trailer)
      const storage = new MemoryStorage()
      await storage.put('object', written.bytes)
      const expected = { trailer, sha256: written.sha256, size_bytes: written.bytes.length, rawBytes: 9 }
      expect(await readTrailer(storage, 'object')).toEqual(expected)
      expect(await readTrailer(storage, 'object', { size_bytes: written.bytes.length })).toEqual(expected)
    }
  })

  test('of an absent object is undefined', async () => {
    expect(await readTrailer(new MemoryStorage(), 'object')).toBeUndefined()
  })

  test('is refused, and never another, wherever its bytes were changed', async () => {
    const trailer = {
      kind: 'segment',
      end: '0/16B3748',
      transactions: Array.from({ length: 30 }, (_, n) => ({ xid: `${700 + n}` })),
    }
    const { bytes } = await write([Buffer.from('raw')], { kind: 'segment' }, trailer)
    const trailerStart = Number(bytes.readBigUInt64LE(bytes.length - footerBytes + 8))
    for (let at = trailerStart; at < bytes.length - footerBytes + 16; at++) {
      const damaged = Buffer.from(bytes)
      damaged[at] = (damaged[at] as number) ^ 0x10
      const found = await readTail(damaged).then(
        (summary) => JSON.stringify((summary as { trailer: unknown }).trailer),
        (error: unknown) => (error instanceof WalbackError && error.code === 'corrupt' ? 'refused' : String(error)),
      )
      // The frame's end and its last checksum may be damaged without harm: the content is what was written.
      expect(['refused', JSON.stringify(trailer)], `byte ${at - bytes.length}`).toContain(found)
    }
  })

  test('of an object that was cut is refused', async () => {
    const { bytes } = await write([Buffer.from('raw')], {}, { kind: 'segment' })
    for (let length = 0; length < bytes.length; length++) {
      expect(await outcome(readTail(bytes.subarray(0, length)))).toBe('corrupt')
    }
  })
})

/** The skippable frames of a container, each block's head together with its content. */
function framesOf(bytes: Buffer): Buffer[] {
  const frames: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const stored = bytes.readUInt32LE(at) === 0x184d2a51 ? bytes.readUInt32LE(at + 12) : 0
    const end = at + 8 + bytes.readUInt32LE(at + 4) + stored
    frames.push(bytes.subarray(at, end))
    at = end
  }
  return frames
}
