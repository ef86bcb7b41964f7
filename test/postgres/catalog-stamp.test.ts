import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { catalogStampSql, readCatalogStamp } from '../../src/postgres/catalog-stamp.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { majors, packageOf } from '../support/majors.ts'

const preparation = `
  create role owner_a; create role owner_b; create role stranger login;
  create extension citext;
  create table t (id serial primary key, v text, w text, n numeric(10, 2) check (n > 0)); create index t_v on t (v);
  create table child () inherits (t); create table u (id int primary key references t (id), v text); comment on index t_v is 'of v';
  create table p (k int, v text, primary key (k)) partition by list (k); create table p1 partition of p for values in (1);
  create table p2 partition of p for values in (2); create index p_v on p (v);
  insert into t (v, n) select repeat('x', 3000) || n, n from generate_series(1, 300) n; insert into p values (1, 'a'), (2, 'b');
  create materialized view mv as select id, v from t; create unique index on mv (id);
  create view v as select id from t; create sequence s; create table big (id int, v text); alter table t cluster on t_pkey;
  create function f(a int default 1) returns int language sql as 'select $1'; create statistics st on v, w from t;
  create table reindexed (a int primary key, b int, exclude (b with =)); create index on reindexed ((a + b)) where a > 0`

/** What changes nothing that lasts, though the catalogs' rows may change. */
const silent: readonly string[] = [
  'insert into t (v, n) values (repeat(md5(random()::text), 200), 1); delete from t where id = 7; update t set w = v',
  `select nextval('s'), setval('t_id_seq', 5000)`,
  'alter sequence s restart',
  'truncate big; truncate u',
  'analyze; vacuum',
  'vacuum (full) t',
  'vacuum (full, analyze)',
  'vacuum freeze',
  'cluster t',
  'cluster',
  'reindex table t',
  'reindex table concurrently t',
  'reindex table concurrently reindexed',
  'reindex table concurrently p',
  'reindex schema public',
  'reindex schema concurrently public',
  'refresh materialized view mv',
  'refresh materialized view concurrently mv',
  'create temp table tt (id serial primary key, v text default now()::text); create index on tt (v); create temp view tv as select * from tt; comment on table tt is $$x$$; create rule r as on delete to tt do nothing; comment on rule r on tt is $$x$$; alter table tt add check (id > 0); comment on constraint tt_id_check on tt is $$x$$',
  'create function pg_temp.f() returns int language sql as $$ select 1 $$; create type pg_temp.e as enum ($$a$$); create domain pg_temp.d as int check (value > 0); comment on type pg_temp.e is $$x$$; comment on function pg_temp.f() is $$x$$',
  'drop table tt cascade',
  'create temp table scratch on commit drop as select 1',
  'begin; create table gone (a int); rollback',
  'begin; create table gone (a int); drop table gone; commit',
  `select lo_from_bytea(0, 'x')`,
  `create schema walback; create function walback.f() returns event_trigger language plpgsql as 'begin end'; comment on schema walback is 'ours'; grant usage on schema walback to stranger`,
  `create event trigger walback_x on sql_drop execute function walback.f(); create publication walback_x for all tables; comment on publication walback_x is 'walback repository x'`,
  'alter event trigger walback_x disable; alter event trigger walback_x enable',
  'drop publication walback_x; drop event trigger walback_x; drop schema walback cascade',
  `create role another; alter role another valid until '2040-01-01'; drop role another`,
  'create index concurrently t_w on t (w); drop index t_w',
]

