/** What libpq would connect to, given a connection string and an environment. Nothing here connects. */
import { existsSync, readFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { envOf, isRefused, type Parameter, type Settings, settingsOfEnv } from './conninfo-parameters.ts'
import { settingsOfService } from './conninfo-service.ts'
import { parseConninfoText } from './conninfo-text.ts'

const sslModes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const
export type SslMode = (typeof sslModes)[number]

const sessionAttrs = ['any', 'read-write', 'primary'] as const
export type TargetSessionAttrs = (typeof sessionAttrs)[number]

const channelBindings = ['disable', 'prefer', 'require'] as const
export type ChannelBinding = (typeof channelBindings)[number]

export interface Server {
  /** A name, an address, or the directory of a Unix socket when it starts with a slash. */
  readonly host: string
  readonly port: number
}

export interface Conninfo {
  /** At least one; tried in order. */
  readonly hosts: readonly Server[]
  readonly user: string
  readonly password: string | undefined
  /** Where to look when there is no password; the file may not exist. */
  readonly passfile: string | undefined
  readonly database: string
  readonly sslMode: SslMode
  /** A file of CA certificates, or the word `system` for those that Node trusts. */
  readonly sslRootCert: string | undefined
  readonly sslCert: string | undefined
  readonly sslKey: string | undefined
  /** `require` is what the URIs of Neon ask for; `prefer` is the same as `disable` to walback. */
  readonly channelBinding: ChannelBinding
  /**
   * Per host; 0 waits for ever. The default is 10, where libpq's is 0: a backup that hangs on a dropped packet looks like
   * one that runs.
   */
  readonly connectTimeout_s: number
  readonly targetSessionAttrs: TargetSessionAttrs
  /** Command-line options for the server process, such as `-c geqo=off`. */
  readonly options: string | undefined
  readonly applicationName: string | undefined
}

type Env = Readonly<Record<string, string | undefined>>

/** What the resolver asks of the machine, beside the text of files. */
export interface Machine {
  readonly exists: (path: string) => boolean
  /** The operating system's name for the user; undefined in a container that runs as a number without a name. */
  readonly userName: () => string | undefined
  readonly home: () => string | undefined
}

const passwdEntry = (): { readonly username: string; readonly homedir: string } | undefined => {
  try {
    return userInfo()
  } catch {
    return undefined // no entry for this uid: both names it would give are optional
  }
}

const thisMachine: Machine = {
  exists: existsSync,
  userName: () => passwdEntry()?.username,
  home: () => passwdEntry()?.homedir,
}

/** A file that is absent is undefined; one that cannot be read is an error, since it was meant to count. */
function readTextFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw new WalbackError('usage', `cannot read ${path}: ${messageOf(error)}`, { cause: error })
  }
}

/** A value and where it was found, for messages. */
type Origins = ReadonlyMap<Parameter, { readonly value: string; readonly origin: string }>

/**
 * Resolves a URI or `key=value` string, which may be empty, with libpq's precedence: the string, then the service that it or
 * PGSERVICE names, then the environment, then defaults. Throws `usage` errors that never show a password.
 */
export function resolveConninfo(
  text: string,
  env: Env,
  readFile: (path: string) => string | undefined = readTextFile,
  machine: Machine = thisMachine,
): Conninfo {
  const home = env['HOME'] || machine.home()
  const found = gather(text, env, home, readFile)
  for (const [parameter, { value, origin }] of found) {
    if (isRefused(parameter, value)) {
      throw new WalbackError('usage', `walback does not support this ${parameter} (${origin})`, {
        hint: `leave ${parameter} out`,
      })
    }
  }
  const get = (parameter: Parameter): string | undefined => found.get(parameter)?.value || undefined

  const user = get('user') ?? machine.userName()
  if (user === undefined) {
    throw new WalbackError(
      'usage',
      'no user name to connect with, and the operating system has none for this process',
      {
        hint: 'put the user in the connection string or in PGUSER',
      },
    )
  }
  const inHome = (name: string): string | undefined =>
    home === undefined ? undefined : join(home, '.postgresql', name)
  const ifThere = (path: string | undefined): string | undefined =>
    path !== undefined && machine.exists(path) ? path : undefined
  const sslRootCert = get('sslrootcert') ?? ifThere(inHome('root.crt'))
  const sslCert = get('sslcert') ?? ifThere(inHome('postgresql.crt'))

  return {
    hosts: resolveServers(found, machine),
    user,
    password: get('password'),
    passfile: get('passfile') ?? (home === undefined ? undefined : join(home, '.pgpass')),
    database: get('dbname') ?? user,
    sslMode: resolveSslMode(found, sslRootCert),
    sslRootCert,
    sslCert,
    sslKey: sslCert === undefined ? undefined : (get('sslkey') ?? inHome('postgresql.key')),
    channelBinding: oneOf(channelBindings, 'channel_binding', found) ?? 'prefer',
    connectTimeout_s: resolveTimeout(found),
    targetSessionAttrs: oneOf(sessionAttrs, 'target_session_attrs', found) ?? 'any',
    options: get('options'),
    applicationName: get('application_name') ?? get('fallback_application_name'),
  }
}

