import { afterEach, describe, expect, it } from 'vitest'
import { type CompactOptions, compact } from '../../src/compact/compact.ts'
import { type CompactionEnd, type CompactionPlan, planCompaction } from '../../src/compact/plan.ts'
import type { RecoveryTarget } from '../../src/model/target.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { type BaseManifest, readManifests } from '../../src/repository/base.ts'
import { breakStaleLeases, readLeases } from '../../src/repository/lease.ts'
import { Repository } from '../../src/repository/repository.ts'
import { Prune } from '../../src/retention/prune.ts'
import { readAll } from '../../src/storage/storage.ts'
import { isDamage } from '../../src/verify/finding.ts'
import { verifySource } from '../../src/verify/verify.ts'
import { sql } from '../faults/proof.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { DyingProcess } from '../support/dying-process.ts'
import { StallingStorage } from '../support/faults.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { oneOrBoth, packageOf } from '../support/majors.ts'
import { openArchive, ourObjects, type TestArchive } from '../support/walback.ts'
import { createNasty, createPgbench, runNasty, runPgbench } from '../support/workload.ts'

const opened: AsyncDisposable[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one[Symbol.asyncDispose]()
})

async function source(major = 18): Promise<{ readonly url: string; readonly archive: TestArchive }> {
  const settings = { max_prepared_transactions: '10' }
  const server = await startEmbedded({ package: packageOf(major), settings })
  opened.push(server)
  const url = server.url()
  await createPgbench(url, 0.05)
  await createNasty(url)
  const archive = await openArchive(url)
  opened.push(archive)
  return { url, archive }
}

const load = (url: string, seed: number, transactions = 60): Promise<unknown> =>
  Promise.all([
    runPgbench(url, { clients: 2, seed, transactions }),
    runNasty(url, { clients: 3, seed: seed + 1, transactions }),
  ])

const latest = { kind: 'latest' } as const
const plan = ({ repository, source: name }: TestArchive, target: RecoveryTarget = latest): Promise<CompactionPlan> =>
  planCompaction(repository, name, target)

async function compacted(
  archive: TestArchive,
  target: RecoveryTarget = latest,
  options: Partial<CompactOptions> = {},
): Promise<BaseManifest> {
  const { end } = await plan(archive, target)
  if (end === undefined) throw new Error('nothing to compact')
  return await compact(archive.repository, end, { jobs: 2, ...options })
}

/** What a base says of tables whose changes are in the stream. */
const rowsOf = ({ tables, notCarried }: BaseManifest): unknown[] => {
  const unlogged = new Set(notCarried?.unlogged.map(({ schema, name }) => `${schema}.${name}`))
  return tables
    .filter(({ schema, name }) => !unlogged.has(`${schema}.${name}`))
    .map(({ oid, schema, name, columns, types, rows, hash }) => ({ oid, schema, name, columns, types, rows, hash }))
    .sort((a, b) => a.oid - b.oid)
}

const damage = async ({ repository, source: name }: TestArchive): Promise<unknown[]> =>
  (await verifySource(repository, name, { isRecorded: false })).findings.filter(isDamage)

async function expectLatest(archive: TestArchive, url: string): Promise<void> {
  await archive.catchUp()
  const golden = await fingerprint(url)
  await archive.restored(latest, async (restored) => {
    expect(differences(golden, await fingerprint(restored), ourObjects)).toEqual([])
  })
}

describe.each(oneOrBoth(14))('a base that is made from another and the stream (%i)', (major) => {
  it('has the rows that one taken there has, also when changes are taken in little by little', async () => {
    const { url, archive } = await source(major)
    const full = await archive.base()
    await load(url, 7)
    await archive.catchUp()
    const { end } = await plan(archive)
    const made: BaseManifest[] = []
    for (const memory_bytes of [undefined, 20_000])
      made.push(await compact(archive.repository, end as CompactionEnd, { jobs: 2, memory_bytes }))
    const real = await archive.base()
    expect(rowsOf(real)).not.toEqual(rowsOf(full))
    for (const base of made) {
      expect(base.compacted).toEqual({ from: full.id, full: { id: full.id, lsn: full.lsn, time: full.time } })
      expect(rowsOf(base)).toEqual(rowsOf(real))
      expect(base.sequences).toEqual(real.sequences)
      expect(base.catalog).toBe(real.catalog)
      expect([base.raw_bytes, base.tablesWithoutRows]).toEqual([real.raw_bytes, real.tablesWithoutRows])
    }
    expect(await damage(archive)).toEqual([])
  })
})

