import { chmod, chown, copyFile, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { WalbackError } from '../../src/base/errors.ts'
import { type ConnectOptions, connect } from '../../src/postgres/connect.ts'
import { type Conninfo, resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'

const fixture = (name: string): string => fileURLToPath(new URL(`fixtures/${name}`, import.meta.url))

let server: EmbeddedServer
let scratch: string

/** No home, so that the tester's own ~/.pgpass and ~/.postgresql do not count. */
const resolve = (text: string): Conninfo => resolveConninfo(text, { HOME: scratch })
const at = (parameters: string): Conninfo =>
  resolve(`host=127.0.0.1 port=${server.port} user=postgres dbname=postgres ${parameters}`)

async function value(conninfo: Conninfo, sql: string, options?: ConnectOptions): Promise<unknown> {
  const client = await connect(conninfo, options)
  try {
    const { rows } = await client.query<Record<string, unknown>>(sql)
    return Object.values(rows[0] ?? {})[0]
  } finally {
    await client.end()
  }
}

async function failure(conninfo: Conninfo, options?: ConnectOptions): Promise<WalbackError> {
  const outcome = await connect(conninfo, options).then(
    async (client: pg.Client) => {
      await client.end()
      return 'connected'
    },
    (error: unknown) => error,
  )
  expect(outcome).toBeInstanceOf(WalbackError)
  return outcome as WalbackError
}

async function execute(...statements: string[]): Promise<void> {
  const client = await connect(at(''))
  for (const statement of statements) await client.query(statement)
  await client.end()
}

const hba = `
local   all all            trust
hostssl all cert_user      127.0.0.1/32 cert
hostssl all tls_user       127.0.0.1/32 trust
hostnossl all plain_user   127.0.0.1/32 trust
host    all scram_user     127.0.0.1/32 scram-sha-256
host    all md5_user       127.0.0.1/32 md5
host    all clear_user     127.0.0.1/32 password
host    all rejected_user,cert_user,tls_user,plain_user 127.0.0.1/32 reject
host    all all            127.0.0.1/32 trust
host    all all            ::1/128      trust
`

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'walback-connect-'))
  server = await startEmbedded()
  const { uid, gid } = await stat(server.dataDirectory)
  for (const name of ['server.crt', 'server.key', 'ca.crt']) {
    const path = join(server.dataDirectory, name)
    await copyFile(fixture(name), path)
    await chmod(path, 0o600)
    await chown(path, uid, gid)
  }
  await writeFile(String(await value(at(''), 'SHOW hba_file')), hba)
  await execute(
    'CREATE DATABASE other',
    ...['cert_user', 'tls_user', 'plain_user', 'rejected_user', 'limited_user'].map(
      (role) => `CREATE ROLE ${role} LOGIN`,
    ),
    ...['scram_user', 'clear_user'].map((role) => `CREATE ROLE ${role} LOGIN PASSWORD 'p: w\\x'`),
    'CREATE ROLE full_user LOGIN CONNECTION LIMIT 0',
    "SET password_encryption = 'md5'",
    "CREATE ROLE md5_user LOGIN PASSWORD 'p: w\\x'",
    'SELECT pg_reload_conf()',
  )
})

afterAll(async () => {
  await server?.[Symbol.asyncDispose]()
  await rm(scratch, { recursive: true, force: true })
})

const password = String.raw`password='p: w\\x'`

