import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { type CanaryOutcome, sendCanary } from '../../src/capture/canary.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import { proveLatest } from '../faults/proof.ts'
import { StallingStorage } from '../support/faults.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'
import { here, type Ran, sql, stateOf } from './walback.ts'

let server: EmbeddedServer
let archive: TestArchive
let place: string
beforeAll(async () => {
  server = await startEmbedded({ settings: { max_slot_wal_keep_size: '1GB' } })
  await sql(server.url(), 'CREATE TABLE t (id int PRIMARY KEY)')
  archive = await openArchive(server.url())
  await archive.base()
  place = await mkdtemp(path.join(tmpdir(), 'walback-canary-'))
})
afterAll(async () => {
  await archive?.[Symbol.asyncDispose]()
  await rm(place, { recursive: true, force: true })
  await server?.[Symbol.asyncDispose]()
})

const check = (...args: string[]): Promise<Ran> =>
  here(['check', '--db', server.url(), '--repo', archive.folder, '--no-color', ...args], { cwd: place })

const isTaken = async (): Promise<true | undefined> =>
  (await sql<{ active: boolean }>(server.url(), 'SELECT active FROM pg_replication_slots'))[0]?.active || undefined
const isFree = async (): Promise<true | undefined> => ((await isTaken()) ? undefined : true)

/** Sends one into a store that may misbehave. */
async function send(storage: StallingStorage, timeout_ms: number): Promise<CanaryOutcome> {
  const client = new pg.Client({ connectionString: server.url() })
  await client.connect()
  try {
    const { signal } = new AbortController()
    const repository = await Repository.open(storage)
    return await sendCanary(client, { conninfo: archive.conninfo, repository, source: 'app', timeout_ms, signal })
  } finally {
    await client.end()
  }
}

it('is captured by the check itself where no agent is, and carries the chain on', async () => {
  const ran = await check()
  expect(ran).toMatchObject({ exit: 0 })
  expect(ran.stdout).toMatch(
    /\nOK {2}canary\n {2}commit -> stored -> read back in [\d.]+ m?s, captured here: no agent is capturing\n/,
  )
  const { canary, findings } = JSON.parse((await check('--json')).stdout)
  expect(canary).toMatchObject({
    state: 'back',
    captured_by: 'check',
    object: expect.stringMatching(/\.wbs$/),
    why: null,
  })
  expect(canary.duration_ms).toBeGreaterThan(0)
  expect(findings.map(({ code }: { code: string }) => code)).not.toContain('canary')
  expect((await check('--nagios')).stdout).toMatch(/^WALBACK OK - .* canary=\d+ms\n$/)
  await proveLatest(archive, server.url())
})

it('waits for the agent where one is capturing, and takes nothing from it', async () => {
  const stop = archive.capture()
  expect(await waitFor(isTaken, { timeout_ms: 30_000, interval_ms: 20 })).toBe(true)
  const { canary } = JSON.parse((await check('--json')).stdout)
  expect(canary).toMatchObject({ state: 'back', captured_by: 'agent' })
  expect(await isTaken()).toBe(true)
  await archive.catchUpAfter(stop)
  await proveLatest(archive, server.url())
})

it('is left out where that is asked for, or where it could not come back', async () => {
  const before = await stateOf(server.url(), archive.folder)
  const { canary } = JSON.parse((await check('--json', '--no-canary')).stdout)
  expect(canary).toMatchObject({ state: 'skipped', why: '--no-canary' })
  const other = JSON.parse((await check('--json', '--source', 'other')).stdout)
  expect(other.canary).toMatchObject({ state: 'skipped', why: 'it could not come back: not-set-up' })
  expect(await stateOf(server.url(), archive.folder)).toEqual(before)
  expect(await check('--timeout', '30')).toMatchObject({ exit: 2 })
})

it('is late where the store does not answer, and has failed where it does not keep what it took', async () => {
  const storage = new StallingStorage(archive.repository.storage)
  storage.mode = 'hang'
  expect(await send(storage, 1500)).toMatchObject({ state: 'late', why: expect.stringContaining('1.5 s') })
  storage.release()
  for (const mode of ['lose', 'cut short', 'fail'] as const) {
    storage.mode = mode
    // The capture of the one before still holds the slot for a moment.
    await waitFor(isFree, { timeout_ms: 60_000, interval_ms: 50 })
    const outcome = await send(storage, 20_000)
    expect(outcome).toMatchObject({ state: 'failed', why: expect.stringMatching(/acknowledged|is away/) })
  }
  storage.release()
  await waitFor(isFree, { timeout_ms: 60_000, interval_ms: 50 })
  expect(await send(storage, 20_000)).toMatchObject({ state: 'back', by: 'check' })
  await proveLatest(archive, server.url())
})
