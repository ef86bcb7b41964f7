import { chmod, cp, mkdtemp, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import pino from 'pino'
import { expect, it } from 'vitest'
import { runAgent } from '../../agent/agent.ts'
import { sleep, waitFor } from '../../src/base/abort.ts'
import type { WalbackError } from '../../src/base/errors.ts'
import { captureUpToNow } from '../../src/capture/session.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { nowMicros } from '../../src/model/time.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { scratchRoot, serverAccount } from '../../src/postgres/embedded-account.ts'
import { readManifests } from '../../src/repository/base.ts'
import { Repository } from '../../src/repository/repository.ts'
import { readTimelines } from '../../src/repository/timeline.ts'
import { startAgent } from '../support/agent-process.ts'
import { StallingStorage } from '../support/faults.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { openArchive, ourObjects, type TestArchive } from '../support/walback.ts'
import { proveLatest, sql } from './proof.ts'

const stream = { segmentBytes: 128 << 10, segmentAge_ms: 50, heartbeat_ms: 500 }
const never = new AbortController().signal

/** Everything that is stored, by key. */
async function stored(archive: TestArchive): Promise<string[]> {
  const keys: string[] = []
  for await (const { key, size_bytes } of archive.repository.storage.list('')) keys.push(`${key} ${size_bytes}`)
  return keys
}

/** A folder that the server's account may enter, and that goes with the test. */
async function scratch(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(await scratchRoot(await serverAccount()), 'walback-gap-'))
  await chmod(path, 0o755)
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

const dropSlot = `select pg_drop_replication_slot('walback_app')`
const advanceSlot = `select pg_replication_slot_advance('walback_app', pg_current_wal_lsn())`

const lsnOf = async (url: string): Promise<string> =>
  (await sql<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn'))[0]?.lsn ?? ''

it.each([
  { how: 'dropped', spoil: [dropSlot] },
  {
    how: 'dropped and made again',
    spoil: [dropSlot, `select pg_create_logical_replication_slot('walback_app', 'pgoutput')`],
  },
  { how: 'advanced', spoil: [advanceSlot] },
])('sees that the slot was $how, and begins a new timeline', async ({ spoil }) => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, what text)')
  await using archive = await openArchive(url)
  await archive.base()
  await sql(url, `insert into t (what) values ('before')`)
  await archive.catchUp()
  const before = { print: await fingerprint(url), lsn: await lsnOf(url) }
  await archive.catchUp()
  const beforeTime = nowMicros()
  await sql(url, `insert into t (what) values ('in the gap')`)
  const inGap = { lsn: await lsnOf(url), time: nowMicros() }
  for (const statement of spoil) await sql(url, statement)
  await sql(url, `insert into t (what) values ('after the gap')`)

  // One-shot: says so, and leaves everything as it is.
  const held = await stored(archive)
  const refused = await captureUpToNow(archive.conninfo, archive.repository, 'app', { ...stream, stop: never }).then(
    () => undefined,
    (error: unknown) => error,
  )
  expect(refused).toMatchObject({ code: 'gap', exit: 21 })
  expect((refused as WalbackError).hint).toContain('walback init')
  expect(await stored(archive)).toEqual(held)

  // The agent: a new timeline, and a base for it.
  await using agent = startAgent({ url, repository: archive.folder, source: 'app', ...stream })
  await agent.logged(/^GAP/)
  await agent.logged(/^base backup done$/)
  const timelines = await readTimelines(archive.repository, 'app')
  expect(timelines).toHaveLength(2)
  expect(timelines[1]?.parent).toMatchObject({ timeline: '00000001', reason: expect.stringContaining('walback_app') })
  await sql(url, `insert into t (what) values ('on the new timeline')`)
  expect(await agent.stop()).toBe(0)
  await archive.catchUp()

  const latest = await fingerprint(url)
  await archive.restored({ kind: 'latest' }, async (restored) => {
    expect(differences(latest, await fingerprint(restored), ourObjects)).toEqual([])
  })
  await archive.restored({ kind: 'lsn', lsn: parseLsn(before.lsn) }, async (restored, report) => {
    expect(differences(before.print, await fingerprint(restored), ourObjects)).toEqual([])
    expect(report).toBeDefined()
  })
  for (const target of [
    { kind: 'lsn', lsn: parseLsn(inGap.lsn) },
    { kind: 'time', time: inGap.time },
  ] as const) {
    const error = await archive.plan(target).then(
      () => undefined,
      (refusal: unknown) => refusal,
    )
    expect(error).toMatchObject({ code: 'gap', exit: 21 })
    expect((error as WalbackError).hint).toMatch(/nearest: .*before it.*after it/)
  }
  expect(beforeTime).toBeLessThan(inGap.time)
})

