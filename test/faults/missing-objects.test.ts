import { expect, it } from 'vitest'
import { readHoldings } from '../../src/history/status.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { listSegments } from '../../src/repository/segments.ts'
import { currentTimeline, readTimelines, type Timeline } from '../../src/repository/timeline.ts'
import { startAgent } from '../support/agent-process.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { openArchive, ourObjects, type TestArchive } from '../support/walback.ts'
import { sql } from './proof.ts'

const stream = { segmentBytes: 128 << 10, segmentAge_ms: 50, heartbeat_ms: 500 }

interface Step {
  readonly lsn: string
  readonly print: Awaited<ReturnType<typeof fingerprint>>
}

/** Commits something, archives it in a segment of its own, and tells where that was. */
async function step(url: string, archive: TestArchive, what: string): Promise<Step> {
  await sql(url, `insert into t (what) values ('${what}')`)
  const [at] = await sql<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn')
  const print = await fingerprint(url)
  await archive.catchUp()
  return { lsn: at?.lsn ?? '', print }
}

/** Deletes the segment that holds a position. */
async function loseSegment(archive: TestArchive, lsn: string): Promise<void> {
  const timeline = (await currentTimeline(archive.repository, 'app')) as Timeline
  const segments = await listSegments(archive.repository, timeline)
  const held = segments.findLast(({ start }) => start < parseLsn(lsn))
  await archive.repository.storage.delete(held?.key ?? '')
}

const planOf = (archive: TestArchive, { lsn }: Step): Promise<unknown> =>
  archive.plan({ kind: 'lsn', lsn: parseLsn(lsn) })

it('finds a segment that was deleted from the middle, keeps what is around it, and takes a base', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, what text)')
  await using archive = await openArchive(url)
  await archive.base()
  const before = await step(url, archive, 'before')
  const lost = await step(url, archive, 'lost')
  const after = await step(url, archive, 'after')
  await loseSegment(archive, lost.lsn)

  // Without a base after it, what comes later is gone; the latest state is not quietly an older one.
  const holdings = await readHoldings(archive.repository, 'app')
  expect(holdings.gaps).toMatchObject([{ to: undefined, reason: expect.stringContaining('segments are missing') }])
  await expect(archive.plan({ kind: 'latest' })).rejects.toMatchObject({ code: 'gap', exit: 21 })
  await expect(planOf(archive, lost)).rejects.toMatchObject({ code: 'gap', exit: 21 })
  await expect(planOf(archive, after)).rejects.toMatchObject({ code: 'gap', exit: 21 })

  await using agent = startAgent({ url, repository: archive.folder, source: 'app', ...stream })
  const told = await agent.logged(/^ARCHIVE DAMAGED: segments are missing/)
  expect(told).toMatchObject({ event: 'archive-damaged', state: 'raised', from: expect.any(String) })
  await agent.logged(/^base backup done$/)
  await sql(url, `insert into t (what) values ('later')`)
  expect(await agent.stop()).toBe(0)
  await archive.catchUp()
  expect(await readTimelines(archive.repository, 'app')).toHaveLength(1)
  expect((await readHoldings(archive.repository, 'app')).windows).toHaveLength(2)
  const latest = await fingerprint(url)
  await archive.restored({ kind: 'latest' }, async (restored) => {
    expect(differences(latest, await fingerprint(restored), ourObjects)).toEqual([])
  })
  await archive.restored({ kind: 'lsn', lsn: parseLsn(before.lsn) }, async (restored) => {
    expect(differences(before.print, await fingerprint(restored), ourObjects)).toEqual([])
  })
  for (const gone of [lost, after]) await expect(planOf(archive, gone)).rejects.toMatchObject({ code: 'gap', exit: 21 })
})

it.each(['deleted', 'cut short'] as const)(
  'begins a new timeline when the last segment was %s and the server has let go of its log',
  async (how) => {
    await using server = await startEmbedded()
    const url = server.url()
    await sql(url, 'create table t (id serial primary key, what text)')
    await using archive = await openArchive(url)
    await archive.base()
    const before = await step(url, archive, 'before')
    const lost = await step(url, archive, 'lost')
    const timeline = (await currentTimeline(archive.repository, 'app')) as Timeline
    for (const { key, start, size_bytes } of await listSegments(archive.repository, timeline)) {
      if (start < parseLsn(before.lsn)) continue
      const { storage } = archive.repository
      const bytes: Buffer[] = []
      for await (const chunk of storage.get(key, { range: { start: 0, end: size_bytes / 2 } })) bytes.push(chunk)
      await storage.delete(key)
      if (how === 'cut short') await storage.put(key, Buffer.concat(bytes))
    }
    await using agent = startAgent({ url, repository: archive.folder, source: 'app', ...stream })
    await agent.logged(/^GAP: .*objects at the archive's end are gone/)
    await agent.logged(/^base backup done$/)
    expect(await agent.stop()).toBe(0)
    await archive.catchUp()
    expect((await readTimelines(archive.repository, 'app'))[1]?.parent).toMatchObject({ timeline: '00000001' })
    const latest = await fingerprint(url)
    await archive.restored({ kind: 'latest' }, async (restored) => {
      expect(differences(latest, await fingerprint(restored), ourObjects)).toEqual([])
    })
    await archive.restored({ kind: 'lsn', lsn: parseLsn(before.lsn) }, async (restored) => {
      expect(differences(before.print, await fingerprint(restored), ourObjects)).toEqual([])
    })
    await expect(planOf(archive, lost)).rejects.toMatchObject({ code: 'gap', exit: 21 })
  },
)
