/** Tables whose rows are hard to follow or to put back: by kind, a schema with rows, and changes. */
import type { Case } from './round.ts'

/** Leaves of one table, and children of one parent, that tell their rows apart in different ways. */
export const identities: Case = {
  schema: [
    `create schema ident`,
    `create table ident.by_index (a int, b text, c text not null, d int not null, w text); create unique index by_index_key on ident.by_index (d, c) include (b, a); alter table ident.by_index replica identity using index by_index_key; alter table ident.by_index alter w set storage external`,
    `create table ident.besides (id int primary key deferrable, code uuid not null unique, v text); alter table ident.besides replica identity using index besides_code_key`,
    `create table ident.late (id int primary key deferrable initially deferred, v text)`,
    `create table ident.none (id int primary key, v text); alter table ident.none replica identity nothing`,
    `create table ident.part (id int not null, r int not null, v text) partition by list (r)`,
    `create table ident.part_key partition of ident.part (primary key (id, r)) for values in (0); create table ident.part_bare partition of ident.part for values in (1); create table ident.part_full partition of ident.part (primary key (id)) for values in (2); alter table ident.part_full replica identity full`,
    `create table ident.part_index partition of ident.part for values in (3); create unique index part_index_key on ident.part_index (id); alter table ident.part_index replica identity using index part_index_key`,
    `create table ident.parent (id int primary key, v text); create table ident.child (extra jsonb) inherits (ident.parent); create table ident.other (id int primary key, n numeric); create table ident.both (own xml, primary key (id)) inherits (ident.parent, ident.other)`,
    `insert into ident.by_index select n, 'b' || n, 'c' || n, n, repeat(md5(n::text), 100) from generate_series(1, 9) n; insert into ident.besides select n, md5(n::text)::uuid, 'v' from generate_series(1, 9) n; insert into ident.late select n, 'v' from generate_series(1, 9) n; insert into ident.none select n, 'v' from generate_series(1, 9) n`,
    `insert into ident.part select n, n % 4, 'v' || n from generate_series(1, 40) n; insert into ident.part values (5, 1, 'v5'), (5, 1, 'v5')`,
    `insert into ident.parent select n, 'p' from generate_series(1, 5) n; insert into ident.child select n, 'c', '{"a": 1}' from generate_series(1, 5) n; insert into ident.other values (1, 1.10); insert into ident.both select n, 'b', n * 1.10, '<a/>' from generate_series(1, 5) n`,
  ],
  across: [`update ident.part set r = (r + 1) % 4 where id < 5`],
  during: [
    `update ident.part set v = v || '.' where id % 5 = 0; update ident.by_index set a = -a where d % 2 = 0`,
    `update ident.besides set code = md5(code::text)::uuid where id = 1; update ident.late set id = 10 - id`,
  ],
  later: [
    `update ident.by_index set d = d + 100, b = null where d in (1, 2); update ident.by_index set c = c || 'x' where d > 100; delete from ident.by_index where d = 3`,
    `begin; set constraints all deferred; update ident.besides set id = 10 - id; update ident.besides set v = id::text; delete from ident.besides where id = 3; commit`,
    `update ident.late set id = id + 1; insert into ident.late values (1, 'new'); update ident.none set v = 'w' where id = 1; update ident.none set id = 100 where id = 2; delete from ident.none where id = 3`,
    `update ident.part set r = (r + 1) % 4 where id between 10 and 25; delete from ident.part where id % 7 = 0; update ident.part set v = 'w' where ctid = '(0,1)'; delete from ident.part where v = 'v5' and ctid = (select min(ctid) from ident.part_bare where v = 'v5')`,
    `update ident.parent set v = v || id where id < 3; update only ident.parent set id = id + 50 where id = 4; delete from ident.parent where id = 5; update ident.other set n = n + 1`,
  ],
  last: [
    `truncate ident.part_bare, ident.child; delete from ident.both; insert into ident.part values (1, 1, null), (101, 2, null); truncate only ident.parent`,
  ],
}

