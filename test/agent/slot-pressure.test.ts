import { describe, expect, it } from 'vitest'
import { unrest } from '../../src/capture/release-slot.ts'
import { nearestLimit, retentionFindings, SlotGrowth } from '../../src/capture/slot-pressure.ts'
import type { SlotState } from '../../src/postgres/source.ts'

const gib = 1024 ** 3
const mib = 1024 ** 2

const slot = (retained_bytes: number, walStatus = 'reserved'): SlotState => ({
  name: 'walback_app',
  plugin: 'pgoutput',
  database: 'app',
  active: true,
  activePid: 1,
  restartLsn: undefined,
  confirmedFlushLsn: undefined,
  walStatus,
  retained_bytes,
})

describe('what a slot keeps', () => {
  const found = (retained: number, limits: { server?: number; guard?: number } = {}, growth?: number): string[] =>
    retentionFindings(slot(retained), { server_bytes: limits.server, guard_bytes: limits.guard }, growth).map(
      ({ level, why }) => `${level}: ${why}`,
    )

  it('is measured against the limit that is reached first', () => {
    expect(nearestLimit({ server_bytes: undefined, guard_bytes: undefined })).toBeUndefined()
    expect(nearestLimit({ server_bytes: 5, guard_bytes: 9 })).toEqual({ bytes: 5, name: 'max_slot_wal_keep_size' })
    expect(nearestLimit({ server_bytes: undefined, guard_bytes: 9 })?.name).toBe('guard.max_slot_wal')
    expect(found(3 * gib, { server: 20 * gib, guard: 10 * gib })).toEqual([])
    expect(found(5 * gib, { server: 20 * gib, guard: 10 * gib })).toEqual([
      'warning: keeps 5.0 GiB of log of the 10.0 GiB that it may (guard.max_slot_wal): past that the stream breaks',
    ])
    expect(found(11 * gib, { server: 20 * gib, guard: 10 * gib })).toEqual([
      'error: keeps 11.0 GiB of log, past the 10.0 GiB of guard.max_slot_wal',
    ])
    expect(retentionFindings(slot(gib, 'unreserved'), { server_bytes: gib, guard_bytes: undefined })).toMatchObject([
      { level: 'error', code: 'slot-retention' },
    ])
  })

  it('is told of before half of the limit is used where it grows fast enough', () => {
    const limits = { guard: 10 * gib }
    expect(found(gib, limits, 10 * mib)).toEqual([
      'warning: keeps 1.0 GiB of log of the 10.0 GiB that it may (guard.max_slot_wal), which grows by 10 MiB a second: the limit is reached in about 16 min',
    ])
    expect(found(gib, limits, mib)).toEqual([])
    expect(found(gib, limits, -10 * mib)).toEqual([])
    // A burst after a quiet night.
    expect(found(32 * mib, limits, 10 * mib)).toEqual([])
  })

  it('grows by what two minutes show, and by nothing that is known where there were too few looks', () => {
    const growth = new SlotGrowth()
    growth.offer(0, 0)
    growth.offer(100, 1000)
    expect(growth.bytes_s).toBeUndefined()
    growth.offer(400, 2000)
    expect(growth.bytes_s).toBe(200)
    growth.offer(400, 100_000)
    growth.offer(100, 121_500)
    // The first two are too old.
    expect(growth.bytes_s).toBeCloseTo((100 - 400) / 119.5)
    growth.forget()
    expect(growth.bytes_s).toBeUndefined()
  })
})

describe('calm', () => {
  const load = {
    now_us: 0n,
    walSenders: 0,
    prepared: [],
    writers: [],
    eventTriggersOn: true,
    silencing: [],
    idleSlotTimeout_s: 0,
  }

  it('is when a new slot would keep little', () => {
    expect(unrest({ load, log_bytes_s: mib }, 20 * gib)).toEqual([])
    expect(unrest({ load, log_bytes_s: undefined }, 20 * gib)).toEqual([
      'how fast the server writes log is not known yet',
    ])
    expect(unrest({ load, log_bytes_s: 20 * mib }, 20 * gib)).toEqual(['the server writes 20 MiB of log a second'])
    const prepared = [{ gid: 'x', database: 'app', age_s: 70 }]
    const writers = [
      { pid: 8, database: 'app', age_s: 10 },
      { pid: 7, database: 'other', age_s: 61 },
    ]
    expect(unrest({ load: { ...load, prepared }, log_bytes_s: 0 }, gib)).toEqual([
      'the prepared transaction "x" is still open',
    ])
    expect(unrest({ load: { ...load, writers: writers.slice(0, 1) }, log_bytes_s: 0 }, gib)).toEqual([])
    expect(unrest({ load: { ...load, writers: writers.slice(1) }, log_bytes_s: 0 }, gib)).toEqual([
      'the transaction of process 7 is still open',
    ])
  })
})
