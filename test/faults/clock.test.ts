import { afterEach, expect, it, vi } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { readManifests, writeManifest } from '../../src/repository/base.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { Random } from '../support/random.ts'
import { openArchive, ourObjects } from '../support/walback.ts'
import { proveLatest, sql } from './proof.ts'

afterEach(() => void vi.useRealTimers())

const year_ms = 365 * 86_400_000

it('captures, takes bases and restores while the clock of its machine jumps in both directions', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, what text)')
  await using archive = await openArchive(url)
  await archive.base()
  const random = new Random(31)
  // Only the clock that tells the time: intervals are measured by the other one, and go on.
  vi.useFakeTimers({ toFake: ['Date'] })
  const now = Date.now()
  let segments = 0
  const stop = archive.capture({ segmentAge_ms: 50, heartbeat_ms: 200, onSegment: () => void segments++ })
  for (let n = 0; n < 12; n++) {
    // Back and forth in turn, so that no base is younger than the one before by this clock.
    vi.setSystemTime(now + (n % 2 === 0 ? 1 : -1) * random.int(1, 10) * year_ms)
    const before = segments
    await sql(url, `insert into t (what) values ('${n}')`)
    if (n === 4 || n === 5) await archive.base()
    const stored = async (): Promise<true | undefined> => segments > before || undefined
    expect(await waitFor(stored, { timeout_ms: 20_000, interval_ms: 20 })).toBe(true)
  }
  vi.setSystemTime(now - 10 * year_ms)
  await archive.catchUpAfter(stop)
  const bases = await readManifests(archive.repository, 'app')
  const positions = bases.map(({ lsn }) => parseLsn(lsn))
  expect(positions).toEqual([...positions].sort((a, b) => (a < b ? -1 : 1)))
  expect((await archive.plan({ kind: 'latest' })).base.id).toBe(bases.at(-1)?.id)
  await proveLatest(archive, url)
})

it('takes the base that is furthest in the log for the newest, though the clock of the server was put back', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, what text)')
  await using archive = await openArchive(url)
  const first = await archive.base()
  await sql(url, `insert into t (what) values ('between')`)
  const second = await archive.base()
  await sql(url, `insert into t (what) values ('after')`)
  await archive.catchUp()
  // As a server would have written it whose clock had been put back by a day.
  await writeManifest(archive.repository, {
    ...second,
    id: `${second.id}-back`,
    time: (BigInt(first.time) - 86_400_000_000n).toString(),
    lsn: second.lsn,
  })
  const bases = await readManifests(archive.repository, 'app')
  expect(bases.map(({ id }) => id)).toEqual([first.id, `${second.id}-back`, second.id])
  const golden = await fingerprint(url)
  await archive.restored({ kind: 'latest' }, async (restored) => {
    expect(differences(golden, await fingerprint(restored), ourObjects)).toEqual([])
  })
})