/** Keys that hold a column which the server computes. */
export const computedKeys: Case = {
  schema: [
    `create schema computed`,
    `create table computed.alone (a int, twice int generated always as (a * 2) stored, v text, primary key (twice))`,
    `create table computed.half (a int, b int, twice int generated always as (b * 2) stored, v text, primary key (a, twice))`,
    `insert into computed.alone (a, v) select n, 'v' || n from generate_series(1, 9) n; insert into computed.half (a, b, v) select n / 3, n, 'v' || n from generate_series(1, 9) n`,
  ],
  across: [`update computed.alone set v = 'across' where a = 1`],
  later: [
    `update computed.alone set v = 'changed' where a = 2; update computed.alone set a = 33 where a = 3; delete from computed.alone where a = 4; update computed.half set v = 'x' where b in (1, 2); update computed.half set b = 44 where b = 4; delete from computed.half where b in (5, 8)`,
  ],
}

/** A long value of each kind, out of line: an update that leaves it alone does not send it. */
const wide: Readonly<Record<string, readonly [type: string, value: string]>> = {
  t: ['text', '$t'],
  vc: ['varchar', '$t'],
  ch: ['char(4000)', '$t'],
  by: ['bytea', "decode($t, 'hex')"],
  js: ['json', "json_build_object('k', $t)"],
  jb: ['jsonb', "jsonb_build_object('k', $t)"],
  xm: ['xml', 'xmlelement(name a, $t)'],
  ar: ['text[]', 'array[$t, null, $t]'],
  co: ['toasts.pair', 'row(1, $t)::toasts.pair'],
  ca: ['toasts.pair[]', 'array[row(1, $t), row(2, null)]::toasts.pair[]'],
  dm: ['toasts.long', '$t::toasts.long'],
  ra: ['toasts.span', "toasts.span($t, $t || 'x')"],
  tv: ['tsvector', "(select string_agg(md5($n::text || g), ' ')::tsvector from generate_series(1, 150) g)"],
  nu: ['numeric', "('1' || translate($t, 'abcdef', '123456'))::numeric"],
  vb: ['varbit', "('x' || $t)::varbit"],
  po: ['polygon', "(select string_agg(point(g, $n)::text, ',')::polygon from generate_series(1, 300) g)"],
}
const kinds = Object.entries(wide).map(([name, [type, expression]]) => ({
  name,
  type,
  value: (n: string): string => expression.replaceAll('$t', `toasts.wide(${n})`).replaceAll('$n', n),
}))
const names = kinds.map(({ name }) => name).join(', ')
const values = (n: string): string => kinds.map(({ value }) => value(n)).join(', ')

export const toasts: Case = {
  schema: [
    `create schema toasts; create type toasts.pair as (a int, b text); create domain toasts.long as text check (length(value) > 9); create type toasts.span as range (subtype = text, collation = "C")`,
    `create function toasts.wide(n int) returns text language sql immutable as $$ select string_agg(md5(n::text || g), '') from generate_series(1, 100) g $$`,
    `create table toasts.keyed (id int primary key, small int, ${kinds.map(({ name, type }) => `${name} ${type}`).join(', ')})`,
    ...kinds.map(
      ({ name }) => `alter table toasts.keyed alter ${name} set storage ${name === 'nu' ? 'main' : 'external'}`,
    ),
    `create table toasts.keyless (like toasts.keyed including storage); create table toasts.full_key (like toasts.keyed including storage, primary key (id)); alter table toasts.full_key replica identity full`,
    ...['keyed', 'keyless', 'full_key'].map(
      (table) => `insert into toasts.${table} select n, 0, ${values('n')} from generate_series(1, 6) n`,
    ),
  ],
  across: ['keyed', 'keyless', 'full_key'].map((table) => `update toasts.${table} set small = 1 where id = 1`),
  during: ['keyed', 'keyless', 'full_key'].map(
    (table) => `update toasts.${table} set small = 2, t = toasts.wide(-2), co.a = 7 where id = 2`,
  ),
  later: ['keyed', 'keyless', 'full_key'].flatMap((table) => [
    `update toasts.${table} set small = 3; update toasts.${table} set small = small + 1 where id % 2 = 0; update toasts.${table} set id = id + 10 where id in (3, 4); update toasts.${table} set small = 5, jb = null where id = 13`,
    `begin; savepoint s; update toasts.${table} set ar = ar || 'x'::text where id = 5; rollback to s; update toasts.${table} set ar[2] = 'y' where id = 5; update toasts.${table} set small = 6 where id = 5; commit`,
    `delete from toasts.${table} where id = 6; insert into toasts.${table} (id, ${names}) values (6, ${values('66')}); update toasts.${table} set small = -6 where id = 6`,
  ]),
  last: ['keyed', 'keyless', 'full_key'].map(
    (table) =>
      `update toasts.${table} set (${names}) = (select ${names} from toasts.${table} where id = 5), id = -id where id = 1`,
  ),
}

