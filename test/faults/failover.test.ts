import { afterEach, expect, it } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { captureUpToNow } from '../../src/capture/session.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { readHead } from '../../src/repository/segments.ts'
import { readTimelines } from '../../src/repository/timeline.ts'
import { startAgent } from '../support/agent-process.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { everyday } from '../support/majors.ts'
import { startStandby } from '../support/standby.ts'
import { openArchive, ourObjects, type TestArchive } from '../support/walback.ts'
import { chainOf, sql } from './proof.ts'

const stream = { segmentBytes: 64 << 10, segmentAge_ms: 50, heartbeat_ms: 500 }
const never = new AbortController().signal
const fill = (what: string, rows = 100): string =>
  `insert into t (what) select '${what} ' || md5(n::text) from generate_series(1, ${rows}) n`

/** Both hosts of a cluster, of which the agent takes the primary. */
const clusterUrl = (...servers: EmbeddedServer[]): string =>
  `postgres://postgres@${servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}/postgres?target_session_attrs=read-write`

async function expectLatest(archive: TestArchive, url: string): Promise<void> {
  await archive.catchUp()
  await chainOf(archive)
  const golden = await fingerprint(url)
  await archive.restored({ kind: 'latest' }, async (restored) => {
    expect(differences(golden, await fingerprint(restored), ourObjects)).toEqual([])
  })
}

async function archivedAll(url: string): Promise<void> {
  const [at] = await sql<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn')
  const probe = async (): Promise<true | undefined> =>
    (
      await sql<{ done: boolean }>(
        url,
        `select confirmed_flush_lsn >= '${at?.lsn}' as done from pg_replication_slots where slot_name = 'walback_app'`,
      )
    )[0]?.done || undefined
  expect(await waitFor(probe, { timeout_ms: 30_000, interval_ms: 50 })).toBe(true)
}

const opened: AsyncDisposable[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one[Symbol.asyncDispose]()
})
const open = async <T extends AsyncDisposable>(one: Promise<T>): Promise<T> => {
  const made = await one
  opened.push(made)
  return made
}

it('goes on without a gap when a standby takes over that has the slot', async () => {
  const primary = await open(startEmbedded({ settings: { synchronized_standby_slots: '' } }))
  await sql(primary.url(), 'create table t (id serial primary key, what text)')
  const archive = await open(openArchive(primary.url()))
  await archive.base()
  const standby = await open(
    startStandby(primary, { settings: { sync_replication_slots: 'on' }, conninfo: 'dbname=postgres' }),
  )
  // What the standby may lack is not shown to anybody: the archive is never ahead of it.
  await sql(primary.url(), `alter system set synchronized_standby_slots = 'standby'`)
  await sql(primary.url(), 'select pg_reload_conf()')
  await using agent = startAgent({
    url: clusterUrl(primary, standby.server),
    repository: archive.folder,
    source: 'app',
    ...stream,
  })
  await agent.logged(/^segment stored$/)
  await sql(primary.url(), fill('before'))
  const isSynced = async (): Promise<true | undefined> =>
    (
      await sql<{ synced: boolean }>(
        standby.server.url(),
        `select synced and not temporary as synced from pg_replication_slots where slot_name = 'walback_app'`,
      )
    )[0]?.synced || undefined
  expect(await waitFor(isSynced, { timeout_ms: 60_000, interval_ms: 100 })).toBe(true)
  await sql(primary.url(), fill('last on the old primary'))
  await standby.caughtUp()
  await primary.kill()
  await standby.promote()
  const url = standby.server.url()
  await sql(url, fill('first on the new'))
  await agent.logged(/^capturing$/, { times: 2, timeout_ms: 60_000 })
  await sql(url, fill('later on the new'))
  expect(await agent.stop()).toBe(0)
  expect(agent.lines.filter(({ msg }) => /GAP|NOT CAPTURING/.test(msg))).toEqual([])
  await expectLatest(archive.at(url), url)
  const timelines = await readTimelines(archive.repository, 'app')
  expect(timelines).toHaveLength(1)
  expect((await readHead(archive.repository, timelines[0] as never)).server?.timeline).toBe(2)

  // The old primary answers again. It is not followed, and nothing is begun because of it.
  await primary.start()
  await sql(primary.url(), fill('on the old primary, which nobody should use'))
  const conninfo = resolveConninfo(primary.url(), {})
  await expect(captureUpToNow(conninfo, archive.repository, 'app', { ...stream, stop: never })).rejects.toMatchObject({
    code: 'gap',
    message: expect.stringContaining('an old primary'),
  })
  await using second = startAgent({ url: primary.url(), repository: archive.folder, source: 'app', ...stream })
  await second.logged(/^agent failed$/)
  expect(second.lines.at(-1)).toMatchObject({ code: 'refused' })
  expect(await readTimelines(archive.repository, 'app')).toHaveLength(1)
})

