import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type LogSelection, parseRowCondition, selectTransactions } from '../../src/history/log.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { matchTables } from '../../src/model/selection.ts'
import { micros } from '../../src/model/time.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import type { DdlEntry, SegmentSummary } from '../../src/repository/segment-format.ts'
import { type Folder, folder, here, sql } from '../cli/walback.ts'

type Counts = [place: number, inserts: number, updates: number, deletes: number, truncates: number]

const tables = [
  { oid: 1, schema: 'public', name: 'orders' },
  { oid: 2, schema: 'public', name: 'items' },
  { oid: 3, schema: 'audit', name: 'orders' },
]

function segment(
  transactions: { xid: number; time: number; counts: Counts[]; ddl?: DdlEntry[]; ddlCount?: number }[],
): { timeline: string; segment: SegmentSummary } {
  const entries = transactions.map(({ xid, time, counts, ddl, ddlCount = ddl?.length }) => ({
    xid: String(xid),
    commit: `0/${xid.toString(16).toUpperCase()}0`,
    end: `0/${xid.toString(16).toUpperCase()}8`,
    time: String(time),
    bytes: 10,
    block: 0,
    counts,
    ...(ddl === undefined ? {} : { ddl, ddlCount }),
  }))
  const trailer = {
    kind: 'segment' as const,
    end: '0/FFFF',
    xid: '1',
    time: '0',
    parts: [],
    tables,
    transactions: entries,
  }
  return {
    timeline: '00000001',
    segment: { key: 'k', sha256: '', size_bytes: 1, start: parseLsn('0/0'), end: parseLsn('0/FFFF'), trailer },
  }
}

const all: LogSelection = { limit: 50, sort: 'time' }
const some = [
  segment([
    { xid: 10, time: 1000, counts: [[0, 5, 0, 0, 0]] },
    { xid: 11, time: 2000, counts: [] },
    {
      xid: 12,
      time: 3000,
      counts: [
        [0, 0, 0, 200, 0],
        [1, 0, 3, 0, 0],
      ],
    },
  ]),
  segment([
    { xid: 13, time: 2500, counts: [[2, 1, 0, 0, 0]] },
    { xid: 14, time: 4000, counts: [[1, 0, 0, 0, 1]] },
  ]),
]
const xids = (selection: Partial<LogSelection>): number[] =>
  selectTransactions(some, { ...all, ...selection }).transactions.map(({ xid }) => Number(xid))

describe('selecting transactions', () => {
  it('leaves out transactions without rows, keeps the order of commits, and ends with the newest', () => {
    expect(xids({})).toEqual([10, 12, 13, 14])
    expect(xids({ limit: 2 })).toEqual([13, 14])
  })

  it('by table: a bare name in any schema, a qualified name, a pattern', () => {
    expect(xids({ tables: ['orders'] })).toEqual([10, 12, 13])
    expect(xids({ tables: ['audit.orders'] })).toEqual([13])
    expect(xids({ tables: ['it*', 'audit.*'] })).toEqual([12, 13, 14])
    expect(xids({ tables: ['order'] })).toEqual([])
  })

  it('counts only the rows of what was asked for, and says that there was more', () => {
    const { transactions, totals } = selectTransactions(some, { ...all, tables: ['orders'], operations: ['delete'] })
    expect(transactions).toMatchObject([
      { xid: 12n, rows: 200, hasOther: true, tables: [{ schema: 'public', name: 'orders', delete: 200 }] },
    ])
    expect(totals).toEqual({ insert: 0, update: 0, delete: 200, truncate: 0, ddl: 0 })
  })

  it('by number of rows, where a truncation counts as more than anybody can say', () => {
    expect(xids({ rows: parseRowCondition('>100') })).toEqual([12, 14])
    expect(xids({ rows: parseRowCondition('<=5') })).toEqual([10, 13])
    expect(xids({ rows: parseRowCondition('203') })).toEqual([12, 14])
    expect(xids({ rows: parseRowCondition('= 1') })).toEqual([13])
  })

  it('by time, both ends included, though commit times need not be in commit order', () => {
    expect(xids({ since: micros(2500n), until: micros(3000n) })).toEqual([12, 13])
  })

  it('sorts the greatest destruction first', () => {
    expect(xids({ sort: 'rows' })).toEqual([14, 12, 10, 13])
    expect(xids({ sort: 'rows', limit: 1 })).toEqual([14])
  })

  it('counts what matched past the limit', () => {
    expect(selectTransactions(some, { ...all, limit: 1 })).toMatchObject({
      matched: 4,
      totals: { insert: 6, update: 3, delete: 200, truncate: 1 },
    })
  })

  it('keeps the right ones of many', () => {
    const many = [
      segment(
        Array.from({ length: 5000 }, (_, n) => ({
          xid: n + 1,
          time: n,
          counts: [[0, (n * 7919) % 5000, 0, 0, 0]] as Counts[],
        })),
      ),
    ]
    expect(selectTransactions(many, { limit: 3, sort: 'time' }).transactions.map(({ xid }) => xid)).toEqual([
      4998n,
      4999n,
      5000n,
    ])
    expect(selectTransactions(many, { limit: 3, sort: 'rows' }).transactions.map(({ rows }) => rows)).toEqual([
      4999, 4998, 4997,
    ])
  })
})