it('is taken under load, carries restores after the old base is gone, and is made into another', async () => {
  const { url, archive } = await source()
  const full = await archive.base()
  const stop = archive.capture({ heartbeat_ms: 100, segmentBytes: 64 << 10 })
  const ending = new AbortController()
  const running = Promise.all([
    runPgbench(url, { clients: 2, seed: 3, signal: ending.signal }),
    runNasty(url, { clients: 3, seed: 4, signal: ending.signal }),
  ])
  await load(url, 9, 20)
  const made = await compacted(archive)
  await load(url, 19, 20)
  ending.abort()
  await running
  await archive.catchUpAfter(stop)
  const again = await compacted(archive)
  expect(again.compacted).toEqual({ from: made.id, full: { id: full.id, lsn: full.lsn, time: full.time } })
  {
    await using prune = await Prune.begin(archive.repository, archive.source, { last: 2 })
    await prune.run()
  }
  const left = await readManifests(archive.repository, archive.source)
  expect(left.map(({ id }) => id)).toEqual([made.id, again.id])
  expect(await damage(archive)).toEqual([])
  await load(url, 29, 20)
  await expectLatest(archive, url)
})

it('goes no further than a change of the schema, told or not, and says which', async () => {
  const server = await startEmbedded()
  opened.push(server)
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, what text)')
  const archive = await openArchive(url)
  opened.push(archive)
  const base = await archive.base()
  await archive.catchUp()
  expect(await plan(archive)).toMatchObject({
    base: { id: base.id },
    end: { plan: { transactions: 0 } },
    stop: undefined,
  })
  await sql(url, `insert into t (what) values ('before')`)
  await archive.catchUp()
  await sql(url, 'create index on t (what)')
  await sql(url, `insert into t (what) values ('after')`)
  await archive.catchUp()
  const told = await plan(archive)
  expect(told.stop?.command).toMatchObject({ tag: 'CREATE INDEX' })
  const made = await compacted(archive)
  expect(made.tables.map(({ rows }) => rows)).toEqual([1])
  // The stream goes on from there, with the index.
  await expectLatest(archive, url)
  await archive.base()
  await sql(url, `insert into t (what) values ('and more')`)
  await archive.catchUp()
  await sql(url, `set event_triggers = off; alter table t rename to u`)
  await sql(url, 'select pg_sleep(3)')
  await archive.catchUp()
  const untold = await plan(archive)
  expect(untold.end?.plan.transactions).toBe(1)
  expect(untold.stop).toMatchObject({ command: undefined })
  expect((await compacted(archive)).tables).toMatchObject([{ name: 't', rows: 3 }])
  expect(await damage(archive)).toEqual([])
})

it('is what large objects and unlogged tables were in the base from the source, and a plan says so', async () => {
  const server = await startEmbedded()
  opened.push(server)
  const url = server.url()
  await sql(
    url,
    `create table t (id int primary key); create unlogged table u (id int); select lo_from_bytea(4711, 'old')`,
  )
  await sql(url, 'insert into u values (1)')
  const archive = await openArchive(url)
  opened.push(archive)
  const full = await archive.base()
  await sql(url, 'insert into t values (1); insert into u values (2)')
  await archive.catchUp()
  await compacted(archive)
  await sql(url, 'insert into t values (2)')
  await archive.catchUp()
  const { base, notRestored } = await archive.plan(latest)
  expect(base.compacted?.from).toBe(full.id)
  expect(notRestored.join('\n')).toMatch(
    new RegExp(`unlogged tables|since base ${full.id} of .*unlogged tables: public.u`),
  )
  expect(notRestored.filter((line) => line.includes(`since base ${full.id} of`))).toHaveLength(2)
  await archive.restored(latest, async (restored) => {
    expect(await sql(restored, 'select count(*)::int as t, (select count(*)::int from u) as u from t')).toEqual([
      { t: 2, u: 1 },
    ])
    expect(await sql(restored, `select convert_from(lo_get(4711), 'UTF8') as old`)).toEqual([{ old: 'old' }])
  })
})

