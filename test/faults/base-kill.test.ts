import { expect, it } from 'vitest'
import { sleep } from '../../src/base/abort.ts'
import { readManifests } from '../../src/repository/base.ts'
import { basesPrefix } from '../../src/repository/layout.ts'
import { startAgent } from '../support/agent-process.ts'
import { startRefereed } from '../support/referee.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'
import { createNasty, createPgbench, runNasty, runPgbench } from '../support/workload.ts'
import { proveLatest, sql } from './proof.ts'

const carriedOn = /^carrying on with a base backup/
const done = /^base backup done$/

async function basesOf(archive: TestArchive): Promise<{ ids: string[]; keys: string[] }> {
  const keys: string[] = []
  for await (const { key } of archive.repository.storage.list(basesPrefix(archive.source))) keys.push(key)
  const ids = new Set(keys.map((key) => key.slice(basesPrefix(archive.source).length).split('/')[0] ?? ''))
  return { ids: [...ids], keys }
}

it('goes on with what is stored when the agent is killed in the middle of a base, under load', {
  timeout: 240_000,
}, async () => {
  await using source = await startRefereed({ settings: { max_prepared_transactions: '20' } })
  const url = source.server.url()
  await createNasty(url)
  await createPgbench(url, 0.1)
  for (const name of ['a', 'b', 'c', 'd', 'e'])
    await sql(
      url,
      `create table large_${name} (id int primary key, filler text);
       insert into large_${name} select g, repeat(md5(g::text), 10) from generate_series(1, 6500) g`,
    )
  await using archive = await openArchive(url)
  const ending = new AbortController()
  const loads = [
    runNasty(url, { clients: 1, seed: 11, signal: ending.signal }),
    runPgbench(url, { clients: 1, seed: 11, signal: ending.signal }),
  ]
  for (const load of loads) load.catch(() => undefined)
  const stream = { segmentBytes: 128 << 10, segmentAge_ms: 50, heartbeat_ms: 1000 }
  const agent = (maxRate?: number) =>
    startAgent({
      url,
      repository: archive.folder,
      source: archive.source,
      ...stream,
      // A table is a snapshot, so each is recorded as soon as it is stored.
      backup: { maxSnapshotAge_ms: 1, ...(maxRate ? { maxRate } : {}) },
    })
  const recorded = async (): Promise<number> =>
    (await basesOf(archive)).keys.filter((key) => key.endsWith('.tables.json')).length
  for (let round = 0; round < 2; round++) {
    await using running = agent(1_000_000)
    await running.logged(/^capturing$/)
    if (round > 0) {
      const { tables } = await running.logged(carriedOn)
      expect(tables).toBeGreaterThan(0)
    }
    const before = await recorded()
    while ((await recorded()) <= before) await sleep(20)
    // It is in the midst of the next one.
    await sleep(200)
    await running.kill()
  }
  expect(await readManifests(archive.repository, archive.source)).toEqual([])
  await using last = agent()
  const { tables } = await last.logged(carriedOn)
  expect(tables).toBeGreaterThan(1)
  await last.logged(done, { timeout_ms: 120_000 })
  ending.abort()
  await Promise.all(loads)
  expect(await last.stop()).toBe(0)
  const [base, ...more] = await readManifests(archive.repository, archive.source)
  expect(more).toEqual([])
  expect(new Set(base?.tables.map(({ snapshot }) => snapshot)).size).toBeGreaterThan(2)
  // One base, and nothing beside it but what its manifest names.
  const { ids, keys } = await basesOf(archive)
  expect(ids).toEqual([base?.id])
  const named = JSON.stringify(base)
  expect(keys.filter((key) => !key.endsWith('manifest.json') && !named.includes(key))).toEqual([])
  await archive.catchUp()
  await proveLatest(archive, url)
})
