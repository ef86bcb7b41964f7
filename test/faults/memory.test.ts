import { expect, it } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { type AgentProcess, startAgent } from '../support/agent-process.ts'
import { openArchive } from '../support/walback.ts'
import { sql, transactionsOf } from './proof.ts'

const stream = { segmentBytes: 8 << 20, segmentAge_ms: 100, heartbeat_ms: 1000 }
const mib = 1 << 20

const residents = (agent: AgentProcess): number[] =>
  agent.lines.filter(({ msg }) => msg === 'memory').map(({ rss_bytes }) => Number(rss_bytes))

const lsnOf = async (url: string): Promise<bigint> =>
  parseLsn((await sql<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn'))[0]?.lsn ?? '')

/** How many rows the next commit brings, and how many commits. */
const [rows, commits] = [40_000, 10]

it('holds no more in memory than its bounds while the store is stalled under load, and loses nothing', async () => {
  await using server = await startEmbedded({ settings: { max_wal_size: '2GB', fsync: 'off' } })
  const url = server.url()
  // Text that does not compress, so that what would be held is as much as what comes.
  const text = `select string_agg(md5(random()::text || m), '') from generate_series(1, 12) m where n > 0`
  await sql(
    url,
    `create table t (id bigint, filler text); create table drawn as select n, (${text}) from generate_series(1, ${rows}) n`,
  )
  await using archive = await openArchive(url)
  await archive.base()
  await using agent = startAgent({ url, repository: archive.folder, source: 'app', ...stream, memory_ms: 100 })
  await agent.logged(/^capturing$/)
  const load = (): Promise<unknown> => sql(url, 'insert into t table drawn')
  // What a process that works needs at all: code, a JIT that has warmed up, buffers.
  await load()
  const warm = await lsnOf(url)
  const stored = async (): Promise<true | undefined> => (await archive.history()).end >= warm || undefined
  expect(await waitFor(stored, { timeout_ms: 60_000, interval_ms: 200 })).toBe(true)

  agent.signal('SIGUSR2')
  await agent.logged(/^stalled$/)
  const before = Math.max(...residents(agent))
  const [begun, count] = [await lsnOf(url), residents(agent).length]
  for (let n = 1; n < commits; n++) await load()
  const written = Number((await lsnOf(url)) - begun)
  expect(written).toBeGreaterThan(128 * mib)
  const seen = residents(agent).length
  const more = async (): Promise<true | undefined> => residents(agent).length >= seen + 20 || undefined
  await waitFor(more, { timeout_ms: 30_000, interval_ms: 100 })
  const peak = Math.max(...residents(agent).slice(count))
  expect(peak - before).toBeLessThan(64 * mib)

  agent.signal('SIGUSR2')
  await agent.logged(/^working$/)
  const end = await lsnOf(url)
  const caughtUp = async (): Promise<true | undefined> => (await archive.history()).end >= end || undefined
  expect(await waitFor(caughtUp, { timeout_ms: 60_000, interval_ms: 200 })).toBe(true)
  const figures = { before, peak, written, afterwards: Math.max(...residents(agent)) }
  console.log(
    Object.entries(figures)
      .map(([name, bytes]) => `${name} ${Math.round(bytes / mib)} MiB`)
      .join(', '),
  )
  expect(await agent.stop()).toBe(0)
  const inserts = (await transactionsOf(archive)).flatMap(({ counts }) => counts.map(([, inserted]) => inserted))
  expect(inserts.filter((inserted) => inserted === rows)).toHaveLength(commits)
})