it.each([
  { how: 'and is still behind', rows: 1 },
  // Past the archive's end: positions alone show nothing, and there was no promotion that its timeline would tell of.
  { how: 'and has gone on for longer', rows: 40_000 },
])('takes a server that was put back to an earlier state, $how, for a gap', async ({ rows }) => {
  await using folder = await scratch()
  let archive: TestArchive | undefined
  try {
    {
      await using server = await startEmbedded({ directory: folder.path })
      await sql(server.url(), 'create table t (id serial primary key, what text)')
      archive = await openArchive(server.url())
      await archive.base()
      await archive.catchUp()
      await server.stop('fast')
      await cp(join(folder.path, 'data'), join(folder.path, 'kept'), { recursive: true, preserveTimestamps: true })
      await server.start()
      await sql(server.url(), `insert into t (what) select 'lost with the server' from generate_series(1, 20000)`)
      await archive.catchUp()
    }
    await rm(join(folder.path, 'data'), { recursive: true })
    await rename(join(folder.path, 'kept'), join(folder.path, 'data'))
    await using server = await startEmbedded({ directory: folder.path })
    await sql(server.url(), `insert into t (what) select 'another history' from generate_series(1, ${rows})`)
    const conninfo = resolveConninfo(server.url(), {})
    await expect(captureUpToNow(conninfo, archive.repository, 'app', { ...stream, stop: never })).rejects.toMatchObject(
      {
        code: 'gap',
      },
    )
    await using agent = startAgent({ url: server.url(), repository: archive.folder, source: 'app', ...stream })
    await agent.logged(/^base backup done$/)
    await sql(server.url(), `insert into t (what) values ('captured')`)
    await agent.stop()
    await captureUpToNow(conninfo, archive.repository, 'app', { ...stream, stop: never })
    const plan = await archive.plan({ kind: 'latest' })
    expect(plan.timeline.id).toBe('00000002')
    expect(
      (await archive.history()).transactions.some(({ counts }) => counts.some(([, inserts]) => inserts === 1)),
    ).toBe(true)
  } finally {
    await archive?.[Symbol.asyncDispose]()
  }
})

it('begins a new timeline when the server has thrown away log that a stopped agent had not read', async () => {
  await using server = await startEmbedded({
    settings: { max_slot_wal_keep_size: '32MB', min_wal_size: '32MB', max_wal_size: '64MB' },
  })
  const url = server.url()
  await sql(url, 'create table t (filler text)')
  await sql(url, 'create database busy')
  await sql(server.url('busy'), 'create table t (filler text)')
  await using archive = await openArchive(url)
  await archive.base()
  await using agent = startAgent({ url, repository: archive.folder, source: 'app', ...stream })
  await agent.logged(/^segment stored$/)
  // It hangs with its sockets open, as on a machine that swaps. The log is of another database, so that its socket does
  // not fill: a walsender that cannot send its farewell would hold the checkpointer up.
  agent.signal('SIGSTOP')
  await sql(url, `insert into t values ('in the gap')`)
  for (let n = 0; n < 12; n++) {
    await sql(server.url('busy'), 'insert into t select repeat(md5(n::text), 10) from generate_series(1, 30000) n')
    await sql(url, 'checkpoint')
  }
  agent.signal('SIGCONT')
  await agent.logged(/^GAP/)
  await agent.logged(/^base backup done$/)
  await sql(url, `insert into t values ('after')`)
  expect(await agent.stop()).toBe(0)
  await archive.catchUp()
  expect(await readTimelines(archive.repository, 'app')).toHaveLength(2)
  const latest = await fingerprint(url)
  await archive.restored({ kind: 'latest' }, async (restored) => {
    expect(differences(latest, await fingerprint(restored), ourObjects)).toEqual([])
  })
})

