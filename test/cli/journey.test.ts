import { once } from 'node:events'
import { chmod, mkdir, readdir, readFile, stat, unlink } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { EmbeddedServer } from '../../src/postgres/embedded.ts'
import {
  type Folder,
  finished,
  folder,
  here,
  openApp,
  type RunOptions,
  sql,
  start,
  stateOf,
  succeed,
} from './walback.ts'

/** What changes from run to run, by kind, so that the rest can be compared as it stands. */
const steady = (text: string): string =>
  text
    .replace(/\d{8}T\d{6}Z-[0-9a-f]{6}/g, 'BASE')
    .replace(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z/g, 'TIME')
    .replace(/\b[0-9A-F]+\/[0-9A-F]{3,}\b/g, 'LSN')
    .replace(/tx:\d+/g, 'tx:N')
    .replace(/127\.0\.0\.1:\d+/g, 'HOST')
    .replace(/[\d.]+ (ms|s|B|KiB|MiB)\b/g, 'N $1')
    .replace(/file:\/\/\S+\/repo/g, 'REPO')
    .replace(/ {2,}/g, '  ')

let server: EmbeddedServer
let place: Folder
let app: string
let options: RunOptions

beforeAll(async () => {
  ;({ server, place, app, options } = await openApp())
  await sql(
    app,
    'CREATE TABLE orders (id int PRIMARY KEY, note text)',
    'CREATE TABLE audit (line text)',
    `INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 1000) n`,
  )
})

afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await place[Symbol.asyncDispose]()
})

/** In this process, which is faster; what has to be a process of its own is started as one. */
const run = (...args: string[]) => succeed(args, options, here)
const json = async (...args: string[]) => JSON.parse((await run(...args, '--json')).stdout)

