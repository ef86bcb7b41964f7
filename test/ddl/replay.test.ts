import { describe, expect, it } from 'vitest'
import { packages, Subject } from '../restore/round-trip.ts'
import { oneOrBoth } from '../support/majors.ts'

/** Steps of a history; after each the state is noted, and every note is a target. */
const history = [
  `create table plain (id int primary key, v text); insert into plain select n, 'v' || n from generate_series(1, 50) n`,
  `alter table plain add column at timestamptz default now(), add column r double precision default random(); update plain set v = 'changed' where id % 5 = 0`,
  `create table bag (a int, b text); insert into bag values (1, 'x'), (1, 'x'), (2, null); delete from bag where ctid = '(0,1)'`,
  `begin; insert into plain(id, v) values (100, 'in'); alter table plain rename v to w; insert into plain(id, w) values (101, 'after'); savepoint a; drop table bag; rollback to a; create table derived as select id, w from plain; insert into derived values (7, 'seven'); commit`,
  `alter table plain alter id type bigint; alter table plain rename to renamed; create index on renamed (w); insert into renamed(id, w) values (102, 'again')`,
  `create type mood as enum ('sad', 'ok'); create table person (name text primary key, m mood default 'ok'); insert into person values ('a', 'ok'), ('b', 'sad')`,
  `alter type mood add value 'happy' after 'sad'`,
  `insert into person values ('c', 'happy'); alter type mood rename value 'ok' to 'fine'; create view v as select * from person where m > 'sad'; create materialized view mv as select count(*) from renamed`,
  `create schema app; alter table person set schema app; alter schema app rename to "we""ird"; update "we""ird".person set name = name || '!'`,
  `do $$ begin for i in 1..3 loop execute format('create table loop_%s (id serial primary key, n int references renamed(id))', i); execute format('insert into loop_%s (n) values (1), (2)', i); end loop; end $$`,
  `create table parted (id int, k text, primary key (id, k)) partition by list (k); create table parted_a partition of parted for values in ('a'); create table parted_rest partition of parted default; insert into parted select n, chr(97 + n % 3) from generate_series(1, 30) n`,
  `alter table parted detach partition parted_a; insert into parted_a values (1000, 'a'); alter table parted attach partition parted_a for values in ('a'); truncate loop_2`,
  `create function twice(int) returns int language sql immutable as 'select $1 * 2'; create index on renamed (twice(id::int)); alter table loop_1 add column g int generated always as (n * 2) stored; create trigger t before insert on loop_1 for each row execute function suppress_redundant_updates_trigger(); comment on table loop_1 is 'one'; alter table renamed alter w set not null, add constraint long check (length(w) < 100)`,
  `drop table loop_3; drop schema "we""ird" cascade; alter table loop_1 drop column n cascade; delete from renamed where id > 100; refresh materialized view mv`,
]

describe.each(oneOrBoth(14))('changes of the schema on %i', (major) => {
  it('are replayed in order with the rows, to each moment', { timeout: 240_000 }, async () => {
    await using subject = await Subject.start(packages[major])
    await subject.sql(
      'create table before_base (id serial primary key, v text)',
      `insert into before_base(v) values ('a')`,
    )
    const archive = await subject.open()
    await archive.base()
    for (const [step, sql] of history.entries()) {
      await subject.sql(sql)
      await subject.note(`step ${step}`)
    }
    await archive.catchUp()
    const reports = await subject.compare({ sizes: [undefined] })
    expect(reports.flatMap((report) => report.warnings)).toEqual([])
  })
})