/** References in rings and to themselves, immediate ones too, with all that they do on their own. */
export const references: Case = {
  schema: [
    `create schema refs`,
    `create table refs.node (id int primary key, up int references refs.node on delete cascade on update cascade, also int references refs.node deferrable initially deferred)`,
    `create table refs.a (id int primary key, b int); create table refs.b (id int primary key, c int); create table refs.c (id int primary key, a int references refs.a on delete set null on update cascade)`,
    `alter table refs.a add foreign key (b) references refs.b on delete set null on update cascade; alter table refs.b add foreign key (c) references refs.c on delete set null on update cascade`,
    `create table refs.target (x int, y int, v text, unique (x, y)); create table refs.source (id int primary key, x int default 1, y int default 1, foreign key (x, y) references refs.target (x, y) match full on delete set default on update cascade)`,
    `create table refs.part (id int, r int, up int, up_r int, primary key (id, r), foreign key (up, up_r) references refs.part on delete cascade) partition by hash (id); create table refs.part_0 partition of refs.part for values with (modulus 2, remainder 0); create table refs.part_1 partition of refs.part for values with (modulus 2, remainder 1)`,
    `insert into refs.node select n, nullif(n / 2, 0), 1 + n % 20 from generate_series(1, 20) n`,
    `insert into refs.a select n from generate_series(1, 5) n; insert into refs.c select n, n from generate_series(1, 5) n; insert into refs.b select n, n from generate_series(1, 5) n; update refs.a set b = id`,
    `insert into refs.target select n, n, 't' from generate_series(1, 5) n; insert into refs.source select n, n, n from generate_series(1, 5) n; insert into refs.source values (6, null, null)`,
    `insert into refs.part select n, n, nullif(n / 2, 0), nullif(n / 2, 0) from generate_series(1, 10) n`,
  ],
  across: [`update refs.node set up = 1 where id = 20`],
  during: [`insert into refs.a values (6, 1), (7, 2)`, `update refs.b set c = null where id = 5`],
  later: [
    `begin; update refs.node set also = 1; delete from refs.node where id = 6; commit; update refs.node set id = 99 where id = 3; insert into refs.node values (300, 300, 300)`,
    `update refs.a set id = 11 where id = 1; delete from refs.b where id = 2; delete from refs.c where id = 3; update refs.c set id = 44 where id = 4`,
    `update refs.target set x = 22 where x = 2; delete from refs.target where x = 3; delete from refs.part where id = 3`,
  ],
  last: [`truncate refs.a, refs.b, refs.c; truncate refs.node; insert into refs.node values (1, 1, 1)`],
}

export const partitions: Case = {
  schema: [
    `create schema parts`,
    `create table parts.ranges (id int, at date, k text, v text) partition by range (at, (lower(k))); create table parts.low partition of parts.ranges for values from (minvalue, minvalue) to ('2020-01-01', 'm'); create table parts.high partition of parts.ranges for values from ('2020-01-01', 'm') to (maxvalue, maxvalue) partition by list (id)`,
    `create table parts.high_1 partition of parts.high for values in (1, null) partition by hash (k, v); create table parts.high_1_0 partition of parts.high_1 for values with (modulus 3, remainder 0); create table parts.high_1_1 partition of parts.high_1 for values with (modulus 3, remainder 1)`,
    `create table parts.high_1_2 (extra int, v text, k text, gone int, at date, id int); alter table parts.high_1_2 drop column gone, drop column extra; alter table parts.high_1 attach partition parts.high_1_2 for values with (modulus 3, remainder 2); create table parts.high_rest partition of parts.high default; create table parts.odd partition of parts.ranges default`,
    `create unlogged table parts.scratch (n int)`,
    `insert into parts.ranges select nullif(n % 4, 3), date '2019-12-25' + n / 2, chr(97 + n % 26), 'v' || n from generate_series(1, 60) n; insert into parts.ranges values (1, null, 'a', 'x'), (2, '2020-05-05', null, 'y')`,
    `create table parts.lists (id bigint generated by default as identity, kind text, n int, twice int generated always as (n * 2) stored, primary key (id, kind)) partition by list (kind); create table parts.list_a partition of parts.lists for values in ('a', 'A'); create table parts.list_rest partition of parts.lists default`,
    `insert into parts.lists (kind, n) select chr(97 + n % 3), n from generate_series(1, 20) n`,
  ],
  across: [
    `update parts.ranges set at = at + 20 where v in ('v1', 'v2', 'v3')`,
    `update parts.lists set kind = 'A' where n = 3`,
  ],
  during: [`update parts.ranges set id = 1 where v ~ '5$'`],
  later: [
    `update parts.ranges set k = upper(k) where v ~ '1'; update parts.ranges set at = null where v ~ '2$'; update parts.ranges set id = id + 1 where id is not null and v ~ '3'; delete from parts.ranges where v ~ '4'`,
    `update parts.lists set kind = case kind when 'a' then 'b' else 'a' end where n < 10; update parts.lists set n = -n where n % 5 = 0; insert into parts.lists (kind, n) values ('z', 1)`,
  ],
  last: [
    `truncate parts.high_1; insert into parts.ranges values (1, '2030-01-01', 'q', 'new'); update parts.ranges set id = 9 where v = 'new'; truncate parts.lists restart identity; insert into parts.lists (kind, n) values ('a', 1)`,
  ],
}

