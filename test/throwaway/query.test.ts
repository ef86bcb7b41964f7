import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { here, type Ran, sql } from '../cli/walback.ts'
import { linesOf, openShop, type Shop } from './shop.ts'

let shop: Shop
const moments: string[] = []

beforeAll(async () => {
  shop = await openShop(14)
  moments.push(await shop.now())
  await shop.write(
    `UPDATE orders SET amount = 5000 WHERE id = 7`,
    `DELETE FROM orders WHERE id > 90`,
    `INSERT INTO orders (customer, amount) VALUES (3, 1)`,
    `INSERT INTO notes VALUES ('twice', 1), ('', 3)`,
    `DELETE FROM notes WHERE at IS NULL`,
  )
  moments.push(await shop.now())
  await shop.write(
    `ALTER TABLE customers ADD COLUMN city text DEFAULT 'Ulm'`,
    `CREATE TABLE fresh (id int PRIMARY KEY)`,
    `INSERT INTO fresh VALUES (1)`,
    `DROP TABLE notes`,
    `UPDATE customers SET name = 'renamed' WHERE id = 2`,
  )
})

afterAll(() => shop[Symbol.asyncDispose]())

const run = (...args: string[]): Promise<Ran> => here([...args, ...shop.flags], { cwd: shop.folder.path })
const ofNow = 'SELECT 1 AS one'

describe('walback query', () => {
  it('answers as of then, with the right to read everything and to do nothing', async () => {
    const asked = `SELECT count(*) AS orders, max(amount) AS largest, (SELECT count(*) FROM customers) AS customers, total() FROM orders`
    const then = await run('query', '--to-lsn', moments[0] as string, asked)
    expect(then).toMatchObject({
      exit: 0,
      stdout: 'orders  largest  customers  total\n100     100.00   10         5050.00\n',
    })
    expect(then.stderr).toContain('on the throwaway server (PostgreSQL 18)')
    const rights = `SELECT o.*, rolsuper, rolcanlogin, pg_has_role('pg_execute_server_program', 'usage') AS programs,
      current_setting('transaction_read_only') AS read_only
      FROM pg_roles, (${asked}) o WHERE rolname = current_user;`
    const later = await run('query', '--at', 'latest', '--csv', rights)
    expect(later.stdout).toBe(
      'orders,largest,customers,total,rolsuper,rolcanlogin,programs,read_only\n91,5000.00,10,9089.00,f,t,f,on\n',
    )
  })

  it('gives values as the server writes them, in each form, and no more rows than asked', async () => {
    const asked = `SELECT what, at AS n, what AS n FROM notes ORDER BY at NULLS FIRST, what`
    const at = ['--on', shop.url, '--to-lsn', moments[1] as string]
    const csv = await run(
      'query',
      ...at,
      '--csv',
      `SELECT '' AS a, NULL AS b, E'x"y\\n' AS c, 'ü' AS d FROM generate_series(1, 2500)`,
    )
    expect(csv.stdout).toBe(`a,b,c,d\n${'"",,"x""y\n",ü\n'.repeat(2500)}`)
    const json = await run('query', ...at, '--json', asked)
    expect(linesOf(json).filter(({ type }) => type !== 'status')).toMatchObject([
      { type: 'columns', columns: ['what', 'n', 'n_3'] },
      { type: 'row', row: { what: 'twice', n: '1', n_3: 'twice' } },
      { type: 'row', row: { what: 'twice', n: '1' } },
      { type: 'row', row: { what: 'twice', n: '1' } },
      { type: 'row', row: { what: '', n: '3' } },
      { type: 'summary', rows: 4, source: 'shop', target: { kind: 'lsn', lsn: moments[1] } },
    ])
    const few = await run('query', ...at, '--limit', '2', 'SELECT * FROM generate_series(1, 5000) n')
    expect(few.stdout).toBe('n\n1\n2\n')
    expect(few.stderr).toContain('the first 2 rows; --limit shows more, --csv all')
  })

  it.each([
    [[ofNow], 2, /query as of when\?/],
    [['--at', 'latest', 'DELETE FROM orders'], 2, /not a SELECT/],
    [['--at', 'latest', 'SELECT 1; DROP TABLE orders'], 2, /more than one statement/],
    [['--at', 'latest', '--csv', '--json', ofNow], 2, /exclude each other/],
    [['--at', '2001-01-01T00:00:00Z', ofNow], 20, /before the first base/],
    [['--at', 'latest', 'SELECT * FROM nowhere'], 1, /the query failed: relation "nowhere" does not exist/],
    [['--at', 'latest', `SELECT nextval('orders_id_seq')`], 1, /read-only transaction|permission denied/],
  ])('refuses %j', async (args, exit, message) => {
    const ran = await run('query', '--on', shop.url, ...args)
    expect([ran.exit, ran.stderr]).toEqual([exit, expect.stringMatching(message)])
  })

  it('uses a server that is given, and leaves nothing there', async () => {
    const state = 'SELECT datname::text AS name FROM pg_database UNION SELECT rolname FROM pg_roles ORDER BY 1'
    const before = await sql(shop.url, state)
    const ran = await run('query', '--on', shop.url, '--at', 'latest', '--csv', 'SELECT count(*) FROM orders')
    expect(ran).toMatchObject({ exit: 0, stdout: 'count\n91\n' })
    const failed = await run('query', '--on', shop.url, '--at', 'latest', 'SELECT 1 / 0')
    expect(failed.exit).toBe(1)
    expect(await sql(shop.url, state)).toEqual(before)
  })
})

