import pino from 'pino'
import { expect, it } from 'vitest'
import { type AgentOptions, runAgent } from '../../agent/agent.ts'
import { waitFor } from '../../src/base/abort.ts'
import type { EventKind, WalbackEvent } from '../../src/model/event.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { readManifests } from '../../src/repository/base.ts'
import { Repository } from '../../src/repository/repository.ts'
import { readTimelines } from '../../src/repository/timeline.ts'
import { StallingStorage } from '../support/faults.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { openArchive, ourObjects, type TestArchive } from '../support/walback.ts'
import { sql, withClient } from './proof.ts'

const stream = { segmentBytes: 128 << 10, segmentAge_ms: 50, heartbeat_ms: 500 }
const patience = { guard_ms: 100, calm_ms: 200, store: { alarm_ms: 1000, calm_ms: 1000 } }
const mib = 1 << 20

interface Running extends AsyncDisposable {
  readonly events: readonly WalbackEvent[]
  readonly storage: StallingStorage
  told(kind: EventKind, state: WalbackEvent['state'], times?: number): Promise<WalbackEvent>
}

/** The agent, in this process, over a store that can be told to misbehave. */
async function started(archive: TestArchive, options: Partial<AgentOptions>): Promise<Running> {
  const storage = new StallingStorage(archive.repository.storage)
  const stop = new AbortController()
  const events: WalbackEvent[] = []
  const running = runAgent({
    conninfo: archive.conninfo,
    repository: await Repository.open(storage),
    source: 'app',
    stream,
    patience,
    log: pino({ level: 'silent' }),
    signal: stop.signal,
    ...options,
    onEvent: (event) => events.push(event),
  })
  running.catch(() => undefined)
  return {
    events,
    storage,
    told: async (kind, state, times = 1) => {
      const probe = async (): Promise<WalbackEvent | undefined> =>
        events.filter((event) => event.kind === kind && event.state === state)[times - 1]
      const found = await waitFor(probe, { timeout_ms: 60_000, interval_ms: 20 })
      if (found === undefined) throw new Error(`no event ${kind} ${state}: ${JSON.stringify(events)}`)
      return found
    },
    [Symbol.asyncDispose]: async () => {
      storage.release()
      stop.abort()
      await running
    },
  }
}

const slots = (url: string): Promise<{ name: string }[]> =>
  sql<{ name: string }>(url, 'select slot_name::text as name from pg_replication_slots')

const lsnOf = async (url: string): Promise<string> =>
  (await sql<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn'))[0]?.lsn ?? ''

const fill = (url: string): Promise<unknown> =>
  sql(url, 'insert into t (what) select repeat(md5(n::text), 10) from generate_series(1, 100000) n')

it('drops the slot that keeps too much while the store is stalled, and begins anew when it is calm', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, what text)')
  await using archive = await openArchive(url)
  await using agent = await started(archive, { guard: { maxSlotWal_bytes: 32 * mib, onLimit: 'release' } })
  await waitFor(async () => (await readManifests(archive.repository, 'app'))[0], {
    timeout_ms: 30_000,
    interval_ms: 50,
  })
  await sql(url, `insert into t (what) values ('before')`)
  const before = { print: await fingerprint(url), lsn: await lsnOf(url) }
  const held = async (): Promise<true | undefined> => (await archive.history()).end > parseLsn(before.lsn) || undefined
  expect(await waitFor(held, { timeout_ms: 30_000, interval_ms: 50 })).toBe(true)

  agent.storage.mode = 'hang'
  await fill(url)
  await agent.told('slot-retention', 'raised')
  await fill(url)
  const released = await agent.told('slot-released', 'once')
  expect(released).toMatchObject({ severity: 'error', facts: { slot: 'walback_app', limit_bytes: 32 * mib } })
  expect(await slots(url)).toEqual([])
  const inGap = await lsnOf(url)
  await sql(url, `insert into t (what) values ('in the gap')`)
  // No slot as long as the store does not take anything.
  await agent.told('store-failing', 'raised')
  expect(await slots(url)).toEqual([])

  agent.storage.release()
  const begun = await agent.told('timeline-begun', 'once')
  expect(begun.facts['parent']).toMatchObject({
    timeline: '00000001',
    reason: expect.stringContaining('guard.max_slot_wal'),
  })
  await agent.told('gap', 'cleared')
  await agent.told('store-failing', 'cleared')
  await sql(url, `insert into t (what) values ('after')`)
  const latest = { print: await fingerprint(url), lsn: await lsnOf(url) }
  await agent[Symbol.asyncDispose]()
  await archive.catchUp()
  expect(await readTimelines(archive.repository, 'app')).toHaveLength(2)
  await archive.restored({ kind: 'latest' }, async (restored) => {
    expect(differences(latest.print, await fingerprint(restored), ourObjects)).toEqual([])
  })
  await archive.restored({ kind: 'lsn', lsn: parseLsn(before.lsn) }, async (restored) => {
    expect(differences(before.print, await fingerprint(restored), ourObjects)).toEqual([])
  })
  await expect(archive.plan({ kind: 'lsn', lsn: parseLsn(inGap) })).rejects.toMatchObject({ code: 'gap', exit: 21 })
})

it('only tells of a slot that keeps too much where that is the policy, and of its end', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, what text)')
  await using archive = await openArchive(url)
  await archive.base()
  await using agent = await started(archive, { guard: { maxSlotWal_bytes: 32 * mib, onLimit: 'alert' } })
  await withClient(url, async (client) => {
    // What has written and stays open holds the log, however well capture goes.
    await client.query('begin')
    await client.query(`insert into t (what) values ('open')`)
    for (let n = 0; n < 3; n++) await fill(url)
    const told = await agent.told('slot-retention', 'raised')
    expect(told.facts).toMatchObject({ retained_bytes: expect.any(Number), catalog_xmin_age: expect.any(Number) })
    const worst = async (): Promise<true | undefined> =>
      agent.events.some(({ kind, severity }) => kind === 'slot-retention' && severity === 'error') || undefined
    expect(await waitFor(worst, { timeout_ms: 30_000, interval_ms: 50 })).toBe(true)
    expect(await slots(url)).toEqual([{ name: 'walback_app' }])
    await client.query('commit')
  })
  await sql(url, 'checkpoint')
  await agent.told('slot-retention', 'cleared')
  expect(agent.events.filter(({ kind }) => kind === 'gap' || kind === 'slot-released')).toEqual([])
  expect(await readTimelines(archive.repository, 'app')).toHaveLength(1)
})
