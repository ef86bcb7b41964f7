import { expect, it } from 'vitest'
import { sleep } from '../../src/base/abort.ts'
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
