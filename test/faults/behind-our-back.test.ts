import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { captureUpToNow } from '../../src/capture/session.ts'
import { setUp } from '../../src/capture/setup.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { currentInsertLsn } from '../../src/postgres/source.ts'
import { currentTimeline, readTimelines } from '../../src/repository/timeline.ts'
import { type AgentProcess, startAgent } from '../support/agent-process.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { everyday, oneOrBoth } from '../support/majors.ts'
import { openArchive, ourObjects, type TestArchive } from '../support/walback.ts'
import { chainOf, proveLatest, sql, withClient } from './proof.ts'

const stream = { segmentBytes: 64 << 10, segmentAge_ms: 50, heartbeat_ms: 300 }
const never = new AbortController().signal

const opened: AsyncDisposable[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one[Symbol.asyncDispose]()
})
const open = async <T extends AsyncDisposable>(one: T | Promise<T>): Promise<T> => {
  const made = await one
  opened.push(made)
  return made
}

interface Source {
  readonly server: EmbeddedServer
  readonly url: string
  readonly archive: TestArchive
}

async function source(name?: string, database = 'postgres'): Promise<Source> {
  const server = await open(startEmbedded(name === undefined ? {} : { package: name }))
  if (database !== 'postgres') await sql(server.url(), `create database ${database}`)
  const url = server.url(database)
  await sql(url, 'create table t (id serial primary key, what text)')
  const archive = await open(openArchive(url))
  await archive.base()
  await archive.catchUp()
  return { server, url, archive }
}

async function agentOn(url: string, { folder }: TestArchive): Promise<AgentProcess> {
  const agent = await open(startAgent({ url, repository: folder, source: 'app', ...stream }))
  await agent.logged(/^segment stored$/)
  return agent
}

const add = (url: string, what: string): Promise<unknown> => sql(url, `insert into t (what) values ('${what}')`)

async function expectLatest(archive: TestArchive, url: string): Promise<void> {
  await archive.catchUp()
  await chainOf(archive)
  const golden = await fingerprint(url)
  await archive.restored({ kind: 'latest' }, async (restored) => {
    expect(differences(golden, await fingerprint(restored), ourObjects)).toEqual([])
  })
}

const slotIsFree = async (url: string): Promise<true | undefined> =>
  (await sql<{ active: boolean }>(url, 'select active from pg_replication_slots'))[0]?.active === false || undefined

it('goes on when its sessions are ended, the one, the other, and both', async () => {
  const { url, archive } = await source()
  const agent = await agentOn(url, archive)
  const ours = [
    `application_name like 'walback app%'`,
    `application_name = 'walback control'`,
    `application_name like 'walback %'`,
  ]
  for (const [n, which] of ours.entries()) {
    await add(url, `before ${n}`)
    await sql(url, `select pg_terminate_backend(pid) from pg_stat_activity where ${which}`)
    await add(url, `after ${n}`)
    await agent.logged(/^capturing$/, { times: n + 2 })
  }
  expect(await agent.stop()).toBe(0)
  expect(agent.lines.filter(({ msg }) => /GAP|NOT CAPTURING/.test(msg))).toEqual([])
  await archive.catchUp()
  await proveLatest(archive, url)
})

it('waits, loudly, for the password that was changed, and takes it from the file', async () => {
  const { server, url, archive } = await source()
  const folder = await mkdtemp(join(tmpdir(), 'walback-pass-'))
  try {
    const passfile = join(folder, 'pgpass')
    const write = (password: string): Promise<void> => writeFile(passfile, `*:*:*:*:${password}\n`, { mode: 0o600 })
    await write('first')
    await sql(url, `create role keeper superuser login password 'first'`)
    await demandPasswords(server)
    const own = `postgres://keeper@127.0.0.1:${server.port}/postgres?sslmode=disable&passfile=${encodeURIComponent(passfile)}`
    const agent = await agentOn(own, archive)
    await sql(url, `alter role keeper password 'second'`)
    await sql(url, `select pg_terminate_backend(pid) from pg_stat_activity where usename = 'keeper'`)
    await add(url, 'while it cannot get in')
    const complaint = await agent.logged(/^NOT CAPTURING: cannot connect .*password authentication failed/, {
      times: 2,
    })
    expect(complaint).toMatchObject({ level: 50, hint: expect.stringContaining('password') })
    expect(agent.ended).toBeUndefined()
    await write('second')
    await agent.logged(/^capturing$/, { times: 2 })
    expect(await agent.stop()).toBe(0)
    await archive.catchUp()
    await proveLatest(archive, url)
  } finally {
    await rm(folder, { recursive: true })
  }
})

/** Of everybody but the superuser that the test itself uses. */
async function demandPasswords(server: EmbeddedServer): Promise<void> {
  const hba = join(server.dataDirectory, 'pg_hba.conf')
  const lines = ['all postgres', 'replication postgres', 'all all', 'replication all']
  const methods = ['trust', 'trust', 'scram-sha-256', 'scram-sha-256']
  await writeFile(hba, lines.map((who, n) => `host ${who} 127.0.0.1/32 ${methods[n]}\n`).join(''))
  await sql(server.url(), 'select pg_reload_conf()')
}

