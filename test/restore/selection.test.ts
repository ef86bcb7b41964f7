import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { everything, type Selection } from '../../src/model/selection.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { planRestore, type RestorePlan } from '../../src/restore/plan.ts'
import { type RestoreReport, restore } from '../../src/restore/restore.ts'
import { selectTables } from '../../src/restore/selected.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { ourObjects } from '../support/walback.ts'
import { type Moment, packages, Subject } from './round-trip.ts'

const schema = `
  create schema audit; create schema "Odd ""schema";
  create type status as enum ('new', 'done');
  create table customers (id serial primary key, name text); insert into customers (name) select 'c' || n from generate_series(1, 500) n;
  create table orders (id int primary key, customer int not null references customers, state status default 'new'); insert into orders select n, n % 500 + 1 from generate_series(1, 300) n;
  create table items (id int, "order" int references orders on delete cascade, what text); insert into items select n, n % 300 + 1, repeat('x', 50) from generate_series(1, 3000) n;
  create table events (id int, day int, customer int references customers) partition by list (day);
  create table events_1 partition of events for values in (1); create table events_2 partition of events for values in (2) partition by range (id);
  create table events_2_a partition of events_2 for values from (0) to (10); create table events_2_b partition of events_2 default;
  insert into events select n, n % 2 + 1, n from generate_series(1, 40) n;
  create table heir_of (id int); create table heir (more text) inherits (heir_of); insert into heir values (1, 'heir'); insert into heir_of values (2);
  create table typed (id int, was customers, all_of customers[]); insert into typed select 1, c, array[c] from customers c where id = 7;
  create table audit.log (id int, t text); insert into audit.log values (1, 'one');
  create table "Odd ""schema"."a.b*c" (id int primary key, "t\nab" text); insert into "Odd ""schema"."a.b*c" values (1, 'x');
  create view names as select o.id, c.name from orders o join customers c on c.id = o.customer;
  create view done as select id from orders where state = 'done';
  create materialized view states as select state, count(*) from orders group by 1;
  create function total() returns bigint language sql stable as 'select count(*) from orders';
  create event trigger watch on ddl_command_end when tag in ('CREATE VIEW') execute function noticed();`

const noticed = `create function noticed() returns event_trigger language plpgsql as 'begin end'`

const only = (...tables: string[]): Selection => ({ ...everything, tables })