it('refuses a second agent with a clear message, and the first is not disturbed', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key)')
  await using archive = await openArchive(url)
  await using first = startAgent({ url, repository: archive.folder, source: 'app', ...stream })
  await first.logged(/^base backup done$/)
  await using second = startAgent({ url, repository: archive.folder, source: 'app', ...stream })
  const failure = await second.logged(/^agent failed$/, { timeout_ms: 30_000 }).catch(() => second.lines.at(-1))
  expect(failure).toMatchObject({
    code: 'locked',
    err: { message: expect.stringMatching(/walback_app is in use.*active for PID/) },
  })
  await waitFor(async () => second.ended, { timeout_ms: 5000, interval_ms: 50 })
  expect(second.ended).toBe(11)
  expect(second.lines.some(({ msg }) => /GAP|timeline/.test(msg))).toBe(false)
  await expect(
    captureUpToNow(archive.conninfo, archive.repository, 'app', { ...stream, stop: never }),
  ).rejects.toMatchObject({
    code: 'locked',
    exit: 11,
  })
  await sql(url, 'insert into t default values')
  expect(await first.stop()).toBe(0)
  expect(first.lines.filter(({ msg }) => /^capturing$/.test(msg))).toHaveLength(1)
  await archive.catchUp()
  await proveLatest(archive, url)
})

it('does not take the progress of another agent for a gap', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key)')
  await using archive = await openArchive(url)
  await archive.base()
  const stop = archive.capture({ segmentAge_ms: 20 })
  const storage = new StallingStorage(archive.repository.storage)
  // Between this one's look at the archive and its look at the slot the other goes on.
  storage.afterList = async (prefix) => {
    if (!prefix.includes('segments')) return
    await sql(url, 'insert into t default values')
    const at = parseLsn(await lsnOf(url))
    const probe = async (): Promise<true | undefined> => {
      const [slot] = await sql<{ lsn: string }>(
        url,
        'select confirmed_flush_lsn::text as lsn from pg_replication_slots',
      )
      return parseLsn(slot?.lsn ?? '0/0') >= at || undefined
    }
    await sql(url, 'insert into t default values')
    await waitFor(probe, { timeout_ms: 10_000, interval_ms: 20 })
  }
  const second = captureUpToNow(archive.conninfo, await Repository.open(storage), 'app', { ...stream, stop: never })
  await expect(second).rejects.toMatchObject({ code: 'locked' })
  await archive.catchUpAfter(stop)
  await proveLatest(archive, url)
})

it('takes a base on the new timeline although one of the old timeline was under way at the gap', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(
    url,
    'create table t (id serial primary key, filler text); insert into t (filler) select md5(n::text) from generate_series(1, 1000) n',
  )
  await using archive = await openArchive(url)
  const storage = new StallingStorage(archive.repository.storage)
  storage.mode = 'hang'
  storage.concerns = (key) => key.includes('/rows/')
  const stop = new AbortController()
  const agent = runAgent({
    conninfo: archive.conninfo,
    repository: await Repository.open(storage),
    source: 'app',
    stream,
    log: pino({ level: 'silent' }),
    signal: stop.signal,
  })
  try {
    expect(
      await waitFor(async () => storage.hanging || undefined, { timeout_ms: 20_000, interval_ms: 20 }),
    ).toBeTruthy()
    await sql(url, `select pg_terminate_backend(active_pid) from pg_replication_slots`)
    const drop = async (): Promise<true | undefined> =>
      sql(url, dropSlot).then(
        () => true as const,
        () => undefined,
      )
    await waitFor(drop, { timeout_ms: 10_000, interval_ms: 5 })
    const anew = async (): Promise<true | undefined> =>
      (await readTimelines(archive.repository, 'app')).length === 2 || undefined
    expect(await waitFor(anew, { timeout_ms: 20_000, interval_ms: 50 })).toBe(true)
    const streams = async (): Promise<true | undefined> =>
      (await sql<{ active: boolean }>(url, 'select active from pg_replication_slots'))[0]?.active || undefined
    await waitFor(streams, { timeout_ms: 20_000, interval_ms: 50 })
    await sleep(500)
    storage.release()
    const based = async (): Promise<true | undefined> =>
      (await readManifests(archive.repository, 'app')).some(({ timeline }) => timeline === '00000002') || undefined
    expect(await waitFor(based, { timeout_ms: 30_000, interval_ms: 100 })).toBe(true)
  } finally {
    storage.release()
    stop.abort()
    await agent
  }
})
