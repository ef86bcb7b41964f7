/** What `check` says where it takes hours, other servers or millions of transactions to come about. */
import { describe, expect, it } from 'vitest'
import { archiveFindings } from '../../src/capture/check-archive.ts'
import { type Finding, finding, sorted, waive } from '../../src/capture/check-finding.ts'
import { serverFindings, tooOld } from '../../src/capture/check-server.ts'
import { slotFindings } from '../../src/capture/check-slot.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { fullXid } from '../../src/model/snapshot.ts'
import { micros } from '../../src/model/time.ts'
import type { ServerLoad, SlotDetails } from '../../src/postgres/check-server-sql.ts'
import type { SlotState, SourceFacts } from '../../src/postgres/source.ts'
import type { Timeline } from '../../src/repository/timeline.ts'

const gib = 1024 ** 3
const hour_us = 3_600_000_000n
const now_us = 1_800_000_000_000_000n

const facts: SourceFacts = {
  version: 170006,
  versionText: '17.6',
  systemIdentifier: '7',
  database: { name: 'app', oid: 5 },
  encoding: 'UTF8',
  walLevel: 'logical',
  inRecovery: false,
  timeline: 1,
  slots: { used: 1, max: 10 },
  maxWalSenders: 10,
  maxSlotWalKeepSize_mb: 20 * 1024,
  role: { name: 'walback', superuser: true, replication: true, createInDatabase: true, eventTriggers: true },
}
const load: ServerLoad = {
  now_us,
  walSenders: 0,
  prepared: [],
  writers: [],
  eventTriggersOn: true,
  silencing: [],
  idleSlotTimeout_s: 0,
}
const slot: SlotState = {
  name: 'walback_app',
  plugin: 'pgoutput',
  database: 'app',
  active: true,
  activePid: 1,
  restartLsn: parseLsn('0/100'),
  confirmedFlushLsn: parseLsn('0/200'),
  walStatus: 'reserved',
  retained_bytes: 0x200,
}
const details: SlotDetails = {
  safe_bytes: undefined,
  catalogXminAge: 10,
  inactiveSince_us: undefined,
  invalidation: undefined,
  failover: true,
}
const timeline = {
  id: '00000001',
  systemIdentifier: '7',
  database: { name: 'app', oid: 5 },
  slot: 'walback_app',
  created: new Date(Number(now_us / 1000n)).toISOString(),
} as Timeline

const brief = (findings: readonly Finding[]): string[] =>
  findings.map(({ level, code, object }) => `${level} ${code} ${object}`)
const ofServer = (changes: Partial<SourceFacts>, at: Partial<ServerLoad> = {}): string[] =>
  brief(serverFindings({ ...facts, ...changes }, { ...load, ...at }, { slot: undefined, publication: false }))
const ofSlot = (changes: Partial<SlotState>, more: Partial<SlotDetails> = {}, limit_mb = 20 * 1024): string[] => {
  const limited = { ...facts, maxSlotWalKeepSize_mb: limit_mb }
  return brief(slotFindings(limited, load, 'walback_app', { ...slot, ...changes }, { ...details, ...more }))
}

describe('a server', () => {
  it('is fine as it should be', () => {
    expect(ofServer({})).toEqual([])
    expect(tooOld(facts)).toBeUndefined()
  })

  it('of an unknown or a faulty version', () => {
    expect(tooOld({ ...facts, version: 130022, versionText: '13.22' })).toMatchObject({ level: 'error' })
    expect(ofServer({ version: 190000 })).toEqual(['warning server-version null'])
    const minor = (version: number): string | undefined =>
      serverFindings({ ...facts, version }, load, { slot, publication: true })[0]?.why
    for (const version of [140017, 150012, 160008, 170004]) expect(minor(version)).toContain('leave rows of running')
    for (const version of [140018, 150013, 160009, 170005]) expect(minor(version)).toContain('invalid memory alloc')
    for (const version of [140019, 150014, 160010, 170006, 180000]) expect(minor(version)).toBeUndefined()
  })

  it('with no connection left for the stream', () => {
    expect(ofServer({ maxWalSenders: 0 })).toEqual(['error wal-senders max_wal_senders'])
    expect(ofServer({}, { walSenders: 10 })).toEqual(['error wal-senders max_wal_senders'])
    const ours = serverFindings(facts, { ...load, walSenders: 10 }, { slot, publication: true })
    expect(ours).toEqual([])
  })

  it('on which something has waited for long', () => {
    const prepared = [
      { gid: 'a', database: 'app', age_s: 3600 },
      { gid: 'b', database: 'app', age_s: 3599 },
    ]
    expect(ofServer({}, { prepared })).toEqual(["warning prepared-transaction 'a'", "note prepared-transaction 'b'"])
    const writers = [
      { pid: 7, database: 'app', age_s: 3600 },
      { pid: 8, database: 'app', age_s: 3599 },
    ]
    expect(ofServer({}, { writers })).toEqual(['warning long-transaction pid 7'])
  })
})