describe('a first day with walback', () => {
  it('prints the SQL of init, which changes nothing', async () => {
    const before = await stateOf(app, place.path)
    const { stdout, stderr } = await run('init', '--print-sql', '--db', app)
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^-- walback init: what source app needs/)
    expect(stdout.match(/^-- (?!walback|the replication).*/gm)).toEqual([
      '-- event triggers that follow the schema',
      '-- replica identity of public.audit',
      '-- publication walback_app for all tables',
      '-- publication walback_app_inserts for tables whose updates cannot be published (0 now)',
      '-- replication slot walback_app',
    ])
    expect(stdout.trimEnd().endsWith(';')).toBe(true)
    expect(await stateOf(app, place.path)).toEqual(before)
  })

  it('sets up, says what it did and what comes next, and writes a configuration for its owner', async () => {
    const { stdout, stderr } = await run('init', '--db', app, '--repo', 'repo')
    expect(stdout).toBe('')
    expect(steady(stderr)).toBe(`source app: postgres://postgres@HOST/app to REPO
  making  event triggers that follow the schema
  making  replica identity of public.audit
  making  publication walback_app for all tables
  making  publication walback_app_inserts for tables whose updates cannot be published (0 now)
  making  note at publication walback_app
  making  note at publication walback_app_inserts
  making  replication slot walback_app
set up: repository, event triggers that follow the schema, replica identity of public.audit, publication walback_app for all tables, publication walback_app_inserts for tables whose updates cannot be published (0 now), note at publication walback_app, note at publication walback_app_inserts, replication slot walback_app, timeline 00000001
wrote ${place.path}/walback.yaml
next:
  walback backup --full  take the first base backup: nothing can be restored before it
  walback agent  keep capturing (or run \`walback backup --incremental\` from cron)
`)
    const file = path.join(place.path, 'walback.yaml')
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(await readFile(file, 'utf8')).toBe(
      `version: 1\nrepositories:\n  - file://${place.path}/repo\nsources:\n  app:\n    url: ${app}\n`,
    )
  })

  it('says that it is already set up when repeated, by flags or by the configuration', async () => {
    const before = await stateOf(app, place.path)
    for (const args of [
      ['init'],
      ['init', '--db', app, '--repo', 'repo'],
      ['init', '--no-config', '--db', app, '--repo', 'repo'],
    ]) {
      expect((await run(...args)).stderr).toContain('app is already set up (timeline 00000001, slot walback_app)\n')
    }
    expect(await json('init')).toMatchObject({
      schema_version: 1,
      source: 'app',
      already: true,
      done: [],
      timeline: '00000001',
      slot: 'walback_app',
      publications: ['walback_app', 'walback_app_inserts'],
    })
    expect(steady((await run('init', '--print-sql')).stderr)).toBe(
      'nothing is missing for source app: the database needs no SQL\n',
    )
    expect(await stateOf(app, place.path)).toEqual(before)
  })

  it('admits that nothing can be restored before a base', async () => {
    expect((await run('status')).stdout).toContain(
      'NOT PROTECTED\n  nothing can be restored: there is no base backup (walback backup --full)\n',
    )
    expect((await run('log')).stderr).toBe('no transaction matches\n')
    expect((await here(['restore', '--to', 'latest', '--into', 'x', '--plan'], options)).exit).toBe(20)
  })

  it('takes a base that is restorable at once', async () => {
    const { stdout } = await run('backup', '--full')
    expect(steady(stdout)).toBe('backup BASE  N KiB -> N KiB in N s, snapshot at LSN\n')
    expect(await json('status')).toMatchObject({ protected: true, windows: [{ timeline: '00000001' }] })
  })

  it('captures what came since, marks included', async () => {
    await sql(
      app,
      `INSERT INTO orders SELECT n, 'y' FROM generate_series(2001, 2010) n`,
      'DELETE FROM orders WHERE id < 500',
      'TRUNCATE audit',
      `BEGIN; UPDATE orders SET note = 'z' WHERE id > 990; INSERT INTO audit VALUES ('hello'); COMMIT`,
    )
    const { stdout, stderr } = await run('mark', 'before-migration')
    expect(steady(stdout)).toBe('mark before-migration at LSN (TIME)\n')
    expect(stderr).toContain('no agent is capturing')
    expect(steady((await run('backup', '--incremental')).stdout)).toBe(
      'captured up to LSN: 6 transactions in 1 segment, N KiB, in N s\n',
    )
    const again = await here(['mark', 'before-migration'], options)
    expect(again).toMatchObject({ exit: 22, stdout: '' })
    expect(steady(again.stderr)).toBe(
      'error: there is a mark "before-migration" already, at LSN (TIME)\nhint: choose another name: marks are never moved\n',
    )
  })

  it('lists transactions with their rows, and what to type next', async () => {
    const { stdout, stderr } = await run('log')
    expect(steady(stdout)).toBe(`COMMITTED (UTC)  TX  LSN  ROWS  TABLES
TIME  tx:N  LSN  +10  public.orders
TIME  tx:N  LSN  -499  public.orders
TIME  tx:N  LSN  truncate  public.audit
TIME  tx:N  LSN  +1 ~20  public.orders ~20, public.audit +1
`)
    expect(stderr).toMatch(/^4 transactions, rows: 11 inserted, 20 updated, 499 deleted, 1 truncation\n/)
    const truncation = /tx:(\d+) .*truncate/.exec(stdout)?.[1]
    expect(stderr).toContain(`walback restore --before-tx ${truncation} --into app_before_${truncation}\n`)
  })

  it('finds the delete', async () => {
    const found = await json('log', '--table', 'orders', '--op', 'delete', '--rows', '>100', '--around', '1 minute ago')
    expect(found).toMatchObject({
      schema_version: 1,
      source: 'app',
      matched: 1,
      totals: { insert: 0, update: 0, delete: 499, truncate: 0 },
      transactions: [
        {
          rows: 499,
          truncates: 0,
          tables: [{ schema: 'public', name: 'orders', insert: 0, update: 0, delete: 499, truncate: 0 }],
          has_other_changes: false,
        },
      ],
    })
    const [transaction] = found.transactions
    expect(transaction.xid).toMatch(/^\d+$/)
    expect(transaction.lsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/)
    expect(transaction.time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
    const { stdout } = await run('log', '--sort', 'rows', '--limit', '2', '--op', 'delete,truncate')
    expect(
      stdout
        .split('\n')
        .slice(1, 3)
        .map((line) => line.split(/ {2,}/)[3]),
    ).toEqual(['truncate', '-499'])
  })

  it('shows status as JSON', async () => {
    const status = await json('status')
    expect(status).toEqual({
      schema_version: 1,
      source: 'app',
      repository: `file://${place.path}/repo`,
      copies: [],
      encryption: null,
      protected: true,
      windows: [
        {
          timeline: '00000001',
          from: { lsn: expect.any(String), time: expect.any(String) },
          to: { lsn: expect.any(String), time: expect.any(String) },
        },
      ],
      gaps: [],
      uncertain: [],
      archive_end: { lsn: expect.any(String), time: expect.any(String) },
      bases: { count: 1, partial: 0, stored_bytes: expect.any(Number) },
      last_base: expect.objectContaining({ tables: 2, rows: 1000, timeline: '00000001' }),
      segments: {
        count: expect.any(Number),
        raw_bytes: expect.any(Number),
        stored_bytes: expect.any(Number),
        transactions: expect.any(Number),
      },
      timeline: '00000001',
      schema: { followed_by: 'triggers', unseen_since: null },
      last_verification: null,
      last_proven: null,
      last_proof: null,
      database: {
        state: 'reachable',
        slot: {
          name: 'walback_app',
          active: false,
          wal_status: 'reserved',
          retained_bytes: expect.any(Number),
          limit_bytes: null,
          safe_bytes: null,
          catalog_xmin_age: expect.any(Number),
        },
        guard: { limit_bytes: 20_000_000_000, on_limit: 'alert', findings: [] },
      },
      checked: expect.any(String),
    })
    expect(Object.values(status.windows[0].to)).not.toEqual(Object.values(status.windows[0].from))
  })

  it('needs no configuration and no database for looking', async () => {
    await using elsewhere = await folder()
    const away = { cwd: elsewhere.path }
    const repo = `file://${place.path}/repo`
    expect((await succeed(['status', '--repo', repo], away, here)).stdout).toContain(
      'slot         unknown: no database was given (--db)',
    )
    const down = await succeed(['status', '--repo', repo, '--db', 'postgres://nobody@127.0.0.1:1/app'], away)
    expect(down.stdout).toMatch(
      /app {2}protected\n.*\n.*\n {2}schema {7}changes are followed by event triggers\n {2}slot {9}unknown: cannot connect to postgres:\/\/nobody@127\.0\.0\.1:1\/app/,
    )
    const other = await succeed(['status', '--repo', repo, '--db', server.url()], away)
    expect(other.stdout).toContain('postgres on this server is not the database that the archive was made from')
    expect((await succeed(['list'], { ...away, env: { WALBACK_REPO: repo } })).stdout).toMatch(
      /MARK .*\nbefore-migration /,
    )
    expect(steady((await succeed(['info', '--repo', repo], away)).stdout)).toContain(
      'TABLE  ROWS  STORED\npublic.orders  1 000  N KiB\n',
    )
    expect(await readdir(elsewhere.path)).toEqual([])
  })

  it('plans a restore without touching anything', async () => {
    const before = await stateOf(app, place.path)
    const { stdout } = await run(
      'restore',
      '--to-mark',
      'before-migration',
      '--into',
      'app_then',
      '--plan',
      '--tz',
      'Asia/Tokyo',
    )
    expect(steady(stdout)).toMatch(
      /^Plan\n {2}from {2}base BASE \(N KiB\) \+ \d segments? \(N KiB\), replaying [3-6] transactions\n {2}to {2}LSN = mark before-migration\n {2}last kept {2}tx:N \(TIME, [^)]+ Asia\/Tokyo\)\n/,
    )
    const plan = JSON.parse(
      (await run('restore', '--to-mark', 'before-migration', '--into', 'app_then', '--plan', '--json')).stdout,
    )
    expect(plan).toMatchObject({
      schema_version: 1,
      type: 'plan',
      source: 'app',
      target: { kind: 'mark', name: 'before-migration' },
      into: { database: 'app_then' },
      left_out: 0,
    })
    expect(await stateOf(app, place.path)).toEqual(before)
  })

  it('restores just before the delete, and proves it', async () => {
    const { transactions } = await json('log', '--op', 'delete')
    const { stdout, stderr } = await run(
      'restore',
      '--before-tx',
      `tx:${transactions[0].xid}`,
      '--into',
      'app_then',
      '--yes',
    )
    expect(steady(stdout)).toBe('restored 2 tables, 1 010 rows in N s: postgres://postgres@HOST/app_then\n')
    expect(stderr).toContain('proven: 1 010 rows of 2 tables were read again')
    expect(await sql(server.url('app_then'), 'SELECT count(*)::int AS rows FROM orders')).toEqual([{ rows: 1010 }])
  })

  it('restores as JSON lines that end in a summary', async () => {
    const { stdout } = await run('restore', '--to', 'latest', '--into', 'app_latest', '--yes', '--json')
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines.map(({ type }) => type).filter((type, n, all) => type !== all[n - 1])).toEqual([
      'plan',
      'status',
      'summary',
    ])
    expect(lines.at(-1)).toMatchObject({
      schema_version: 1,
      database: 'app_latest',
      tables: 2,
      rows: 512,
      warnings: [],
      proven: { tables: 2, rows: 512 },
    })
  })

  it('captures as an agent, whose base is not needed, until SIGTERM', async () => {
    const child = start(['agent', '--json'], options)
    const done = finished(child)
    await new Promise<void>((settle) =>
      child.stdout?.on('data', (chunk) => String(chunk).includes('capturing') && settle()),
    )
    expect((await run('status')).stdout).toMatch(/slot +walback_app, active \(pid \d+\)/)
    const busy = await here(['backup', '--incremental'], options)
    expect(busy).toMatchObject({ exit: 11, stdout: '' })
    expect(busy.stderr).toMatch(
      /error: the replication slot walback_app is in use: .*\nhint: another walback agent is capturing this source/,
    )
    const refused = await here(['uninstall', '--yes'], options)
    expect(refused.exit).toBe(22)
    expect(refused.stderr).toMatch(
      /^error: the replication slot walback_app is in use by the server process \d+\nhint: stop the agent first/m,
    )
    expect(steady((await run('backup', '--full')).stdout)).toMatch(/^backup BASE /)
    await sql(app, `INSERT INTO audit VALUES ('while the agent ran')`)
    await new Promise((settle) => setTimeout(settle, 500))
    child.kill('SIGTERM')
    expect(await done).toMatchObject({ exit: 0 })
    expect((await json('log', '--table', 'audit', '--op', 'insert')).transactions.at(-1).rows).toBe(1)
  })

  it('leaves nothing behind, asks first, and keeps the repository', async () => {
    const unasked = await here(['uninstall'], options)
    expect(unasked).toMatchObject({ exit: 22, stdout: '' })
    expect(unasked.stderr).toContain('hint: there is no terminal to ask on: add --yes\n')
    expect(steady((await run('uninstall', '--yes')).stderr)).toBe(`from postgres://postgres@HOST/app:
  remove  replication slot walback_app
  remove  event trigger walback_1_who
  remove  event trigger walback_2_command
  remove  event trigger walback_dropped
  remove  event trigger walback_rewrite
  remove  publication walback_app
  remove  publication walback_app_inserts
  remove  schema walback
removed, and looked again: no slot, publication, event trigger or schema of this source is left
these tables have no key and keep REPLICA IDENTITY FULL: harmless, and perhaps not of our making; to undo it:
  ALTER TABLE ONLY "public"."audit" REPLICA IDENTITY DEFAULT;
the repository REPO was not touched: what it holds stays restorable
`)
    const left = JSON.stringify(await stateOf(app, path.join(place.path, 'repo')))
    expect(left).not.toMatch(/slot |publication |event trigger |schema walback/)
    expect(left).toContain('walback.json')
    expect((await run('uninstall')).stderr).toContain("nothing of walback's source app is in postgres://")
    expect((await run('status')).stdout).toContain('NOT PROTECTED')
  })

  it('begins a new timeline with a gap when it is set up again', async () => {
    await sql(app, `INSERT INTO audit VALUES ('while nobody looked')`)
    expect(await json('init')).toMatchObject({ already: false, timeline: '00000002' })
    await run('backup', '--full')
    const { stdout } = await run('status')
    expect(steady(stdout)).toMatch(
      /app {2}protected\n {2}restorable to any commit {2}TIME -> TIME .*\n {2}gap {2}TIME \.\. TIME {2}\(.*slot walback_app.*\)\n {2}restorable to any commit {2}TIME -> TIME /,
    )
    await run('uninstall', '--yes')
  })
})

