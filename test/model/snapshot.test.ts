import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatSnapshot, fullXid, isVisible, parseSnapshot, widenXid } from '../../src/model/snapshot.ts'

const cycle = 1n << 32n
const half = 1n << 31n
const low = (xid: bigint): number => Number(xid % cycle)

describe('a 32-bit transaction id is widened', () => {
  test.each([
    ['behind the reference', 100, 200n, 100n],
    ['ahead of the reference', 300, 200n, 300n],
    ['in a later epoch', 7, cycle * 5n + 9n, cycle * 5n + 7n],
    ['over the end of an epoch', 3, cycle * 2n - 2n, cycle * 2n + 3n],
    ['back over the beginning of an epoch', low(cycle - 3n), cycle * 2n + 5n, cycle * 2n - 3n],
    ['at the end of the first epoch', 3, cycle - 1n, cycle + 3n],
    ['never below zero', low(cycle - 3n), 5n, cycle - 3n],
  ])('%s', (_, xid, reference, full) => {
    expect(widenXid(xid, fullXid(reference))).toBe(full)
  })

  test('to any id less than half a cycle away, across every boundary', () => {
    const reference = fc.oneof(
      fc.bigInt({ min: half, max: 1n << 50n }),
      fc
        .tuple(fc.bigInt({ min: 1n, max: 9n }), fc.bigInt({ min: -5n, max: 5n }))
        .map(([epoch, off]) => epoch * cycle + off),
    )
    const distance = fc.oneof(
      fc.bigInt({ min: -half + 1n, max: half - 1n }),
      fc.constantFrom(0n, 1n, -1n, half - 1n, -half + 1n),
    )
    fc.assert(
      fc.property(reference, distance, (from, away) => {
        const full = from + away
        fc.pre(full >= 0n)
        expect(widenXid(low(full), fullXid(from))).toBe(full)
      }),
      { numRuns: 1000 },
    )
  })

  test('one after the other, over several epochs', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 3n, max: half }),
        fc.array(fc.bigInt({ min: 0n, max: half - 1n }), { maxLength: 30 }),
        (start, steps) => {
          let [truth, widened] = [start, fullXid(start)]
          for (const step of steps) {
            truth += step
            widened = widenXid(low(truth), widened)
            expect(widened).toBe(truth)
          }
        },
      ),
    )
  })
})

describe('a snapshot', () => {
  test('goes through its text', () => {
    for (const text of ['750:750:', '100:105:100,102', `${cycle - 1n}:${cycle + 2n}:${cycle - 1n},${cycle}`]) {
      expect(formatSnapshot(parseSnapshot(text))).toBe(text)
    }
  })

  test('sees what was over, and not what was running or had not begun', () => {
    const snapshot = parseSnapshot('100:105:100,102')
    const seen = [99n, 100n, 101n, 102n, 103n, 104n, 105n, 106n].filter((xid) => isVisible(fullXid(xid), snapshot))
    expect(seen).toEqual([99n, 101n, 103n, 104n])
  })

  test('compares 64-bit ids: one of an earlier epoch is over, one of a later has not begun', () => {
    const snapshot = parseSnapshot(`${cycle + 10n}:${cycle + 10n}:`)
    expect(isVisible(fullXid(cycle - 1n), snapshot)).toBe(true)
    expect(isVisible(fullXid(11n), snapshot)).toBe(true)
    expect(isVisible(fullXid(cycle + 9n), snapshot)).toBe(true)
    expect(isVisible(fullXid(2n * cycle), snapshot)).toBe(false)
  })

  test('decides for ids of the stream that are widened against it, on both sides of an epoch', () => {
    const snapshot = parseSnapshot(`${cycle - 2n}:${cycle + 2n}:${cycle - 2n},${cycle + 1n}`)
    const visible = (xid: number): boolean => isVisible(widenXid(xid, snapshot.xmax), snapshot)
    expect([low(cycle - 3n), low(cycle - 2n), low(cycle - 1n), 0, 1, 2].map(visible)).toEqual([
      true,
      false,
      true,
      true,
      false,
      false,
    ])
  })

  test.each(['', 'x', '1', '1:', ':2:', '1:2:x', '1:2:3:4', '-1:2:'])('%j is refused', (text) => {
    expect(() => parseSnapshot(text)).toThrow()
  })
})
