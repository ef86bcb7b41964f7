/** Bases that somebody else is taking, or was: which are carried on, which removed, and which left alone. */
import { afterEach, beforeEach, expect, it } from 'vitest'
import { takeBase } from '../../src/backup/base-backup.ts'
import { requireTimeline } from '../../src/capture/session.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { readManifests } from '../../src/repository/base.ts'
import { basesPrefix } from '../../src/repository/layout.ts'
import { Repository } from '../../src/repository/repository.ts'
import { proveLatest, sql } from '../faults/proof.ts'
import { FailingOnce, SlowRows } from '../support/faults.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'

let server: EmbeddedServer
let archive: TestArchive
beforeEach(async () => {
  server = await startEmbedded()
  await sql(
    server.url(),
    `create table a (id int primary key, filler text); insert into a select g, repeat(md5(g::text), 10) from generate_series(1, 7000) g;
     create table b (like a including all); insert into b select * from a; create table c (n int)`,
  )
  archive = await openArchive(server.url())
})
afterEach(async () => {
  await archive?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

async function ids(): Promise<string[]> {
  const found = new Set<string>()
  for await (const { key } of archive.repository.storage.list(basesPrefix('app')))
    found.add(key.slice(basesPrefix('app').length).split('/')[0] ?? '')
  return [...found]
}

/** A base that fails at its n-th put, when table `a` is stored and on record. */
async function interrupted(): Promise<void> {
  const repository = await Repository.open(new FailingOnce(archive.repository.storage, 'put before', 6))
  const timeline = await requireTimeline(repository, 'app')
  const options = { jobs: 1, lockTimeout_ms: 2000, maxSnapshotAge_ms: 1 }
  await expect(takeBase(archive.conninfo, repository, timeline, options)).rejects.toMatchObject({ code: 'storage' })
}

async function resumed(isProven = true): Promise<{ tables: number | undefined; ids: string[] }> {
  let tables: number | undefined
  await archive.base({
    onProgress: (state) => {
      if (state.phase === 'resuming') tables = state.tables
    },
  })
  await archive.catchUp()
  if (isProven) await proveLatest(archive, server.url())
  return { tables, ids: await ids() }
}

it('an interrupted one is carried on, and what was altered since is read again', async () => {
  await interrupted()
  const [id] = await ids()
  await sql(
    server.url(),
    `alter table a add column more int default 3; update b set filler = 'later' where id < 10; delete from b where id > 6900; insert into c values (1)`,
  )
  expect(await resumed()).toEqual({ tables: 1, ids: [id] })
})

it('one that another process is taking is left alone', async () => {
  const storage = new SlowRows(archive.repository.storage)
  const other = takeBase(
    archive.conninfo,
    await Repository.open(storage),
    await requireTimeline(archive.repository, 'app'),
    {
      jobs: 1,
      lockTimeout_ms: 2000,
    },
  )
  await storage.standing
  const { tables } = await resumed(false)
  expect(tables).toBeUndefined()
  storage.release()
  await other
  expect((await readManifests(archive.repository, 'app')).length).toBe(2)
})

it('one that is older than a complete one is given up, and its objects are removed', async () => {
  await interrupted()
  const [dead] = await ids()
  // Another base is taken while somebody holds the interrupted one.
  const hold = `select pg_advisory_lock(hashtext('walback base'), hashtext('app/${dead}')), pg_sleep(600)`
  const holding = sql(server.url(), hold).catch(() => undefined)
  const isHeld = `select count(*)::int as n from pg_locks where locktype = 'advisory' and granted`
  while ((await sql<{ n: number }>(server.url(), isHeld))[0]?.n === 0);
  expect((await resumed(false)).tables).toBeUndefined()
  await sql(server.url(), `select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(600)'`)
  await holding
  expect((await resumed()).tables).toBeUndefined()
  expect((await readManifests(archive.repository, 'app')).map(({ id }) => id)).not.toContain(dead)
  const left: string[] = []
  for await (const { key } of archive.repository.storage.list(`${basesPrefix('app')}${dead}/`)) left.push(key)
  // What stands in the manifest's place, so that nobody can complete it any more.
  expect(left).toEqual([`${basesPrefix('app')}${dead}/manifest.json`])
})
