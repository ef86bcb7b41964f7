import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import { formatTime, fromPostgresTime, micros, parseTime, toPostgresTime } from '../../src/model/time.ts'

const now = parseTime('2026-11-23T14:00:00Z').time
const read = (text: string, zone?: string): string => formatTime(parseTime(text, { now, zone }).time)

describe('a time is read', () => {
  test.each([
    ['2026-11-23T14:05:11Z', '2026-11-23T14:05:11.000000Z'],
    ['2026-11-23 14:05:11Z', '2026-11-23T14:05:11.000000Z'],
    ['2026-11-23 14:05:11 UTC', '2026-11-23T14:05:11.000000Z'],
    ['2026-11-23T14:05z', '2026-11-23T14:05:00.000000Z'],
    ['2026-11-23T14:05:11.402137Z', '2026-11-23T14:05:11.402137Z'],
    ['2026-11-23T14:05:11,4Z', '2026-11-23T14:05:11.400000Z'],
    ['2026-11-23T15:05:11+01:00', '2026-11-23T14:05:11.000000Z'],
    ['2026-11-23T15:05:11+0100', '2026-11-23T14:05:11.000000Z'],
    ['2026-11-23 15:05:11.000001+01', '2026-11-23T14:05:11.000001Z'],
    ['2026-11-23T08:35:11 -05:30', '2026-11-23T14:05:11.000000Z'],
    ['  2026-11-23T14:05:11Z\n', '2026-11-23T14:05:11.000000Z'],
    ['2024-02-29T00:00:00Z', '2024-02-29T00:00:00.000000Z'],
    ['1969-12-31T23:59:59.999999Z', '1969-12-31T23:59:59.999999Z'],
    ['now', '2026-11-23T14:00:00.000000Z'],
    ['10 minutes ago', '2026-11-23T13:50:00.000000Z'],
    ['90s ago', '2026-11-23T13:58:30.000000Z'],
    ['1 hour ago', '2026-11-23T13:00:00.000000Z'],
    ['2 Days Ago', '2026-11-21T14:00:00.000000Z'],
  ])('%j', (text, time) => {
    expect(read(text)).toBe(time)
    expect(parseTime(text, { now }).assumedZone).toBe(false)
  })

  test.each([
    ['11/23/2026', 'slashes mean one thing here and another there'],
    ['23/11/2026 14:05:11', ''],
    ['2026/11/23 14:05:11Z', ''],
    ['11/23/2026 2:05 PM', ''],
    ['', ''],
    ['yesterday', ''],
    ['2026-11-23', 'a day is not a moment'],
    ['14:05:11', ''],
    ['2026-11-23T14Z', ''],
    ['2026-11-23T14:05:11.4021371Z', 'more than microseconds'],
    ['2026-11-23T25:00:00Z', ''],
    ['2026-11-23T14:60:00Z', ''],
    ['2026-02-29T00:00:00Z', ''],
    ['2026-13-01T00:00:00Z', ''],
    ['2026-11-23T14:05:11 CET', 'abbreviations are ambiguous'],
    ['2026-11-23T14:05:11+99:00', ''],
    ['2026-11-23T14:05:11Z and more', ''],
    ['10 minutes', ''],
    ['10 minutes ago or so', ''],
    ['-5 minutes ago', ''],
    ['10 fortnights ago', ''],
    ['1732370711', 'a bare number'],
    ['2016-12-31T23:59:60Z', 'a leap second, which no server clock shows, is not the second before'],
  ])('%j is refused %s', (text) => {
    expect(() => parseTime(text, { now, zone: 'UTC' })).toThrow(WalbackError)
  })
})

describe('a time without a zone', () => {
  const text = '2026-11-23T14:05:11.5'

  test('is refused when none is given', () => {
    expect(() => parseTime(text)).toThrow('names no zone')
  })

  test('is read in the given zone, and says so', () => {
    expect(read(text, 'Europe/Berlin')).toBe('2026-11-23T13:05:11.500000Z')
    expect(read(text, 'America/New_York')).toBe('2026-11-23T19:05:11.500000Z')
    expect(parseTime(text, { zone: 'UTC' }).assumedZone).toBe(true)
  })

  test('in a zone that does not exist is refused', () => {
    expect(() => parseTime(text, { zone: 'Europe/Nowhere' })).toThrow(WalbackError)
  })

  test('that the clocks showed twice is refused, and an offset settles it', () => {
    expect(() => read('2026-10-25T02:30:00', 'Europe/Berlin')).toThrow(WalbackError)
    expect(read('2026-10-25T02:30:00+01:00', 'Europe/Berlin')).toBe('2026-10-25T01:30:00.000000Z')
    expect(read('2026-10-25T02:30:00+02:00', 'Europe/Berlin')).toBe('2026-10-25T00:30:00.000000Z')
  })

  test('that the clocks left out is refused', () => {
    expect(() => read('2026-03-29T02:30:00', 'Europe/Berlin')).toThrow(WalbackError)
  })
})

describe('microseconds', () => {
  const moment = fc.bigInt({ min: -(10n ** 16n), max: 10n ** 17n }).map(micros)

  test('are kept through text', () => {
    fc.assert(
      fc.property(moment, (value) => {
        expect(parseTime(formatTime(value)).time).toBe(value)
      }),
    )
  })

  test('are kept through the clock of the replication protocol', () => {
    fc.assert(
      fc.property(moment, (value) => {
        expect(fromPostgresTime(toPostgresTime(value))).toBe(value)
      }),
    )
    expect(formatTime(fromPostgresTime(0n))).toBe('2000-01-01T00:00:00.000000Z')
    expect(formatTime(fromPostgresTime(1n))).toBe('2000-01-01T00:00:00.000001Z')
  })

  test('sort as text as they do as numbers', () => {
    fc.assert(
      fc.property(moment, moment, (a, b) => {
        expect(formatTime(a) < formatTime(b)).toBe(a < b)
      }),
    )
  })
})
