/** Opens one connection to PostgreSQL, as psql would with the same parameters. */
import { Socket } from 'node:net'
import pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { assert, unreachable } from '../base/assert.ts'
import { WalbackError } from '../base/errors.ts'
import { insistOnChannelBinding } from './connect-channel-binding.ts'
import { type Attempt, connectFailure, endsSearch } from './connect-failure.ts'
import { type Encryption, encryptionsToTry, isWorthOtherEncryption, tlsOptions } from './connect-tls.ts'
import { type Conninfo, type Server, type TargetSessionAttrs, withDatabase } from './conninfo.ts'
import { lookUpPassword } from './passfile.ts'

export interface ConnectOptions {
  /** For pg_stat_activity; default `walback`. An application_name in the conninfo wins, as over libpq's fallback_application_name. */
  readonly application?: string
  /** Instead of the conninfo's. */
  readonly database?: string
  /** Opens a logical replication connection (`replication=database`), which takes replication commands and simple queries. */
  readonly replication?: boolean
  /** Server settings for the session, from its start; they win over the conninfo's options. */
  readonly settings?: Readonly<Record<string, string>>
  /** While connecting: destroys the socket, and `connect` rejects as interrupted. Afterwards: nothing. */
  readonly signal?: AbortSignal
}

/** NAT gateways and cloud load balancers forget a silent connection after some minutes (AWS: 350 s), so probe well before. */
const keepAliveDelay_ms = 60_000

/**
 * Tries the hosts in order and returns the first that answers, connected; the caller calls `end()`.
 * Every failure is a `database` error that names the server without the password; `retryable` is true when waiting may help.
 */
export async function connect(conninfo: Conninfo, options: ConnectOptions = {}): Promise<pg.Client> {
  const target = options.database === undefined ? conninfo : withDatabase(conninfo, options.database)
  const attempts: Attempt[] = []
  for (const server of target.hosts) {
    throwIfAborted(options.signal)
    try {
      return await connectToServer(target, server, options)
    } catch (error) {
      throwIfAborted(options.signal)
      attempts.push({ server, error })
      if (endsSearch(error)) break
    }
  }
  throw connectFailure(target, attempts)
}

async function connectToServer(conninfo: Conninfo, server: Server, options: ConnectOptions): Promise<pg.Client> {
  const [first, second] = encryptionsToTry(conninfo.sslMode, server.host)
  try {
    return await open(conninfo, server, first, options)
  } catch (error) {
    throwIfAborted(options.signal)
    if (second === undefined || !isWorthOtherEncryption(error)) throw error
  }
  return await open(conninfo, server, second, options)
}

/** One attempt. It owns the socket, so that a timeout or an abort can end it at whatever stage it is. */
async function open(
  conninfo: Conninfo,
  server: Server,
  encryption: Encryption,
  options: ConnectOptions,
): Promise<pg.Client> {
  const { signal } = options
  const ssl = encryption === 'tls' ? await tlsOptions(conninfo) : false
  const socket = new Socket()
  const client = new pg.Client({ ...clientConfig(conninfo, server, options), ssl, stream: () => socket })
  // A lost connection makes node-postgres emit 'error', which ends the process when nobody listens. Nothing is hidden by
  // swallowing it: queries under way reject with it, and later ones reject because the connection is gone.
  client.on('error', () => undefined)
  const checkBinding = conninfo.channelBinding === 'require' ? insistOnChannelBinding(client) : undefined

  throwIfAborted(signal)
  const abort = (): void => void socket.destroy()
  signal?.addEventListener('abort', abort, { once: true })
  const { connectTimeout_s } = conninfo
  const giveUp = (): void => void socket.destroy(timeoutError(conninfo))
  const timer = connectTimeout_s > 0 ? setTimeout(giveUp, connectTimeout_s * 1000) : undefined
  try {
    await client.connect()
    checkBinding?.()
    await checkSession(client, conninfo.targetSessionAttrs)
    throwIfAborted(signal)
    return client
  } catch (error) {
    socket.destroy()
    throw error
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}

/** With the code of the operating system's own timeout, which means the same to the reader. */
const timeoutError = (conninfo: Conninfo): Error =>
  Object.assign(new Error(`no answer within ${conninfo.connectTimeout_s} s`), { code: 'ETIMEDOUT' })

/** node-postgres passes `replication` on in the startup message; its types do not have it. */
type ClientConfig = pg.ClientConfig & { readonly replication?: 'database' }

/** Says everything that node-postgres would otherwise read from the process environment by itself. */
function clientConfig(conninfo: Conninfo, server: Server, options: ConnectOptions): ClientConfig {
  const startup = startupOptions(conninfo.options, options.settings)
  return {
    host: server.host,
    port: server.port,
    user: conninfo.user,
    database: conninfo.database,
    password: () => passwordFor(conninfo, server),
    application_name: conninfo.applicationName ?? options.application ?? 'walback',
    sslnegotiation: 'postgres',
    enableChannelBinding: conninfo.channelBinding === 'require',
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveDelay_ms,
    ...(startup !== '' && { options: startup }),
    ...(options.replication && { replication: 'database' }),
  }
}

/** Called when the server asks for a password, and only then. */
async function passwordFor(conninfo: Conninfo, server: Server): Promise<string> {
  if (conninfo.password !== undefined) return conninfo.password
  const { passfile, database, user } = conninfo
  const answer =
    passfile === undefined ? { kind: 'none' as const } : await lookUpPassword(passfile, { ...server, database, user })
  switch (answer.kind) {
    case 'password':
      return answer.password
    case 'none':
      throw new WalbackError('database', 'the server asks for a password, and there is none', {
        hint: 'put it in PGPASSWORD or ~/.pgpass (host:port:database:user:password, chmod 600)',
      })
    case 'ignored':
      throw new WalbackError('database', 'the server asks for a password, and there is none', { hint: answer.why })
    default:
      return unreachable(answer)
  }
}

/**
 * The `options` of the startup message: a command line, split at white space, in which a backslash escapes the next character
 * (pg_split_opts in src/backend/utils/init/postinit.c).
 */
export function startupOptions(given: string | undefined, settings: Readonly<Record<string, string>> = {}): string {
  const words = Object.entries(settings).map(([name, value]) => {
    assert(/^[a-z_][\w.]*$/i.test(name), `${JSON.stringify(name)} is not the name of a setting`)
    return `-c ${name}=${value.replace(/[ \t\n\r\v\f\\]/g, '\\$&')}`
  })
  return [...(given === undefined ? [] : [given]), ...words].join(' ')
}

/** Throws unless the server is of the kind asked for; in time, a failover may make it so. */
async function checkSession(client: pg.Client, attrs: TargetSessionAttrs): Promise<void> {
  switch (attrs) {
    case 'any':
      return
    case 'read-write': {
      const { rows } = await client.query<{ transaction_read_only: string }>('SHOW transaction_read_only')
      if (rows[0]?.transaction_read_only === 'off') return
      break
    }
    case 'primary': {
      const { rows } = await client.query<{ standby: boolean }>('SELECT pg_catalog.pg_is_in_recovery() AS standby')
      if (rows[0]?.standby === false) return
      break
    }
    default:
      unreachable(attrs)
  }
  throw new WalbackError('database', attrs === 'primary' ? 'the server is a standby' : 'the session is read-only', {
    hint: `target_session_attrs=${attrs} wants another server: name all hosts of the cluster, separated by commas`,
    retryable: true,
  })
}
