import pg from 'pg'
import { describe, expect, it } from 'vitest'
import { planTeardown, tearDown } from '../../src/capture/teardown.ts'
import { open, packages, Subject } from '../restore/round-trip.ts'

/** DDL of an application's own role, of many kinds. */
const work = (n: number): string[] => [
  `create table t${n} (id serial primary key, v text, w int default 3)`,
  `insert into t${n} (v) values ('a'), ('b')`,
  `alter table t${n} add column at timestamptz default now(), add column r float default random()`,
  `create index i${n} on t${n} (v)`,
  `create index concurrently c${n} on t${n} (w)`,
  `drop index concurrently c${n}`,
  `do $$ begin execute 'create table d${n} (a int)'; insert into d${n} values (1); update d${n} set a = 2; end $$`,
  `begin; savepoint s; create table gone${n} (a int); rollback to s; create table kept${n} (a int); commit`,
  `create table copied${n} as select * from t${n}`,
  `update copied${n} set v = 'c'`,
  `create temp table mine${n} (a int); drop table mine${n}`,
  `create function f${n}() returns int language sql as 'select 1'; comment on function f${n}() is 'mine'`,
  `create view v${n} as select * from t${n}; grant select on v${n} to public; drop view v${n}`,
  `truncate t${n} cascade; drop table copied${n}, d${n}; alter table t${n} rename to renamed${n}`,
]

async function asApp(url: string, notices: string[]): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url.replace('postgres@', 'app@') })
  client.on('notice', ({ severity, message }) => {
    if (severity === 'WARNING') notices.push(message ?? '')
  })
  await client.connect()
  return client
}

describe.each([18, 14] as const)('the triggers on %i', (major) => {
  it('stand in the way of no role, whatever it may do, nor leave anything behind', { timeout: 120_000 }, async () => {
    await using subject = await Subject.start(packages[major])
    await subject.sql(
      'create role app login; grant create, usage on schema public to app; create table before_base (id int primary key)',
    )
    const archive = await subject.open()
    await archive.base()
    const notices: string[] = []
    const app = await asApp(subject.url, notices)
    for (const sql of work(1)) await app.query(sql)
    await subject.sql(
      'revoke all on schema walback from public; revoke all on all functions in schema walback from public; revoke all on database postgres from public; grant connect, temporary on database postgres to app',
    )
    for (const sql of work(2)) await app.query(sql)
    // Functions and operators that shadow the server's own are found by nobody who looks for those.
    await subject.sql('create schema trap authorization app')
    await app.query(
      'create function trap.set_config(text, text, boolean) returns text language sql as $$ select (1/0)::text $$',
    )
    await app.query(
      'create function trap.current_setting(text, boolean) returns text language sql as $$ select (1/0)::text $$',
    )
    await app.query('set search_path = trap, public, pg_catalog')
    for (const sql of work(3)) await app.query(sql)
    await app.query('reset search_path')
    expect(notices).toEqual([])
    await subject.note('after everything')
    await archive.catchUp()
    const reports = await subject.compare({ sizes: [undefined] })
    expect(reports.flatMap(({ warnings }) => warnings)).toEqual([])
    const source = new URL(subject.url).pathname.slice(1)
    await tearDown(subject.client, source, await planTeardown(subject.client, source))
    for (const sql of work(4)) await app.query(sql)
    expect(notices).toEqual([])
    const left = await subject.client.query(
      `select evtname::text from pg_event_trigger union all select nspname from pg_namespace where nspname = 'walback' union all select pubname from pg_publication union all select slot_name from pg_replication_slots`,
    )
    expect(left.rows).toEqual([])
    await app.end()
  })

  it('fail for themselves alone, and say so in the stream', { timeout: 120_000 }, async () => {
    await using subject = await Subject.start(packages[major])
    const archive = await subject.open()
    await archive.base()
    await subject.sql(
      `set walback.quiet = 'on'; create or replace function walback.touched() returns jsonb language plpgsql as $$ begin raise 'broken'; end $$; reset walback.quiet`,
      'create table t (a int); insert into t values (1)',
    )
    const other = await open(subject.url)
    await other.query('alter table t add column b int default 4')
    await other.end()
    await archive.catchUp()
    const { report } = await subject.restoreTo({ kind: 'latest' }, subject.server, undefined, async () => undefined)
    expect(report.warnings.filter((warning) => warning.startsWith('not followed:'))).toEqual([
      'not followed: CREATE TABLE (broken)',
      'not followed: ALTER TABLE (broken)',
    ])
    expect(report.warnings.join()).toContain('left out: table public.t')
  })
})