describe('a slot', () => {
  it('that is read is fine', () => {
    expect(ofSlot({})).toEqual([])
    expect(ofSlot({ retained_bytes: 9 * gib })).toEqual([])
  })

  it('that keeps much', () => {
    expect(ofSlot({ retained_bytes: 10 * gib })).toEqual(['warning slot-retention walback_app'])
    expect(ofSlot({ retained_bytes: 8 * gib - 1 }, {}, -1)).toEqual([])
    expect(ofSlot({ retained_bytes: 8 * gib }, {}, -1)).toEqual(['warning slot-retention walback_app'])
    expect(ofSlot({ walStatus: 'extended' })).toEqual([])
    expect(ofSlot({ walStatus: 'unreserved' })).toEqual(['error slot-retention walback_app'])
    expect(ofSlot({}, { catalogXminAge: 50_000_001 })).toEqual(['warning catalog-xmin walback_app'])
  })

  it('that nobody reads', () => {
    const inactive = { active: false }
    expect(ofSlot(inactive)).toEqual(['note slot-inactive walback_app'])
    expect(ofSlot(inactive, { inactiveSince_us: now_us - hour_us })).toEqual(['note slot-inactive walback_app'])
    expect(ofSlot(inactive, { inactiveSince_us: now_us - hour_us - 1n })).toEqual(['warning slot-inactive walback_app'])
  })
})

describe('an archive', () => {
  const of = (time: bigint | undefined, end = '0/200'): string[] => {
    const head = { end: parseLsn(end), sha256: null, xid: fullXid(5n) }
    const base = { id: 'b' } as Parameters<typeof archiveFindings>[0]['lastBase']
    const archive = {
      timeline,
      head,
      time: time === undefined ? undefined : micros(time),
      lastBase: base,
      unsure: [],
      untold: [],
    }
    return brief(archiveFindings(archive, facts, slot, now_us))
  }

  it('that has not moved for an hour', () => {
    expect(of(now_us - hour_us)).toEqual([])
    expect(of(now_us - hour_us - 1n)).toEqual(['warning archive-behind timeline 00000001'])
    expect(of(undefined)).toEqual([])
  })

  it('that ends before the slot, or after the log', () => {
    expect(of(now_us, '0/1FF')).toEqual(['error stream-broken timeline 00000001'])
    expect(of(now_us, '0/300')).toEqual([])
    expect(of(now_us, '0/301')).toEqual(['error stream-broken timeline 00000001'])
  })
})

it('puts the worst first, and waives warnings only', () => {
  const all = [
    finding('extension', 'note', 'n'),
    finding('unlogged-table', 'warning', 'w', { object: 'b' }),
    finding('unlogged-table', 'warning', 'w', { object: 'a' }),
    finding('server-minor', 'warning', 'w'),
    finding('wal-level', 'error', 'e'),
  ]
  const lines = [
    'error wal-level null',
    'warning server-minor null',
    'warning unlogged-table b',
    'warning unlogged-table a',
  ]
  expect(brief(sorted(all))).toEqual([...lines, 'note extension null'])
  expect(brief(waive(all, ['wal-level', 'server-minor']))).toContain('error wal-level null')
  expect(waive(all, ['server-minor']).filter(({ waived }) => waived)).toEqual([
    { ...finding('server-minor', 'note', 'w'), waived: true },
  ])
})
