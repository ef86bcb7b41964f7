import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import {
  type Conninfo,
  describeConninfo,
  type Machine,
  resolveConninfo,
  withDatabase,
} from '../../src/postgres/conninfo.ts'
import { findPassword } from '../../src/postgres/passfile.ts'

const machineWith = (...paths: string[]): Machine => ({
  exists: (path) => paths.includes(path),
  userName: () => 'osuser',
  home: () => '/home/osuser',
})
const machine = machineWith('/var/run/postgresql')

function resolve(
  text: string,
  env: Record<string, string> = {},
  files: Record<string, string> = {},
  where = machine,
): Conninfo {
  return resolveConninfo(text, env, (path) => files[path], where)
}

function failure(run: () => unknown): WalbackError {
  try {
    run()
  } catch (error) {
    expect(error).toBeInstanceOf(WalbackError)
    return error as WalbackError
  }
  throw new Error('nothing was thrown')
}

const host = (name: string, port = 5432) => ({ host: name, port })

describe('connection strings', () => {
  // The first rows are the examples of the manual, section "Connection URIs".
  test.each<[text: string, expected: Partial<Conninfo>]>([
    ['postgresql://', { hosts: [host('/var/run/postgresql')], user: 'osuser', database: 'osuser' }],
    ['postgresql://localhost', { hosts: [host('localhost')] }],
    ['postgresql://localhost:5433', { hosts: [host('localhost', 5433)] }],
    ['postgresql://localhost/mydb', { hosts: [host('localhost')], database: 'mydb', user: 'osuser' }],
    ['postgresql://user@localhost', { user: 'user', database: 'user', password: undefined }],
    ['postgresql://user:secret@localhost', { user: 'user', password: 'secret' }],
    [
      'postgresql://other@localhost/otherdb?connect_timeout=20&application_name=myapp',
      { user: 'other', database: 'otherdb', connectTimeout_s: 20, applicationName: 'myapp' },
    ],
    [
      'postgresql://host1:123,host2:456/somedb?target_session_attrs=read-write&application_name=myapp',
      { hosts: [host('host1', 123), host('host2', 456)], database: 'somedb', targetSessionAttrs: 'read-write' },
    ],
    [
      'postgresql://user@localhost:5433/mydb?options=-c%20synchronous_commit%3Doff',
      { options: '-c synchronous_commit=off' },
    ],
    ['postgresql:///mydb?host=localhost&port=5433', { hosts: [host('localhost', 5433)], database: 'mydb' }],
    ['postgresql://[2001:db8::1234]/database', { hosts: [host('2001:db8::1234')], database: 'database' }],
    ['postgresql:///dbname?host=/var/lib/postgresql', { hosts: [host('/var/lib/postgresql')], database: 'dbname' }],
    ['postgresql://%2Fvar%2Flib%2Fpostgresql/dbname', { hosts: [host('/var/lib/postgresql')], database: 'dbname' }],

    ['postgres://h', { hosts: [host('h')] }],
    ['postgres://h\n', { hosts: [host('h')] }],
    ['postgres://[::1]:5433,[::2],c:1/x', { hosts: [host('::1', 5433), host('::2'), host('c', 1)] }],
    ['postgres://a,b/x?port=99', { hosts: [host('a', 99), host('b', 99)] }],
    ['postgres://a,,b', { hosts: [host('a'), host('/var/run/postgresql'), host('b')] }],
    ['postgres://h?user=u', { hosts: [host('h')], user: 'u' }],
    ['postgres://h/?dbname=d&', { database: 'd' }],
    ['postgres://a/d?host=b&host=c', { hosts: [host('c')] }],
    ['postgres://u:a:b?c@h', { user: 'u', password: 'a:b?c', hosts: [host('h')] }],
    ['postgres://u%40x:p%2F%3a%25%20+@h/d%20b', { user: 'u@x', password: 'p/:% +', database: 'd b' }],
    ['postgres://:pw@h', { user: 'osuser', password: 'pw' }],
    ['postgres://h?ssl=true', { sslMode: 'require' }],
    ['postgres://h?%73slmode=disable', { sslMode: 'disable' }],
    ['postgres://h/%C3%A9', { database: 'é' }],

    ['', { hosts: [host('/var/run/postgresql')] }],
    [' \n', { hosts: [host('/var/run/postgresql')] }],
    ['host=localhost port=5432 dbname=mydb connect_timeout=10', { hosts: [host('localhost')], database: 'mydb' }],
    ['host = a\tport\n=\n5 ', { hosts: [host('a', 5)] }],
    ["dbname='a b'", { database: 'a b' }],
    [String.raw`dbname='a\'b\\c'`, { database: String.raw`a'b\c` }],
    [String.raw`dbname=a\ b\\c\'d user=u`, { database: String.raw`a b\c'd`, user: 'u' }],
    [String.raw`dbname=a\ `, { database: 'a ' }],
    ["dbname=a'b", { database: "a'b" }],
    ["dbname='a'user=u", { database: 'a', user: 'u' }],
    ["dbname='' user= u", { database: 'u', user: 'u' }],
    ['host=a host=b', { hosts: [host('b')] }],
    ['host=a,/run/x,c port=1,,3', { hosts: [host('a', 1), host('/run/x'), host('c', 3)] }],
    ["password='p w' user=u", { password: 'p w' }],
    ['user=postgres://x', { user: 'postgres://x' }],
    ['connect_timeout=0', { connectTimeout_s: 0 }],
    ['connect_timeout=-1', { connectTimeout_s: 0 }],
    ['target_session_attrs=primary', { targetSessionAttrs: 'primary' }],
    ['sslmode=require channel_binding=require', { sslMode: 'require', channelBinding: 'require' }],
    ['fallback_application_name=x', { applicationName: 'x' }],
    ['fallback_application_name=x application_name=y', { applicationName: 'y' }],
    ['keepalives=1 gssencmode=prefer krbsrvname=x client_encoding=auto sslnegotiation=postgres', { user: 'osuser' }],
  ])('%j', (text, expected) => {
    expect(resolve(text)).toMatchObject(expected)
  })

  test.each<[text: string, message: RegExp]>([
    ['postgres://h/%zz', /bad percent-encoding in the database/],
    ['postgres://u:%@h', /bad percent-encoding in the password/],
    ['postgres://h/%00', /%00 in the database/],
    ['postgres://h/%ff', /not UTF-8/],
    ['postgres://[::1/d', /host 1 is neither/],
    ['postgres://[]/d', /IPv6 address of host 1 is empty/],
    ['postgres://[::1]x/d', /host 1 is neither/],
    ['postgres://u:p@ss@h/d', /an @ where no @ can be/],
    ['postgres://u:1/w@h/d', /an @ where no @ can be/],
    ['postgres://h:1?user=u&password=x@y', /question mark before the @/],
    ['postgres://h?nope=1', /query parameter 1 is unknown/],
    ['postgres://h?user=u&port', /query parameter 2 is not of the form/],
    ['postgres://h?user=a=b', /query parameter 1 is not of the form/],
    ['postgres://h?&', /query parameter 1 is not of the form/],
    ['mysql://u:p@h/d', /URI of another kind/],
    ['host', /no = after the name at character 1/],
    ['host=a user', /no = after the name at character 8/],
    ['=a', /unknown parameter at character 1/],
    ['user=u nope=1', /unknown parameter at character 8/],
    ["dbname='a", /quote after character 7 is not closed/],
    [String.raw`dbname='a\'`, /quote after character 7 is not closed/],
    ['host=a port=x', /port 1 is not a number/],
    ['port=0', /port 1 is not a number/],
    ['port=65536', /port 1 is not a number/],
    ['host=a,b port=1,2,3', /2 hosts but 3 ports/],
    ['port=1,2', /1 hosts but 2 ports/],
    ['sslmode=no-verify', /does not know this sslmode \(in the connection string\)/],
    ['target_session_attrs=standby', /does not know this target_session_attrs/],
    ['connect_timeout=1s', /connect_timeout is not a whole number/],
    ['hostaddr=127.0.0.1', /does not support this hostaddr/],
    ['sslcrl=/x', /does not support this sslcrl/],
    ['requirepeer=postgres', /does not support this requirepeer/],
    ['gssencmode=require', /does not support this gssencmode/],
    ['sslnegotiation=direct', /does not support this sslnegotiation/],
    ['sslrootcert=system sslmode=require', /sslmode require is too weak/],
    ['service=nope', /definition of service "nope" not found/],
  ])('refuses %j', (text, message) => {
    const error = failure(() => resolve(text))
    expect(error.message).toMatch(message)
    expect(error.code).toBe('usage')
    expect(error.hint).toBeTruthy()
  })

  test('an unsupported value says what is supported', () => {
    expect(failure(() => resolve('target_session_attrs=standby')).hint).toContain('any, read-write, primary')
  })
})