/** What would fire, refuse, hide or rewrite, if rows were put back in its presence. */
export const firing: Case = {
  schema: [
    `create schema fires; create table fires.fired (what text)`,
    `create function fires.note() returns trigger language plpgsql as $$ begin insert into fires.fired values (tg_name || ' ' || tg_op); return null; end $$`,
    `create function fires.change() returns trigger language plpgsql as $$ begin new.n = new.n + 1; return new; end $$; create function fires.skip() returns trigger language plpgsql as $$ begin return null; end $$`,
    `create table fires.t (id int primary key, n int, v text)`,
    `create trigger a_change before insert or update on fires.t for each row execute function fires.change(); alter table fires.t enable always trigger a_change`,
    `create trigger always_rows after insert or update or delete on fires.t for each row execute function fires.note(); alter table fires.t enable always trigger always_rows; create trigger always_all after insert or delete or truncate on fires.t execute function fires.note(); alter table fires.t enable always trigger always_all`,
    `create trigger replica_rows after insert on fires.t for each row execute function fires.note(); alter table fires.t enable replica trigger replica_rows; create constraint trigger late after insert on fires.t initially deferred for each row execute function fires.note()`,
    `create table fires.ruled (id int primary key, v text); create table fires.copied (id int, v text); create rule also as on insert to fires.ruled do also insert into fires.copied values (new.id, new.v); create rule never as on delete to fires.ruled where old.id < 3 do instead nothing; alter table fires.ruled enable always rule also`,
    `create table fires.skipped (id int primary key); insert into fires.skipped values (1); create trigger skip before insert on fires.skipped for each row execute function fires.skip(); alter table fires.skipped enable always trigger skip`,
    `create table fires.hidden (id int primary key, who text); create policy none on fires.hidden using (false) with check (false); alter table fires.hidden enable row level security, force row level security; insert into fires.hidden values (1, 'x'), (2, 'y')`,
    `create materialized view fires.filled as select 1 as n; create view fires.shown as select id, n from fires.t; create function fires.instead() returns trigger language plpgsql as $$ begin insert into fires.t values (new.id, new.n, 'instead'); return new; end $$; create trigger instead instead of insert on fires.shown for each row execute function fires.instead()`,
    // One that notes, and one that forbids everything wherever a restore could be.
    `create function fires.event() returns event_trigger language plpgsql as $$ begin insert into fires.fired values (tg_tag); end $$; create function fires.forbid() returns event_trigger language plpgsql as $$ begin if current_database() ~ 'restor' then raise 'no % here', tg_tag; end if; end $$`,
    `create event trigger notes on ddl_command_end execute function fires.event(); alter event trigger notes enable always; create event trigger drops on sql_drop when tag in ('DROP TABLE', 'DROP SCHEMA') execute function fires.event(); create event trigger rewrites on table_rewrite execute function fires.event(); alter event trigger rewrites disable; create event trigger forbids on ddl_command_start execute function fires.forbid(); alter event trigger forbids enable always`,
    `insert into fires.t select n, n, 'v' from generate_series(1, 9) n; insert into fires.ruled select n, 'r' from generate_series(1, 5) n`,
  ],
  across: [`update fires.t set v = 'across' where id = 1`],
  during: [`insert into fires.ruled values (6, 'during')`, `insert into fires.shown values (50, 1)`],
  later: [
    `update fires.t set n = 0 where id < 4; delete from fires.t where id = 5; insert into fires.t values (60, 0, 'new'); delete from fires.ruled; insert into fires.skipped values (2); update fires.skipped set id = 3`,
    `update fires.hidden set who = 'z' where id = 1; insert into fires.hidden values (3, null)`,
  ],
  last: [
    `truncate fires.t; insert into fires.t values (1, 1, 'last'); truncate fires.ruled; set session_replication_role = replica; insert into fires.t values (2, 2, 'replica'); reset session_replication_role`,
  ],
}

