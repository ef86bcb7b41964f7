/** Nobody waits for a base: a copy that others wait behind is given up, and done again. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { takeBase } from '../../src/backup/base-backup.ts'
import { sleep, waitFor } from '../../src/base/abort.ts'
import { requireTimeline } from '../../src/capture/session.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { readManifest } from '../../src/repository/base.ts'
import { Repository } from '../../src/repository/repository.ts'
import { proveLatest, sql, withClient } from '../faults/proof.ts'
import { SlowRows } from '../support/faults.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'

let server: EmbeddedServer
let archive: TestArchive
beforeAll(async () => {
  server = await startEmbedded()
  await sql(
    server.url(),
    `create table t (id int primary key, filler text);
     insert into t select g, repeat(md5(g::text), 30) from generate_series(1, 6000) g;
     create table small (n int primary key); insert into small select generate_series(1, 100)`,
  )
  archive = await openArchive(server.url())
})
afterAll(async () => {
  await archive?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

/** Begins a base, whose first COPY stands still in its middle until it is let go. */
async function beginBase(options: { readonly yieldAfter_ms: number }) {
  const storage = new SlowRows(archive.repository.storage)
  const repository = await Repository.open(storage)
  const timeline = await requireTimeline(repository, 'app')
  const base = takeBase(archive.conninfo, repository, timeline, { jobs: 1, lockTimeout_ms: 2000, ...options })
  base.catch(() => undefined)
  await storage.standing
  return { base, release: (which?: 'every') => storage.release(which) }
}

/** Fails if it has to wait for the whole of the copy, which does not end. */
const patient = (statement: string): Promise<void> =>
  withClient(server.url(), async (client) => {
    await client.query(`set lock_timeout = '20s'`)
    await client.query(statement)
  })

it.each([
  'alter table t add column more int default 1',
  'truncate t',
  'begin; lock table t in access exclusive mode; rollback',
  'vacuum full t',
])('%s goes through while its table is copied', async (statement) => {
  await sql(
    server.url(),
    `insert into t (id, filler) select g, repeat(md5(g::text), 30) from generate_series(1, 6000) g on conflict do nothing`,
  )
  const { base, release } = await beginBase({ yieldAfter_ms: 200 })
  try {
    await patient(statement)
    // And so does whoever queued behind it.
    await patient('update t set filler = filler where id = 1')
  } finally {
    release()
  }
  const manifest = await readManifest(archive.repository, 'app', (await base).id)
  expect(manifest?.tables.map(({ name }) => name).sort()).toEqual(['small', 't'])
  await archive.catchUp()
  await proveLatest(archive, server.url())
})

it('gives up, and says why, when it is always in the way', async () => {
  // More than lies in buffers on the way: else a copy is whole before it is given up.
  await sql(
    server.url(),
    `insert into t (id, filler) select g, repeat(md5(g::text), 30) from generate_series(1, 30000) g on conflict do nothing`,
  )
  const { base, release } = await beginBase({ yieldAfter_ms: 100 })
  const stop = new AbortController()
  const others = (async () => {
    while (!stop.signal.aborted) {
      await patient('begin; lock table t in access exclusive mode; rollback')
      await sleep(1)
    }
  })()
  release('every')
  try {
    await expect(base).rejects.toMatchObject({
      code: 'database',
      message: expect.stringMatching(/^table public\.t was not read: 12 times another session waited for a lock/),
      hint: expect.stringContaining('--yield-after'),
    })
  } finally {
    stop.abort()
    await others
  }
  const idle = await waitFor(
    async () => {
      const rows = await sql<{ n: number }>(
        server.url(),
        `select count(*)::int as n from pg_stat_activity where application_name like 'walback backup%'`,
      )
      return rows[0]?.n === 0 || undefined
    },
    { timeout_ms: 10_000, interval_ms: 50 },
  )
  expect(idle).toBe(true)
})
