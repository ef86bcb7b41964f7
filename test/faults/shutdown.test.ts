import { expect, it } from 'vitest'
import { sleep, waitFor } from '../../src/base/abort.ts'
import { captureContinuously, captureUpToNow } from '../../src/capture/session.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import { startAgent } from '../support/agent-process.ts'
import { StallingStorage } from '../support/faults.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'
import { proveLatest, sql } from './proof.ts'

/** A fast stop is the application's outage: it waits for us seconds, not minutes. */
const bound_ms = 15_000
const stream = { segmentBytes: 128 << 10, segmentAge_ms: 50, heartbeat_ms: 1000 }

/** Stops the server, starts it again, and gives how long the stop took. */
async function timedStop(server: EmbeddedServer, what: string): Promise<void> {
  const begun = performance.now()
  const stopped = server.stop('fast').then(() => performance.now() - begun)
  const took = await Promise.race([stopped, sleep(3 * bound_ms).then(() => Number.POSITIVE_INFINITY)])
  console.log(`fast stop, ${what}: ${(took / 1000).toFixed(2)} s`)
  if (took > bound_ms) await server.kill()
  await server.start()
  expect(took).toBeLessThan(bound_ms)
}

const table = `create table t (id bigserial primary key, filler text)`
/** About a hundred bytes of the stream in each row, which do not compress to nothing. */
const fill = (rows: number): string =>
  `insert into t (filler) select md5(n::text) || md5((n + 1)::text) from generate_series(1, ${rows}) n`

async function prepared(server: EmbeddedServer): Promise<TestArchive> {
  await sql(server.url(), table)
  const archive = await openArchive(server.url())
  await archive.base()
  await archive.catchUp()
  return archive
}

/** Inserts one transaction after the other until the server goes away or the signal fires. */
async function keepInserting(url: string, stop: AbortSignal, rows = 500): Promise<void> {
  while (!stop.aborted) await sql(url, fill(rows)).catch(() => sleep(50))
}

it('lets a server stop fast while the agent is idle', async () => {
  await using server = await startEmbedded()
  await using archive = await prepared(server)
  await using agent = startAgent({ url: server.url(), repository: archive.folder, source: 'app', ...stream })
  await agent.logged(/^segment stored$/)
  await sleep(500)
  await timedStop(server, 'idle agent')
  await sql(server.url(), fill(10))
  await agent.logged(/^capturing$/, { times: 2 })
  expect(await agent.stop()).toBe(0)
  await archive.catchUp()
  await proveLatest(archive, server.url())
})

it('lets a server stop fast under load, again and again', async () => {
  await using server = await startEmbedded()
  await using archive = await prepared(server)
  await using agent = startAgent({ url: server.url(), repository: archive.folder, source: 'app', ...stream })
  const ending = new AbortController()
  const load = [keepInserting(server.url(), ending.signal), keepInserting(server.url(), ending.signal, 3)]
  for (let round = 1; round <= 3; round++) {
    await agent.logged(/^capturing$/, { times: round })
    await sleep(700)
    await timedStop(server, `under load, ${round}`)
  }
  ending.abort()
  await Promise.all(load)
  await agent.logged(/^capturing$/, { times: 4 })
  expect(await agent.stop()).toBe(0)
  await archive.catchUp()
  await proveLatest(archive, server.url())
})

/** The repository of an archive, seen through a store that can be stalled. */
async function stallable(archive: TestArchive): Promise<{ storage: StallingStorage; repository: Repository }> {
  const storage = new StallingStorage(archive.repository.storage)
  return { storage, repository: await Repository.open(storage) }
}

/** Enough that the queue is full, the socket paused, and the server blocked in sending. */
async function fillQueue(url: string): Promise<void> {
  for (let n = 0; n < 10; n++) await sql(url, fill(15_000))
}

it.each(['hang', 'hang deaf', 'answer late'] as const)(
  'lets a server stop fast while every put of the store goes: %s',
  async (mode) => {
    await using server = await startEmbedded()
    await using archive = await prepared(server)
    const { storage, repository } = await stallable(archive)
    storage.mode = mode
    const stop = new AbortController()
    const capture = captureContinuously(archive.conninfo, repository, 'app', { ...stream, stop: stop.signal })
    capture.catch(() => undefined)
    await fillQueue(server.url())
    await sleep(1000)
    await timedStop(server, `store: ${mode}`)
    await expect(capture).resolves.toBe('draining')
    // What hangs may still arrive later, when another is at work already: it must not come between.
    const again = archive.capture()
    await sql(server.url(), fill(100))
    storage.release()
    await sleep(500)
    await archive.catchUpAfter(again).catch(async (error: unknown) => {
      // A late write took the place: the agent's supervision goes on from it, and so does another attempt here.
      expect(error).toMatchObject({ code: 'locked' })
      await archive.catchUp()
    })
    await proveLatest(archive, server.url())
  },
)

it('lets a server stop fast while a one-shot capture waits for a stalled store', async () => {
  await using server = await startEmbedded()
  await using archive = await prepared(server)
  const { storage, repository } = await stallable(archive)
  storage.mode = 'hang'
  await fillQueue(server.url())
  const capture = captureUpToNow(archive.conninfo, repository, 'app', { ...stream, stop: new AbortController().signal })
  const ended = expect(capture).rejects.toMatchObject({ code: 'database', retryable: true })
  await waitFor(async () => storage.hanging || undefined, { timeout_ms: 10_000, interval_ms: 20 })
  await sleep(500)
  await timedStop(server, 'one-shot capture, stalled store')
  await ended
  await archive.catchUp()
  await proveLatest(archive, server.url())
})

it('lets a server stop fast while the capture itself is being stopped before a stalled store', async () => {
  await using server = await startEmbedded()
  await using archive = await prepared(server)
  const { storage, repository } = await stallable(archive)
  storage.mode = 'hang'
  const stop = new AbortController()
  const capture = captureContinuously(archive.conninfo, repository, 'app', { ...stream, stop: stop.signal })
  const ended = expect(capture).rejects.toMatchObject({ code: 'storage', retryable: true })
  await sql(server.url(), fill(100))
  await waitFor(async () => storage.hanging || undefined, { timeout_ms: 10_000, interval_ms: 20 })
  // The machine goes down: both are told at once, and the network of the store is gone already.
  stop.abort()
  await sleep(200)
  await timedStop(server, 'capture being stopped, stalled store')
  await ended
  await archive.catchUp()
  await proveLatest(archive, server.url())
})

it('leaves nothing behind that keeps a process alive', async () => {
  await using server = await startEmbedded()
  await using archive = await prepared(server)
  await using agent = startAgent({ url: server.url(), repository: archive.folder, source: 'app', ...stream })
  await sql(server.url(), fill(10))
  await agent.logged(/^segment stored$/)
  const begun = performance.now()
  expect(await agent.stop()).toBe(0)
  expect(performance.now() - begun).toBeLessThan(10_000)
})