describe('the environment', () => {
  const env = {
    PGHOST: 'eh',
    PGPORT: '1111',
    PGUSER: 'eu',
    PGPASSWORD: 'ep',
    PGDATABASE: 'ed',
    PGSSLMODE: 'verify-full',
    PGSSLROOTCERT: '/e/root',
    PGSSLCERT: '/e/cert',
    PGSSLKEY: '/e/key',
    PGPASSFILE: '/e/pass',
    PGCONNECT_TIMEOUT: '7',
    PGOPTIONS: '-c geqo=off',
    PGAPPNAME: 'ea',
    PGTARGETSESSIONATTRS: 'primary',
    PGCHANNELBINDING: 'require',
  }

  test('fills in what the string leaves out', () => {
    expect(resolve('', env)).toEqual({
      hosts: [host('eh', 1111)],
      user: 'eu',
      password: 'ep',
      passfile: '/e/pass',
      database: 'ed',
      sslMode: 'verify-full',
      sslRootCert: '/e/root',
      sslCert: '/e/cert',
      sslKey: '/e/key',
      channelBinding: 'require',
      connectTimeout_s: 7,
      targetSessionAttrs: 'primary',
      options: '-c geqo=off',
      applicationName: 'ea',
    })
  })

  test('gives way to the string, even to an empty value', () => {
    expect(resolve('postgres://u:p@h:2/d?sslmode=disable', env)).toMatchObject({
      hosts: [host('h', 2)],
      user: 'u',
      password: 'p',
      database: 'd',
      sslMode: 'disable',
    })
    expect(resolve("host='' options=''", env)).toMatchObject({
      hosts: [host('/var/run/postgresql', 1111)],
      options: undefined,
    })
  })

  test('PGPORT counts for one host, but a list of hosts in a URI is a list of ports too', () => {
    expect(resolve('postgres://a', env).hosts).toEqual([host('a', 1111)])
    expect(resolve('postgres://a,b', env).hosts).toEqual([host('a'), host('b')])
    expect(resolve('host=a,b', env).hosts).toEqual([host('a', 1111), host('b', 1111)])
  })

  test('an error names the variable', () => {
    expect(failure(() => resolve('', { PGPORT: 'x' })).message).toContain('from PGPORT')
    expect(failure(() => resolve('', { PGSSLMODE: 'x' })).message).toContain('from PGSSLMODE')
    expect(failure(() => resolve('', { PGHOSTADDR: '::1' })).message).toContain('from PGHOSTADDR')
  })
})