describe('a restore of some of the tables', () => {
  let subject: Subject
  /** Contents of each table at each moment. */
  const contents = new Map<string, Map<string, unknown[]>>()
  let restores = 0

  const readTables = async (url: string): Promise<Map<string, unknown[]>> => {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    try {
      const { rows } = await client.query<{ name: string; sql: string }>(
        `select n.nspname || '.' || relname as name, format('select to_jsonb(t) as r from only %I.%I t order by 1', nspname, relname) as sql
         from pg_class c join pg_namespace n on n.oid = relnamespace
         where relkind = 'r' and nspname not in ('pg_catalog', 'information_schema', 'walback')`,
      )
      const tables = new Map<string, unknown[]>()
      for (const { name, sql } of rows) tables.set(name, (await client.query(sql)).rows)
      return tables
    } finally {
      await client.end()
    }
  }

  const note = async (name: string): Promise<void> => {
    contents.set(name, await readTables(subject.url))
    await subject.note(name)
  }

  const moment = (name: string): Moment => subject.moments.find((one) => one.name === name) as Moment

  const planFor = async (name: string, selection: Selection): Promise<RestorePlan> => {
    const { repository, source } = subject.opened
    return selectTables(repository, await planRestore(repository, source, moment(name).target), selection)
  }

  /** Restores, and checks that what is there is these tables with all of their rows. */
  const restored = async (
    name: string,
    selection: Selection,
    expected: readonly string[],
    look?: (url: string) => Promise<void>,
  ): Promise<{ plan: RestorePlan; report: RestoreReport; lines: readonly string[] }> => {
    const plan = await planFor(name, selection)
    const database = `selected_${++restores}`
    const conninfo = resolveConninfo(subject.server.url(), {})
    const report = await restore(subject.opened.repository, plan, { conninfo, database }, { jobs: 2 })
    const found = await readTables(subject.server.url(database))
    const golden = contents.get(name) as Map<string, unknown[]>
    expect([...found.keys()].sort()).toEqual([...expected].sort())
    for (const table of expected)
      expect({ table, rows: found.get(table) }).toEqual({ table, rows: selection.rows ? golden.get(table) : [] })
    await look?.(subject.server.url(database))
    return { plan, report, lines: [...plan.notRestored, ...report.warnings, ...report.notes] }
  }

  beforeAll(async () => {
    subject = await Subject.start(packages[18])
    await subject.sql(noticed, schema)
    const archive = await subject.open()
    await archive.base()
    await subject.sql(`update orders set state = 'done' where id % 3 = 0; delete from orders where id = 299`)
    await archive.catchUp()
    await subject.sql('update items set id = id + 1 where id > 2900')
    await archive.catchUp()
    await subject.sql(`update customers set name = 'other' where id = 7; update events set id = id + 100 where day = 2`)
    await note('rows')
    await archive.catchUp()
    await subject.sql(
      'create table made_later as select id from orders',
      'create table events_3 partition of events for values in (3)',
    )
    await subject.sql('insert into events values (5, 3, 5)', 'create view late as select * from customers')
    await note('tables')
    await archive.catchUp()
    await subject.sql('create table fresh (id int primary key, note text)', `insert into fresh values (1, 'fresh')`)
    await subject.sql('begin; alter table orders rename to orders_old; alter table fresh rename to orders; commit')
    await note('renamed')
    await archive.catchUp()
    await subject.sql(
      'create table cascaded (id int primary key, customer int references customers on delete cascade)',
      'create table nulled (id int primary key, customer int references customers on delete set null)',
      `create function erase() returns trigger language plpgsql as 'begin delete from cascaded; return null; end'`,
      'create trigger erase after delete or truncate on customers execute function erase()',
      'insert into cascaded select n, n from generate_series(1, 30) n; insert into nulled select * from cascaded',
    )
    await note('referred')
    await archive.catchUp()
  })
  afterAll(() => subject?.[Symbol.asyncDispose]())

  it('brings a table, the objects without rows, and says what cannot come with it', async () => {
    const { plan, lines, report } = await restored('rows', only('orders'), ['public.orders'])
    expect(plan.selected?.readsAll).toBeUndefined()
    expect(plan.unneeded?.size).toBeGreaterThan(0)
    expect([...lines].sort()).toEqual([
      'foreign key orders_customer_fkey of public.orders, since public.customers is not restored',
      'left out: view names, which needs a table that is not restored',
    ])
    expect(report.proven).toEqual({ tables: 1, rows: 299 })
  })

  it('reads no more than it needs', async () => {
    const { repository, source } = subject.opened
    const whole = await planRestore(repository, source, moment('rows').target)
    const plan = await planFor('rows', only('public.orders'))
    expect(plan.bytes.base).toBeLessThan(whole.bytes.base)
    expect(plan.bytes.segments).toBeLessThan(whole.bytes.segments)
  })

  it('keeps foreign keys among what is selected', async () => {
    const { lines } = await restored('rows', only('orders', 'customers', 'it*'), [
      ...['public.orders', 'public.customers', 'public.items'],
    ])
    expect(lines).toEqual([])
  })

  it('takes partitions with the table above them, and one alone as a table of its own', async () => {
    const all = ['public.events_1', 'public.events_2_a', 'public.events_2_b']
    const whole = await restored('rows', only('events'), all)
    expect(whole.lines).toContain(
      'foreign key events_customer_fkey of public.events, since public.customers is not restored',
    )
    const one = await restored('rows', only('events_2_a'), ['public.events_2_a'])
    expect(one.lines).toContain('public.events_2_a is a table of its own now, since public.events_2 is not restored')
    await restored('rows', { ...only('events'), excludeTables: ['events_2_b'] }, all.slice(0, 2))
    await restored('rows', only('heir_of'), ['public.heir', 'public.heir_of'])
    await restored('rows', only('heir'), ['public.heir'])
  })

  it('leaves a table whose row type is needed there, without rows', async () => {
    const plan = await planFor('rows', only('typed'))
    const database = `selected_${++restores}`
    const conninfo = resolveConninfo(subject.server.url(), {})
    const { notes } = await restore(subject.opened.repository, plan, { conninfo, database }, { jobs: 1 })
    const found = await readTables(subject.server.url(database))
    expect(found.get('public.typed')).toEqual(contents.get('rows')?.get('public.typed'))
    expect(found.get('public.customers')).toEqual([])
    expect(notes).toContain('left without rows: public.customers, whose type a column of what is selected has')
  })

  it('takes no row along when it empties such a table, of which all rows were read', async () => {
    const plan = await planFor('referred', only('typed', 'cascaded', 'nulled', 'events_1'))
    expect(plan.selected?.readsAll).toContain('ALTER TABLE')
    const database = `selected_${++restores}`
    const conninfo = resolveConninfo(subject.server.url(), {})
    const { notes } = await restore(subject.opened.repository, plan, { conninfo, database }, { jobs: 1 })
    const found = await readTables(subject.server.url(database))
    for (const table of ['typed', 'cascaded', 'nulled', 'events_1'])
      expect({ table, rows: found.get(`public.${table}`) }).toEqual({
        table,
        rows: contents.get('referred')?.get(`public.${table}`),
      })
    expect(found.get('public.customers')).toEqual([])
    for (const key of ['cascaded_customer_fkey on table cascaded', 'nulled_customer_fkey on table nulled'])
      expect(notes).toContain(`left out: constraint ${key}, which needs a table that is not restored`)
  })

  it('takes a schema, leaves out another, and knows odd names', async () => {
    await restored('rows', { ...everything, schemas: ['audit'] }, ['audit.log'])
    await restored('rows', { ...everything, schemas: ['Odd*'] }, ['Odd "schema.a.b*c'])
    await restored('rows', only('Odd "schema.a.b*c'), ['Odd "schema.a.b*c'])
    const quoted = await restored('rows', only('"Odd ""schema"."a.b*c"', 'nothing'), ['Odd "schema.a.b*c'])
    expect(quoted.lines.join()).toContain('anything of nothing, unless it was made since the base')
    const others = [...(contents.get('rows') as Map<string, unknown[]>).keys()].filter((name) => !/audit/.test(name))
    await restored('rows', { ...everything, excludeSchemas: ['audit'] }, others)
  })

  it('finds tables that were made after the base', async () => {
    const { plan } = await restored('tables', only('made_later'), ['public.made_later'])
    expect(plan.selected?.readsAll).toBeUndefined()
    await restored('tables', only('events'), [
      ...['public.events_1', 'public.events_2_a', 'public.events_2_b', 'public.events_3'],
    ])
  })

  it('goes by the names that tables have at the target', async () => {
    const { plan } = await restored('renamed', only('orders'), ['public.orders'])
    expect(plan.selected?.readsAll).toContain('ALTER TABLE')
    await restored('renamed', only('orders_old'), ['public.orders_old'])
    await expect(planFor('rows', only('order'))).rejects.toMatchObject({ code: 'usage', hint: 'did you mean orders?' })
    await expect(restored('renamed', only('fresh'), [])).rejects.toMatchObject({ code: 'usage' })
  })

  it('brings the schema alone', async () => {
    const names = [...(contents.get('tables') as Map<string, unknown[]>).keys()]
    await restored('tables', { ...everything, rows: false }, names, async (url) => {
      const { golden } = moment('tables')
      const found = differences(golden, await fingerprint(url), ourObjects)
      expect(found.filter((line) => !/rows|sequence|populated/i.test(line))).toEqual([])
    })
  })
})
