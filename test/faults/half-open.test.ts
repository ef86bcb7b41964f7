import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { sleep, waitFor } from '../../src/base/abort.ts'
import { type CaptureSessionOptions, captureContinuously } from '../../src/capture/session.ts'
import { supervise } from '../../src/capture/supervise.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'
import { CuttingProxy, type Purpose, type Way } from './cutting-proxy.ts'
import { proveLatest, sql, withClient } from './proof.ts'

const stream = { segmentBytes: 64 << 10, segmentAge_ms: 50, heartbeat_ms: 60_000 }
/** Half of what walback bears in silence. */
const patience_ms = 1500

let server: EmbeddedServer
let archive: TestArchive
beforeAll(async () => {
  server = await startEmbedded({
    settings: { wal_sender_timeout: `${patience_ms}ms`, logical_decoding_work_mem: '64kB' },
  })
  await sql(server.url(), 'create table t (id serial primary key, what text); create table hidden (id int primary key)')
  archive = await openArchive(server.url())
  await archive.base()
})
afterAll(async () => {
  await archive?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})
beforeEach(async () => {
  await sql(server.url(), 'alter system reset all')
  await sql(server.url(), 'select pg_reload_conf()')
})

interface Supervised extends AsyncDisposable {
  readonly reasons: readonly string[]
  readonly starts: number
  readonly started: () => Promise<true | undefined>
}

/** Captures over the proxy, as the agent does. */
function capturing(proxy: CuttingProxy, options: Partial<CaptureSessionOptions> = {}, into = archive): Supervised {
  const stop = new AbortController()
  const reasons: string[] = []
  let starts = 0
  let failure: unknown
  const running = supervise({
    stop: stop.signal,
    streamingSince: () => -1e9,
    attempt: () =>
      captureContinuously(resolveConninfo(proxy.urlOf(into.conninfo.database), {}), into.repository, into.source, {
        ...stream,
        ...options,
        stop: stop.signal,
        onStart: () => void starts++,
      }),
    onRetry: (reason) => void reasons.push(reason),
  }).catch((error: unknown) => {
    failure = error
  })
  const seen = (count: number) => async (): Promise<true | undefined> => {
    if (failure) throw failure
    return starts > count || undefined
  }
  return {
    reasons,
    get starts() {
      return starts
    },
    started: async () => waitFor(seen(starts), { timeout_ms: 30_000, interval_ms: 20 }),
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await running
    },
  }
}

const silent: readonly { what: string; purpose: Purpose; ways: readonly Way[]; says: RegExp }[] = [
  { what: 'stream, both ways', purpose: 'stream', ways: ['to client', 'to server'], says: /is dead: / },
  { what: 'stream, to us', purpose: 'stream', ways: ['to client'], says: /nothing has come from the server for 3 s/ },
  // The server, which has heard nothing, says so.
  { what: 'stream, from us', purpose: 'stream', ways: ['to server'], says: /change stream/ },
  { what: 'session, both ways', purpose: 'session', ways: ['to client', 'to server'], says: /not answered for 3 s/ },
  { what: 'session, to us', purpose: 'session', ways: ['to client'], says: /not answered for 3 s/ },
  { what: 'session, from us', purpose: 'session', ways: ['to server'], says: /not answered for 3 s/ },
]