describe('a session', () => {
  test('by URI and by socket, to the database asked for', async () => {
    expect(await value(resolve(server.url('other')), 'SELECT current_database()')).toBe('other')
    expect(await value(at(''), 'SELECT current_database()', { database: 'other' })).toBe('other')
    const bySocket = resolve(
      `postgres://postgres@/postgres?host=${server.socketDirectory}&port=${server.port}&sslmode=verify-full`,
    )
    expect(await value(bySocket, 'SELECT inet_client_addr()')).toBe(null)
  })

  test('has a name, which the user may choose', async () => {
    expect(await value(at(''), 'SHOW application_name')).toBe('walback')
    expect(await value(at(''), 'SHOW application_name', { application: 'walback capture' })).toBe('walback capture')
    expect(await value(at('application_name=mine'), 'SHOW application_name', { application: 'walback' })).toBe('mine')
  })

  test('starts with settings, whatever their values hold, which win over options', async () => {
    const odd = 'a b\\c\t\'d\n-c work_mem=1GB "é'
    const settings = { 'walback.odd': odd, 'walback.empty': '', work_mem: '5MB' }
    const conninfo = at("options='-c work_mem=6MB -c maintenance_work_mem=7MB'")
    expect(await value(conninfo, 'SHOW walback.odd', { settings })).toBe(odd)
    expect(await value(conninfo, 'SHOW walback.empty', { settings })).toBe('')
    expect(await value(conninfo, 'SHOW work_mem', { settings })).toBe('5MB')
    expect(await value(conninfo, 'SHOW maintenance_work_mem', { settings })).toBe('7MB')
    expect(await value(conninfo, 'SHOW work_mem')).toBe('6MB')
  })

  test('for replication takes replication commands', async () => {
    const client = await connect(at(''), { replication: true })
    expect((await client.query('IDENTIFY_SYSTEM')).rows[0]).toHaveProperty('xlogpos')
    await client.end()
    await expect(value(at(''), 'IDENTIFY_SYSTEM')).rejects.toThrow('syntax error')
  })

  test('that is lost rejects queries and does not end the process', async () => {
    const client = await connect(at(''))
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
    const ended = new Promise((done) => client.once('end', () => done(true)))
    const sleeping = client.query('SELECT pg_sleep(60)').catch((error: unknown) => error)
    await execute(`SELECT pg_terminate_backend(${rows[0]?.pid})`)
    expect(await sleeping).toBeInstanceOf(Error)
    expect(await ended).toBe(true)
    await expect(client.query('SELECT 1')).rejects.toThrow()
  })

  test('that is lost while idle is survived too', async () => {
    const client = await connect(at(''))
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
    const ended = new Promise((done) => client.once('end', () => done(true)))
    await execute(`SELECT pg_terminate_backend(${rows[0]?.pid})`)
    expect(await ended).toBe(true)
    await expect(client.query('SELECT 1')).rejects.toThrow()
  })

  test('is of the kind that target_session_attrs asks for', async () => {
    expect(await value(at('target_session_attrs=primary'), 'SELECT 1')).toBe(1)
    expect(await value(at('target_session_attrs=read-write'), 'SELECT 1')).toBe(1)
    expect(await value(at('target_session_attrs=read-write'), 'SELECT 1', { replication: true })).toBe(1)
    const error = await failure(at("target_session_attrs=read-write options='-c default_transaction_read_only=on'"))
    expect(error.message).toContain('the session is read-only')
    expect(error.retryable).toBe(true)
  })
})

describe('passwords', () => {
  test.each(['scram_user', 'md5_user', 'clear_user'])('of %s', async (user) => {
    expect(await value(at(`user=${user} ${password}`), 'SELECT current_user')).toBe(user)
  })

  test('from the password file, unless others may read it', async () => {
    const passfile = join(scratch, 'pass')
    await writeFile(passfile, String.raw`127.0.0.1:*:postgres:scram_user:p\: w\\x`, { mode: 0o600 })
    const conninfo = at(`user=scram_user passfile=${passfile}`)
    expect(await value(conninfo, 'SELECT current_user')).toBe('scram_user')
    expect((await failure(conninfo, { database: 'other' })).message).toContain('there is none')
    await chmod(passfile, 0o640)
    const error = await failure(conninfo)
    expect(error.message).toContain('asks for a password, and there is none')
    expect(error.hint).toContain(`chmod 600 ${passfile}`)
    expect(await value(at(`passfile=${passfile}`), 'SELECT current_user')).toBe('postgres')
  })

  test('none is a failure with a hint', async () => {
    const error = await failure(at('user=scram_user'))
    expect(error.message).toContain('asks for a password, and there is none')
    expect(error.hint).toContain('PGPASSWORD')
  })

  test('a wrong one is not shown', async () => {
    const error = await failure(at('user=scram_user password=TOPSECRET'))
    expect(error.code).toBe('database')
    expect(error.message).toMatch(
      /^cannot connect to postgres:\/\/scram_user@127\.0\.0\.1:\d+\/postgres: password authentication failed/,
    )
    expect(error.hint).toContain('the password for "scram_user" is wrong')
    expect(error.retryable).toBe(false)
    expect(`${error.message} ${error.hint} ${error.stack} ${JSON.stringify(error.cause)}`).not.toContain('TOPSECRET')
  })
})

/** A port on which something that is no PostgreSQL listens; only for what happens before PostgreSQL speaks. */
async function listen(
  onConnection: (socket: Socket) => void,
): Promise<{ port: number; sockets: Socket[] } & AsyncDisposable> {
  const sockets: Socket[] = []
  const listener = createServer((socket) => {
    sockets.push(socket.on('error', () => {}).resume())
    onConnection(socket)
  })
  await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done))
  return {
    port: (listener.address() as AddressInfo).port,
    sockets,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((done) => listener.close(done))
    },
  }
}

async function freePort(): Promise<number> {
  await using listener = await listen(() => {})
  return listener.port
}

