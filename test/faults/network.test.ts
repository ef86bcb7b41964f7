import dns from 'node:dns'
import { expect, it, vi } from 'vitest'
import { sleep, waitFor } from '../../src/base/abort.ts'
import { WalbackError } from '../../src/base/errors.ts'
import { captureContinuously, captureUpToNow } from '../../src/capture/session.ts'
import { supervise } from '../../src/capture/supervise.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { Random } from '../support/random.ts'
import { openArchive } from '../support/walback.ts'
import { createPgbench, runPgbench } from '../support/workload.ts'
import { CuttingProxy } from './cutting-proxy.ts'
import { proveLatest, sql, watchSlot } from './proof.ts'

const stream = { segmentBytes: 64 << 10, segmentAge_ms: 50, heartbeat_ms: 500 }

it('takes a cut of the network at any moment for something that passes', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, filler text)')
  await using archive = await openArchive(url)
  await archive.base()
  const watch = watchSlot(url, archive, 5)
  let n = 0
  for (; ; n++) {
    await sql(url, `insert into t (filler) select md5(n::text) from generate_series(1, 300) n`)
    await using proxy = await CuttingProxy.listen(server.port)
    proxy.cutAt = n
    const conninfo = resolveConninfo(proxy.url, {})
    const stop = new AbortController().signal
    const error = await captureUpToNow(conninfo, archive.repository, 'app', { ...stream, stop }).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    if (proxy.cuts === 0) break
    // The last pieces are a goodbye, which nobody needs.
    if (error === undefined) continue
    expect(error).toBeInstanceOf(WalbackError)
    expect({ n, error }).toMatchObject({ n, error: { retryable: true } })
    expect(n).toBeLessThan(200)
    // The server finds out by itself that its walsender speaks to nobody.
    for (;;) {
      const [slot] = await sql<{ active: boolean }>(url, 'select active from pg_replication_slots')
      if (!slot?.active) break
      await sleep(20)
    }
  }
  console.log(`cut at each of ${n} pieces`)
  expect(n).toBeGreaterThan(10)
  await watch.end()
  await archive.catchUp()
  await proveLatest(archive, url)
})

it('keeps capturing over a network that breaks again and again', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await createPgbench(url, 0.02)
  await using archive = await openArchive(url)
  await archive.base()
  await using proxy = await CuttingProxy.listen(server.port)
  const conninfo = resolveConninfo(proxy.url, {})
  const stop = new AbortController()
  const running = supervise({
    stop: stop.signal,
    // As after a minute of sound streaming, so that it does not wait long.
    streamingSince: () => -1e9,
    attempt: () => captureContinuously(conninfo, archive.repository, 'app', { ...stream, stop: stop.signal }),
    onRetry: () => undefined,
  })
  running.catch(() => undefined)
  const ending = new AbortController()
  const load = runPgbench(url, { clients: 3, seed: 12, signal: ending.signal })
  const watch = watchSlot(url, archive)
  const random = new Random(12)
  for (let round = 0; round < 14; round++) {
    await sleep(random.int(0, 1200))
    if (random.chance(0.5)) proxy.cutAll()
    else proxy.cutAt = proxy.pieces + random.int(0, 30)
  }
  ending.abort()
  await load
  await sleep(1500)
  stop.abort()
  await running
  await watch.end()
  await archive.catchUp()
  await proveLatest(archive, url)
})

it('follows a name that has come to mean another address', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, filler text)')
  await using archive = await openArchive(url)
  await archive.base()
  await using before = await CuttingProxy.listen(server.port)
  // The same port at another address, as a database's name is moved to the machine that takes over.
  await using after = await CuttingProxy.listen(server.port, { host: '127.0.0.2', port: before.port })
  const asked: string[] = []
  let address = '127.0.0.1'
  const lookup = vi.spyOn(dns, 'lookup').mockImplementation(((
    name: string,
    options: { all?: boolean },
    answer: (error: null, ...found: unknown[]) => void,
  ) => {
    asked.push(name)
    if (options.all) answer(null, [{ address, family: 4 }])
    else answer(null, address, 4)
  }) as never)
  const stop = new AbortController()
  let streamingSince: number | undefined
  try {
    const conninfo = resolveConninfo(before.url.replace('127.0.0.1', 'database.example'), {})
    const running = supervise({
      stop: stop.signal,
      streamingSince: () => streamingSince,
      onRetry: () => undefined,
      attempt: () =>
        captureContinuously(conninfo, archive.repository, 'app', {
          ...stream,
          stop: stop.signal,
          onStart: () => {
            streamingSince = performance.now()
          },
        }),
    })
    running.catch(() => undefined)
    const until = (probe: () => boolean): Promise<unknown> =>
      waitFor(async () => probe() || undefined, { timeout_ms: 30_000, interval_ms: 20 })
    await until(() => streamingSince !== undefined)
    await sql(url, `insert into t (filler) values ('by the first')`)
    expect(after.connected).toBe(0)
    address = '127.0.0.2'
    await before[Symbol.asyncDispose]()
    await until(() => after.connected >= 2)
    await sql(url, `insert into t (filler) values ('by the second')`)
    stop.abort()
    await running
    expect(new Set(asked)).toEqual(new Set(['database.example']))
  } finally {
    stop.abort()
    lookup.mockRestore()
  }
  await archive.catchUp()
  await proveLatest(archive, url)
})