/** What changes a definition. Beside each kind of object that has one, what fires no event trigger. */
const loud: readonly string[] = [
  'create table new (a int)',
  'explain (analyze) create table explained as select 1 as a',
  'alter table new rename to newer',
  'alter table newer rename a to b',
  'alter table newer add c int default 5',
  'alter table newer alter c set default 6',
  'alter table newer alter c type bigint',
  'alter table newer alter b set not null',
  'alter table newer alter b set statistics 5',
  'alter table newer set (fillfactor = 90)',
  'alter table t set (toast.autovacuum_enabled = off)',
  'alter table newer replica identity full',
  'alter table newer drop c',
  'alter table newer set unlogged',
  'alter table newer owner to owner_a',
  'reassign owned by owner_a to owner_b',
  'drop owned by owner_b',
  'alter table t disable trigger all',
  'alter table t enable trigger all',
  'alter table t cluster on t_v',
  'create index concurrently t_wn on t (w, n)',
  'alter index t_wn rename to t_nw',
  'create index t_e on t ((v || w))',
  'alter index t_e alter column 1 set statistics 10',
  'alter index t_nw set (fillfactor = 70)',
  `comment on index t_nw is 'one'`,
  'drop index concurrently t_nw',
  'alter table p detach partition p2',
  'alter table p attach partition p2 for values in (2, 3)',
  `comment on column t.v is 'v'`,
  `comment on column t.v is 'w'`,
  'grant select on t to stranger',
  'grant update (v) on t to stranger',
  'revoke select on t from stranger',
  'grant usage on schema public to owner_a with grant option',
  'alter default privileges grant select on tables to stranger',
  'create or replace function f(a int default 2) returns int language sql as $$select $1$$',
  'create or replace function f(a int default 2) returns int language sql as $$select $1 + 1$$',
  'alter function f stable',
  'alter function f cost 5.5',
  'alter function f set work_mem = 100000',
  'create type mood as enum ($$a$$, $$b$$)',
  'alter type mood add value $$c$$ before $$b$$',
  'alter type mood rename value $$a$$ to $$z$$',
  'create domain dom as int default 3 check (value > 0)',
  'alter domain dom add constraint other check (value < 9)',
  'create or replace view v as select id, w from t',
  'alter view v set (security_barrier = true)',
  'create rule r as on delete to u do also notify x',
  'alter table u disable rule r',
  'create policy pol on t using (n > 1)',
  'alter table t enable row level security',
  'alter sequence s increment 3',
  'alter sequence s owned by t.n',
  'alter statistics st set statistics 7',
  'create collation c (provider = icu, locale = $$de$$)',
  'create operator === (leftarg = box, rightarg = box, function = box_same)',
  'create cast (bigint as box) with inout',
  'create aggregate agg (int) (sfunc = int4pl, stype = int)',
  'create text search configuration tsc (copy = simple)',
  'alter text search configuration tsc alter mapping for word with english_stem',
  'create foreign data wrapper w; create server srv foreign data wrapper w options (a $$1$$)',
  'alter server srv options (set a $$2$$)',
  'create user mapping for stranger server srv',
  'create foreign table ft (a int) server srv',
  'create publication pub for table t',
  'alter publication pub add table u',
  `create function et() returns event_trigger language plpgsql as 'begin end'; create event trigger users on sql_drop execute function et()`,
  'alter event trigger users disable',
  'alter extension citext add function f(int)',
  'alter extension citext drop function f(int)',
  'alter function f depends on extension citext',
  'refresh materialized view mv with no data',
  'alter table u owner to owner_a',
  'alter role owner_a rename to owner_c',
  `alter database "postgres" set work_mem = '10MB'`,
  `alter role stranger in database "postgres" set search_path = 'x'`,
  `comment on database "postgres" is 'that one'`,
  'alter database "postgres" connection limit 50',
  // Two that exchange something keep each sum of their values.
  `begin; alter table u rename to x; alter table child rename to u; alter table x rename to child; commit`,
]