describe('failures', () => {
  test.each<[what: string, parameters: string, message: RegExp, hint: RegExp, retryable: boolean]>([
    ['no socket', 'host=/nonexistent', /ENOENT/, /no server has its socket at \/nonexistent\/\.s\.PGSQL/, true],
    ['no host', 'host=nonexistent.invalid', /ENOTFOUND|EAI_AGAIN/, /no such host|name server/, false],
    ['no database', 'dbname=nope', /database "nope" does not exist/, /psql -l/, false],
    ['pg_hba.conf', 'user=rejected_user', /pg_hba\.conf rejects/, /"rejected_user".*pg_hba\.conf.*"postgres"/, false],
    ['too many', 'user=full_user', /too many connections for role/, /max_connections/, true],
    [
      'anything else',
      "options='-c work_mem=x'",
      /invalid value for parameter "work_mem"/,
      /check that this works: psql 'postgres:\/\//,
      false,
    ],
  ])('%s', async (_what, parameters, message, hint, retryable) => {
    const error = await failure(at(parameters))
    expect(error.code).toBe('database')
    expect(error.message).toMatch(/^cannot connect to postgres:\/\//)
    expect(error.message).toMatch(message)
    expect(error.hint).toMatch(hint)
    if (!error.message.includes('EAI_AGAIN')) expect(error.retryable).toBe(retryable)
    expect(error.cause).toBeInstanceOf(Error)
  })

  test('nobody listens', async () => {
    const port = await freePort()
    const error = await failure(at(`port=${port}`))
    expect(error.message).toBe(
      `cannot connect to postgres://postgres@127.0.0.1:${port}/postgres: connect ECONNREFUSED 127.0.0.1:${port}`,
    )
    expect(error.hint).toContain('is the server running')
    expect(error.retryable).toBe(true)
  })

  test('no right to replicate', async () => {
    const error = await failure(at('user=limited_user'), { replication: true, database: 'other' })
    expect(error.hint).toContain('ALTER ROLE "limited_user" REPLICATION')
  })

  test('nobody answers', async () => {
    await using silent = await listen(() => {})
    const error = await failure(at(`port=${silent.port} connect_timeout=1`))
    expect(error.message).toContain('no answer within 1 s')
    expect(error.hint).toContain('firewall')
    expect(error.retryable).toBe(true)
  })

  test('nobody answers after the handshake began', async () => {
    await using half = await listen((socket) => socket.once('data', () => socket.write('S')))
    const error = await failure(at(`port=${half.port} connect_timeout=1 sslmode=require`))
    expect(error.message).toContain('no answer within 1 s')
  })

  test('the connection is cut', async () => {
    await using rude = await listen((socket) => socket.once('data', () => socket.end()))
    const error = await failure(at(`port=${rude.port} sslmode=disable`))
    expect(error.message).toContain('terminated unexpectedly')
    expect(error.retryable).toBe(true)
  })

  test('shutting down is worth another try', async () => {
    await using leaving = await startEmbedded()
    const conninfo = resolve(leaving.url('postgres'))
    const last = await connect(conninfo)
    const stopped = leaving.stop('smart')
    let error: WalbackError | undefined
    // The postmaster takes a moment to notice the signal.
    for (let tries = 0; tries < 100 && error === undefined; tries += 1) {
      error = await connect(conninfo).then(
        async (client) => void (await client.end()),
        (reason: WalbackError) => reason,
      )
    }
    const orNext = at(`host=127.0.0.1,127.0.0.1 port=${leaving.port},${server.port}`)
    expect(await value(orNext, 'SELECT inet_server_port()')).toBe(server.port)
    await last.end()
    await stopped
    expect(error?.message).toContain('shutting down')
    expect(error?.retryable).toBe(true)
    expect(error?.hint).toContain('try again')
  }, 60_000)
})

describe('several hosts', () => {
  test('are tried in order until one answers', async () => {
    const dead = await freePort()
    const conninfo = at(`host=127.0.0.1,127.0.0.1 port=${dead},${server.port}`)
    expect(await value(conninfo, 'SELECT inet_server_port()')).toBe(server.port)
  })

  test('are all named when none does', async () => {
    const [one, two] = [await freePort(), await freePort()]
    const error = await failure(at(`host=127.0.0.1,localhost port=${one},${two}`))
    expect(error.message).toContain(`127.0.0.1:${one}: connect ECONNREFUSED`)
    expect(error.message).toContain(`localhost:${two}: connect ECONNREFUSED`)
  })

  test('are not tried after one that said no', async () => {
    await using next = await listen((socket) => socket.destroy())
    const error = await failure(at(`user=rejected_user host=127.0.0.1,127.0.0.1 port=${server.port},${next.port}`))
    expect(error.message).toContain('pg_hba.conf rejects')
    expect(next.sockets).toHaveLength(0)
  })
})

describe('the signal', () => {
  test.each([
    ['before an answer', 'disable', () => {}],
    ['during the handshake', 'require', (socket: Socket) => void socket.once('data', () => socket.write('S'))],
  ])('destroys the socket %s', async (_when, mode, onConnection) => {
    const closed: Promise<void>[] = []
    const abort = new AbortController()
    await using silent = await listen((socket) => {
      closed.push(new Promise((done) => socket.once('close', () => done())))
      onConnection(socket)
      setTimeout(() => abort.abort(), 100)
    })
    const error = await failure(at(`host=127.0.0.1,127.0.0.1 port=${silent.port} sslmode=${mode} connect_timeout=0`), {
      signal: abort.signal,
    })
    expect(error.code).toBe('interrupted')
    await Promise.all(closed)
    expect(closed).toHaveLength(1)
  })

  test('that has fired already stops everything', async () => {
    expect((await failure(at(''), { signal: AbortSignal.abort() })).code).toBe('interrupted')
  })

  test('does nothing once connected', async () => {
    const abort = new AbortController()
    const client = await connect(at(''), { signal: abort.signal })
    abort.abort()
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
    await client.end()
  })
})

const isEncrypted = 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'

describe('a server without TLS', () => {
  test.each(['disable', 'allow', 'prefer'])('sslmode=%s', async (mode) => {
    expect(await value(at(`sslmode=${mode}`), isEncrypted)).toBe(false)
  })

  test.each(['require', 'verify-ca', 'verify-full'])('sslmode=%s', async (mode) => {
    const error = await failure(at(`sslmode=${mode} sslrootcert=${fixture('ca.crt')}`))
    expect(error.message).toContain('does not support SSL')
    expect(error.hint).toContain('ssl=off')
  })
})

describe('a server with TLS', () => {
  beforeAll(async () => {
    await execute(
      "ALTER SYSTEM SET ssl_cert_file = 'server.crt'",
      "ALTER SYSTEM SET ssl_key_file = 'server.key'",
      "ALTER SYSTEM SET ssl_ca_file = 'ca.crt'",
      'ALTER SYSTEM SET ssl = on',
      'SELECT pg_reload_conf()',
    )
    // The server reloads in its own time.
    const probe = async (): Promise<true | undefined> =>
      (await value(at('sslmode=prefer'), isEncrypted)) === true ? true : undefined
    expect(await waitFor(probe, { timeout_ms: 10_000, interval_ms: 20 })).toBe(true)
  })

  const ca = `sslrootcert=${fixture('ca.crt')}`
  const otherCa = `sslrootcert=${fixture('other-ca.crt')}`

  test.each<[parameters: string, encrypted: boolean]>([
    ['sslmode=disable', false],
    ['sslmode=allow', false],
    ['sslmode=prefer', true],
    ['sslmode=require', true],
    [`sslmode=prefer ${otherCa}`, true],
    [`sslmode=require ${ca}`, true],
    [`sslmode=verify-ca ${ca}`, true],
    [`sslmode=verify-full ${ca} host=localhost`, true],
    ['sslmode=prefer user=plain_user', false],
    ['sslmode=allow user=tls_user', true],
    [`sslmode=require user=cert_user sslcert=${fixture('client.crt')} sslkey=${fixture('client.key')}`, true],
    [`sslmode=require channel_binding=require user=scram_user ${password}`, true],
  ])('%s', async (parameters, encrypted) => {
    expect(await value(at(parameters), isEncrypted)).toBe(encrypted)
  })

  test.each<[parameters: string, message: RegExp, hint: RegExp]>([
    [`sslmode=require ${otherCa}`, /certificate/, /does not vouch/],
    [`sslmode=verify-ca ${otherCa}`, /certificate/, /does not vouch/],
    [`sslmode=verify-full ${ca}`, /127\.0\.0\.1/, /for another name/],
    ['sslrootcert=system host=localhost', /certificate/, /does not vouch/],
    ['sslmode=verify-full', /needs a root certificate/, /sslrootcert/],
    ['sslmode=verify-ca sslrootcert=/nonexistent', /cannot read sslrootcert/, /PEM/],
    ['sslmode=require sslcert=/nonexistent', /cannot read sslcert/, /PEM/],
    ['sslmode=require user=plain_user', /pg_hba/, /pg_hba/],
    ['sslmode=disable user=tls_user', /pg_hba/, /sslmode=require/],
    ['sslmode=require user=cert_user', /certificate/, /pg_hba/],
    [`channel_binding=require user=scram_user sslmode=disable ${password}`, /channel binding is required/, /TLS/],
    [`channel_binding=require user=md5_user sslmode=require ${password}`, /channel binding is required/, /scram/],
    [`channel_binding=require user=clear_user sslmode=require ${password}`, /channel binding is required/, /scram/],
    ['channel_binding=require sslmode=require', /channel binding is required/, /scram/],
  ])('refuses %s', async (parameters, message, hint) => {
    const error = await failure(at(parameters))
    expect(error.code).toBe('database')
    expect(error.message).toMatch(message)
    expect(error.hint).toMatch(hint)
  })
})