it.each([
  { how: 'with the slot', settings: { sync_replication_slots: 'on' }, conninfo: 'dbname=postgres' },
  { how: 'without the slot', settings: {}, conninfo: '' },
])('sees that the archive holds what a standby never had that takes over, $how', async ({ settings, conninfo }) => {
  const primary = await open(startEmbedded())
  await sql(primary.url(), 'create table t (id serial primary key, what text)')
  const archive = await open(openArchive(primary.url()))
  await archive.base()
  const standby = await open(startStandby(primary, { settings, conninfo }))
  await using agent = startAgent({
    url: clusterUrl(primary, standby.server),
    repository: archive.folder,
    source: 'app',
    ...stream,
  })
  await agent.logged(/^segment stored$/)
  const hasSlot = async (): Promise<true | undefined> =>
    (await sql(standby.server.url(), `select from pg_replication_slots where synced and not temporary`)).length > 0 ||
    undefined
  if (conninfo !== '') expect(await waitFor(hasSlot, { timeout_ms: 60_000, interval_ms: 100 })).toBe(true)
  await standby.server.stop()
  await sql(primary.url(), fill('archived, and unknown to the standby'))
  await archivedAll(primary.url())
  const old = await fingerprint(primary.url())
  const oldEnd = (await archive.history()).end
  await primary.kill()
  await standby.server.start()
  await standby.promote()
  const url = standby.server.url()
  // Its log goes past the archive's end, so that positions alone show nothing.
  await sql(url, fill('another history', 5000))
  await agent.logged(/^GAP/, { timeout_ms: 90_000 })
  await agent.logged(/^base backup done$/, { timeout_ms: 60_000 })
  await sql(url, fill('on the new timeline'))
  expect(await agent.stop()).toBe(0)
  await expectLatest(archive.at(url), url)
  const timelines = await readTimelines(archive.repository, 'app')
  expect(timelines).toHaveLength(2)
  expect(timelines[1]?.parent?.reason).toMatch(
    /promoted at .*, before the archive's end|log ends before the archive|another history before|is gone/,
  )
  // What was acknowledged on the old primary is still to be had.
  await archive.at(url).restored({ kind: 'lsn', lsn: oldEnd }, async (restored) => {
    expect(differences(old, await fingerprint(restored), ourObjects)).toEqual([])
  })
})

it.each(Object.entries(everyday))(
  'begins a new timeline when a standby without the slot takes over (%s)',
  async (_, name) => {
    const primary = await open(startEmbedded({ package: name }))
    await sql(primary.url(), 'create table t (id serial primary key, what text)')
    const archive = await open(openArchive(primary.url()))
    await archive.base()
    const standby = await open(startStandby(primary, { package: name }))
    await using agent = startAgent({
      url: clusterUrl(primary, standby.server),
      repository: archive.folder,
      source: 'app',
      ...stream,
    })
    await agent.logged(/^segment stored$/)
    await sql(primary.url(), fill('before'))
    await archivedAll(primary.url())
    await standby.caughtUp()
    await primary.kill()
    await standby.promote()
    const url = standby.server.url()
    await sql(url, fill('in the gap'))
    const inGap = (await sql<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn'))[0]?.lsn ?? ''
    await agent.logged(/^GAP: the replication slot walback_app is gone/, { timeout_ms: 60_000 })
    await agent.logged(/^base backup done$/)
    await sql(url, fill('on the new timeline'))
    expect(await agent.stop()).toBe(0)
    await expectLatest(archive.at(url), url)
    const timelines = await readTimelines(archive.repository, 'app')
    expect(timelines.map(({ server }) => server?.timeline)).toEqual([1, 2])
    expect(timelines[1]?.parent).toMatchObject({ timeline: '00000001', reason: expect.stringContaining('is gone') })
    await expect(archive.plan({ kind: 'lsn', lsn: parseLsn(inGap) })).rejects.toMatchObject({ code: 'gap', exit: 21 })
  },
)