describe.each(oneOrBoth(14))('a publication that is dropped (%i)', (major) => {
  const name = everyday[major]

  it('is a gap from the first change on that it does not show, also when it is there again', async () => {
    const { url, archive } = await source(name)
    const before = await fingerprint(url)
    const [at] = await sql<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn')
    await archive.catchUp()
    await sql(url, 'drop publication walback_app')
    await add(url, 'lost to the stream')
    await sql(url, 'create publication walback_app for all tables')
    await add(url, 'shown again')
    // One-shot: says so, and says it again.
    for (const _attempt of [1, 2]) {
      const capture = captureUpToNow(archive.conninfo, archive.repository, 'app', { ...stream, stop: never })
      await expect(capture).rejects.toMatchObject({
        code: 'gap',
        message: expect.stringMatching(/a publication was dropped.*walback_app/),
        hint: expect.stringContaining(`pg_drop_replication_slot('walback_app')`),
      })
    }
    const agent = await open(startAgent({ url, repository: archive.folder, source: 'app', ...stream }))
    await agent.logged(/^GAP: a publication was dropped/)
    await agent.logged(/^base backup done$/)
    await add(url, 'on the new timeline')
    expect(await agent.stop()).toBe(0)
    await expectLatest(archive, url)
    const timelines = await readTimelines(archive.repository, 'app')
    expect(timelines).toHaveLength(2)
    expect(timelines[1]?.parent?.reason).toContain('a publication was dropped')
    const lsn = parseLsn(at?.lsn ?? '')
    await archive.restored({ kind: 'lsn', lsn }, async (restored) => {
      expect(differences(before, await fingerprint(restored), ourObjects)).toEqual([])
    })
  })

  it('while the agent streams is told within a heartbeat or two, and made anew with a new slot', async () => {
    const { url, archive } = await source(name)
    const agent = await agentOn(url, archive)
    await sql(url, 'drop publication walback_app')
    const told = await agent.logged(/publication walback_app is gone/)
    expect(told).toMatchObject({ level: 50, hint: expect.any(String) })
    await add(url, 'lost to the stream')
    await agent.logged(/^GAP: a publication was dropped/)
    await agent.logged(/^base backup done$/)
    await add(url, 'on the new timeline')
    expect(await agent.stop()).toBe(0)
    await expectLatest(archive, url)
  })

  it('and made again before anything changed is no gap', async () => {
    const { url, archive } = await source(name)
    await sql(url, 'drop publication walback_app')
    await sql(url, 'create publication walback_app for all tables')
    await add(url, 'shown')
    await archive.catchUp()
    await proveLatest(archive, url)
  })

  it('is made anew by init, with a new slot', async () => {
    const { url, archive } = await source(name)
    await sql(url, 'drop publication walback_app')
    await add(url, 'lost to the stream')
    const { timeline } = await withClient(url, (client) =>
      setUp(client, archive.repository, { source: 'app', replicaIdentity: 'full' }),
    )
    expect(timeline.id).toBe('00000002')
    await archive.base()
    await add(url, 'on the new timeline')
    await expectLatest(archive, url)
  })
})

it('takes a base when a publication was altered and altered back, and says so of what lies between', async () => {
  const { url, archive } = await source()
  const agent = await agentOn(url, archive)
  await add(url, 'before')
  await sql(url, `alter publication walback_app set (publish = 'insert')`)
  await sql(url, `update t set what = 'lost to the stream'`)
  await agent.logged(/publication walback_app was changed/)
  // The catalogs are read for at most a hundredth of the time.
  await agent.logged(/^PUBLICATION ALTERED/, { timeout_ms: 120_000 })
  const between = await withClient(url, currentInsertLsn)
  await sql(url, `alter publication walback_app set (publish = 'insert, update, delete, truncate')`)
  await add(url, 'after')
  await agent.logged(/^base backup done$/, { timeout_ms: 120_000 })
  await sql(url, `update t set what = what || ' and more' where what = 'after'`)
  expect(await agent.stop()).toBe(0)
  const plan = await archive.plan({ kind: 'lsn', lsn: between })
  expect(plan.notRestored.join()).toMatch(/ROWS MAY BE MISSING: a publication/)
  await expectLatest(archive, url)
})