describe('defaults', () => {
  test('are those of libpq, but for the timeout', () => {
    expect(resolve('')).toEqual({
      hosts: [host('/var/run/postgresql')],
      user: 'osuser',
      password: undefined,
      passfile: '/home/osuser/.pgpass',
      database: 'osuser',
      sslMode: 'prefer',
      sslRootCert: undefined,
      sslCert: undefined,
      sslKey: undefined,
      channelBinding: 'prefer',
      connectTimeout_s: 10,
      targetSessionAttrs: 'any',
      options: undefined,
      applicationName: undefined,
    })
  })

  test('the host is a socket that is there, else localhost', () => {
    expect(resolve('port=6', {}, {}, machineWith('/tmp/.s.PGSQL.6')).hosts).toEqual([host('/tmp', 6)])
    expect(resolve('port=7', {}, {}, machineWith('/tmp/.s.PGSQL.6')).hosts).toEqual([host('localhost', 7)])
  })

  test('certificates are those in ~/.postgresql, HOME before the password database', () => {
    const there = machineWith('/h/.postgresql/root.crt', '/h/.postgresql/postgresql.crt')
    expect(resolve('', { HOME: '/h' }, {}, there)).toMatchObject({
      sslRootCert: '/h/.postgresql/root.crt',
      sslCert: '/h/.postgresql/postgresql.crt',
      sslKey: '/h/.postgresql/postgresql.key',
      passfile: '/h/.pgpass',
    })
  })

  test('sslrootcert=system means verify-full', () => {
    expect(resolve('sslrootcert=system').sslMode).toBe('verify-full')
  })

  test('no user name anywhere is an error', () => {
    const nobody: Machine = { exists: () => false, userName: () => undefined, home: () => undefined }
    expect(failure(() => resolve('', {}, {}, nobody)).message).toContain('no user name')
    expect(resolve('user=u', {}, {}, nobody)).toMatchObject({ user: 'u', passfile: undefined })
  })

  test('the real machine has an answer', () => {
    expect(resolveConninfo('user=u', {}).hosts).toHaveLength(1)
  })
})

