/**
 * Streams that are made to hurt, each captured by the agent as a process of its own, with its peak memory from the
 * moment that its base is done; and then restored and compared, with the time and memory of that.
 *   npm run build && npx tsx bench/hostile.ts [kind …] [--scale 0.1] [--no-restore]
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { startEmbedded } from '../src/postgres/embedded.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { scale: { type: 'string', default: '1' }, 'no-restore': { type: 'boolean', default: false } },
})
const scale = Number(values.scale)
const scaled = (count: number): number => Math.max(1, Math.round(count * scale))

interface Hostile {
  /** Before `init`. */
  readonly before: (client: pg.Client) => Promise<unknown>
  readonly run: (client: pg.Client) => Promise<unknown>
}

const tableCount = scaled(50_000)
const perTransaction = 500
const eachTable = async (client: pg.Client, statement: (n: number) => string): Promise<void> => {
  for (let n = 0; n < tableCount; n += perTransaction) {
    const some = Array.from({ length: Math.min(perTransaction, tableCount - n) }, (_, place) => statement(n + place))
    await client.query(some.join(';'))
  }
}

const kinds: Readonly<Record<string, Hostile>> = {
  rows: {
    before: (client) => client.query('CREATE TABLE item (id bigint PRIMARY KEY, customer int, note text)'),
    run: (client) =>
      client.query(
        `INSERT INTO item SELECT g, g % 1000, 'note ' || md5(g::text) FROM generate_series(1, ${scaled(10_000_000)}) g`,
      ),
  },
  subtransactions: {
    before: (client) => client.query('CREATE TABLE item (id bigint PRIMARY KEY, note text)'),
    run: (client) =>
      client.query(`DO $$ BEGIN FOR n IN 1..${scaled(100_000)} LOOP
        BEGIN
          INSERT INTO item VALUES (n, md5(n::text));
          IF n % 10 = 0 THEN RAISE 'undone'; END IF;
        EXCEPTION WHEN OTHERS THEN NULL; END;
      END LOOP; END $$`),
  },
  tables: {
    before: (client) => eachTable(client, (n) => `CREATE TABLE t${n} (id int PRIMARY KEY, note text)`),
    run: async (client) => {
      await eachTable(client, (n) => `INSERT INTO t${n} VALUES (1, 'one'), (2, 'two')`)
      await eachTable(client, (n) => `UPDATE t${n} SET note = 'more' WHERE id = 1`)
    },
  },
  ddl: {
    before: (client) => client.query('CREATE TABLE item (id bigint PRIMARY KEY)'),
    run: async (client) => {
      await client.query('BEGIN')
      for (let n = 0; n < scaled(1000); n += 4) {
        await client.query(`CREATE TABLE made_${n} (id int PRIMARY KEY, note text DEFAULT 'made ${n}')`)
        await client.query(`INSERT INTO made_${n} (id) SELECT generate_series(1, 10)`)
        await client.query(`ALTER TABLE made_${n} ADD COLUMN more int DEFAULT ${n}`)
        await client.query(`CREATE INDEX ON made_${n} (more)`)
        await client.query(`ALTER TABLE item ADD COLUMN c${n} int`)
        await client.query(`INSERT INTO item (id, c${n}) VALUES (${n}, ${n})`)
      }
      await client.query('COMMIT')
    },
  },
  field: {
    before: (client) => client.query('CREATE TABLE item (id int PRIMARY KEY, note text)'),
    // Text that LZ4 cannot make much smaller, so that it is as large on its whole way.
    run: (client) =>
      client.query(
        `INSERT INTO item SELECT 1, string_agg(md5(g::text), '') FROM generate_series(1, ${scaled(500 * 2 ** 20) >> 5}) g`,
      ),
  },
  burst: {
    before: (client) => client.query('CREATE TABLE item (id bigint PRIMARY KEY, note text)'),
    run: async (client) => {
      await delay(3000)
      await client.query('SET synchronous_commit = off')
      await client.query(`DO $$ BEGIN FOR n IN 1..${scaled(500_000)} LOOP
        INSERT INTO item VALUES (n, md5(n::text)); COMMIT; END LOOP; END $$`)
    },
  },
}

const peak_mib = ({ pid }: { readonly pid?: number | undefined }): number =>
  Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024

/** The largest of the processes that a process has started and that are there now. */
function childPeak_mib({ pid }: ChildProcess): number {
  let peak = 0
  for (const child of readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean)) {
    try {
      peak = Math.max(peak, peak_mib({ pid: Number(child) }))
    } catch {}
  }
  return peak
}

function walback(args: readonly string[], url: string, folder: string): ChildProcess {
  const common = ['--db', url, '--repo', folder, '--source', 'hostile', '--yes', '--quiet']
  return spawn(process.execPath, ['dist/cli/main.js', ...args, ...common], { stdio: ['ignore', 'ignore', 'inherit'] })
}

