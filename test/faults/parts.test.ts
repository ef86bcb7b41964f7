import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { sleep, waitFor } from '../../src/base/abort.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { currentTimeline, type Timeline } from '../../src/repository/timeline.ts'
import { startAgent } from '../support/agent-process.ts'
import { readSegments } from '../support/segments.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'
import { proveLatest, sql, watchSlot, withClient } from './proof.ts'

const stream = { segmentBytes: 256 << 10, segmentAge_ms: 50, heartbeat_ms: 1000 }

/** Keys of the parts that are stored, whether a segment names them or not. */
async function storedParts(archive: TestArchive): Promise<string[]> {
  const files = await readdir(join(archive.folder, 'sources/app/timelines/00000001/segments'), {
    recursive: true,
  }).catch(() => [])
  return files.filter((file) => file.endsWith('.wbp')).map((file) => `sources/app/timelines/00000001/segments/${file}`)
}

it('takes a transaction of many segments whole or not at all, over kills in its middle', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id int primary key, filler text); create table other (n int)')
  await using archive = await openArchive(url)
  await archive.base()
  await archive.catchUp()
  const watch = watchSlot(url, archive)
  await withClient(url, async (client) => {
    await client.query('begin')
    await client.query(
      `insert into t select n, md5(n::text) || md5((n + 1)::text) || md5((n + 2)::text) || md5((n + 3)::text) from generate_series(1, 300000) n`,
    )
    await client.query(`savepoint s; insert into other select generate_series(1, 1000); rollback to s`)
    await client.query(`update t set filler = 'updated' where id % 1000 = 0`)
    // Small transactions that commit before the large one, and arrive before it.
    await sql(url, 'insert into other values (1)')
    await client.query('commit')
    await sql(url, 'insert into other values (2)')
  })
  let orphans = 0
  for (let round = 0; round < 3; round++) {
    await using agent = startAgent({ url, repository: archive.folder, source: 'app', ...stream })
    const wanted = orphans + 2 + round
    const probe = async (): Promise<true | undefined> => (await storedParts(archive)).length >= wanted || undefined
    expect(await waitFor(probe, { timeout_ms: 30_000, interval_ms: 5 })).toBe(true)
    await agent.kill()
    orphans = (await storedParts(archive)).length
    // Nothing of it may be seen yet.
    const history = await archive.history()
    expect(history.transactions.some(({ bytes }) => bytes > 1 << 20)).toBe(false)
  }
  await using agent = startAgent({ url, repository: archive.folder, source: 'app', ...stream })
  const probe = async (): Promise<true | undefined> =>
    (await archive.history()).transactions.some(({ bytes }) => bytes > 1 << 20) || undefined
  expect(await waitFor(probe, { timeout_ms: 60_000, interval_ms: 100 })).toBe(true)
  await agent.stop()
  await archive.catchUp()
  await watch.end()
  const timeline = (await currentTimeline(archive.repository, 'app')) as Timeline
  const named = (await readSegments(archive.repository, timeline)).flatMap(({ trailer }) =>
    trailer.parts.map(({ key }) => key),
  )
  expect(named.length).toBeGreaterThan(5)
  const stored = await storedParts(archive)
  expect(named.every((key) => stored.includes(key))).toBe(true)
  expect(stored.length - named.length).toBeGreaterThanOrEqual(orphans)
  await proveLatest(archive, url)
})

it('follows one large transaction with others, which share its last segment or come in their own', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id int primary key, filler text); create table other (n int)')
  await using archive = await openArchive(url)
  await archive.base()
  for (const bytes of [16 << 10, 64 << 10, 256 << 10]) {
    await sql(url, `insert into t select ${bytes} * 10 + n, md5(n::text) from generate_series(1, 40000) n`)
    for (let n = 0; n < 30; n++) await sql(url, `insert into other values (${n})`)
    await sql(url, `truncate other; delete from t where id % 2 = 0; insert into other values (-1)`)
    await archive.catchUp({ segmentBytes: bytes, segmentAge_ms: 60_000 })
    await sleep(10)
  }
  await proveLatest(archive, url)
})