describe('services', () => {
  const file = [
    '# comment',
    'stray line',
    '[other]',
    'nonsense',
    '[app]',
    ' host=sh',
    'port=2222',
    'user = is not trimmed before the =',
  ]
  const good = [
    '[other]',
    'host=x',
    '',
    '[app]',
    'host=sh',
    '  port=2222  ',
    '# c',
    'password=a=b #c',
    'host=second',
    '[app]',
    'host=third',
  ]
  const text = good.join('\n')

  test('precedence: the string, the service, the environment, defaults', () => {
    const files = { '/home/osuser/.pg_service.conf': text }
    const conninfo = resolve('service=app port=3', { PGHOST: 'eh', PGPORT: '1', PGUSER: 'eu' }, files)
    expect(conninfo).toMatchObject({ hosts: [host('sh', 3)], user: 'eu', password: 'a=b #c', sslMode: 'prefer' })
    expect(resolve('postgres:///?service=app', {}, files).hosts).toEqual([host('sh', 2222)])
    expect(resolve('', { PGSERVICE: 'app' }, files).hosts).toEqual([host('sh', 2222)])
    expect(resolve('service=other', { PGSERVICE: 'app' }, files).hosts).toEqual([host('x')])
  })

  test('the user file is PGSERVICEFILE or in the home, then comes the system file', () => {
    const env = { PGSERVICE: 'app', PGSYSCONFDIR: '/sys' }
    const files = {
      '/sys/pg_service.conf': '[app]\nhost=system',
      '/mine': '[app]\nhost=mine',
      '/home/osuser/.pg_service.conf': '[else]',
    }
    expect(resolve('', env, files).hosts).toEqual([host('system')])
    expect(resolve('', { ...env, PGSERVICEFILE: '/mine' }, files).hosts).toEqual([host('mine')])
    expect(resolve('', { PGSERVICE: 'app' }, { '/etc/postgresql-common/pg_service.conf': text }).hosts).toEqual([
      host('sh', 2222),
    ])
    const error = failure(() => resolve('', { ...env, PGSERVICE: 'nope' }, files))
    expect(error.hint).toContain('/home/osuser/.pg_service.conf and /sys/pg_service.conf')
  })

  test.each([
    [file.join('\n'), 'line 8: unknown parameter'],
    ['[app]\nhost', 'line 2: not of the form name=value'],
    ['[app]\n\nservice=other', 'line 3: a service cannot refer'],
    ['[app]\nldap://x', 'line 2: services from LDAP'],
  ])('refuses %j', (broken, message) => {
    const error = failure(() => resolve('service=app', {}, { '/home/osuser/.pg_service.conf': broken }))
    expect(error.message).toContain(message)
  })

  test('an error names the service', () => {
    const error = failure(() => resolve('service=app', {}, { '/home/osuser/.pg_service.conf': '[app]\nsslmode=x' }))
    expect(error.message).toContain('from service "app"')
  })
})