describe('changes of the schema', () => {
  const drop = { tag: 'DROP TABLE', object: 'public.items' }
  const alter = { tag: 'ALTER TABLE', object: 'public.orders', unsure: 'rows' as const }
  const grant = { tag: 'GRANT', object: null }
  const changes = [
    segment([
      { xid: 20, time: 1000, counts: [[0, 5, 0, 0, 0]] },
      { xid: 21, time: 2000, counts: [], ddl: [drop] },
      { xid: 22, time: 3000, counts: [[0, 0, 7, 0, 0]], ddl: [alter, grant], ddlCount: 150 },
      { xid: 23, time: 4000, counts: [] },
    ]),
  ]
  const log = (selection: Partial<LogSelection>) => selectTransactions(changes, { ...all, ...selection })
  const found = (selection: Partial<LogSelection>) =>
    log(selection).transactions.map(({ xid, rows, ddl, ddlCount, hasOther }) => ({
      xid: Number(xid),
      rows,
      ddl: ddl.map(({ tag }) => tag),
      ddlCount,
      hasOther,
    }))
  const inserted = { xid: 20, rows: 5, ddl: [], ddlCount: 0, hasOther: false }
  const dropped = { xid: 21, rows: 0, ddl: ['DROP TABLE'], ddlCount: 1, hasOther: false }
  const both = { xid: 22, rows: 7, ddl: ['ALTER TABLE', 'GRANT'], ddlCount: 150, hasOther: false }

  it('are listed beside rows, and alone', () => {
    expect(found({})).toEqual([inserted, dropped, both])
    expect(log({}).totals).toEqual({ insert: 5, update: 7, delete: 0, truncate: 0, ddl: 151 })
  })

  it('by operation: what was not asked for only shows as more', () => {
    expect(found({ operations: ['ddl'] })).toEqual([dropped, { ...both, rows: 0, hasOther: true }])
    expect(found({ operations: ['update'] })).toEqual([{ ...both, ddl: [], ddlCount: 0, hasOther: true }])
    expect(found({ operations: ['insert', 'ddl'] }).map(({ xid }) => xid)).toEqual([20, 21, 22])
  })

  it('by table, as far as the object names one', () => {
    expect(found({ tables: ['items'] })).toEqual([dropped])
    expect(found({ tables: ['public.orders'], operations: ['ddl'] })).toEqual([
      { ...both, rows: 0, ddl: ['ALTER TABLE'], ddlCount: 1, hasOther: true },
    ])
    const matches = (object: string): number => {
      const one = segment([{ xid: 1, time: 1, counts: [], ddl: [{ tag: 'X', object }] }])
      return selectTransactions([one], { ...all, tables: ['shop.Order "lines"'] }).matched
    }
    const table = 'shop."Order ""lines"""'
    for (const object of [table, `audit on ${table}`, `${table}.price`]) expect(matches(object)).toBe(1)
    for (const object of ['"shop.Order"', 'shop', 'shop."Order "', 'integer']) expect(matches(object)).toBe(0)
  })

  it('fulfil no condition on rows by themselves', () => {
    expect(found({ rows: parseRowCondition('<=7') }).map(({ xid }) => xid)).toEqual([20, 22])
    expect(found({ rows: parseRowCondition('>5'), operations: ['ddl'] })).toEqual([])
  })
})

