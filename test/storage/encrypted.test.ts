import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DirectoryStorage } from '../../src/storage/directory.ts'
import { EncryptedStorage } from '../../src/storage/encrypted.ts'
import { openedSize, sealedSize } from '../../src/storage/sealed-format.ts'
import type { KeyRing } from '../../src/storage/sealed-keys.ts'
import { type PutOptions, readAll, type Storage } from '../../src/storage/storage.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { storageContract } from './contract.ts'
import { newGeneration, ringOf, writerOf } from './key-ring.ts'

storageContract('an encrypted folder', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'walback-sealed-'))
  const ring = ringOf(newGeneration())
  return {
    storage: new EncryptedStorage(new DirectoryStorage(folder), ring),
    another: () => new EncryptedStorage(new DirectoryStorage(folder), ring),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
})

const frame = 65_536
/** Lengths around what a frame holds, and positions in them. */
const lengths = fc.oneof(
  fc.integer({ min: 0, max: 300 }),
  fc.integer({ min: -40, max: 40 }).chain((d) => fc.integer({ min: 1, max: 3 }).map((n) => Math.max(0, n * frame + d))),
)
const kinds = fc.constantFrom('rows.wbr', 'names.json', 'segment.wbs')
const fraction = fc.oneof(fc.constant(0), fc.constant(1), fc.double({ min: 0, max: 1, noNaN: true }))

interface Stored {
  readonly inner: MemoryStorage
  readonly storage: Storage
  readonly key: string
  readonly body: Buffer
  readonly ring: KeyRing
}

async function stored(key: string, length: number, cut: number, generation = newGeneration()): Promise<Stored> {
  const inner = new MemoryStorage()
  const ring = ringOf(generation)
  const storage = new EncryptedStorage(inner, ring)
  const body = randomBytes(length)
  await storage.put(key, chunked(body), split(key, length, cut))
  return { inner, storage, key, body, ring }
}

/** A segment has its rows first; where they end often falls on the edge of a frame. */
function split(key: string, length: number, cut: number): PutOptions {
  const at = Math.floor(length * cut)
  return key.endsWith('.wbs') ? { rows_bytes: at % 3 === 0 ? at - (at % frame) : at } : {}
}

async function* chunked(body: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < body.length; at += 10_007) yield body.subarray(at, at + 10_007)
}

const sealedOf = async ({ inner, key }: Stored): Promise<Buffer> => readAll(inner.get(key))

/** What a read comes to: the bytes, or the error's code. */
async function outcome(read: AsyncIterable<Buffer>): Promise<Buffer | string> {
  try {
    return await readAll(read)
  } catch (error) {
    return (error as { code: string }).code
  }
}

