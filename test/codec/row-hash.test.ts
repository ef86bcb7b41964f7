import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { RowHash } from '../../src/codec/row-hash.ts'
import { hex, murmur3, sumOf } from './murmur3.ts'

const row = fc.uint8Array({ maxLength: 70 }).map((bytes) => Buffer.from(bytes))
const rows = fc.array(row, { maxLength: 20 })

function hashOf(items: readonly Buffer[]): RowHash {
  const hash = new RowHash()
  for (const item of items) hash.add(item, 0, item.length)
  return hash
}

/** Published test vectors of MurmurHash3_x86_128 with seed 0. */
const published = [
  ['', '00000000000000000000000000000000'],
  ['The quick brown fox jumps over the lazy dog', '2f1583c3ecee2c675d7bf66ce5e91d2c'],
] as const

describe('the hash of one row', () => {
  test.each(published)('%j is as published', (text, digest) => {
    expect(hex(murmur3(Buffer.from(text)))).toBe(digest)
    expect(hashOf([Buffer.from(text)]).digest()).toBe(digest)
  })

  test('equals the reference at every length up to 200', () => {
    const bytes = Buffer.from(Array.from({ length: 200 }, (_, i) => (i * 151 + 7) & 255))
    for (let length = 0; length <= bytes.length; length++) {
      const part = bytes.subarray(0, length)
      expect(hashOf([part]).digest(), `length ${length}`).toBe(hex(murmur3(part)))
    }
  })

  test('depends on nothing around the row', () => {
    fc.assert(
      fc.property(row, row, row, (before, middle, after) => {
        const hash = new RowHash()
        hash.add(Buffer.concat([before, middle, after]), before.length, before.length + middle.length)
        expect(hash.digest()).toBe(hex(murmur3(middle)))
      }),
    )
  })
})

describe('the hash of a table', () => {
  test('is the sum of its rows, whatever their order', () => {
    fc.assert(
      fc.property(
        rows.chain((items) => fc.tuple(fc.constant(items), fc.shuffledSubarray(items, { minLength: items.length }))),
        ([items, shuffled]) => {
          expect(hashOf(items).digest()).toBe(sumOf(items))
          expect(hashOf(shuffled).digest()).toBe(hashOf(items).digest())
        },
      ),
    )
  })

  test('of two parts is the hash of the whole', () => {
    fc.assert(
      fc.property(rows, rows, (one, other) => {
        const whole = hashOf(one)
        whole.merge(hashOf(other))
        expect([whole.digest(), whole.rows]).toEqual([sumOf([...one, ...other]), one.length + other.length])
      }),
    )
  })

  test('forgets a row that is taken away', () => {
    fc.assert(
      fc.property(rows, rows, (kept, removed) => {
        const hash = hashOf([...removed, ...kept])
        for (const item of removed) hash.add(item, 0, item.length, -1)
        expect([hash.digest(), hash.rows]).toEqual([sumOf(kept), kept.length])
      }),
    )
  })

  test('goes on from its text form', () => {
    fc.assert(
      fc.property(rows, rows, (one, other) => {
        const before = hashOf(one)
        const after = RowHash.from(before.rows, before.digest())
        expect(after.digest()).toBe(before.digest())
        for (const item of other) after.add(item, 0, item.length)
        expect([after.digest(), after.rows]).toEqual([sumOf([...one, ...other]), one.length + other.length])
      }),
    )
  })

  test('tells a row that is there twice from one that is there once or three times', () => {
    const twice = hashOf([Buffer.from('1\ta'), Buffer.from('1\ta')])
    expect(twice.digest()).not.toBe(hashOf([Buffer.from('1\ta')]).digest())
    expect(twice.digest()).not.toBe(hashOf([Buffer.from('1\ta'), Buffer.from('1\ta'), Buffer.from('1\ta')]).digest())
  })

  test('of COPY text takes one row from each line, and nothing from no lines', () => {
    const line = row.map((bytes) => Buffer.from(bytes.filter((byte) => byte !== 10)))
    fc.assert(
      fc.property(fc.array(line, { maxLength: 10 }), (lines) => {
        const hash = new RowHash()
        expect(hash.addLines(Buffer.concat(lines.flatMap((text) => [text, Buffer.from('\n')])))).toBe(lines.length)
        expect([hash.digest(), hash.rows]).toEqual([sumOf(lines), lines.length])
      }),
    )
  })
})