/** Statements that leave odd traces in the log: taken back, tried twice, or in place of one another. */
export const statements = (major: number): Case => ({
  schema: [
    `create schema odd; create table odd.up (id int primary key, v text, w text, unique (v)); alter table odd.up alter w set storage external; insert into odd.up select n, 'v' || n, repeat(md5(n::text), 100) from generate_series(1, 9) n`,
    `create extension if not exists btree_gist; create table odd.booked (room int, during tsrange, exclude using gist (room with =, during with &&) deferrable initially deferred); insert into odd.booked values (1, '[2020-01-01,2020-01-02)'), (1, '[2020-01-02,2020-01-03)'), (2, 'empty'), (2, 'empty')`,
    `create table odd.always (id int generated always as identity (increment by -3 start with 100 minvalue -100 maxvalue 100), n int, t text generated always as (n::text || 'x') stored, primary key (id)); insert into odd.always (n) values (1), (2), (3); insert into odd.always (id, n) overriding system value values (7, 7)`,
    ...(major >= 18
      ? [
          `create table odd.timed (id int, at tsrange, v text, primary key (id, at without overlaps)); create table odd.timed_ref (id int, at tsrange, ref int, foreign key (ref, period at) references odd.timed (id, period at)); insert into odd.timed values (1, '[2020-01-01,2021-01-01)', 'a'), (1, '[2021-01-01,2022-01-01)', 'b'), (2, '(,)', 'c'); insert into odd.timed_ref values (1, '[2020-06-01,2021-06-01)', 1)`,
          `create table odd.virtual (id int primary key, n int, v int generated always as (n * 2), s int generated always as (n * 3) stored); insert into odd.virtual (id, n) values (1, 1), (2, null)`,
        ]
      : []),
  ],
  across: [`insert into odd.up values (100, 'v100', null) on conflict do nothing`],
  during: [`insert into odd.up values (1, 'other', 'x') on conflict (id) do update set v = excluded.v || odd.up.v`],
  later: [
    `insert into odd.up values (2, 'taken', repeat('x', 9000)) on conflict do nothing; insert into odd.up values (3, 'v3', repeat('y', 9000)) on conflict (id) do update set w = excluded.w; insert into odd.up values (4, 'n', '') on conflict (id) do update set v = 'up'`,
    `begin; insert into odd.up values (20, 'twenty', repeat('z', 9000)); savepoint s; update odd.up set w = repeat('q', 9000) where id = 20; rollback to s; update odd.up set v = 'kept' where id = 20; savepoint r; delete from odd.up where id = 20; insert into odd.up values (20, 'again', null); release r; commit`,
    `begin; select from odd.up where id = 5 for key share; update odd.up set v = 'locked' where id = 5; commit; select from odd.up where id = 5 for no key update`,
    `begin; update odd.booked set during = '[2020-01-02,2020-01-03)' where room = 1 and lower(during) = '2020-01-01'; update odd.booked set during = '[2020-01-01,2020-01-02)' where ctid = '(0,2)'; commit; delete from odd.booked where ctid = '(0,3)'`,
    `update odd.always set n = n + 1; insert into odd.always (n) values (4), (5); update odd.always set id = default where n = 2; delete from odd.always where id = 7`,
    ...(major >= 15
      ? [
          `merge into odd.up using (values (1, 'm1'), (200, 'm200')) s (id, v) on odd.up.id = s.id when matched then update set v = s.v when not matched then insert values (s.id, s.v, null)`,
        ]
      : []),
    ...(major >= 18
      ? [
          `update odd.timed set v = 'x' where id = 1 and lower(at) = '2020-01-01'; update odd.timed set at = '[2021-01-01,2023-01-01)' where v = 'b'; delete from odd.timed where id = 2; update odd.virtual set n = n + 1; insert into odd.virtual (id, n) values (3, 3)`,
        ]
      : []),
  ],
  last: [
    `truncate odd.always restart identity; insert into odd.always (n) values (9); delete from odd.up where id < 5`,
  ],
})
