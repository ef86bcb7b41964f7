/**
 * What capture costs an application: pgbench's throughput while the agent captures, beside the same while pg_recvlogical
 * reads a slot of the same settings into a file. Both in one run, in turns (ABBA), on one server; the ratio counts.
 * Needs pgbench and pg_recvlogical on the PATH.
 *   npx tsx bench/throughput.ts [seconds per turn] [pairs of turns] [clients]
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { setUp } from '../src/capture/setup.ts'
import { startEmbedded } from '../src/postgres/embedded.ts'
import { Repository } from '../src/repository/repository.ts'
import { openStorage } from '../src/storage/open.ts'

const [seconds = 20, pairs = 3, clients = 4] = process.argv.slice(2).map(Number)
const source = 'bench'

// Without fsync, since a disk that others use too changes its mind by half from one turn to the next.
await using server = await startEmbedded({ settings: { fsync: 'off', shared_buffers: '512MB', max_wal_size: '8GB' } })
const url = server.url()
const folder = mkdtempSync(join(tmpdir(), 'walback-bench-'))
const connection = ['-h', '127.0.0.1', '-p', String(server.port), '-U', 'postgres']
const run = (program: string, args: readonly string[]): string => {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${program}: ${stderr}`)
  return stdout
}
run('pgbench', [...connection, '-i', '-s', '10', '-q', 'postgres'])
const client = new pg.Client({ connectionString: url })
client.on('error', () => undefined)
await client.connect()
await setUp(client, await Repository.create(openStorage(folder)), { source, replicaIdentity: 'full' })
// Before the turns, since the agent would take it in the first of its own.
run(process.execPath, [
  ...['--import', 'tsx', 'cli/main.ts', '--db', url, '--repo', folder, '--source', source],
  ...['backup', '--full'],
])
await client.query(`SELECT pg_create_logical_replication_slot('peer', 'pgoutput')`)

const readers: Record<'agent' | 'pg_recvlogical', () => ChildProcess> = {
  agent: () =>
    spawn(
      process.execPath,
      ['--import', 'tsx', 'cli/main.ts', '--db', url, '--repo', folder, '--source', source, 'agent'],
      {
        stdio: 'ignore',
      },
    ),
  pg_recvlogical: () =>
    spawn(
      'pg_recvlogical',
      [
        ...connection,
        ...['-d', 'postgres', '--slot', 'peer', '--start', '-f', join(folder, 'peer.out')],
        ...['-o', 'proto_version=1', '-o', `publication_names=walback_${source}`, '-o', 'messages=true'],
      ],
      { stdio: 'ignore' },
    ),
}
const slots = { agent: `walback_${source}`, pg_recvlogical: 'peer' } as const

/** Processor time that a process has used so far, of user and system (/proc/PID/stat, in ticks of 10 ms). */
function cpuSeconds(pid: number | undefined): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

/** Transactions a second while this one reads; its slot has caught up before, and is left with what it has then. */
async function turn(who: keyof typeof readers): Promise<number> {
  const reader = readers[who]()
  const isCaughtUp = async (): Promise<boolean> => {
    const { rows } = await client.query<{ active: boolean; behind: string }>(
      'SELECT active, pg_current_wal_lsn() - confirmed_flush_lsn AS behind FROM pg_replication_slots WHERE slot_name = $1',
      [slots[who]],
    )
    return rows[0]?.active === true && Number(rows[0].behind) < 1 << 20
  }
  for (const limit = performance.now() + 300_000; !(await isCaughtUp()); ) {
    if (performance.now() > limit) throw new Error(`${who} does not catch up`)
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
  // Its start is no part of what it costs: what a reader does in its first seconds, it does once.
  await new Promise((resolve) => setTimeout(resolve, 8000))
  const busy = cpuSeconds(reader.pid)
  const said = run('pgbench', [
    ...connection,
    '-n',
    '-c',
    String(clients),
    '-j',
    '2',
    '-T',
    String(seconds),
    'postgres',
  ])
  const tps = Number(/tps = ([\d.]+)/.exec(said)?.[1])
  const cpu = (cpuSeconds(reader.pid) - busy) / seconds
  console.log(`${who.padEnd(15)}${tps.toFixed(0)} tps, ${(100 * cpu).toFixed(0)} % of a core`)
  reader.kill('SIGTERM')
  await once(reader, 'exit')
  return tps
}

const ratios: number[] = []
for (let pair = 0; pair < pairs; pair++) {
  const found: Partial<Record<keyof typeof readers, number>> = {}
  for (const who of pair % 2 === 0 ? (['agent', 'pg_recvlogical'] as const) : (['pg_recvlogical', 'agent'] as const))
    found[who] = await turn(who)
  ratios.push((found.agent ?? 0) / (found.pg_recvlogical ?? 1))
}
const mean = ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length
console.log(
  `throughput beside the agent as a ratio to pg_recvlogical: ${mean.toFixed(3)} (${ratios.map((ratio) => ratio.toFixed(3)).join(', ')})`,
)
await client.end()
rmSync(folder, { recursive: true })
