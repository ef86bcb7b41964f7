import { describe, expect, it } from 'vitest'
import { Subject } from '../restore/round-trip.ts'
import { majors, packageOf } from '../support/majors.ts'
import { type Case, round } from './round.ts'

/** Functions that are called as rows go in, and find what they need only where applications find it. */
const unqualified = (major: number): Case => ({
  schema: [
    `create schema tools; create schema "Odd ""x"" é"; do $$ begin execute format('alter database %I set search_path = "$user", "Odd ""x"" é", tools, public', current_database()); end $$; set search_path = "$user", "Odd ""x"" é", tools, public`,
    `create table tools.rates (name text primary key, rate int); insert into rates values ('a', 2), ('b', 3)`,
    `create function tools.positive(n int) returns bool language sql immutable as 'select n > 0'; create function "Odd ""x"" é".twice(n int) returns int language plpgsql immutable as $$ begin return case when positive(n) then n * 2 else 0 end; end $$; create function tools.rate_of(t text) returns int language plpgsql immutable as $$ begin return (select rate from rates where name = t); end $$`,
    `create domain public.even as int check (twice(value) % 4 = 0)`,
    `create table public.checked (id int primary key, n int check (twice(n) > 0), e even, g int generated always as (twice(n)) stored, r int generated always as (n * 2) stored, t text check (rate_of(t) > 1))`,
    `insert into public.checked values (1, 1, 2, default, default, 'a'), (2, 2, 4, default, default, 'b'), (3, 3, null, default, default, null)`,
    // From 17 on the server itself builds these with a search_path that finds nothing.
    ...(major < 17
      ? [
          `create index on public.checked (twice(n)); create unique index on public.checked (tools.rate_of(t)) where twice(n) < 100; alter table public.checked add exclude using btree (twice(n) with =); create materialized view public.rated as select id, twice(n) as n, rate_of(t) as rate from public.checked`,
        ]
      : []),
  ],
  across: [`update public.checked set n = 10 where id = 1`],
  later: [
    `update public.checked set e = 8 where id = 2; insert into public.checked (id, n) values (4, 40)`,
    ...(major < 17 ? ['refresh materialized view public.rated'] : []),
  ],
  last: [
    `update public.checked set id = 5, n = 50 where id = 4; delete from public.checked where id = 3`,
    ...(major < 17 ? ['refresh materialized view public.rated'] : []),
  ],
})

/** Checks that held when the row was written, and may not when it is put back. */
const fickle: Case = {
  schema: [
    `create schema fickle; create table fickle.zones (name text primary key); insert into fickle.zones values ('a'), ('b')`,
    `create function fickle.is_zone(t text) returns bool language plpgsql stable as $$ begin return exists (select from fickle.zones where name = t); end $$; create function fickle.few() returns bool language plpgsql stable as $$ begin return (select count(*) < 4 from fickle.many); end $$`,
    `create table fickle.a_place (id int primary key, zone text constraint is_zone check (fickle.is_zone(zone)), constraint plain check (id > 0)); comment on constraint is_zone on fickle.a_place is 'it''s known'; insert into fickle.a_place values (1, 'a'), (2, 'b')`,
    `create table fickle.many (n int); insert into fickle.many select generate_series(1, 3); alter table fickle.many add check (fickle.few()) no inherit`,
    `create table fickle.parent (zone text check (fickle.is_zone(zone))); create table fickle.child (check (fickle.is_zone(zone || ''))) inherits (fickle.parent); create table fickle.grandchild (constraint parent_zone_check check (fickle.is_zone(zone))) inherits (fickle.child); insert into fickle.parent values ('a'); insert into fickle.grandchild values ('b')`,
    `create table fickle.part (zone text check (fickle.is_zone(zone)), n int) partition by list (n); alter table fickle.part add check (n < 100) not valid; create table fickle.part_1 partition of fickle.part (constraint own check (fickle.is_zone(zone) or n = 2)) for values in (1, 2); insert into fickle.part values ('a', 1)`,
    `create function fickle.old(n int) returns bool language sql immutable as 'select true'; create table fickle.outgrown (n int constraint small check (fickle.old(n))); insert into fickle.outgrown values (7), (-7)`,
    `create or replace function fickle.old(n int) returns bool language sql immutable as 'select n > 0'`,
  ],
  later: [
    `insert into fickle.zones values ('c'); insert into fickle.a_place values (3, 'c'); insert into fickle.part values ('c', 1); update fickle.outgrown set n = 8 where n = 7`,
  ],
  last: [
    `update fickle.a_place set zone = 'a' where zone = 'b'; delete from fickle.grandchild; delete from fickle.zones where name = 'b'`,
  ],
}

describe.each(majors)('functions on %i', (major) => {
  it('that constraints, columns and indexes call do not keep rows from coming back', async () => {
    await using subject = await Subject.start(packageOf(major), '')
    subject.also.push(
      `select conrelid::regclass::text as t, conname, conislocal, coninhcount, connoinherit, convalidated, obj_description(oid, 'pg_constraint') as comment from pg_constraint where contype = 'c' and conrelid <> 0 and conname <> 'small' order by 1, 2`,
    )
    const cases = [unqualified(major), fickle]
    const reports = await round(subject, cases, ['--ignore-object', '^constraint fickle.outgrown.small$'])
    for (const { warnings } of reports) {
      expect(warnings).toEqual([expect.stringMatching(/^not valid \(.*\): constraint small of table fickle.outgrown$/)])
    }
  })
})
