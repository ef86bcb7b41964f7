import { describe, expect, it } from 'vitest'
import { PaceMeter, paceOf } from '../../src/restore/pace.ts'
import type { RestoreProgress } from '../../src/restore/progress.ts'

describe('the pace of a phase', () => {
  it('is what was done in the time, and what is left at that rate', () => {
    expect(paceOf({ done: 600, rows: 30, active_ms: 3000, left: 1000 })).toEqual({
      rate_per_s: 200,
      rows_per_s: 10,
      left_ms: 5000,
    })
  })

  it.each([
    ['has just begun', { done: 600, rows: 3, active_ms: 999, left: 1000 }],
    ['has done nothing yet', { done: 0, rows: 0, active_ms: 60_000, left: 1000 }],
  ])('is not told of one that %s', (_, stretch) => {
    expect(paceOf(stretch)).toEqual({ rate_per_s: undefined, rows_per_s: undefined, left_ms: undefined })
  })

  it('has no end where nobody knows the total, and nothing left at the end', () => {
    expect(paceOf({ done: 600, rows: 0, active_ms: 3000, left: undefined })).toMatchObject({ left_ms: undefined })
    expect(paceOf({ done: 600, rows: 0, active_ms: 3000, left: 0 })).toMatchObject({ rate_per_s: 200, left_ms: 0 })
    expect(paceOf({ done: 1, rows: 0, active_ms: 1, left: 0 })).toMatchObject({ rate_per_s: undefined, left_ms: 0 })
  })
})

describe('a meter of phases', () => {
  const rows = (done: number, count = done): RestoreProgress => ({
    phase: 'rows',
    done,
    total: 1000,
    unit: 'bytes',
    rows: count,
  })
  const replay = (done: number): RestoreProgress => ({ phase: 'replay', done, total: 100, unit: 'bytes' })

  it('counts the time of each phase only while it is at work', () => {
    const meter = new PaceMeter()
    meter.observe(replay(0), 0)
    expect(meter.observe(replay(10), 2000)).toMatchObject({ rate_per_s: 5, left_ms: 18_000 })
    // For a minute rows are loaded.
    meter.observe(rows(0), 3000)
    expect(meter.observe(rows(500, 50), 63_000)).toMatchObject({ rows_per_s: 50 / 60, left_ms: 60_000 })
    expect(meter.observe(replay(10), 64_000)).toMatchObject({ rate_per_s: 5 })
    expect(meter.observe(replay(20), 66_000)).toMatchObject({ rate_per_s: 5, left_ms: 16_000 })
  })

  it('counts nothing as done in this time that was done before', () => {
    const meter = new PaceMeter()
    meter.observe(rows(800), 0)
    expect(meter.observe(rows(900), 10_000)).toEqual({ rate_per_s: 10, rows_per_s: 10, left_ms: 10_000 })
  })

  it('never tells of less than nothing, where there was more to do than was thought', () => {
    const meter = new PaceMeter()
    meter.observe(rows(0), 0)
    expect(meter.observe(rows(2000), 10_000)).toMatchObject({ left_ms: 0 })
  })
})
