import { describe, expect, it } from 'vitest'
import { readLog } from '../../src/history/log.ts'
import { readHoldings } from '../../src/history/status.ts'
import { formatLsn, parseLsn, zeroLsn } from '../../src/model/lsn.ts'
import { micros } from '../../src/model/time.ts'
import { basePrefix } from '../../src/repository/layout.ts'
import { Lease } from '../../src/repository/lease.ts'
import { addPin } from '../../src/repository/pins.ts'
import { readTimelines } from '../../src/repository/timeline.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { readInventory } from '../../src/retention/inventory.ts'
import { type PrunePlan, planPrune } from '../../src/retention/plan.ts'
import type { RetentionPolicy } from '../../src/retention/policy.ts'
import { Prune } from '../../src/retention/prune.ts'
import { type Commit, MadeArchive } from './made-archive.ts'

const day_ms = 86_400_000

async function look(archive: MadeArchive, policy: RetentionPolicy): Promise<PrunePlan> {
  return planPrune(await readInventory(archive.repository, 'app', { now: archive.now }), policy)
}

/** Ten days: a base and six segments of four hours on each. */
async function tenDays(): Promise<MadeArchive> {
  const archive = await MadeArchive.begin()
  for (let day = 0; day < 10; day++) {
    await archive.base()
    for (let n = 0; n < 6; n++) await archive.segment({ commits: 2, hours: 4, heartbeat: 0 })
  }
  return archive
}

const verdicts = (plan: PrunePlan): string[] =>
  plan.bases.map(({ base, isKept, reasons }) => `${base.id} ${isKept ? 'keep' : 'remove'}: ${reasons.join(', ')}`)