describe('a compaction at work', () => {
  async function small(): Promise<{
    readonly url: string
    readonly archive: TestArchive
    readonly stock: MemoryStorage
  }> {
    const server = await startEmbedded()
    opened.push(server)
    const url = server.url()
    await sql(url, 'create table t (id serial primary key, what text); create table u (id int primary key)')
    await sql(url, `insert into t (what) values ('a'), ('b'); insert into u values (1)`)
    const archive = await openArchive(url)
    opened.push(archive)
    await archive.base()
    await sql(url, `update t set what = 'c' where id = 1; insert into t (what) values ('d')`)
    await archive.catchUp()
    const stock = new MemoryStorage()
    for await (const { key } of archive.repository.storage.list(''))
      stock.objects.set(key, await readAll(archive.repository.storage.get(key)))
    return { url, archive, stock }
  }
  const copyOf = (stock: MemoryStorage): MemoryStorage => {
    const copy = new MemoryStorage()
    for (const [key, bytes] of stock.objects) copy.objects.set(key, bytes)
    return copy
  }
  const basesIn = (storage: MemoryStorage): string[] =>
    [...storage.objects.keys()]
      .filter((key) => key.includes('/bases/'))
      .map((key) => key.replace(/.*bases\/([^/]+)\/.*/, '$1'))

  it('that dies at any call to the store leaves an archive that is whole, and the next one tidies up', async () => {
    const { archive, stock } = await small()
    const wanted = await compacted(archive)
    for (const isCarriedOut of [false, true]) {
      for (let last = 0; ; last++) {
        const storage = copyOf(stock)
        const dying = new DyingProcess(storage, last, isCarriedOut)
        const isDone = await Repository.open(dying)
          .then(async (repository) => {
            const { end } = await planCompaction(repository, 'app', latest)
            await compact(repository, end as CompactionEnd, { jobs: 1, lease_ms: 1 })
          })
          .then(
            () => true,
            () => false,
          )
        const repository = await Repository.open(storage)
        const { findings } = await verifySource(repository, 'app', { isRecorded: false })
        expect(findings.filter(isDamage), `call ${last}`).toEqual([])
        const made = (await readManifests(repository, 'app')).filter(({ compacted: by }) => by !== undefined)
        expect(made.map(rowsOf)).toEqual(made.map(() => rowsOf(wanted)))
        if (isDone) expect(made.length).toBe(1)
        if (isDone && dying.calls <= last) break
        await breakStaleLeases(repository, 'app')
        const { end } = await planCompaction(repository, 'app', latest)
        if (end) await compact(repository, end, { jobs: 1 })
        const complete = (await readManifests(repository, 'app')).map(({ id }) => id)
        const left = [...storage.objects.keys()].filter(
          (key) => key.includes('/bases/') && !complete.some((id) => key.includes(`/bases/${id}/`)),
        )
        // Of one that was given up its mark stays.
        expect(
          left.filter((key) => !key.endsWith('/manifest.json')),
          `call ${last}`,
        ).toEqual([])
        expect(basesIn(storage)).not.toEqual([])
      }
    }
  }, 300_000)

  it('is left alone by a backup while it lives, and keeps what it reads from a prune', async () => {
    const { url, archive } = await small()
    const { repository, source: name } = archive
    const { end } = await plan(archive)
    const storage = new StallingStorage(repository.storage)
    let hasBegun = false
    const running = (async () =>
      compact(await Repository.open(storage), end as CompactionEnd, {
        jobs: 1,
        onProgress: ({ phase }) => {
          if (phase === 'rows' && !hasBegun) storage.mode = 'hang'
          hasBegun ||= phase === 'rows'
        },
      }))()
    running.catch(() => undefined)
    await expect
      .poll(async () => (await readLeases(repository, name)).map(({ purpose }) => purpose))
      .toEqual(['compact'])
    await expect.poll(() => storage.mode).toBe('hang')
    await sql(url, 'insert into u values (2)')
    const real = await archive.base()
    await archive.catchUp()
    {
      await using prune = await Prune.begin(repository, name, { last: 1 })
      await prune.run()
    }
    storage.release()
    const made = await running
    const ids = (await readManifests(repository, name)).map(({ id }) => id)
    expect(ids).toContain(made.id)
    expect(ids).toContain(real.id)
    await expectLatest(archive, url)
  })
})