/** Merges the sources; the first that has a parameter wins, even with an empty value, which then stands for the default. */
function gather(
  text: string,
  env: Env,
  home: string | undefined,
  readFile: (path: string) => string | undefined,
): Origins {
  const explicit = parseConninfoText(text)
  const inherited = settingsOfEnv(env)
  const sources: [Settings, (parameter: Parameter) => string][] = [[explicit, () => 'in the connection string']]
  const service = explicit.get('service') ?? inherited.get('service')
  if (service) {
    const files = serviceFiles(env, home)
    sources.push([
      settingsOfService({ name: service, files, readFile }),
      () => `from service ${JSON.stringify(service)}`,
    ])
  }
  sources.push([inherited, (parameter) => `from ${envOf(parameter)}`])

  const found = new Map<Parameter, { value: string; origin: string }>()
  for (const [settings, origin] of sources) {
    for (const [parameter, value] of settings) {
      if (!found.has(parameter)) found.set(parameter, { value, origin: origin(parameter) })
    }
  }
  return found
}

/**
 * libpq's system directory is fixed when it is built (`pg_config --sysconfdir`); these are Debian's and most others', since
 * asking pg_config would need it installed.
 */
function serviceFiles(env: Env, home: string | undefined): readonly string[] {
  const user = env['PGSERVICEFILE'] || (home === undefined ? undefined : join(home, '.pg_service.conf'))
  const system = env['PGSYSCONFDIR'] ? [env['PGSYSCONFDIR']] : ['/etc/postgresql-common', '/etc']
  return [...(user === undefined ? [] : [user]), ...system.map((directory) => join(directory, 'pg_service.conf'))]
}

function resolveServers(found: Origins, machine: Machine): readonly Server[] {
  const ports = (found.get('port')?.value ?? '').split(',').map((text, index) => parsePort(text, index, found))
  const hosts = (found.get('host')?.value ?? '').split(',')
  if (ports.length !== 1 && ports.length !== hosts.length) {
    throw new WalbackError('usage', `there are ${hosts.length} hosts but ${ports.length} ports`, {
      hint: 'give one port for all hosts, or one for each',
    })
  }
  return hosts.map((host, index) => {
    const port = ports[ports.length === 1 ? 0 : index] ?? 5432
    return { host: host || defaultHost(port, machine), port }
  })
}

/** The text is not shown: in a URI with a raw slash in the password, a piece of it sits where a port would. */
function parsePort(text: string, index: number, found: Origins): number {
  if (text === '') return 5432
  const port = /^\s*\d{1,5}\s*$/.test(text) ? Number(text) : 0
  if (port >= 1 && port <= 65535) return port
  throw new WalbackError('usage', `port ${index + 1} is not a number from 1 to 65535 (${found.get('port')?.origin})`, {
    hint: 'in a URI, a password with a slash or an @ must have them percent-encoded: %2F, %40',
  })
}

/** libpq's default directory is fixed when it is built: Debian's is the first, PostgreSQL's own the second. */
function defaultHost(port: number, machine: Machine): string {
  if (machine.exists('/var/run/postgresql')) return '/var/run/postgresql'
  return machine.exists(`/tmp/.s.PGSQL.${port}`) ? '/tmp' : 'localhost'
}

function oneOf<T extends string>(values: readonly T[], parameter: Parameter, found: Origins): T | undefined {
  const entry = found.get(parameter)
  if (!entry?.value) return undefined
  const value = values.find((candidate) => candidate === entry.value)
  if (value !== undefined) return value
  throw new WalbackError('usage', `walback does not know this ${parameter} (${entry.origin})`, {
    hint: `${parameter} is one of ${values.join(', ')}`,
  })
}

/** With `sslrootcert=system` anybody can get a certificate that verifies, so only the name proves something (libpq 16). */
function resolveSslMode(found: Origins, sslRootCert: string | undefined): SslMode {
  const mode = oneOf(sslModes, 'sslmode', found)
  if (sslRootCert !== 'system') return mode ?? 'prefer'
  if (mode === undefined || mode === 'verify-full') return 'verify-full'
  throw new WalbackError('usage', `sslmode ${mode} is too weak for sslrootcert=system`, {
    hint: 'use sslmode=verify-full',
  })
}

function resolveTimeout(found: Origins): number {
  const entry = found.get('connect_timeout')
  if (!entry?.value) return 10
  if (!/^\s*[-+]?\d{1,9}\s*$/.test(entry.value)) {
    throw new WalbackError('usage', `connect_timeout is not a whole number of seconds (${entry.origin})`, {
      hint: '0 waits for ever',
    })
  }
  return Math.max(0, Number(entry.value))
}

export const isSocketDirectory = (host: string): boolean => host.startsWith('/')

/** For messages and logs: a URI, which psql takes too, with no password in it. */
export function describeConninfo(conninfo: Conninfo, database: string = conninfo.database): string {
  const user = encodeURIComponent(conninfo.user)
  const path = encodeURIComponent(database)
  if (conninfo.hosts.some(({ host }) => isSocketDirectory(host))) {
    // As a query, since a directory before the path would need its slashes encoded, which nobody can read.
    const hosts = conninfo.hosts.map(({ host }) =>
      encodeURIComponent(host).replaceAll('%2F', '/').replaceAll('%3A', ':'),
    )
    return `postgres://${user}@/${path}?host=${hosts.join(',')}&port=${conninfo.hosts.map(({ port }) => port).join(',')}`
  }
  return `postgres://${user}@${conninfo.hosts.map(describeServer).join(',')}/${path}`
}

/** `host:port`, with the brackets that an IPv6 address needs. */
export function describeServer({ host, port }: Server): string {
  return host.includes(':')
    ? `[${host}]:${port}`
    : `${isSocketDirectory(host) ? host : encodeURIComponent(host)}:${port}`
}

export function withDatabase(conninfo: Conninfo, database: string): Conninfo {
  return { ...conninfo, database }
}