describe('a connection that brings nothing and no error', () => {
  it.each(silent)('is given up and made anew: $what', async ({ purpose, ways, says }) => {
    await using proxy = await CuttingProxy.listen(server.port)
    {
      await using capture = capturing(proxy, { controlPatience_ms: 2 * patience_ms })
      expect(await capture.started()).toBe(true)
      const old = proxy.connected
      proxy.swallows = (way, what, n) => n < old && what === purpose && ways.includes(way)
      const again = capture.started()
      await sql(server.url(), `insert into t (what) values ('while it is silent')`)
      expect(await again).toBe(true)
      expect(capture.reasons).toEqual([expect.stringMatching(says)])
    }
    await archive.catchUp()
    await proveLatest(archive, server.url())
  })

  it.skipIf(!process.env.WALBACK_LONG)(
    'is given up where a server that waits for ever does not hear us',
    {
      timeout: 400_000,
    },
    async () => {
      await sql(server.url(), 'alter system set wal_sender_timeout = 0')
      await sql(server.url(), 'select pg_reload_conf()')
      const busy = new AbortController()
      await using proxy = await CuttingProxy.listen(server.port)
      const load = (async () => {
        while (!busy.signal.aborted) {
          await sql(server.url(), `insert into t (what) values ('it sends more and more')`)
          await sleep(100)
        }
      })()
      try {
        await using capture = capturing(proxy)
        expect(await capture.started()).toBe(true)
        const old = proxy.connected
        proxy.swallows = (way, what, n) => n < old && what === 'stream' && way === 'to server'
        const reason = await waitFor(async () => capture.reasons[0], { timeout_ms: 240_000, interval_ms: 200 })
        expect(reason).toMatch(/has heard nothing from us for 120 s/)
        // Such a server keeps the slot for its dead client until the network itself gives up.
        proxy.swallows = undefined
        proxy.cutAll()
        expect(await capture.started()).toBe(true)
      } finally {
        busy.abort()
        await load
      }
      await archive.catchUp()
      await proveLatest(archive, server.url())
    },
  )

  it('is given up where a heartbeat hangs', async () => {
    await using proxy = await CuttingProxy.listen(server.port)
    {
      await using capture = capturing(proxy, { heartbeat_ms: 100, controlPatience_ms: 2000 })
      expect(await capture.started()).toBe(true)
      await withClient(server.url(), async (client) => {
        // What a heartbeat reads is locked: the server itself gives it up, and the session stays.
        await client.query('begin; lock table pg_sequence in access exclusive mode')
        await sleep(5000)
        await client.query('rollback')
      })
      expect(capture.reasons).toEqual([])
      const old = proxy.connected
      proxy.swallows = (way, what, n) => n < old && what === 'session' && way === 'to client'
      expect(await capture.started()).toBe(true)
      expect(capture.reasons).toEqual([expect.stringMatching(/not answered for [23] s/)])
    }
    await archive.catchUp()
    await proveLatest(archive, server.url())
  })
})

describe('silence that is in order', () => {
  it('of a server that is long at work on what it does not send', async () => {
    await sql(server.url(), 'create database slow')
    const url = server.url('slow')
    await sql(url, 'create table t (id int primary key); create table hidden (what text)')
    await sql(url, 'alter table hidden replica identity full')
    // Each row takes the server a good part of a second, and none passes.
    await sql(
      url,
      `create publication walback_slow for table t, table hidden where (length(repeat(what, 5000000)) > 100000000)`,
    )
    await using slow = await openArchive(url, 'slow')
    await slow.base()
    await using proxy = await CuttingProxy.listen(server.port)
    {
      await using capture = capturing(proxy, {}, slow)
      expect(await capture.started()).toBe(true)
      await sql(url, `insert into hidden select 'x' from generate_series(1, 80)`)
      await sql(url, 'insert into t values (1)')
      let silent_ms = 0
      const isThere = async (): Promise<true | undefined> => {
        silent_ms = Math.max(silent_ms, performance.now() - proxy.heardAt_ms)
        return (await slow.history()).transactions.some(({ counts }) => counts.length > 0) || undefined
      }
      expect(await waitFor(isThere, { timeout_ms: 100_000, interval_ms: 100 })).toBe(true)
      console.log(`silent for ${(silent_ms / 1000).toFixed(1)} s`)
      expect(silent_ms).toBeGreaterThan(2 * patience_ms)
      expect(capture.reasons).toEqual([])
    }
  })

  it('of a database in which nothing happens', async () => {
    await using proxy = await CuttingProxy.listen(server.port)
    await using capture = capturing(proxy)
    expect(await capture.started()).toBe(true)
    await sleep(4 * patience_ms)
    expect(capture.reasons).toEqual([])
  })
})
