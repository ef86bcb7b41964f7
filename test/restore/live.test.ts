import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { everything } from '../../src/model/selection.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import {
  type LiveOptions,
  type LiveReport,
  type LiveUse,
  type MergePreview,
  restoreIntoLive,
} from '../../src/restore/live.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { selectTables } from '../../src/restore/selected.ts'
import { type Moment, packages, Subject } from './round-trip.ts'

const schema = `
  create schema shop;
  create type shop.state as enum ('new', 'done');
  create table shop.customers (id int generated always as identity primary key, name text collate "C" not null);
  create table shop.orders (id int primary key, customer int references shop.customers on delete cascade, state shop.state, total numeric,
    doc json, double numeric generated always as (total * 2) stored);
  create table shop.bag (v text, n float8);
  create table shop.days (day int, v text, primary key (day)) partition by list (day);
  create table shop.days_1 partition of shop.days for values in (1); create table shop.days_2 partition of shop.days for values in (2);
  create table shop.wide (id int primary key, was shop.customers);
  insert into shop.customers (name) select 'c' || n from generate_series(1, 5) n;
  insert into shop.orders (id, customer, state, total, doc) select n, n % 5 + 1, 'new', n * 1.50, '{"a": 1}' from generate_series(1, 40) n;
  insert into shop.bag values ('twin', 1), ('twin', 1), (null, 'NaN'), ('other', 2);
  insert into shop.days values (1, 'one'), (2, 'two');
  insert into shop.wide select 1, c from shop.customers c where id = 3`

