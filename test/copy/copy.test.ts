import { describe, expect, it } from 'vitest'
import { copySource, damageError } from '../../src/copy/copy.ts'
import { surveyCopy } from '../../src/copy/survey.ts'
import { readHoldings } from '../../src/history/status.ts'
import { formatLsn, parseLsn } from '../../src/model/lsn.ts'
import { readManifests, referencesOf } from '../../src/repository/base.ts'
import { leasesPrefix, manifestKey } from '../../src/repository/layout.ts'
import { Lease } from '../../src/repository/lease.ts'
import { addPin } from '../../src/repository/pins.ts'
import { Repository } from '../../src/repository/repository.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { Prune } from '../../src/retention/prune.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { MadeArchive } from '../retention/made-archive.ts'
import { planOf } from '../retention/promises.ts'
import { richArchive } from './rich-archive.ts'

interface Target {
  readonly storage: MemoryStorage
  readonly repository: Repository
}

async function emptyTarget(): Promise<Target> {
  const storage = new MemoryStorage()
  return { storage, repository: await Repository.create(storage) }
}

const keysOf = ({ storage }: Target): string[] =>
  [...storage.objects.keys()].filter((key) => key.startsWith('sources/')).sort()

/** What a reader of the archive could come to read, and nothing else. */
async function namedKeys(archive: MadeArchive): Promise<string[]> {
  const bases = await readManifests(archive.repository, 'app')
  return [
    ...archive.keys().filter((key) => key.endsWith('timeline.json')),
    ...archive.segments.flatMap(({ key, trailer }) => [key, ...trailer.parts.map((part) => part.key)]),
    ...bases.flatMap((base) => [manifestKey('app', base.id), ...referencesOf(base).map(({ key }) => key)]),
  ].sort()
}

/** Every commit is planned in the same way from both. */
async function expectSamePlans(archive: MadeArchive, copy: Repository): Promise<void> {
  let planned = 0
  for (const { end } of archive.commits) {
    const wanted = await planOf(archive.repository, { kind: 'lsn', lsn: end })
    if (wanted !== undefined) planned++
    expect(await planOf(copy, { kind: 'lsn', lsn: end }), formatLsn(end)).toEqual(wanted)
  }
  expect(planned).toBeGreaterThan(0)
}