describe('no password is ever shown', () => {
  const said = (run: () => Conninfo): string => {
    try {
      return describeConninfo(run())
    } catch (error) {
      expect(error).toBeInstanceOf(WalbackError)
      const { message, hint, cause, facts } = error as WalbackError
      return `${message} ${hint} ${String(cause)} ${JSON.stringify(facts)}`
    }
  }

  test.each([
    'postgres://u:TOPSECRET@h/d',
    'postgres://u:TOP@TOPSECRET@h/d',
    'postgres://u:TOPSECRET/x@h/d',
    'postgres://u:1/TOPSECRET@h/d',
    'postgres://u:TOPSECRET%@h/d',
    'postgres://u:TOPSECRET@h/d?TOPSECRET=1',
    'postgres://u:TOP@[TOPSECRET@h/d',
    'postgres://u:TOP@h:TOPSECRET/d',
    'postgres://h:5432?user=u&password=x@TOPSECRET',
    'postgres://h?password=x&TOPSECRET=1',
    'postgres://h?password=x&y=TOPSECRET',
    'postgres://h?password=x=TOPSECRET',
    'pg://u:TOPSECRET@h/d',
    'u:TOPSECRET@h/d',
    'password=TOPSECRET',
    'password=a TOPSECRET',
    'password=a TOPSECRET=b',
    "password='a'TOPSECRET'",
    "password='TOPSECRET",
    'password=TOPSECRET port=x',
    'password=TOPSECRET sslmode=x',
  ])('%j', (text) => {
    expect(said(() => resolve(text))).not.toContain('TOPSECRET')
  })

  test('nor one from the environment or a service', () => {
    expect(said(() => resolve('', { PGPASSWORD: 'TOPSECRET' }))).not.toContain('TOPSECRET')
    expect(said(() => resolve('', { PGPASSWORD: 'TOPSECRET', PGPORT: 'x' }))).not.toContain('TOPSECRET')
    const files = { '/home/osuser/.pg_service.conf': '[a]\npassword=TOPSECRET\npassword TOPSECRET' }
    expect(said(() => resolve('service=a', {}, files))).not.toContain('TOPSECRET')
  })

  test('whatever characters it has, raw, in a URI or in quotes', () => {
    const bits = fc.array(
      fc.constantFrom('TOPSECRET', '/', ':', '?', '#', '%', '[', ']', ',', "'", '\\', ' ', '&', 'é', '1'),
      { minLength: 1 },
    )
    fc.assert(
      fc.property(bits, (parts) => {
        const password = `a${parts.join('')}`
        expect(said(() => resolve(`postgres://u:${password}@h/d`))).not.toContain('TOPSECRET')
        expect(said(() => resolve(`user=u password=${password} host=h`))).not.toContain('TOPSECRET')
        expect(said(() => resolve(`user=u password='${password}' host=h`))).not.toContain('TOPSECRET')
      }),
    )
  })
})

describe('describeConninfo', () => {
  test.each([
    ['postgres://u:p@h:1/d', 'postgres://u@h:1/d'],
    ['postgres://u@h', 'postgres://u@h:5432/u'],
    ['host=::1,b user=u', 'postgres://u@[::1]:5432,b:5432/u'],
    ['host=/run/postgresql user=u dbname=d', 'postgres://u@/d?host=/run/postgresql&port=5432'],
    ["user='a@b c' host=h dbname='x/y?'", 'postgres://a%40b%20c@h:5432/x%2Fy%3F'],
  ])('%j', (text, uri) => {
    expect(describeConninfo(resolve(text))).toBe(uri)
  })

  test('of another database', () => {
    const conninfo = resolve('postgres://u:p@h/d')
    expect(describeConninfo(conninfo, 'other')).toBe('postgres://u@h:5432/other')
    expect(withDatabase(conninfo, 'other')).toEqual({ ...conninfo, database: 'other' })
  })

  test('resolves to the same server, user and database', () => {
    const name = fc.string({ unit: 'grapheme', minLength: 1 }).filter((text) => !text.includes('\0'))
    const hostName = fc.constantFrom(
      'h',
      'db.example.com',
      '10.0.0.1',
      '::1',
      '2001:db8::1234',
      '/run/postgresql',
      '/var/lib/a b',
      '@x',
    )
    const server = fc.record({ host: hostName, port: fc.integer({ min: 1, max: 65535 }) })
    fc.assert(
      fc.property(name, name, fc.array(server, { minLength: 1, maxLength: 3 }), (user, database, hosts) => {
        const uri = describeConninfo({ ...resolve(''), user, database, hosts })
        expect(resolve(uri)).toMatchObject({ user, database, hosts })
      }),
    )
  })
})

describe('the password file', () => {
  const key = { host: 'h', port: 5432, database: 'd', user: 'u' }
  test.each<[text: string, password: string | undefined, of?: Partial<typeof key>]>([
    ['h:5432:d:u:secret', 'secret'],
    ['h:5433:d:u:other\nh:5432:d:u:secret\r\n', 'secret'],
    ['*:*:*:*:any', 'any'],
    ['#h:5432:d:u:comment\n*:*:*:u:first\n*:*:*:u:second', 'first'],
    [String.raw`h:5432:a\:b:c\\d:p\:w\\:x`, String.raw`p:w\:x`, { database: 'a:b', user: String.raw`c\d` }],
    ['h:5432:d:u', undefined],
    ['h:5432:d:u:', undefined],
    ['h:5432:d:v:secret', undefined],
    ['localhost:5432:d:u:socket', 'socket', { host: '/var/run/postgresql' }],
    ['/run/x:5432:d:u:socket', 'socket', { host: '/run/x' }],
  ])('%j', (text, password, of = {}) => {
    expect(findPassword(text, { ...key, ...of })).toBe(password)
  })
})