describe('an encrypted object', () => {
  test('gives any range as it was put, and its length from the stored one', async () => {
    await fc.assert(
      fc.asyncProperty(kinds, lengths, fraction, fraction, fraction, async (key, length, cut, from, to) => {
        const { inner, storage, body } = await stored(key, length, cut)
        expect((await readAll(storage.get(key))).equals(body)).toBe(true)
        expect(await storage.size(key)).toBe(length)
        expect(sealedSize(length)).toBe(await inner.size(key))
        for (const beyond of [0, 3, frame, 4 * frame]) {
          const start = Math.floor(length * from) + (from === 1 ? beyond : 0)
          const end = start + Math.floor((length - Math.min(start, length)) * to) + beyond
          const read = await readAll(storage.get(key, { range: { start, end } }))
          expect(read.equals(body.subarray(start, end))).toBe(true)
        }
      }),
      { numRuns: 150 },
    )
  })

  test('of another length in its store is never taken for the same', () => {
    fc.assert(
      fc.property(lengths, fc.integer({ min: 1, max: 3 * frame }), (length, less) => {
        expect(openedSize(sealedSize(length))).toBe(length)
        expect(openedSize(Math.max(0, sealedSize(length) - less)) < length || length === 0).toBe(true)
      }),
      { numRuns: 2000 },
    )
  })

  test('with one bit flipped is corrupt, or gives nothing but what was put', async () => {
    await fc.assert(
      fc.asyncProperty(kinds, lengths, fraction, fraction, fraction, async (key, length, cut, at, from) => {
        const one = await stored(key, length, cut)
        const sealed = await sealedOf(one)
        // Every byte of the head in turn, and any other.
        const place = at < 0.4 ? Math.floor(at * 2.5 * 112) : Math.floor(at * (sealed.length - 1))
        sealed[place] = (sealed[place] ?? 0) ^ (1 << (place % 8))
        await one.inner.put(key, sealed)
        expect(await outcome(one.storage.get(key))).toBe('corrupt')
        const start = Math.floor(length * from)
        const part = await outcome(one.storage.get(key, { range: { start, end: start + 1000 } }))
        expect(part === 'corrupt' || one.body.subarray(start, start + 1000).equals(part as Buffer)).toBe(true)
      }),
      { numRuns: 300 },
    )
  })

  test('with any bit of its head flipped is corrupt', async () => {
    for (const key of ['rows.wbr', 'names.json', 'segment.wbs']) {
      const one = await stored(key, 500, 0.5)
      const sealed = await sealedOf(one)
      for (let bit = 0; bit < 112 * 8; bit++) {
        const other = Buffer.from(sealed)
        other[bit >> 3] = (other[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        await one.inner.put(key, other)
        // The highest bit of a point is no part of it (RFC 7748), and is part of the head.
        expect(await outcome(one.storage.get(key)), `${key} bit ${bit}`).toBe('corrupt')
      }
    }
  })

  test('cut at any byte, or gone on with, is corrupt', async () => {
    await fc.assert(
      fc.asyncProperty(kinds, lengths, fraction, fraction, async (key, length, cut, at) => {
        const one = await stored(key, length, cut)
        const sealed = await sealedOf(one)
        const edges = [0, 96, 112, 128, 96 + frame + 16, 112 + frame + 16, 112 + 2 * (frame + 16), sealed.length - 16]
        for (const end of [Math.floor(at * (sealed.length - 1)), sealed.length - 1, ...edges]) {
          if (end < 0 || end >= sealed.length) continue
          await one.inner.put(key, sealed.subarray(0, end))
          expect(await outcome(one.storage.get(key))).toBe('corrupt')
          // The end is asked for as a reader of trailers does, who knows the length from elsewhere.
          const range = { start: Math.max(0, length - 70), end: length }
          const part = await outcome(one.storage.get(key, { range }))
          // A whole frame before the cut is what it is.
          expect(part === 'corrupt' || one.body.subarray(range.start).equals(part as Buffer)).toBe(true)
          const beyond = { start: length + 2 * frame, end: length + 2 * frame + 5 }
          expect(await outcome(one.storage.get(key, { range: beyond }))).toBe('corrupt')
        }
        await one.inner.put(key, Buffer.concat([sealed, randomBytes(1 + Math.floor(at * 70_000))]))
        expect(await outcome(one.storage.get(key))).toBe('corrupt')
      }),
      { numRuns: 60 },
    )
  })

  test('with frames exchanged, repeated or left out is corrupt', async () => {
    for (const key of ['rows.wbr', 'names.json', 'segment.wbs']) {
      const one = await stored(key, 4 * frame + 100, 0.55)
      const sealed = await sealedOf(one)
      const size = frame + 16
      const at = (n: number): Buffer => sealed.subarray(112 + n * size, 112 + (n + 1) * size)
      const around = (...frames: Buffer[]): Buffer =>
        Buffer.concat([sealed.subarray(0, 112), ...frames, sealed.subarray(112 + 4 * size)])
      for (const other of [
        around(at(1), at(0), at(2), at(3)),
        around(at(0), at(1), at(3), at(2)),
        around(at(0), at(1), at(2)),
        around(at(0), at(1), at(2), at(3), at(3)),
      ]) {
        await one.inner.put(key, other)
        expect(await outcome(one.storage.get(key))).toBe('corrupt')
      }
    }
  })

  test('under the key of another, or with the head or the frames of another, is corrupt', async () => {
    for (const [a, b] of [
      ['a.wbr', 'b.wbr'],
      ['a.json', 'b.json'],
      ['a.wbs', 'b.wbs'],
    ] as const) {
      const one = await stored(a, 5000, 0.5)
      const other = new EncryptedStorage(one.inner, one.ring)
      await other.put(b, randomBytes(5000), split(b, 5000, 0.5))
      const [first, second] = [await sealedOf(one), await readAll(one.inner.get(b))]
      for (const mixed of [second, Buffer.concat([first.subarray(0, 96), second.subarray(96)])]) {
        await one.inner.put(a, mixed)
        expect(await outcome(one.storage.get(a))).toBe('corrupt')
        expect(await outcome(one.storage.get(a, { range: { start: 4990, end: 5000 } }))).toBe('corrupt')
      }
    }
  })

  test('is never a clear one that somebody has put there', async () => {
    const { inner, storage } = await stored('a.json', 10, 0)
    for (const clear of ['{"walback":"timeline"}', '', 'x'.repeat(5000)]) {
      await inner.put('a.json', Buffer.from(clear))
      expect(await outcome(storage.get('a.json'))).toBe('corrupt')
    }
  })

  test('has nothing of what is in it, and never the same bytes twice', async () => {
    const { inner, storage } = await stored('a.wbr', 0, 0)
    const body = Buffer.from('the same secret value '.repeat(1000))
    for (const key of ['a.wbr', 'b.wbr', 'c.json']) await storage.put(key, body)
    const [a, b] = [await readAll(inner.get('a.wbr')), await readAll(inner.get('b.wbr'))]
    await storage.put('a.wbr', body)
    const again = await readAll(inner.get('a.wbr'))
    for (const bytes of [a, b, again, await readAll(inner.get('c.json'))]) {
      expect(bytes.includes('secret')).toBe(false)
      expect(
        new Set(Array.from({ length: 300 }, (_, n) => bytes.subarray(112 + n * 16, 128 + n * 16).toString('hex'))).size,
      ).toBe(300)
    }
    expect(a.subarray(112).equals(b.subarray(112)) || a.subarray(112).equals(again.subarray(112))).toBe(false)
  })
})

describe('who may write and not read', () => {
  test('reads back structure, and of a segment what follows its rows, and no row', async () => {
    await fc.assert(
      fc.asyncProperty(lengths, fraction, async (length, cut) => {
        const generation = newGeneration()
        const { inner, storage: reader } = await stored('x.json', 10, 0, generation)
        const writer = new EncryptedStorage(inner, ringOf(writerOf(generation)))
        const body = randomBytes(length)
        const options = split('s.wbs', length, cut)
        const rows_bytes = options.rows_bytes ?? 0
        await writer.put('s.wbs', chunked(body), options)
        await writer.put('r.wbr', body)
        await writer.put('n.json', body)
        expect(body.equals((await outcome(writer.get('n.json'))) as Buffer)).toBe(true)
        expect(await outcome(writer.get('r.wbr'))).toBe('wrong_key')
        expect(await outcome(writer.get('s.wbs'))).toBe('wrong_key')
        if (rows_bytes > 0) {
          const last = { start: rows_bytes - 1, end: rows_bytes + 5 }
          expect(await outcome(writer.get('s.wbs', { range: last }))).toBe('wrong_key')
        }
        const structure = await outcome(writer.get('s.wbs', { range: { start: rows_bytes, end: length } }))
        expect(body.subarray(rows_bytes).equals(structure as Buffer)).toBe(true)
        for (const key of ['s.wbs', 'r.wbr']) expect((await readAll(reader.get(key))).equals(body)).toBe(true)
      }),
      { numRuns: 60 },
    )
  })

  test('is told from which byte on it may read', async () => {
    const generation = newGeneration()
    const { inner } = await stored('s.wbs', 1000, 0.5, generation)
    const writer = new EncryptedStorage(inner, ringOf(writerOf(generation)))
    await writer.put('t.wbs', randomBytes(1000), { rows_bytes: 900 })
    await expect(readAll(writer.get('t.wbs', { range: { start: 0, end: 1000 } }))).rejects.toMatchObject({
      code: 'wrong_key',
      facts: { readable_from: 900 },
    })
  })
})

describe('a key of several generations', () => {
  test('reads what each of them sealed, and writes with the newest', async () => {
    const [old, young] = [newGeneration(1), newGeneration(2)]
    const { inner, body } = await stored('a.wbr', 1000, 0, old)
    const storage = new EncryptedStorage(inner, ringOf(old, young))
    await storage.put('b.wbr', body)
    expect((await readAll(inner.get('b.wbr'))).readUInt32LE(12)).toBe(2)
    for (const key of ['a.wbr', 'b.wbr']) expect((await readAll(storage.get(key))).equals(body)).toBe(true)
    // The old one alone does not open what came after.
    expect(await outcome(new EncryptedStorage(inner, ringOf(old)).get('b.wbr'))).toBe('corrupt')
  })
})