describe('a copy', () => {
  it('has what a reader can come to, byte for byte, and nothing else', async () => {
    const archive = await richArchive()
    const target = await emptyTarget()
    const survey = await surveyCopy(archive.repository, undefined, 'app')
    const report = await copySource(archive.repository, target.repository, 'app')
    expect(report).toMatchObject({ bases: 4, segments: 8, damage: [], note: undefined })
    expect(survey).toMatchObject({ bases: 4, segments: 8 })
    expect(keysOf(target)).toEqual(await namedKeys(archive))
    expect(report.objects).toBe(keysOf(target).length)
    for (const key of keysOf(target)) expect(target.storage.objects.get(key)).toEqual(archive.storage.objects.get(key))
    expect(target.repository.id).not.toBe(archive.repository.id)
    expect([...archive.storage.objects.keys()].filter((key) => key.startsWith(leasesPrefix('app')))).toEqual([])
    await expectSamePlans(archive, target.repository)
  })

  it('copies nothing twice, and what is new alone', async () => {
    const archive = await richArchive()
    const target = await emptyTarget()
    await copySource(archive.repository, target.repository, 'app')
    expect(await copySource(archive.repository, target.repository, 'app')).toMatchObject({ objects: 0, bytes: 0 })
    await archive.segment({ commits: 1, hours: 1, parts: 1 })
    await archive.base()
    await addPin(archive.repository, 'app', {
      timeline: archive.timeline.id,
      lsn: archive.bases.at(-1)?.lsn ?? '',
      time: '0',
      base: archive.bases.at(-1)?.id ?? '',
      mark: null,
      note: null,
    })
    expect(await surveyCopy(archive.repository, target.repository, 'app')).toMatchObject({
      bases: 1,
      segments: 1,
      pins: 1,
    })
    // A part, its segment, a base of two texts and a table, a pin.
    expect(await copySource(archive.repository, target.repository, 'app')).toMatchObject({ objects: 7 })
    await expectSamePlans(archive, target.repository)
  })

  it('fills in what the target has lost, or has cut short', async () => {
    const archive = await richArchive()
    const target = await emptyTarget()
    await copySource(archive.repository, target.repository, 'app')
    const keys = keysOf(target)
    const some = ['.wbp', '.wbs', '.wbr', 'manifest.json', '.wbt'].map(
      (end) => keys.find((key) => key.endsWith(end)) ?? '',
    )
    for (const key of some) {
      const whole = target.storage.objects.get(key) as Buffer
      target.storage.objects.delete(key)
      expect(await copySource(archive.repository, target.repository, 'app'), key).toMatchObject({ objects: 1 })
      expect(target.storage.objects.get(key)).toEqual(whole)
      if (key.endsWith('.wbp')) continue
      target.storage.objects.set(key, whole.subarray(0, -1))
      expect(await copySource(archive.repository, target.repository, 'app'), key).toMatchObject({ objects: 1 })
      expect(target.storage.objects.get(key)).toEqual(whole)
    }
  })

  it('names what is damaged at the source, and copies all else', async () => {
    const archive = await richArchive()
    const whole = await emptyTarget()
    await copySource(archive.repository, whole.repository, 'app')
    for (const key of keysOf(whole).filter((one) => !one.endsWith('timeline.json'))) {
      for (const harm of ['flip', 'cut', 'lose'] as const) {
        const { storage, repository } = await archive.copy()
        const bytes = Buffer.from(storage.objects.get(key) as Buffer)
        const at = Math.floor(bytes.length / 3)
        bytes[at] = (bytes[at] as number) ^ 1
        if (harm === 'flip') storage.objects.set(key, bytes)
        else if (harm === 'cut') storage.objects.set(key, bytes.subarray(0, -2))
        else storage.objects.delete(key)
        const target = await emptyTarget()
        const report = await copySource(repository, target.repository, 'app')
        const what = `${harm} ${key}`
        // A segment or a manifest that is gone leaves nothing that names it.
        const isNamed = harm !== 'lose' || /wb[prt]$/.test(key)
        expect(
          report.damage.map((one) => one.key),
          what,
        ).toEqual(isNamed ? [key] : [])
        if (isNamed)
          expect(damageError(repository, report.damage)).toMatchObject({
            exit: 21,
            message: expect.stringContaining(key),
          })
        const missing = keysOf(whole).filter((one) => !target.storage.objects.has(one))
        expect(missing, what).toContain(key)
        // What names it is not there either.
        const named = /bases\/[^/]+\//.exec(key)?.[0]
        if (named !== undefined) expect(missing, what).toContain(`sources/app/${named}manifest.json`)
        else if (key.endsWith('.wbp'))
          expect(
            missing.some((one) => one.endsWith('.wbs')),
            what,
          ).toBe(true)
        for (const one of missing) expect(one === key || isBeside(one, key), `${what}: ${one}`).toBe(true)
        // Mended, it is brought after.
        expect(await copySource(archive.repository, target.repository, 'app')).toMatchObject({ damage: [] })
        expect(keysOf(target)).toEqual(keysOf(whole))
      }
    }
  }, 60_000)

  it('finds objects that were exchanged for whole ones', async () => {
    const archive = await richArchive()
    const segments = archive.keys().filter((key) => key.endsWith('.wbs'))
    const rows = archive.bases.map(({ tables }) => tables[0]?.pieces[0]?.key)
    for (const [one, other] of [
      [segments[1], segments[2]],
      [rows[0], rows[1]],
    ] as [string, string][]) {
      const { storage, repository } = await archive.copy()
      storage.objects.set(one, storage.objects.get(other) as Buffer)
      const { damage } = await copySource(repository, (await emptyTarget()).repository, 'app')
      expect(damage.map(({ key }) => key)).toEqual([one])
    }
  })

  it('finds whole segments that do not follow, or lie under the key of others', async () => {
    const archive = await richArchive(2)
    const other = await richArchive(2)
    const [, second, third, fourth] = archive.segments.map((segment) => segment.key) as [string, string, string, string]
    const { storage, repository } = await archive.copy()
    // Its parts have keys of their own, so the third is another one there, and what follows it.
    storage.objects.set(fourth, other.storage.objects.get(fourth) as Buffer)
    const followed = await copySource(repository, (await emptyTarget()).repository, 'app')
    expect(followed.damage).toMatchObject([{ key: fourth, what: expect.stringContaining('does not follow') }])
    storage.objects.delete(second)
    storage.objects.set(third, storage.objects.get(fourth) as Buffer)
    const placed = await copySource(repository, (await emptyTarget()).repository, 'app')
    expect(placed.damage).toMatchObject([{ key: third, what: expect.stringContaining('than its name says') }])
  })

  it('refuses a target whose last segment is of the same length and another', async () => {
    const archive = await MadeArchive.begin()
    await archive.segment({ commits: 1, hours: 1 })
    const target = await emptyTarget()
    await copySource(archive.repository, target.repository, 'app')
    const { key } = archive.segments.at(-1) as { key: string }
    const bytes = Buffer.from(target.storage.objects.get(key) as Buffer)
    // In its hash, which its footer has.
    bytes[bytes.length - 40] = (bytes[bytes.length - 40] as number) ^ 1
    target.storage.objects.set(key, bytes)
    await expect(copySource(archive.repository, target.repository, 'app')).rejects.toMatchObject({ exit: 22 })
  })

  it('refuses a target whose history is another one', async () => {
    const archive = await richArchive(2)
    const target = await emptyTarget()
    await copySource(archive.repository, target.repository, 'app')
    // The same up to here, and then each for itself.
    const { storage, repository } = await archive.copy()
    await archive.segment({ commits: 1, hours: 1 })
    await copySource(archive.repository, target.repository, 'app')
    const before = keysOf(target)
    const { key } = archive.segments.at(-1) as { key: string }
    const other = await richArchive(2)
    await other.segment({ commits: 2, hours: 1 })
    storage.objects.set(key, other.storage.objects.get(key) as Buffer)
    await expect(copySource(repository, target.repository, 'app')).rejects.toMatchObject({
      exit: 22,
      message: expect.stringMatching(/holds another history of app .*timeline 00000001 goes on differently/),
    })
    // Another timeline under the same number.
    await expect(copySource(other.repository, target.repository, 'app')).rejects.toMatchObject({ exit: 22 })
    // A timeline that only the target has.
    await archive.breakTimeline()
    await copySource(archive.repository, target.repository, 'app')
    await expect(copySource(repository, target.repository, 'app')).rejects.toMatchObject({ exit: 22 })
    expect(keysOf(target)).toEqual([...before, ...keysOf(target).filter((one) => one.includes('/00000002/'))].sort())
  })

  it('refuses to go on after a segment that the source never had', async () => {
    const archive = await richArchive(2)
    const target = await emptyTarget()
    await copySource(archive.repository, target.repository, 'app')
    const last = archive.segments.at(-1)?.key as string
    await archive.segment({ commits: 1, hours: 1 })
    // The source has pruned what both could be compared by.
    const other = await richArchive(2)
    for (const [key] of target.storage.objects) if (key.endsWith('.wbs')) archive.storage.objects.delete(key)
    const bytes = Buffer.from(target.storage.objects.get(last) as Buffer)
    bytes[bytes.length - 40] = (bytes[bytes.length - 40] as number) ^ 1
    target.storage.objects.set(last, bytes)
    expect(other.segments.length).toBe(4)
    await expect(copySource(archive.repository, target.repository, 'app')).rejects.toMatchObject({ exit: 22 })
  })
})

