import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatLsn, lsn, lsnKey, maxLsn, parseLsn, parseLsnKey, zeroLsn } from '../../src/model/lsn.ts'

const position = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map(lsn)

describe('a log position', () => {
  test.each([
    ['0/0', 0n],
    ['0/16B3748', 0x16b3748n],
    ['1/0', 1n << 32n],
    ['16/b374d848', 0x16b374d848n],
    [' 16/B374D848\n', 0x16b374d848n],
    ['FFFFFFFF/FFFFFFFF', (1n << 64n) - 1n],
  ])('%j is read', (text, value) => {
    expect(parseLsn(text)).toBe(value)
  })

  test.each(['', '0', '/', '0/', '/0', '0/0/0', '0x1/2', '1/G', '123456789/0', '0/-1', '0 /1', '0/123456789'])(
    '%j is refused',
    (text) => {
      expect(() => parseLsn(text)).toThrow('not a log position')
    },
  )

  test('goes through its text and its key', () => {
    fc.assert(
      fc.property(position, (value) => {
        expect(parseLsn(formatLsn(value))).toBe(value)
        expect(parseLsnKey(lsnKey(value))).toBe(value)
        expect(lsnKey(value)).toMatch(/^[0-9A-F]{16}$/)
      }),
    )
  })

  test('has keys that sort as positions do', () => {
    fc.assert(
      fc.property(position, position, (a, b) => {
        expect(lsnKey(a) < lsnKey(b)).toBe(a < b)
        expect(maxLsn(a, b)).toBe(lsnKey(a) < lsnKey(b) ? b : a)
      }),
    )
  })

  test('is written as PostgreSQL does, without leading zeros', () => {
    expect(formatLsn(zeroLsn)).toBe('0/0')
    expect(formatLsn(lsn(0x10000000an))).toBe('1/A')
  })
})
