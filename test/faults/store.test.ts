import { expect, it } from 'vitest'
import { sleep } from '../../src/base/abort.ts'
import { captureContinuously } from '../../src/capture/session.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import { type PutMode, StallingStorage } from '../support/faults.ts'
import { Random } from '../support/random.ts'
import { openArchive } from '../support/walback.ts'
import { createPgbench, runPgbench } from '../support/workload.ts'
import { proveLatest, sql, watchSlot } from './proof.ts'
import { stream, supervised } from './supervised.ts'

it.each(['fail', 'fail late', 'answer late', 'hang deaf', 'cut short', 'lose'] as const)(
  'loses and confirms nothing while puts go: %s',
  async (mode) => {
    await using server = await startEmbedded()
    const url = server.url()
    await createPgbench(url, 0.02)
    await using archive = await openArchive(url)
    await archive.base()
    await archive.catchUp()
    const storage = new StallingStorage(archive.repository.storage)
    const capture = supervised(archive.conninfo, await Repository.open(storage))
    const ending = new AbortController()
    const load = runPgbench(url, { clients: 3, seed: 6, signal: ending.signal })
    const watch = watchSlot(url, archive)
    await sleep(1000)
    storage.mode = mode
    await sleep(3500)
    const before = watch.seen.size
    storage.release()
    await sleep(3000)
    ending.abort()
    await load
    expect(watch.seen.size).toBeGreaterThan(before)
    await watch.end()
    await capture.end()
    if (!['answer late', 'hang deaf'].includes(mode)) expect(capture.retries.length).toBeGreaterThan(0)
    await archive.catchUp()
    await proveLatest(archive, url)
  },
)

it('survives a store that misbehaves in every way by turns', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await createPgbench(url, 0.02)
  await using archive = await openArchive(url)
  await archive.base()
  await archive.catchUp()
  const storage = new StallingStorage(archive.repository.storage)
  const capture = supervised(archive.conninfo, await Repository.open(storage))
  const ending = new AbortController()
  const load = runPgbench(url, { clients: 3, seed: 7, signal: ending.signal })
  const watch = watchSlot(url, archive)
  const random = new Random(77)
  const modes: PutMode[] = [
    'well',
    'well',
    'hang',
    'hang deaf',
    'fail',
    'fail late',
    'answer late',
    'cut short',
    'lose',
  ]
  for (let turn = 0; turn < 40; turn++) {
    const mode = random.pick(modes)
    if (mode === 'well') storage.release()
    else storage.mode = mode
    await sleep(random.int(0, 300))
  }
  storage.release()
  ending.abort()
  await load
  await watch.end()
  await capture.end()
  await archive.catchUp()
  await proveLatest(archive, url)
})

it('stores what it has received before it gives up on a server that has died for good', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id int primary key)')
  await using archive = await openArchive(url)
  await archive.base()
  // A segment would be due in an hour; the commits are in memory only when the server dies.
  const stop = new AbortController()
  const capture = captureContinuously(archive.conninfo, archive.repository, 'app', {
    ...stream,
    segmentBytes: 16 << 20,
    segmentAge_ms: 3_600_000,
    stop: stop.signal,
  })
  capture.catch(() => undefined)
  await sleep(1000)
  // A burst of small ones, which the server sends one by one; and one whose rows it sends one by one.
  await sql(url, 'do $$ begin for n in 1..500 loop insert into t values (n); commit; end loop; end $$')
  await sql(url, 'insert into t select generate_series(501, 1500)')
  await sleep(1000)
  await server.kill()
  await Promise.race([capture.catch(() => undefined), sleep(20_000)])
  const { transactions } = await archive.history()
  const stored = transactions.flatMap(({ counts }) => counts.map(([, inserts]) => inserts))
  expect(stored).toEqual([...Array.from({ length: 500 }, () => 1), 1000])
  await server.start()
  await archive.catchUp()
  await proveLatest(archive, url)
})

it('does not hold up the checkpoints of a server whose slot is to go, while the store is stalled', async () => {
  const settings = { max_slot_wal_keep_size: '32MB', min_wal_size: '32MB', max_wal_size: '64MB' }
  await using server = await startEmbedded({ settings })
  const url = server.url()
  await sql(url, 'create table t (filler text)')
  await using archive = await openArchive(url)
  await archive.base()
  const storage = new StallingStorage(archive.repository.storage)
  storage.mode = 'hang'
  const stop = new AbortController()
  const capture = captureContinuously(archive.conninfo, await Repository.open(storage), 'app', {
    ...stream,
    storePatience_ms: 2000,
    stop: stop.signal,
  })
  const ended = expect(capture).rejects.toMatchObject({ code: 'storage', retryable: true })
  for (let n = 0; n < 6; n++) {
    await sql(url, 'insert into t select repeat(md5(n::text), 10) from generate_series(1, 30000) n')
    const begun = performance.now()
    // The checkpointer ends our walsender and waits until it is gone, whose last words we do not read.
    const done = await Promise.race([sql(url, 'checkpoint').then(() => true), sleep(30_000).then(() => false)])
    expect(done).toBe(true)
    expect(performance.now() - begun).toBeLessThan(15_000)
  }
  stop.abort()
  await ended
})