describe('some of the tables, put into the database in use', () => {
  let subject: Subject
  let then: Map<string, unknown[]>
  const names = ['shop.customers', 'shop.orders', 'shop.bag', 'shop.days']

  const rowsOf = async (table: string): Promise<unknown[]> =>
    (await subject.client.query(`select to_jsonb(t) as r from ${table} t order by to_jsonb(t)`)).rows

  const put = async (
    tables: readonly string[],
    use: LiveUse,
    options: Partial<LiveOptions> = {},
  ): Promise<LiveReport & { previews: readonly MergePreview[] }> => {
    const { repository, source } = subject.opened
    const plan = await planRestore(repository, source, (subject.moments[0] as Moment).target)
    const selected = await selectTables(repository, plan, { ...everything, tables })
    let previews: readonly MergePreview[] = []
    const approve = async (shown: readonly MergePreview[]): Promise<void> => {
      previews = shown
    }
    const conninfo = resolveConninfo(subject.url, {})
    const report = await restoreIntoLive(repository, selected, conninfo, use, { jobs: 1, approve, ...options })
    return { ...report, previews }
  }

  const scratch = async (): Promise<unknown[]> =>
    (await subject.client.query(`select datname from pg_database where datname like 'walback%'`)).rows

  beforeAll(async () => {
    subject = await Subject.start(packages[18])
    await subject.sql(schema)
    const archive = await subject.open()
    await archive.base()
    await subject.sql(`update shop.orders set state = 'done' where id <= 5`)
    await subject.note('then')
    then = new Map()
    for (const name of names) then.set(name, await rowsOf(name))
    await archive.catchUp()
  })
  // What happened to the tables since.
  beforeEach(async () => {
    await subject.sql(
      'truncate shop.customers, shop.orders, shop.bag, shop.days',
      `insert into shop.customers (id, name) overriding system value select n, 'c' || n from generate_series(1, 4) n; insert into shop.customers (id, name) overriding system value values (9, 'new')`,
      `insert into shop.orders (id, customer, state, total, doc) select n, n % 4 + 1, 'new', n, '{"a": 1}' from generate_series(11, 20) n; insert into shop.orders values (99, 9, 'new', 1)`,
      `insert into shop.bag values ('twin', 1), ('later', 3)`,
      `insert into shop.days values (1, 'changed')`,
    )
  })
  afterAll(() => subject?.[Symbol.asyncDispose]())

  it('makes a new table beside, with the rows and the key', async () => {
    const before = await rowsOf('shop.orders')
    expect((await put(['shop.orders'], { as: 'orders_then' })).tables).toEqual([
      { schema: 'shop', name: 'orders_then', inserted: 40, updated: 0, deleted: 0 },
    ])
    const without = then
      .get('shop.orders')
      ?.map((row) => JSON.stringify(row, (key, value) => (key === 'double' ? undefined : value)))
    expect((await rowsOf('shop.orders_then')).map((row) => JSON.stringify(row))).toEqual(without)
    expect(await rowsOf('shop.orders')).toEqual(before)
    await expect(subject.sql('insert into shop.orders_then (id) values (1)')).rejects.toMatchObject({ code: '23505' })
    await expect(put(['shop.orders'], { as: 'orders_then' })).rejects.toMatchObject({ code: 'refused' })
    await subject.sql('drop table shop.orders_then')
    await put(['shop.days'], { as: { schema: 'public', name: 'a "b.c' } })
    expect(await rowsOf('public."a ""b.c"')).toEqual(then.get('shop.days'))
    await subject.sql('drop table public."a ""b.c"')
    await expect(put(['shop.*'], { as: 'x' })).rejects.toMatchObject({ code: 'usage' })
    expect(await scratch()).toEqual([])
  })

  it('inserts what is missing, and touches nothing else', async () => {
    const before = await rowsOf('shop.orders')
    const { tables, previews } = await put(['shop.customers', 'shop.orders'], { merge: 'insert-missing' })
    expect(tables).toEqual([
      { schema: 'shop', name: 'customers', inserted: 1, updated: 0, deleted: 0 },
      { schema: 'shop', name: 'orders', inserted: 30, updated: 0, deleted: 0 },
    ])
    expect(previews[1]).toMatchObject({ name: 'orders', missing: 30, differing: 10, extra: 1 })
    expect(previews[1]?.conflicts).toContain('(11)')
    const after = await rowsOf('shop.orders')
    expect(after).toEqual(expect.arrayContaining(before))
    expect(after).toHaveLength(41)
  })

  it('sets back what differs, and keeps what came since', async () => {
    const { tables } = await put(['shop.customers', 'shop.orders', 'shop.days'], { merge: 'overwrite' })
    expect(tables.find(({ name }) => name === 'orders')).toMatchObject({ inserted: 30, updated: 10, deleted: 0 })
    expect(await rowsOf('shop.orders')).toHaveLength(41)
    expect(await rowsOf('shop.orders')).toEqual(expect.arrayContaining(then.get('shop.orders') as unknown[]))
    expect(await rowsOf('shop.days')).toEqual(then.get('shop.days'))
  })

  it('replaces all rows, of tables without a key too', async () => {
    const { previews } = await put(
      ['shop.*'].flatMap(() => names),
      { merge: 'replace' },
    )
    for (const name of names) expect(await rowsOf(name)).toEqual(then.get(name))
    const customers = previews.find(({ name }) => name === 'customers')
    expect(customers).toMatchObject({ missing: 1, extra: 1, dragged: [{ name: 'orders', onDelete: 'CASCADE' }] })
    expect(previews.find(({ name }) => name === 'bag')).toMatchObject({ missing: 3, differing: 0, extra: 1 })
  })

  it('takes only what was selected, not what its columns have the type of', async () => {
    const before = await rowsOf('shop.customers')
    const { tables } = await put(['shop.wide'], { merge: 'replace' })
    expect(tables).toEqual([{ schema: 'shop', name: 'wide', inserted: 0, updated: 0, deleted: 0 }])
    expect(await rowsOf('shop.customers')).toEqual(before)
  })

  it('changes nothing where a foreign key, a unique key, a trigger or a lost column stands in the way', async () => {
    const before = await rowsOf('shop.orders')
    const isAsBefore = async (work: Promise<unknown>, error: Record<string, unknown>): Promise<void> => {
      await expect(work).rejects.toMatchObject(error)
      expect(await rowsOf('shop.orders')).toEqual(before)
      expect(await scratch()).toEqual([])
    }
    await isAsBefore(put(['shop.orders'], { merge: 'insert-missing' }), {
      code: 'refused',
      hint: expect.stringContaining('select the tables too'),
    })
    await subject.sql('create unique index once on shop.orders (total)')
    await isAsBefore(put(['shop.customers', 'shop.orders'], { merge: 'insert-missing' }), { code: 'refused' })
    await subject.sql('drop index shop.once')
    await subject.sql(
      `create function meddle() returns trigger language plpgsql as 'begin new.total := 0; return new; end'`,
      'create trigger meddle before insert on shop.orders for each row execute function meddle()',
    )
    await isAsBefore(put(['shop.customers', 'shop.orders'], { merge: 'insert-missing' }), {
      code: 'refused',
      message: expect.stringContaining('trigger'),
    })
    await subject.sql('drop trigger meddle on shop.orders')
    const refuse = async (): Promise<void> => {
      throw new Error('no')
    }
    await isAsBefore(put(['shop.orders'], { merge: 'replace' }, { approve: refuse }), { message: 'no' })
    await expect(put(['shop.bag'], { merge: 'overwrite' })).rejects.toMatchObject({ code: 'refused' })
    await subject.sql('alter table shop.bag drop n')
    await expect(put(['shop.bag'], { merge: 'replace' })).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('no column n'),
    })
    await subject.sql('alter table shop.bag add n float8')
  })

  it('gives up when another session holds the table, and leaves nothing behind when it is interrupted', async () => {
    const other = new pg.Client({ connectionString: subject.url })
    await other.connect()
    await other.query('begin; lock table shop.days in row exclusive mode')
    await expect(put(['shop.days'], { merge: 'overwrite' })).rejects.toMatchObject({
      code: 'refused',
      hint: expect.stringContaining('another session'),
    })
    await other.end()
    const stop = new AbortController()
    const approve = async (): Promise<void> => stop.abort()
    await expect(put(['shop.days'], { merge: 'overwrite' }, { approve, signal: stop.signal })).rejects.toThrow()
    expect(await scratch()).toEqual([])
    expect(await rowsOf('shop.days')).toHaveLength(1)
  })
})