describe('the process', () => {
  it('ends an interrupted command with 130, and is quiet about a reader that went away', async () => {
    await using silent = await listenInSilence()
    const child = start(['init', '--db', `postgres://u@127.0.0.1:${silent.port}/app`, '--repo', 'repo'], options)
    const done = finished(child)
    await silent.connected
    child.kill('SIGINT')
    expect(await done).toMatchObject({ exit: 130, stderr: 'error: interrupted\n' })

    const piped = start(['log', '--json'], options)
    piped.stdout?.destroy()
    const [exit] = (await Promise.all([once(piped, 'exit'), finished(piped)]))[0]
    expect(exit).toBe(0)
  })

  it('shows help and version on stdout, and takes flags in any place', async () => {
    expect((await run('--version')).stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
    expect((await run('restore', '--help')).stdout).toContain('--before-tx <xid>')
    expect((await run('help', 'log')).stdout).toContain('--around <time>')
    expect(JSON.parse((await run('--json', 'list', '--repo', 'repo')).stdout)).toMatchObject({
      schema_version: 1,
      sources: ['app'],
    })
    expect(JSON.parse((await run('list', '--repo', 'repo', '--json')).stdout)).toMatchObject({ schema_version: 1 })
  })

  it('goes on without a configuration that it cannot write', async () => {
    await using other = await folder()
    await sql(server.url(), 'CREATE DATABASE plain')
    await mkdir(path.join(other.path, 'walback.yaml'))
    const { stderr } = await succeed(['init', '--db', server.url('plain'), '--repo', 'repo'], { cwd: other.path })
    expect(stderr).toMatch(/warning: no configuration was written: .*EISDIR/)
    await chmod(path.join(other.path, 'walback.yaml'), 0o700)
    await succeed(['uninstall', '--db', server.url('plain'), '--repo', 'repo', '--yes'], { cwd: other.path })
  })

  it('adds to no configuration that is there, but says what to add', async () => {
    await sql(server.url(), 'CREATE DATABASE shop')
    const { stderr } = await run('init', '--db', server.url('shop'), '--repo', 'shop-repo')
    expect(stderr).toContain(
      `walback.yaml is there and was left as it is; to use it for this source, bring these 5 lines into it:\n  sources:\n    shop:\n      url: ${server.url('shop')}\n      repositories:\n        - file://${place.path}/shop-repo\n`,
    )
    await run('uninstall', '--db', server.url('shop'), '--repo', 'shop-repo', '--yes')
    await unlink(path.join(place.path, 'walback.yaml'))
  })
})

async function listenInSilence(): Promise<AsyncDisposable & { port: number; connected: Promise<unknown> }> {
  const { createServer } = await import('node:net')
  const listener = createServer()
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const address = listener.address()
  const sockets = new Set<{ destroy(): void }>()
  listener.on('connection', (socket) => void sockets.add(socket))
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    connected: once(listener, 'connection'),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      listener.close()
    },
  }
}
