/**
 * Capture speed beside pg_recvlogical, on the same changes and in the same run: both read one and the same history from
 * slots of their own, in turn, and the ratio of the times is what counts. Needs pg_recvlogical on the PATH.
 *   npx tsx bench/capture.ts [rows per transaction] [transactions] [tcp|socket]
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { captureUpToNow } from '../src/capture/session.ts'
import { setUp } from '../src/capture/setup.ts'
import { resolveConninfo } from '../src/postgres/conninfo.ts'
import { startEmbedded } from '../src/postgres/embedded.ts'
import { Repository } from '../src/repository/repository.ts'
import { openStorage } from '../src/storage/open.ts'

const [rows = 100_000, transactions = 10] = process.argv.slice(2, 4).map(Number)
const viaSocket = process.argv[4] === 'socket'
const rounds = 3

await using server = await startEmbedded({
  settings: { shared_buffers: '512MB', max_wal_size: '8GB', logical_decoding_work_mem: '256MB' },
})
const url = server.url()
const client = new pg.Client({ connectionString: url })
client.on('error', () => undefined)
await client.connect()
await client.query('CREATE TABLE item (id bigint PRIMARY KEY, customer int, note text, at timestamptz, amount numeric)')
const folder = mkdtempSync(join(tmpdir(), 'walback-bench-'))
const conninfo = resolveConninfo(
  viaSocket ? `postgres://postgres@/postgres?host=${server.socketDirectory}&port=${server.port}` : url,
  {},
)
const sources = Array.from({ length: rounds }, (_, n) => `round${n}`)
const repository = await Repository.create(openStorage(folder))
for (const source of sources) {
  await setUp(client, repository, { source, replicaIdentity: 'full' })
  await client.query(`SELECT pg_create_logical_replication_slot('peer_${source}', 'pgoutput')`)
}
for (let n = 0; n < transactions; n++) {
  await client.query(
    `INSERT INTO item SELECT g, g % 1000, 'note ' || md5(g::text), now(), (g % 10000) / 100.0 FROM generate_series($1::bigint, $2::bigint) g`,
    [n * rows + 1, (n + 1) * rows],
  )
}
for (let n = 0; n < 50_000 / 10; n++)
  await client.query('UPDATE item SET amount = amount + 1 WHERE id BETWEEN $1 AND $1 + 9', [n * 10 + 1])
const { rows: at } = await client.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')
const end = at[0]?.lsn ?? ''

const peer = (source: string): number => {
  const file = join(folder, `${source}.out`)
  const started = performance.now()
  const host = viaSocket ? server.socketDirectory : '127.0.0.1'
  const { status, stderr } = spawnSync(
    'pg_recvlogical',
    [
      '-h',
      host,
      '-p',
      String(server.port),
      '-U',
      'postgres',
      '-d',
      'postgres',
      '--slot',
      `peer_${source}`,
      '--start',
      '--endpos',
      end,
      '-f',
      file,
      '-o',
      'proto_version=1',
      '-o',
      `publication_names=walback_${source}`,
      '-o',
      'messages=true',
    ],
    { encoding: 'utf8' },
  )
  if (status !== 0) throw new Error(stderr)
  const seconds = (performance.now() - started) / 1000
  console.log(`pg_recvlogical ${seconds.toFixed(2)} s, ${(statSync(file).size / 2 ** 20).toFixed(0)} MiB`)
  rmSync(file)
  return seconds
}

const ours = async (source: string): Promise<number> => {
  const started = performance.now()
  await captureUpToNow(conninfo, repository, source, {
    segmentBytes: 16 << 20,
    segmentAge_ms: 5000,
    heartbeat_ms: 60_000,
    stop: new AbortController().signal,
  })
  const seconds = (performance.now() - started) / 1000
  console.log(`walback        ${seconds.toFixed(2)} s, peak ${(process.resourceUsage().maxRSS / 1024).toFixed(0)} MiB`)
  return seconds
}

const ratios: number[] = []
for (const [n, source] of sources.entries()) {
  // In turn first and second, so that neither always finds the log in the cache.
  const times: { peer: number; ours: number } = { peer: 0, ours: 0 }
  for (const who of n % 2 === 0 ? (['peer', 'ours'] as const) : (['ours', 'peer'] as const))
    times[who] = who === 'peer' ? peer(source) : await ours(source)
  ratios.push(times.peer / times.ours)
}
console.log(`speed of walback as a ratio to pg_recvlogical: ${ratios.map((ratio) => ratio.toFixed(2)).join(', ')}`)
await client.end()
rmSync(folder, { recursive: true })