describe('an archive with changes of the schema', () => {
  let server: EmbeddedServer
  let place: Folder
  beforeAll(async () => {
    server = await startEmbedded({ settings: { fsync: 'off' } })
    place = await folder()
  })
  afterAll(async () => {
    await server[Symbol.asyncDispose]()
    await place[Symbol.asyncDispose]()
  })
  const run = async (...args: string[]) => {
    const { exit, stdout, stderr } = await here(args, { cwd: place.path })
    // A backup that finds a change of the schema that is not fully in the stream is done with a warning.
    if (exit !== 0 && exit !== 3) throw new Error(`walback ${args.join(' ')} ended with ${exit}: ${stderr}`)
    return { stdout, stderr }
  }

  it('shows them, and restores to just before and just after them', async () => {
    const common = ['--db', server.url(), '--repo', 'repo']
    const json = async (...args: string[]) => JSON.parse((await run(...args, ...common, '--json')).stdout)
    await sql(server.url(), 'CREATE TABLE orders (id int PRIMARY KEY)', 'INSERT INTO orders VALUES (1)')
    await run('init', '--no-config', ...common)
    await run('backup', '--full', ...common)
    const views = [1, 2, 3, 4, 5].map((n) => `CREATE VIEW v${n} AS SELECT 1`)
    await sql(
      server.url(),
      'INSERT INTO orders VALUES (2)',
      `SET walback.rows_cap = '1'`,
      'ALTER TABLE orders ADD COLUMN chance float DEFAULT random()',
      'BEGIN; CREATE TABLE "Lines" (i int); INSERT INTO "Lines" VALUES (1); COMMIT',
      `BEGIN; ${views.join('; ')}; COMMIT`,
      'DROP TABLE orders',
    )
    await run('backup', '--incremental', ...common)
    const all = await run('log', ...common)
    const rows = all.stdout.trimEnd().split('\n').slice(1)
    expect(rows.map((line) => line.replace(/^\S+ \S+ +tx:\d+ +\S+ +/, ''))).toEqual([
      '+1  public.orders',
      'ALTER TABLE public.orders',
      '+1  public.Lines, CREATE TABLE public."Lines"',
      'CREATE VIEW public.v1, CREATE VIEW public.v2, CREATE VIEW public.v3, and 2 more changes of the schema',
      'DROP TABLE public.orders',
    ])
    expect(all.stderr).toMatch(/^5 transactions, rows: 2 inserted, 8 changes of the schema\n/)
    const { transactions, totals, matched } = await json('log', '--op', 'ddl')
    expect({ totals, matched }).toEqual({
      totals: { insert: 0, update: 0, delete: 0, truncate: 0, ddl: 8 },
      matched: 4,
    })
    const [altered, created, , dropped] = transactions
    expect(altered).toMatchObject({
      ddl: [{ tag: 'ALTER TABLE', object: 'public.orders', unsure: 'rows' }],
      ddl_count: 1,
      tables: [],
      has_other_changes: false,
    })
    expect(created).toMatchObject({ ddl_count: 1, tables: [], has_other_changes: true })
    const lines = { xid: created.xid, ddl_count: 1, rows: 1 }
    expect((await json('log', '--table', 'Lines')).transactions).toMatchObject([lines])
    const { stderr } = await run('log', '--op', 'ddl', ...common)
    expect(stderr).toMatch(/^4 transactions, 8 changes of the schema\n/)
    // What most likely did the damage.
    expect(stderr).toContain(`restore --before-tx ${dropped.xid} --into `)

    const plan = (...target: string[]) => json('restore', ...target, '--into', 'x', '--plan')
    const before = await plan('--before-tx', dropped.xid)
    expect(before).toMatchObject({ first_left_out: { xid: dropped.xid }, left_out: 1, transactions: 4 })
    expect(before.last_kept.xid).not.toBe(dropped.xid)
    const after = await plan('--to-tx', dropped.xid)
    expect(after).toMatchObject({ last_kept: { xid: dropped.xid }, first_left_out: null, left_out: 0, transactions: 5 })
    const lost = `rows of public.orders as ALTER TABLE in tx:${altered.xid} left them: its values are not in the stream`
    expect(before.not_restored).toEqual([lost])
    expect((await plan('--to-tx', altered.xid)).not_restored).toEqual([lost])
    expect((await plan('--before-tx', altered.xid)).not_restored).toEqual([])
  })

  it('lists what else a restore does not carry, and only that', async () => {
    await sql(server.url(), 'CREATE DATABASE plain', 'CREATE ROLE somebody')
    const common = ['--db', server.url('plain'), '--repo', 'plain']
    await sql(
      server.url('plain'),
      'CREATE TABLE bare (i int)',
      'CREATE UNLOGGED TABLE scratch (i int)',
      'SELECT lo_create(0)',
      `CREATE SUBSCRIPTION sub CONNECTION 'dbname=none' PUBLICATION none WITH (connect = false, slot_name = NONE)`,
    )
    await run('init', '--no-config', '--replica-identity', 'skip', ...common)
    await run('backup', '--full', ...common)
    const { stdout } = await run('restore', '--to', 'latest', '--into', 'x', '--plan', '--json', ...common)
    expect(JSON.parse(stdout).not_restored).toEqual([
      'updates and deletes since the base, for want of a key: public.bare',
      'changes since the base of unlogged tables: public.scratch',
      'changes of large objects since the base',
      'subscriptions: sub',
      'passwords of roles',
    ])
  })
})

describe('patterns and conditions', () => {
  it('takes characters of patterns literally but for *', () => {
    expect(matchTables(['a.c'])({ schema: 'x', name: 'abc' })).toBe(false)
    expect(matchTables(['a+(b)*'])({ schema: 'x', name: 'a+(b)\nc' })).toBe(true)
  })

  it.each(['', 'many', '>', '-5', '> 5 rows', '5.5'])('refuses %j as a condition', (text) => {
    expect(() => parseRowCondition(text)).toThrow('not a condition on rows')
  })
})
