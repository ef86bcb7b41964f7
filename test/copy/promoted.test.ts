import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { type CheckReport, checkSource, fixesOf, runFixes } from '../../src/capture/check.ts'
import { setUp } from '../../src/capture/setup.ts'
import { copySource } from '../../src/copy/copy.ts'
import { openTarget } from '../../src/copy/target.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { readSlot } from '../../src/postgres/source.ts'
import { readTimelines } from '../../src/repository/timeline.ts'
import { openStorage } from '../../src/storage/open.ts'
import { proveLatest, sql, withClient } from '../faults/proof.ts'
import { archiveAt, openArchive, type TestArchive } from '../support/walback.ts'

const at = (url: string, folder: string): Promise<CheckReport> =>
  withClient(url, (client) =>
    checkSource(client, { source: 'app', suggested: 'app', storage: openStorage(folder), signal: undefined }),
  )
/** One for each publication. */
const complaints = async (url: string, folder: string) =>
  (await at(url, folder)).findings.filter(({ code }) => code === 'other-repository')
const complaint = async (url: string, folder: string) => (await complaints(url, folder))[0]

async function copied(url: string, archive: TestArchive, folder: string): Promise<TestArchive> {
  const repository = await openTarget(archive.repository, openStorage(folder))
  await copySource(archive.repository, repository, 'app')
  return archiveAt(url, { folder, repository, source: 'app' })
}

it('a copy takes the place of the first by what check says, and nothing is done before it can', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, what text)')
  await using archive = await openArchive(url)
  const places = await mkdtemp(path.join(tmpdir(), 'walback-copies-'))
  await using _ = { [Symbol.asyncDispose]: () => rm(places, { recursive: true, force: true }) }
  await archive.base()
  await archive.catchUp()
  const second = await copied(url, archive, path.join(places, 'second'))
  const third = await copied(url, archive, path.join(places, 'third'))
  expect(await complaint(url, second.folder)).toMatchObject({ fix: { sql: expect.stringMatching(/^COMMENT ON/) } })

  // Somebody feeds the first.
  const stop = archive.capture()
  const isActive = () => withClient(url, async (client) => (await readSlot(client, 'walback_app'))?.active || undefined)
  expect(await waitFor(isActive, { timeout_ms: 60_000, interval_ms: 50 })).toBe(true)
  const fed = await complaint(url, second.folder)
  expect(fed).toMatchObject({ sql: null, fix: null, hint: expect.stringContaining('end that agent') })
  await stop()

  // The first is ahead.
  await sql(url, `insert into t (what) values ('known to the first alone')`)
  await archive.catchUp()
  const behind = await complaint(url, second.folder)
  expect(behind).toMatchObject({ fix: null, hint: expect.stringContaining('`walback copy` from it first') })

  await copied(url, archive, second.folder)
  const report = await at(url, second.folder)
  const errors = report.findings.filter(({ level }) => level === 'error')
  expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['other-repository']))
  await withClient(url, (client) => runFixes(client, fixesOf(report.findings)))
  expect(await complaint(url, second.folder)).toBeUndefined()
  await rm(archive.folder, { recursive: true })
  await sql(url, `insert into t (what) values ('known to the second')`)
  await second.catchUp()
  await proveLatest(second, url)

  // The first and the second are lost, and the third was behind.
  const left = await complaints(url, third.folder)
  const init = () =>
    withClient(url, (client) => setUp(client, third.repository, { source: 'app', replicaIdentity: 'full' }))
  await expect(init()).rejects.toMatchObject({ code: 'refused', hint: expect.stringContaining('`walback check`') })
  for (const one of left) await sql(url, one.sql ?? '')
  await init()
  expect((await readTimelines(third.repository, 'app')).map(({ parent }) => parent?.timeline)).toEqual([
    undefined,
    '00000001',
  ])
  await third.base()
  await sql(url, `insert into t (what) values ('known to the third')`)
  await third.catchUp()
  await third.restored({ kind: 'latest' }, async (restored) => {
    expect(await sql(restored, 'select what from t order by id')).toEqual(
      ['known to the first alone', 'known to the second', 'known to the third'].map((what) => ({ what })),
    )
  })
  expect(await complaint(url, third.folder)).toBeUndefined()
})