describe.each(majors)('the stamp of the catalogs on %i', (major) => {
  let server: EmbeddedServer
  let client: pg.Client
  let other: pg.Client
  let readWhole: () => Promise<string>
  /** The part that is of definitions. */
  const read = async (): Promise<string> => (await readWhole()).split('-')[1] ?? ''
  const open = async (url: string): Promise<pg.Client> => {
    const made = new pg.Client({ connectionString: url })
    await made.connect()
    return made
  }
  beforeAll(async () => {
    server = await startEmbedded({ package: packageOf(major), settings: { fsync: 'off' } })
    client = await open(server.url())
    other = await open(server.url())
    await client.query(preparation)
    const sql = await catalogStampSql(other)
    readWhole = async () => (await other.query<{ stamp: string }>(`SELECT (${sql}) AS stamp`)).rows[0]?.stamp ?? ''
  })
  afterAll(async () => {
    await client?.end()
    await other?.end()
    await server?.[Symbol.asyncDispose]()
  })
  // VACUUM and the like want to be alone in their message.
  const run = async (sql: string): Promise<void> => {
    const isBlock = sql.startsWith('begin') || sql.includes('$$')
    for (const statement of isBlock ? [sql] : sql.split('; ')) await client.query(statement)
  }

  it('stays the same under what changes no definition', async () => {
    const changed: string[] = []
    let before = await read()
    for (const sql of silent) {
      await run(sql)
      const after = await read()
      if (after !== before) changed.push(sql)
      before = after
    }
    expect(changed).toEqual([])
  })

  it('is the same for every role, and under any settings', async () => {
    const before = await readWhole()
    const stranger = await open(server.url().replace('postgres@', 'stranger@'))
    try {
      await stranger.query(`set search_path = t, pg_catalog; set extra_float_digits = -5; set bytea_output = escape;
        set datestyle = 'SQL, DMY'; set timezone = 'Asia/Tokyo'; set intervalstyle = iso_8601; set quote_all_identifiers = on`)
      expect(await readCatalogStamp(stranger)).toBe(before)
    } finally {
      await stranger.end()
    }
  })

  it('changes with every definition, whether or not an event tells of it', async () => {
    const unchanged: string[] = []
    let before = await read()
    for (const sql of loud) {
      await run(sql)
      const after = await read()
      if (after === before) unchanged.push(sql)
      before = after
    }
    expect(unchanged).toEqual([])
  })

  it('tells that somebody has touched our event triggers, though they are as they were', async () => {
    await run(`create function public.ours() returns event_trigger language plpgsql as $$ begin end $$`)
    await run('create event trigger walback_2_command on ddl_command_end execute function public.ours()')
    const before = await readWhole()
    expect(before).toMatch(/^1-[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}$/)
    await run('vacuum (full, freeze) pg_event_trigger; comment on event trigger walback_2_command is null')
    expect(await readWhole()).toBe(before)
    await run('alter event trigger walback_2_command disable; alter event trigger walback_2_command enable')
    const after = await readWhole()
    expect(after).not.toBe(before)
    expect(after.split('-')).toEqual(before.split('-').with(2, expect.any(String)))
  })

  it('tells that somebody has altered our publications, though they are as they were', async () => {
    await run('create table listed (a int primary key); create publication walback_x for table listed')
    const before = await readWhole()
    await run(`alter publication walback_x set (publish = 'insert')`)
    await run(`alter publication walback_x set (publish = 'insert, update, delete, truncate')`)
    const after = await readWhole()
    expect(after).not.toBe(before)
    expect(after.split('-')).toEqual(before.split('-').with(3, expect.any(String)))
    await run('drop publication walback_x; drop table listed')
  })

  it('tells that a table was taken out of a publication of ours, though it was put back', async () => {
    await run('create table listed (a int primary key); create publication walback_x for table listed')
    const before = await readWhole()
    await run('alter publication walback_x drop table listed; alter publication walback_x add table listed')
    const after = await readWhole()
    expect(after).not.toBe(before)
    expect(after.split('-')).toEqual(before.split('-').with(4, expect.any(String)))
    await run('vacuum (full, freeze) pg_publication_rel')
    expect(await readWhole()).toBe(after)
    await run('drop publication walback_x; drop table listed')
  })

  it('is of its snapshot', async () => {
    await other.query('begin isolation level repeatable read')
    const before = await read()
    await client.query('create table later (a int primary key); alter table t add later int; drop view v')
    expect(await read()).toBe(before)
    await other.query('commit')
    expect(await read()).not.toBe(before)
  })
})
