/**
 * One transaction of five million rows through capture and restore, each in a process of its own, with the peak memory
 * of both.   npm run build && npx tsx bench/huge.ts [rows]
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { startEmbedded } from '../src/postgres/embedded.ts'

const rows = Number(process.argv[2] ?? 5_000_000)
await using server = await startEmbedded({ settings: { shared_buffers: '512MB', max_wal_size: '8GB' } })
const url = server.url()
const folder = mkdtempSync(join(tmpdir(), 'walback-bench-'))

/** Runs walback, and gives seconds and peak resident memory in MiB. */
async function walback(...args: string[]): Promise<{ seconds: number; peak_mib: number }> {
  const started = performance.now()
  const child = spawn(
    process.execPath,
    ['dist/cli/main.js', ...args, '--repo', folder, '--source', 'huge', '--yes', '--quiet'],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  )
  let peak = 0
  const timer = setInterval(() => {
    try {
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1] ?? 0))
    } catch {}
  }, 50)
  const status = await new Promise((resolve) => child.on('exit', resolve))
  clearInterval(timer)
  if (status !== 0) throw new Error(`walback ${args[0]} ended with ${status}`)
  return { seconds: (performance.now() - started) / 1000, peak_mib: peak / 1024 }
}

const show = (what: string, { seconds, peak_mib }: { seconds: number; peak_mib: number }): void =>
  console.log(`${what.padEnd(9)} ${seconds.toFixed(1)} s, peak ${peak_mib.toFixed(0)} MiB`)

const client = new pg.Client({ connectionString: url })
client.on('error', () => undefined)
await client.connect()
await client.query('CREATE TABLE item (id bigint PRIMARY KEY, customer int, note text)')
await walback('init', '--db', url, '--no-config')
show('base', await walback('backup', '--full', '--db', url))
await client.query(
  `INSERT INTO item SELECT g, g % 1000, 'note ' || md5(g::text) FROM generate_series(1, $1::bigint) g`,
  [rows],
)
show('capture', await walback('backup', '--incremental', '--db', url))
show('restore', await walback('restore', '--to', 'latest', '--into', 'huge_restored', '--db', url))
const restored = new pg.Client({ connectionString: server.url('huge_restored') })
restored.on('error', () => undefined)
await restored.connect()
const sum = "SELECT count(*)::text || ' ' || sum(hashtextextended(t::text, 0)) AS h FROM item t"
const [a, b] = [
  (await client.query<{ h: string }>(sum)).rows[0]?.h,
  (await restored.query<{ h: string }>(sum)).rows[0]?.h,
]
console.log(a === b ? `equal: ${a}` : `DIFFERENT: ${a} and ${b}`)
await restored.end()
await client.end()
rmSync(folder, { recursive: true })