describe('walback diff', () => {
  it('tells rows apart by their key, or without one as a multiset', async () => {
    const ran = await run('diff', '--from', moments[0] as string, '--to', moments[1] as string, '--json')
    const { tables, compared } = linesOf(ran).at(-1) as { tables: { name: string }[]; compared: number }
    expect(compared).toBe(3)
    expect(tables).toMatchObject([
      {
        name: 'notes',
        has_key: false,
        inserted: 2,
        updated: 0,
        deleted: 1,
        samples: [
          { kind: 'inserted', after: { what: '', at: '3' } },
          { kind: 'deleted', before: { what: 'tab\tand \\', at: null } },
          { kind: 'inserted', after: { what: 'twice', at: '1' } },
        ],
      },
      { name: 'orders', has_key: true, inserted: 1, updated: 1, deleted: 10, change: 'kept' },
    ])
    const words = await run(
      'diff',
      '--from',
      moments[0] as string,
      '--to',
      moments[1] as string,
      '--table',
      'orders',
      '--limit',
      '12',
    )
    expect(words.stdout).toContain('public.orders  +1  ~1  -10\n')
    expect(words.stdout).toContain('  ~ id=7  customer=8  amount=7.00 → 5000.00\n')
    expect(words.stdout).toContain('  - id=91  customer=2  amount=91.00\n')
    expect(words.stdout).toContain('  + id=101  customer=3  amount=1.00\n')
    expect(words.stdout).toMatch(/\n1 table compared, 1 differs\n$/)
  })

  it('names tables and columns that only one moment has', async () => {
    const { stdout } = await run('diff', '--on', shop.url, '--from', moments[1] as string, '--limit', '1')
    expect(stdout).toContain('public.customers  ~1  (new column city)\n  ~ id=2  name=customer 2 → renamed  vip=f\n')
    expect(stdout).toContain('public.fresh  +1  (created)\n  + id=1\n')
    expect(stdout).toMatch(/public\.notes {2}-4 {2}\(dropped\).*\n {2}- .*\n {2}… and 3 rows more\n/)
    expect(stdout).toMatch(/\n4 tables compared, 3 differ\n$/)
  })
})

describe('walback restore --preview', () => {
  it('shows tables then and now, and touches nothing', async () => {
    const into = ['--into', 'shop_before', '--db', shop.url]
    const ran = await run('restore', '--to-lsn', moments[0] as string, ...into, '--preview')
    expect(ran.exit).toBe(0)
    expect(ran.stdout).toMatch(/TABLE +ROWS THEN +ROWS NOW +SINCE\n/)
    expect(ran.stdout).toMatch(/public\.customers +10 +10 +=\n/)
    expect(ran.stdout).toMatch(/public\.fresh +no table +1 *\n/)
    expect(ran.stdout).toMatch(/public\.notes +3 +no table *\n/)
    expect(ran.stdout).toMatch(/public\.orders +100 +91 +-9\n/)
    expect(ran.stdout).toContain('public.orders, then:\n  id=1  customer=2  amount=1.00\n')
    expect(await sql(shop.url, `SELECT FROM pg_database WHERE datname LIKE '%shop_before%'`)).toEqual([])
    const alone = await run(
      'restore',
      '--to-lsn',
      moments[0] as string,
      '--into-url',
      'postgres://nobody@127.0.0.1:1/x',
      '--preview',
      '--json',
    )
    expect(linesOf(alone).at(-1)).toMatchObject({
      type: 'preview',
      now_unknown: 'no database was given (--db)',
      tables: [{ name: 'customers', rows_then: 10, rows_now: null }, { name: 'notes' }, { name: 'orders' }],
    })
  })
})
