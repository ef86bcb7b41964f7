import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { PassThrough } from 'node:stream'
import pg from 'pg'
import type { World } from '../../cli/context.ts'
import { run } from '../../cli/run.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { compiled } from '../support/compiled.ts'

export interface Ran {
  readonly exit: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly cwd: string
  readonly env?: Readonly<Record<string, string>>
}

/** Starts the command line as its own process, without a terminal and without this machine's configuration. */
export function start(args: readonly string[], options: RunOptions): ChildProcess {
  const { PATH = '', TMPDIR } = process.env
  const env = { PATH, ...(TMPDIR === undefined ? {} : { TMPDIR }), HOME: options.cwd, TZ: 'UTC', ...options.env }
  return spawn(process.execPath, [compiled('cli/main.ts'), ...args], {
    cwd: options.cwd,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

export function finished(child: ChildProcess): Promise<Ran> {
  let [stdout, stderr] = ['', '']
  child.stdout?.on('data', (chunk) => (stdout += chunk))
  child.stderr?.on('data', (chunk) => (stderr += chunk))
  return new Promise((settle, fail) => {
    child.on('error', fail)
    child.on('close', (exit) => settle({ exit, stdout, stderr }))
  })
}

export const walback = (args: readonly string[], options: RunOptions): Promise<Ran> => finished(start(args, options))

/** The same in this process, which is faster: for what does not depend on being one. */
export async function here(args: readonly string[], options: RunOptions): Promise<Ran> {
  const streams = { stdout: new PassThrough(), stderr: new PassThrough() }
  const world = {
    env: { HOME: options.cwd, ...options.env },
    cwd: options.cwd,
    signal: new AbortController().signal,
    stdin: new PassThrough(),
    ...streams,
  }
  const exit = await run(args, world as unknown as World)
  const text = ({ stdout, stderr }: typeof streams) => ({
    stdout: String(stdout.read() ?? ''),
    stderr: String(stderr.read() ?? ''),
  })
  return { exit, ...text(streams) }
}

/** As `walback`, or another way to run it, but it must succeed. */
export async function succeed(args: readonly string[], options: RunOptions, run = walback): Promise<Ran> {
  const ran = await run(args, options)
  if (ran.exit !== 0) throw new Error(`walback ${args.join(' ')} ended with ${ran.exit}: ${ran.stderr}`)
  return ran
}

export async function sql<Row extends pg.QueryResultRow>(url: string, ...statements: string[]): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    let rows: Row[] = []
    for (const statement of statements) rows = (await client.query<Row>(statement)).rows
    return rows
  } finally {
    await client.end()
  }
}

export interface Folder extends AsyncDisposable {
  readonly path: string
}

export async function folder(): Promise<Folder> {
  const made = await mkdtemp(path.join(tmpdir(), 'walback-cli-'))
  return { path: made, [Symbol.asyncDispose]: () => rm(made, { recursive: true, force: true }) }
}

/** A server with an empty database `app`, and a folder to give commands in. */
export async function openApp(): Promise<{ server: EmbeddedServer; place: Folder; app: string; options: RunOptions }> {
  const server = await startEmbedded()
  const place = await folder()
  await sql(server.url(), 'CREATE DATABASE app')
  return { server, place, app: server.url('app'), options: { cwd: place.path } }
}

/** The number of the newest transaction that deleted rows, as `log` tells it. */
export async function xidOfDelete(options: RunOptions): Promise<string> {
  const { stdout } = await succeed(['log', '--op', 'delete', '--json'], options, here)
  return (JSON.parse(stdout) as { transactions: { xid: string }[] }).transactions[0]?.xid ?? ''
}

/** Everything that a command could have changed: what a server has beside rows, and the files below a folder. */
export async function stateOf(url: string, below: string): Promise<unknown> {
  const rows = await sql(
    url,
    `
    SELECT 'database ' || datname AS thing FROM pg_database
    UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
    UNION ALL SELECT 'publication ' || pubname FROM pg_publication
    UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
    UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'
    UNION ALL SELECT 'identity ' || oid::regclass || ' ' || relreplident::text FROM pg_class WHERE oid >= 16384
    ORDER BY 1`,
  )
  // An empty folder is what a restore leaves that has said that it reads, and was refused; and that is in the audit record.
  const files = (await readdir(below, { recursive: true })).filter((file) => !/\/(leases$|audit(\/|$))/.test(file))
  return { server: rows.map((row) => row['thing']), files: files.sort() }
}
