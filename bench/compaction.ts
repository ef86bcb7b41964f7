/**
 * What capture notices of a compaction by the agent: the time from a commit to its confirmation, and the agent's memory,
 * while one runs and while none does, under a steady load; and what the compaction's own process takes.
 *   npm run build && npx tsx bench/compaction.ts [--rows 2000000] [--seconds 240]
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { startEmbedded } from '../src/postgres/embedded.ts'

const { values } = parseArgs({
  options: { rows: { type: 'string', default: '2000000' }, seconds: { type: 'string', default: '240' } },
})
const [rows, seconds] = [Number(values.rows), Number(values.seconds)]

/** How many rows each transaction changes, and how many of them come in a second. */
const [perTransaction, perSecond] = [200, 20]

const kb = (pid: number, field: 'VmRSS' | 'VmHWM'): number =>
  Number(new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)

/** The process of a compaction, if one is at work. */
function compactionOf({ pid }: ChildProcess): number | undefined {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
  return children.find((child) => {
    try {
      return readFileSync(`/proc/${child}/cmdline`, 'utf8').includes('compact-process')
    } catch {
      return false
    }
  })
}

const connected = async (url: string): Promise<pg.Client> => {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  return client
}

class Sample {
  readonly latencies_ms: number[] = []
  agent_kb = 0

  toString(): string {
    const sorted = this.latencies_ms.toSorted((a, b) => a - b)
    const at = (share: number): string => (sorted[Math.floor(share * (sorted.length - 1))] ?? Number.NaN).toFixed(0)
    return `${sorted.length} commits, confirmed after ${at(0.5)} ms (median), ${at(0.95)} ms (95 %), ${at(1)} ms (longest); agent at most ${(this.agent_kb / 1024).toFixed(0)} MiB`
  }
}

await using server = await startEmbedded({
  settings: { shared_buffers: '256MB', max_wal_size: '4GB', fsync: 'off' },
})
const url = server.url()
const folder = mkdtempSync(join(tmpdir(), 'walback-compaction-'))
const [client, probe] = [await connected(url), await connected(url)]
await client.query(`CREATE TABLE item (id int PRIMARY KEY, note text, n int)`)
await client.query(`INSERT INTO item SELECT g, 'note ' || md5(g::text), 0 FROM generate_series(1, ${rows}) g`)
const config = join(folder, 'walback.yaml')
writeFileSync(
  config,
  JSON.stringify({
    version: 1,
    repositories: [join(folder, 'repository')],
    sources: { app: { url } },
    stream: { segment_age: '200ms', heartbeat: '5s' },
    compact: { every: '1m' },
  }),
)
const walback = (...args: string[]): ChildProcess =>
  spawn(process.execPath, ['dist/cli/main.js', ...args, '-c', config], { stdio: ['ignore', 'inherit', 'inherit'] })
const init = walback('init', '--yes')
await new Promise((resolve) => init.on('exit', resolve))
const agent = walback('agent', '--quiet')
const [alone, beside] = [new Sample(), new Sample()]
const peaks = new Map<number, number>()
const started = performance.now()
const isRunning = (): boolean => agent.exitCode === null && performance.now() - started < seconds * 1000

async function load(): Promise<void> {
  for (let n = 0; isRunning(); n++) {
    const next = performance.now() + 1000 / perSecond
    const first = (n * 7919 * perTransaction) % rows
    await client.query(`UPDATE item SET n = n + 1 WHERE id BETWEEN ${first} AND ${first + perTransaction - 1}`)
    await delay(Math.max(0, next - performance.now()))
  }
}

async function watch(): Promise<void> {
  while (isRunning()) {
    const { rows: at } = await probe.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
    const before = performance.now()
    const compaction = compactionOf(agent)
    for (let isConfirmed = false; !isConfirmed && agent.exitCode === null; ) {
      await delay(5)
      const { rows: slot } = await probe.query<{ done: boolean }>(
        `SELECT coalesce(bool_and(confirmed_flush_lsn >= $1), false) AS done FROM pg_replication_slots`,
        [at[0]?.lsn],
      )
      isConfirmed = slot[0]?.done === true
    }
    const sample = compaction === undefined ? alone : beside
    // The first base reads from the source, and is another matter.
    if (performance.now() - started < 40_000) continue
    sample.latencies_ms.push(performance.now() - before)
    sample.agent_kb = Math.max(sample.agent_kb, kb(agent.pid ?? 0, 'VmRSS'))
    try {
      if (compaction !== undefined) peaks.set(compaction, kb(compaction, 'VmHWM'))
    } catch {}
  }
}

await Promise.all([load(), watch()])
agent.kill('SIGTERM')
await new Promise((resolve) => (agent.exitCode === null ? agent.on('exit', resolve) : resolve(0)))
console.log(`without a compaction: ${alone}`)
console.log(`with one:             ${beside}`)
console.log(
  `compactions: ${peaks.size}, at most ${[...peaks.values()].map((peak) => (peak / 1024).toFixed(0)).join(', ')} MiB`,
)
await Promise.all([client.end(), probe.end()])
rmSync(folder, { recursive: true })