it('takes a base when a table was taken out of a publication and put back, and says so of what lies between', async () => {
  const server = await open(startEmbedded())
  await sql(server.url(), `create role keeper login replication createdb password 'keeper'`)
  await sql(server.url(), 'create database kept owner keeper')
  const address = new URL(server.url('kept'))
  Object.assign(address, { username: 'keeper', password: 'keeper' })
  const url = address.href
  await sql(url, 'create table t (id serial primary key, what text)')
  const archive = await open(openArchive(url))
  await archive.base()
  await archive.catchUp()
  const agent = await agentOn(url, archive)
  await add(url, 'before')
  await sql(url, 'alter publication walback_app drop table t')
  await sql(url, `update t set what = 'lost to the stream'`)
  await sql(url, 'alter publication walback_app add table only t')
  const between = await withClient(url, currentInsertLsn)
  await agent.logged(/^PUBLICATION ALTERED/, { timeout_ms: 120_000 })
  await agent.logged(/^base backup done$/, { timeout_ms: 120_000 })
  await add(url, 'after')
  expect(await agent.stop()).toBe(0)
  const plan = await archive.plan({ kind: 'lsn', lsn: between })
  expect(plan.notRestored.join()).toMatch(/ROWS MAY BE MISSING: a publication/)
  await expectLatest(archive, url)
})

it.each([
  { how: 'disabled', spoil: 'alter event trigger walback_2_command disable', says: /walback_2_command is disabled/ },
  { how: 'dropped', spoil: 'drop event trigger walback_2_command', says: /walback_2_command is gone/ },
])('says within a heartbeat or two that an event trigger was $how', async ({ spoil, says }) => {
  const { url, archive } = await source()
  const agent = await agentOn(url, archive)
  expect(agent.lines.filter(({ msg }) => /walback_2_command/.test(msg))).toEqual([])
  await sql(url, spoil)
  expect(await agent.logged(says)).toMatchObject({ level: 50, hint: expect.stringContaining('walback init') })
  await add(url, 'with less of us')
  expect(await agent.stop()).toBe(0)
  // Once, not at every heartbeat.
  expect(agent.lines.filter(({ msg }) => says.test(msg))).toHaveLength(1)
  await expectLatest(archive, url)
})

describe('a database', () => {
  it('that was renamed is said to be gone, and carried on under its new name', async () => {
    const { server, url, archive } = await source(undefined, 'shop')
    const agent = await agentOn(url, archive)
    await sql(server.url(), `alter database shop allow_connections false`)
    await sql(server.url(), `select pg_terminate_backend(pid) from pg_stat_activity where datname = 'shop'`)
    await waitFor(() => slotIsFree(server.url()), { timeout_ms: 10_000, interval_ms: 20 })
    await sql(server.url(), 'alter database shop rename to market')
    await sql(server.url(), `alter database market allow_connections true`)
    const complaint = await agent.logged(/^NOT CAPTURING: .*database "shop" does not exist/)
    expect(complaint).toMatchObject({ level: 50, hint: expect.stringContaining('renamed') })
    expect(await agent.stop()).toBe(0)
    const renamed = server.url('market')
    await add(renamed, 'under the new name')
    const again = await agentOn(renamed, archive)
    expect(await again.stop()).toBe(0)
    await archive.at(renamed).catchUp()
    await proveLatest(archive.at(renamed), renamed)
  })

  it('that was dropped, and made anew under its name, is not followed', async () => {
    const { server, url, archive } = await source(undefined, 'shop')
    const golden = await fingerprint(url)
    const agent = await agentOn(url, archive)
    // While the agent streams, its slot protects the database.
    await expect(sql(server.url(), 'drop database shop with (force)')).rejects.toMatchObject({ code: '55006' })
    agent.signal('SIGSTOP')
    await sql(server.url(), `alter database shop allow_connections false`)
    await sql(server.url(), `select pg_terminate_backend(pid) from pg_stat_activity where datname = 'shop'`)
    await waitFor(() => slotIsFree(server.url()), { timeout_ms: 10_000, interval_ms: 20 })
    await sql(server.url(), 'drop database shop with (force)')
    agent.signal('SIGCONT')
    await agent.logged(/^NOT CAPTURING: .*database "shop" does not exist/)
    await sql(server.url(), 'create database shop')
    const complaint = await agent.logged(/^NOT CAPTURING: database shop is another one/)
    expect(complaint).toMatchObject({ hint: expect.stringContaining('--source') })
    expect(await agent.stop()).toBe(0)
    expect(await readTimelines(archive.repository, 'app')).toHaveLength(1)
    await archive.at(server.url()).restored({ kind: 'latest' }, async (restored) => {
      expect(differences(golden, await fingerprint(restored), ourObjects)).toEqual([])
    })
  })
})

it('says what an upgraded server is, and what to do', async () => {
  const { server, archive } = await source(everyday['14'])
  const timeline = await currentTimeline(archive.repository, 'app')
  await server.stop()
  const upgraded = await open(startEmbedded())
  const conninfo = resolveConninfo(upgraded.url(), {})
  const capture = captureUpToNow(conninfo, archive.repository, 'app', { ...stream, stop: never })
  await expect(capture).rejects.toMatchObject({
    code: 'refused',
    message: expect.stringMatching(/another one .* it is PostgreSQL 18, and that was 14/),
    hint: expect.stringContaining('--source app-18'),
  })
  expect(await currentTimeline(archive.repository, 'app')).toEqual(timeline)
})