describe('a prune', () => {
  it('keeps a window of which every moment can be restored, and tells why', async () => {
    const archive = await tenDays()
    const plan = await look(archive, { window_ms: 2 * day_ms })
    expect(verdicts(plan).slice(-3)).toEqual([
      'b9992 remove: no rule keeps it',
      'b9991 keep: opens the window',
      'b9990 keep: window, newest that can be restored',
    ])
    expect(plan.windows).toMatchObject([{ timeline: '00000001', from: { time: BigInt(archive.bases[8]?.time ?? 0) } }])
    expect(plan.moments).toEqual([])
    await using prune = await Prune.begin(archive.repository, 'app', { window_ms: 2 * day_ms })
    const report = await prune.run()
    expect(report.objects).toBe(prune.plan.removal.names.length + prune.plan.removal.data.length)
    const time = micros(BigInt(archive.bases[8]?.time ?? 0))
    expect((await planRestore(archive.repository, 'app', { kind: 'time', time })).base.id).toBe('b9991')
    await expect(
      planRestore(archive.repository, 'app', { kind: 'time', time: micros(time - 1n) }),
    ).rejects.toMatchObject({ code: 'outside_window', exit: 20 })
  })

  it('counts no base that another required repository lacks, and removes nothing for it', async () => {
    const archive = await tenDays()
    const lackingIn = (...ids: string[]) => new Map(ids.map((id) => [id, ['s3://far']]))
    const plan = (...ids: string[]) =>
      readInventory(archive.repository, 'app', { now: archive.now }).then((inventory) =>
        planPrune(inventory, { last: 1 }, lackingIn(...ids)),
      )
    const found = await plan('b9990', 'b9991')
    expect(verdicts(found).slice(-4)).toEqual([
      'b9993 remove: no rule keeps it',
      'b9992 keep: last, newest that can be restored',
      'b9991 keep: not in s3://far yet, and counts for no rule before it is',
      'b9990 keep: not in s3://far yet, and counts for no rule before it is',
    ])
    expect(found.windows).toMatchObject([{ from: { time: BigInt(archive.bases[7]?.time ?? 0) } }])
    await expect(plan(...archive.bases.map(({ id }) => id))).rejects.toMatchObject({
      code: 'refused',
      hint: expect.stringContaining('s3://far'),
    })
  })

  it('keeps the stream after a base that another required repository lacks, on a timeline that is over too', async () => {
    const archive = await MadeArchive.begin()
    const hour = { commits: 2, hours: 1, heartbeat: 0 }
    await archive.base()
    await archive.segment(hour)
    await archive.breakTimeline()
    const { id } = await archive.base()
    await archive.segment(hour)
    await archive.segment(hour)
    await archive.breakTimeline()
    await archive.segment(hour)
    const inventory = await readInventory(archive.repository, 'app', { now: archive.now })
    const own = archive.keys().filter((key) => key.includes('/timelines/00000002/segments/'))
    expect(own.length).toBeGreaterThan(1)
    const { removal } = planPrune(inventory, { window_ms: day_ms }, new Map([[id, ['s3://far']]]))
    expect(removal.data.filter(({ key }) => own.includes(key))).toEqual([])
  })

  it('takes from a base that it keeps what its manifest does not name, and nothing from one that lacks an object', async () => {
    const archive = await tenDays()
    const [whole, broken] = [archive.bases[9]?.id ?? '', archive.bases[8]?.id ?? '']
    const left = `${basePrefix('app', whole)}rows/1.00000.abandoned-0.wbr`
    await archive.storage.put(left, Buffer.from('rows'))
    await archive.storage.delete(`${basePrefix('app', broken)}rows/1.00000.wbr`)
    const plan = await look(archive, { last: 1 })
    expect(verdicts(plan).filter((line) => line.startsWith(broken))).toEqual([
      expect.stringContaining(`cannot be restored (${basePrefix('app', broken)}rows/1.00000.wbr is missing)`),
    ])
    const own = plan.removal.data.filter(({ key }) => key.includes(whole) || key.includes(broken))
    expect(own).toEqual([{ key: left, size_bytes: 4, of: undefined }])
    expect(plan.removal.leftovers).toBe(1)
  })

  it('keeps bases outside of the window as single moments, with no more stream than those need', async () => {
    const archive = await tenDays()
    const policy = { window_ms: day_ms, daily: 4 }
    const before = archive.keys().length
    const plan = await look(archive, policy)
    expect(plan.moments.map(({ of }) => of)).toEqual(['base b9993', 'base b9992', 'base b9991'])
    await using prune = await Prune.begin(archive.repository, 'app', policy)
    await prune.run()
    for (const { id, lsn, time } of archive.bases.slice(6)) {
      const targets = [
        { kind: 'lsn', lsn: parseLsn(lsn) },
        { kind: 'time', time: micros(BigInt(time)) },
      ] as const
      for (const target of targets) expect((await planRestore(archive.repository, 'app', target)).base.id).toBe(id)
    }
    expect(archive.keys().length).toBeLessThan(before / 2)
    expect((await look(archive, policy)).removal).toMatchObject({ names: [], data: [] })
  })

  it('counts bases of some tables apart, each selection by itself, and keeps one that is pinned or read', async () => {
    const archive = await MadeArchive.begin()
    const ids: Record<string, string> = {}
    for (const [name, table] of Object.entries({ pinned: 'a', read: 'a', old: 'a', all: undefined, a: 'a', b: 'b' })) {
      ids[name] = (await archive.base({ table })).id
      for (let n = 0; n < 6; n++) await archive.segment({ commits: 2, hours: 4, heartbeat: 0 })
    }
    const [{ timeline, lsn, time, id: base }] = archive.bases as [(typeof archive.bases)[number]]
    await addPin(archive.repository, 'app', { timeline, lsn, time, base, mark: null, note: null })
    await using _lease = await Lease.take(archive.repository, 'app', {
      purpose: 'restore',
      reads: { timeline, base: ids.read ?? '', stream: null },
    })
    const plan = await look(archive, { last: 1 })
    expect(verdicts(plan)).toEqual([
      expect.stringMatching(`^${ids.pinned} keep: pin `),
      expect.stringMatching(`^${ids.read} keep: read by `),
      `${ids.old} remove: no rule keeps it`,
      `${ids.all} keep: last, newest that can be restored`,
      `${ids.a} keep: last`,
      `${ids.b} keep: last`,
    ])
    // No promise rests on them.
    expect(plan.windows.map(({ from }) => from.lsn)).toEqual([parseLsn(archive.bases[3]?.lsn ?? '')])
    expect(plan.moments).toEqual([])
  })

  it('never removes the newest base that can be restored, whatever the rules say', async () => {
    const archive = await MadeArchive.begin()
    await archive.base()
    for (let n = 0; n < 10; n++) await archive.segment({ commits: 1, hours: 24, heartbeat: 0 })
    const plan = await look(archive, { within_ms: day_ms })
    expect(verdicts(plan)).toEqual(['b9999 keep: newest that can be restored'])
    expect(plan.removal.data).toEqual([])
  })

  it('refuses an empty policy, and an archive of which nothing can be restored', async () => {
    const archive = await MadeArchive.begin()
    await archive.segment({ commits: 1, hours: 1 })
    await expect(look(archive, {})).rejects.toMatchObject({ code: 'refused', exit: 22 })
    await expect(look(archive, { last: 1 })).rejects.toMatchObject({ code: 'refused', message: /nothing of app/ })
  })

  it('is one at a time, and says who is at work', async () => {
    const archive = await tenDays()
    await using _ = await Prune.begin(archive.repository, 'app', { last: 1 })
    await expect(Prune.begin(archive.repository, 'app', { last: 1 })).rejects.toMatchObject({
      code: 'locked',
      exit: 11,
      message: expect.stringContaining(`process ${process.pid}`),
    })
    await expect(
      addPin(archive.repository, 'app', {
        timeline: '00000001',
        lsn: '0/100',
        time: '0',
        base: null,
        mark: null,
        note: null,
      }),
    ).rejects.toMatchObject({ code: 'locked' })
  })

  it('keeps what a restore reads, and spares what one reads that began meanwhile', async () => {
    const archive = await tenDays()
    const [first, second] = archive.bases
    const reads = (base: string): Parameters<typeof Lease.take>[2] => ({
      purpose: 'restore',
      reads: { timeline: '00000001', base, stream: { from: '0/100', to: '0/300' } },
    })
    await using _ = await Lease.take(archive.repository, 'app', reads(first?.id ?? ''))
    await using prune = await Prune.begin(archive.repository, 'app', { last: 1 })
    expect(verdicts(prune.plan)[0]).toMatch(/^b9999 keep: read by restore on .*process/)
    await using __ = await Lease.take(archive.repository, 'app', reads(second?.id ?? ''))
    const report = await prune.run()
    expect(report.spared.objects).toBe(3)
    expect(archive.keys().filter((key) => key.startsWith(basePrefix('app', second?.id ?? '')))).toHaveLength(3)
  })

  it('removes a timeline that is over and nothing of which is kept, but for its record', async () => {
    const archive = await tenDays()
    await archive.breakTimeline()
    await archive.base()
    for (let n = 0; n < 3; n++) await archive.segment({ commits: 1, hours: 24, heartbeat: 0 })
    await using prune = await Prune.begin(archive.repository, 'app', { window_ms: day_ms })
    await prune.run()
    expect(archive.keys().filter((key) => key.includes('/timelines/00000001/segments/'))).toEqual([])
    expect(await readTimelines(archive.repository, 'app')).toHaveLength(2)
    expect((await planRestore(archive.repository, 'app', { kind: 'latest' })).timeline.id).toBe('00000002')
  })

  it('leaves an unfinished base alone, with the stream that it may need', async () => {
    const archive = await tenDays()
    const id = await archive.unfinished()
    await archive.segment({ commits: 2, hours: 4, heartbeat: 0 })
    const plan = await look(archive, { last: 1 })
    expect(plan.unfinished).toMatchObject([{ begun: { id }, isKept: true }])
    expect(plan.removal.data.some(({ key }) => key.includes(id))).toBe(false)
    await archive.base()
    await archive.segment({ commits: 2, hours: 24 * 8, heartbeat: 0 })
    const later = await look(archive, { last: 1 })
    expect(later.unfinished).toMatchObject([{ begun: { id }, isKept: false }])
    expect(later.removal.givenUp).toEqual([id])
  })

  it('keeps the stream that an unfinished base needs, though bases since then are complete', async () => {
    const archive = await MadeArchive.begin()
    for (let n = 0; n < 12; n++) {
      await archive.base()
      await archive.segment({ commits: 2, hours: 8, heartbeat: 0 })
    }
    const snapshot = archive.currentSnapshot()
    const id = await archive.unfinished()
    for (let n = 0; n < 12; n++) {
      await archive.segment({ commits: 2, hours: 8, heartbeat: 0 })
      await archive.base()
    }
    await archive.segment({ commits: 2, hours: 8, heartbeat: 0 })
    await using prune = await Prune.begin(archive.repository, 'app', { last: 1 }, { now: archive.now })
    expect(prune.plan.unfinished).toMatchObject([{ begun: { id }, isKept: true }])
    expect(prune.plan.removal.segments).toBeGreaterThan(8)
    await prune.run()
    const base = await archive.base({ earlier: [snapshot] })
    await archive.segment({ commits: 1, hours: 1, heartbeat: 0 })
    const plan = await planRestore(archive.repository, 'app', { kind: 'latest' })
    expect(plan.base.id).toBe(base.id)
    expect(plan.earlier.length).toBeGreaterThan(11)
  })

  it('tells what it removed from what was lost', async () => {
    const archive = await tenDays()
    await using prune = await Prune.begin(archive.repository, 'app', { window_ms: day_ms, daily: 4 })
    await prune.run()
    const { gaps, windows } = await readHoldings(archive.repository, 'app')
    expect(windows).toHaveLength(4)
    expect(gaps.map(({ isPruned }) => isPruned)).toEqual([true, true, true])
    const between = archive.commits.find(({ end }) => end > parseLsn(archive.bases[7]?.lsn ?? '') + 0x100n)
    await expect(
      planRestore(archive.repository, 'app', { kind: 'lsn', lsn: between?.end ?? zeroLsn }),
    ).rejects.toMatchObject({ code: 'outside_window', message: expect.stringContaining('has removed') })
    expect((await readLog(archive.repository, 'app', { limit: 5, sort: 'time' })).transactions).toHaveLength(5)
    // A segment that goes by another hand is lost.
    const last = archive.segments.at(-3)
    archive.storage.objects.delete(last?.key ?? '')
    expect((await readHoldings(archive.repository, 'app')).gaps.at(-1)).toMatchObject({ isPruned: false })
  })

  it('keeps pins', async () => {
    const archive = await tenDays()
    const commit = archive.commits[20] as Commit
    await addPin(archive.repository, 'app', {
      timeline: '00000001',
      lsn: formatLsn(commit.end),
      time: String(commit.time),
      base: null,
      mark: null,
      note: 'the audit',
    })
    await using prune = await Prune.begin(archive.repository, 'app', { last: 1 })
    await prune.run()
    expect(prune.plan.moments.at(-1)?.of).toMatch(/^pin /)
    const plan = await planRestore(archive.repository, 'app', { kind: 'lsn', lsn: commit.end })
    expect(plan.reached).toBe(commit.end)
  })
})