/** Runs a command to its end; gives seconds and peak resident memory. */
async function toEnd(args: readonly string[], url: string, folder: string): Promise<{ seconds: number; peak: number }> {
  const started = performance.now()
  const child = walback(args, url, folder)
  let peak = 0
  const timer = setInterval(() => {
    try {
      peak = Math.max(peak, peak_mib(child))
    } catch {}
  }, 50)
  const status = await new Promise((resolve) => child.on('exit', resolve))
  clearInterval(timer)
  if (status !== 0 && status !== 3) throw new Error(`walback ${args[0]} ended with ${status}`)
  return { seconds: (performance.now() - started) / 1000, peak }
}

const hasBase = (folder: string): boolean => {
  const bases = join(folder, 'sources/hostile/bases')
  return existsSync(bases) && readdirSync(bases).some((id) => existsSync(join(bases, id, 'manifest.json')))
}

const connected = async (url: string): Promise<pg.Client> => {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  return client
}

/** Number and sum of hashes of the rows of each table. */
async function contents(url: string): Promise<string> {
  const client = await connected(url)
  const { rows } = await client.query<{ name: string }>(
    `SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1`,
  )
  const sums: string[] = []
  for (let at = 0; at < rows.length; at += 200) {
    const some = rows
      .slice(at, at + 200)
      .map(
        ({ name }) =>
          `SELECT '${name} ' || count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) AS s FROM ${name} t`,
      )
    sums.push(...(await client.query<{ s: string }>(some.join(' UNION ALL '))).rows.map(({ s }) => s))
  }
  await client.end()
  return sums.sort().join('\n')
}

async function measure(name: string, hostile: Hostile): Promise<void> {
  await using server = await startEmbedded({
    settings: { shared_buffers: '256MB', max_wal_size: '4GB', max_locks_per_transaction: '2048', fsync: 'off' },
  })
  const url = server.url()
  const folder = mkdtempSync(join(tmpdir(), 'walback-hostile-'))
  const client = await connected(url)
  await hostile.before(client)
  await toEnd(['init', '--no-config'], url, folder)
  const agentStarted = performance.now()
  const agent = walback(['agent'], url, folder)
  try {
    let dumpPeak = 0
    while (!hasBase(folder)) {
      if (agent.exitCode !== null) throw new Error('the agent has ended')
      dumpPeak = Math.max(dumpPeak, childPeak_mib(agent))
      await delay(50)
    }
    const base_s = (performance.now() - agentStarted) / 1000
    const basePeak = peak_mib(agent)
    // From here on the peak is of what comes now (proc(5), clear_refs).
    writeFileSync(`/proc/${agent.pid}/clear_refs`, '5')
    const lsn = async (): Promise<string> =>
      (await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')).rows[0]?.lsn ?? ''
    const from = await lsn()
    await hostile.run(client)
    const committed = performance.now()
    const to = await lsn()
    const isCaptured = async (): Promise<boolean> =>
      (
        await client.query<{ done: boolean }>(
          `SELECT confirmed_flush_lsn >= $1 AS done FROM pg_replication_slots WHERE slot_name = 'walback_hostile'`,
          [to],
        )
      ).rows[0]?.done === true
    while (!(await isCaptured())) {
      if (agent.exitCode !== null) throw new Error('the agent has ended')
      await delay(20)
    }
    const seconds = (performance.now() - committed) / 1000
    const { rows } = await client.query<{ bytes: string }>('SELECT ($2::pg_lsn - $1::pg_lsn)::text AS bytes', [
      from,
      to,
    ])
    const wal_mb = Number(rows[0]?.bytes) / 1e6
    console.log(
      `${name.padEnd(16)} ${wal_mb.toFixed(0)} MB of log, archived ${seconds.toFixed(1)} s after the commit (${(wal_mb / seconds).toFixed(1)} MB/s), peak ${peak_mib(agent).toFixed(0)} MiB; before, with the base, which took ${base_s.toFixed(0)} s, ${basePeak.toFixed(0)} MiB, and ${dumpPeak.toFixed(0)} MiB in the process of pg_dump`,
    )
  } finally {
    agent.kill('SIGTERM')
    await new Promise((resolve) => (agent.exitCode === null ? agent.on('exit', resolve) : resolve(0)))
  }
  if (!values['no-restore']) {
    const { seconds, peak } = await toEnd(['restore', '--to', 'latest', '--into', 'restored'], url, folder)
    const isEqual = (await contents(url)) === (await contents(server.url('restored')))
    console.log(
      `${''.padEnd(16)} ${isEqual ? 'restored equal' : 'DIFFERENT'} in ${seconds.toFixed(1)} s, peak ${peak.toFixed(0)} MiB`,
    )
    if (!isEqual) process.exitCode = 1
  }
  await client.end()
  rmSync(folder, { recursive: true })
}

for (const name of positionals.length > 0 ? positionals : Object.keys(kinds)) {
  const hostile = kinds[name]
  if (hostile === undefined) throw new Error(`no kind ${name}, only ${Object.keys(kinds).join(', ')}`)
  await measure(name, hostile)
}