/** Of one base, or parts and their segment: what is not copied without the other. */
function isBeside(one: string, other: string): boolean {
  const start = /[0-9A-F]{16}/.exec(other)?.[0]
  if (start !== undefined) return one.includes(start)
  const base = other.split('/').slice(0, 4).join('/')
  return one.startsWith(`${base}/`)
}

describe('a copy and retention', () => {
  const policy = { last: 1 }
  const pruneAll = async (repository: Repository, now: MadeArchive['now']): Promise<void> => {
    await using prune = await Prune.begin(repository, 'app', policy, { now })
    await prune.run()
  }

  it('keeps at the target what the source has pruned', async () => {
    const archive = await richArchive()
    const target = await emptyTarget()
    await copySource(archive.repository, target.repository, 'app')
    const before = keysOf(target)
    await pruneAll(archive.repository, archive.now)
    await archive.segment({ commits: 1, hours: 1 })
    await copySource(archive.repository, target.repository, 'app')
    expect(keysOf(target)).toEqual([...before, archive.segments.at(-1)?.key].sort())
    for (const base of archive.bases)
      await planRestore(target.repository, 'app', { kind: 'lsn', lsn: parseLsn(base.lsn) })
  })

  it('tells a new target what the source has pruned, so that it is no gap there', async () => {
    const archive = await richArchive()
    await pruneAll(archive.repository, archive.now)
    const target = await emptyTarget()
    await copySource(archive.repository, target.repository, 'app')
    expect(keysOf(target).some((key) => key.includes('/pruned/'))).toBe(true)
    await expectSamePlans(archive, target.repository)
    expect(await copySource(archive.repository, target.repository, 'app')).toMatchObject({ objects: 0 })
  })

  it('tells also what was written and pruned between two copies', async () => {
    const archive = await MadeArchive.begin()
    await archive.base()
    await archive.segment({ commits: 2, hours: 12, heartbeat: 0 })
    const target = await emptyTarget()
    await copySource(archive.repository, target.repository, 'app')
    const before = keysOf(target)
    await archive.segment({ commits: 2, hours: 12, heartbeat: 0 })
    await archive.segment({ commits: 2, hours: 12, heartbeat: 0 })
    await archive.base()
    await archive.segment({ commits: 2, hours: 12, heartbeat: 0 })
    await pruneAll(archive.repository, archive.now)
    await copySource(archive.repository, target.repository, 'app')
    expect(keysOf(target)).toEqual(expect.arrayContaining(before))
    for (const base of archive.bases)
      await planRestore(target.repository, 'app', { kind: 'lsn', lsn: parseLsn(base.lsn) })
    await planRestore(target.repository, 'app', { kind: 'latest' })
    const { gaps } = await readHoldings(target.repository, 'app')
    expect(gaps.every(({ isPruned }) => isPruned)).toBe(true)
    expect(gaps).toHaveLength(1)
  })

  it('does not bring back what the target has pruned', async () => {
    const archive = await richArchive()
    const target = await emptyTarget()
    await copySource(archive.repository, target.repository, 'app')
    await pruneAll(target.repository, archive.now)
    const before = keysOf(target)
    expect(await surveyCopy(archive.repository, target.repository, 'app')).toMatchObject({ objects: 0 })
    expect(await copySource(archive.repository, target.repository, 'app')).toMatchObject({ objects: 0 })
    expect(keysOf(target)).toEqual(before)
  })

  it('excludes a prune of the target, and one of the source leaves what it reads', async () => {
    const archive = await richArchive()
    const target = await emptyTarget()
    {
      await using _ = await Lease.take(target.repository, 'app', { purpose: 'prune' })
      await expect(copySource(archive.repository, target.repository, 'app')).rejects.toMatchObject({ exit: 11 })
    }
    await copySource(archive.repository, target.repository, 'app')
    await using _ = await Lease.take(target.repository, 'app', { purpose: 'receive' })
    await expect(pruneAll(target.repository, archive.now)).rejects.toMatchObject({ exit: 11 })
    const named = await namedKeys(archive)
    const data = named.filter((key) => /wb[sprt]$/.test(key))
    await using __ = await Lease.take(archive.repository, 'app', { purpose: 'copy' })
    await pruneAll(archive.repository, archive.now)
    expect(archive.keys()).toEqual(expect.arrayContaining(data))
    expect(await readManifests(archive.repository, 'app')).toHaveLength(1)
  })
})
