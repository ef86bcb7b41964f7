/** Statements of DDL of every kind that fires event triggers, which run one after the other and clean up behind them. */

export interface Case {
  readonly sql: string
  /** How it is replayed, where not as it is; or the text in place of it. */
  readonly replay?: 'state' | 'skip' | { readonly text: string }
  /** It runs neither in a transaction block nor in a function. */
  readonly isAlone?: boolean
  /** PL/pgSQL does not know it: not as static SQL, or not at all. */
  readonly notInPlpgsql?: 'static' | 'all'
  /** The oldest version that has it. */
  readonly since?: number
  /** It fires nothing before this version. */
  readonly firesSince?: number
  /** It changes nothing, or nothing that lasts: no statement is found for it. */
  readonly isSilent?: boolean
}

/** What looks like the end of a quoted text and like frames, in a constant. */
const fake = `"\nPL/pgSQL function f() line 1 at EXECUTE\nSQL statement "drop table t"\nSQL function "g" statement 2\n`
const long = 'ü'.repeat(40)

export const preparation = `
create schema lab;
create role lab_user;
create role lab_owner;
create role lab_plain;
grant all on schema public to lab_user, lab_owner;
grant usage on schema lab to lab_plain;
create table lab.run (sql text);
create function lab.run() returns trigger language plpgsql as $$ begin execute new.sql; return null; end $$;
create trigger run after insert on lab.run for each row execute function lab.run();
create function lab.inner(sql text) returns int language plpgsql as $$ begin execute sql; return 1; end $$;
create function lab.middle(sql text) returns int language sql as $$ select lab.inner(sql) $$;
create function lab.outer(sql text) returns void language plpgsql as $$ declare n int; begin n := lab.middle(sql) + 1; end $$;
create function lab.definer(sql text) returns void language plpgsql security definer as $$ begin execute sql; end $$;
create procedure lab.commits(sql text) language plpgsql as $$ begin commit; execute sql; commit; end $$;`

const schemas: (string | Case)[] = [
  'create schema app',
  'create schema authorization lab_user',
  `create schema elements
     create table parts (id int primary key, note text)
     create view parts_view as select id from parts
     create sequence parts_seq create index parts_note on parts (note) grant select on parts to lab_user`,
  'create schema if not exists authorization lab_owner',
  { sql: 'create schema if not exists app', isSilent: true },
  'alter schema elements rename to "Elements"',
  'alter schema "Elements" owner to lab_owner',
  `comment on schema app is 'it''s; "app"'`,
]

const tables: (string | Case)[] = [
  `create table t (id serial primary key, a int, b text default 'x;y')`,
  'CREATE TABLE Mixed_Case (ID int, "ID" int)',
  `create table app."Odd ""Name""; \n(" ("Col A" int check ("Col A" > 0), "quote""d" text)`,
  `create table "${long}" (a int)`,
  `create table U&"d\\0061t\\+000061" (a int)`,
  'create table größe.tab (a int)',
  'create /* ; */ table -- not "this"; nor\n\t commented (a int /* /* nested */ ; */)',
  'create unlogged table ul (a int)',
  'create table if not exists app.inh (extra int) inherits (t)',
  { sql: 'create table if not exists t (other text)', isSilent: true },
  { sql: 'create temp table tt (a int)', isSilent: true },
  { sql: 'alter table tt add b serial, add check (a > 0), add primary key (b)', isSilent: true },
  { sql: 'create index on tt (a)', isSilent: true },
  {
    sql: 'create trigger ttt before update on tt for each row execute function suppress_redundant_updates_trigger()',
    isSilent: true,
  },
  { sql: 'create rule ttr as on delete to tt do nothing', isSilent: true },
  { sql: 'create policy "p on t" on tt', isSilent: true },
  { sql: `comment on policy "p on t" on tt is 'x'`, isSilent: true },
  { sql: 'create temp view tv as select * from tt', isSilent: true },
  { sql: 'create function pg_temp.tf() returns int language sql as $$ select 1 $$', isSilent: true },
  { sql: 'drop function pg_temp.tf()', isSilent: true },
  { sql: 'drop rule ttr on tt', isSilent: true },
  { sql: 'drop policy "p on t" on tt', isSilent: true },
  { sql: 'drop view tv', isSilent: true },
  { sql: 'drop table tt cascade', isSilent: true },
  'create table part (id int, k text) partition by list (k)',
  `create table part_a partition of part for values in ('a', 'it''s')`,
  'create table part_d partition of part default',
  'create table part_b (id int, k text)',
  `alter table part attach partition part_b for values in ('b')`,
  'alter table part detach partition part_b',
  'drop table part_d',
  {
    sql: 'alter table part detach partition public.part_a concurrently',
    replay: { text: 'alter table part detach partition public.part_a' },
    isAlone: true,
  },
  'create table like_t (like t including all)',
  'create type app.typ as (x int, y text)',
  'create table typed_t of app.typ (x not null)',
  { sql: `create table copy_t as select 1 as a, 'x'::text as b`, replay: 'state' },
  { sql: 'create table app.copy_n (x) as select 1 with no data', replay: 'state' },
  { sql: 'select 1 as a, 2 as b into into_t', replay: 'state', notInPlpgsql: 'all' },
  { sql: 'select 1 as a into app.into_u union select 2', replay: 'state', notInPlpgsql: 'all' },
  'alter table t add column c timestamptz default now()',
  'alter table t add d bigserial, add constraint t_d unique (d), alter a set default 5',
  'alter table t add column g int generated always as (a * 2) stored',
  'alter table t rename column c to "C c"',
  'alter table t rename constraint t_d to "t d"',
  'alter table t alter b type varchar(20) using upper(b)',
  'alter table t drop column "C c" cascade',
  'alter table only t set (fillfactor = 80)',
  'alter table t replica identity full',
  'alter table t enable row level security',
  'alter table t add constraint positive check (a > 0) not valid',
  'alter table t validate constraint positive',
  'alter table mixed_case add foreign key (id) references t',
  'alter table if exists t set schema app',
  'alter table app.t set schema public',
  'alter table t rename to t2',
  'alter table t2 rename to t',
  'alter table mixed_case owner to lab_user',
  { sql: 'alter table if exists nowhere add column a int', isSilent: true },
  `comment on table t is '${fake}'`,
  `comment on column t.b is $a$${fake}$a$`,
  `comment on constraint "t d" on t is 'unique'`,
]

const indexes: (string | Case)[] = [
  'create index t_a on t (a)',
  'create index on t (b)',
  'create index on mixed_case ("ID")',
  'create unique index "T Idx" on only t (a, b) where a > 0',
  'create index if not exists part_id on part (id)',
  {
    sql: 'create /* concurrently */ index concurrently "concurrently" on t (lower(b))',
    replay: { text: 'create /* concurrently */ index  "concurrently" on t (lower(b))' },
    isAlone: true,
  },
  { sql: 'drop index CONCURRENTLY "concurrently"', replay: { text: 'drop index  "concurrently"' }, isAlone: true },
  'alter index t_a rename to t_a2',
  'alter table t_a2 rename to t_a3',
  'alter index t_a3 set (fillfactor = 70)',
  'alter table t cluster on t_a3',
  { sql: 'reindex index t_a3', replay: 'skip', firesSince: 17 },
  `comment on index t_a3 is 'index'`,
  'drop index if exists t_a3, t_b_idx, no_index',
]

const sequencesAndViews: (string | Case)[] = [
  'create sequence s increment 2 minvalue -5',
  'alter sequence s owned by t.a',
  'alter sequence s restart 5',
  'alter table s rename to s2',
  'alter sequence s2 rename to s',
  `comment on sequence s is 'counts'`,
  'create view v as select a, b from t',
  `create or replace view v with (security_barrier) as select a, b, 'create view v2 as select 1;' as c from t`,
  'alter view v alter column a set default 1',
  'alter view v rename column a to aa',
  'alter table v rename to v2',
  'alter view v2 set schema app',
  `comment on view app.v2 is e'it\\'s\\nnew'`,
  'create recursive view nums (n) as values (1) union all select n + 1 from nums where n < 3',
  { sql: 'create materialized view mv as select id, b from t', replay: 'state' },
  'create materialized view mv_empty as select id from t with no data',
  { sql: 'refresh materialized view mv', replay: 'skip' },
  'alter materialized view mv rename to mv2',
  'alter materialized view mv2 set (autovacuum_enabled = false)',
  { sql: 'create unique index mv2_id on mv2 (id)' },
  { sql: 'refresh materialized view concurrently mv2 with data', replay: 'skip' },
  `comment on materialized view mv2 is 'kept'`,
  'drop materialized view mv2, mv_empty',
  'drop view app.v2',
]

const functions: (string | Case)[] = [
  `create function f(int) returns int language sql immutable as 'select $1'`,
  `create function f(text) returns text language sql immutable as $$ select 'a;' || $1; select $1 $$`,
  `create function app."F f"(a int, out b int, variadic c text[]) language plpgsql as $body$
   declare x text := 'create table x(); drop table t; -- "';
   begin b := a; execute 'select 1'; end $body$`,
  'create or replace function f(a int) returns int language plpgsql as $$ begin return a; /* " \n */ end $$',
  'create function g() returns trigger language plpgsql as $$begin return new; end$$',
  {
    sql: 'create function atomic(a int) returns int language sql begin atomic select 1; select case when a > 1 then 2 end; end',
    notInPlpgsql: 'static',
  },
  'alter function f(int) strict',
  'alter function f(text) rename to ff',
  'alter routine ff(text) stable',
  'alter function ff set schema app',
  'alter function app.ff(text) owner to lab_user',
  'alter function f(integer) depends on extension plpgsql',
  `comment on function app."F f"(int, text[]) is 'variadic'`,
  `create procedure p(inout a int) language plpgsql as $$ begin a := a + 1; commit; end $$`,
  'create or replace procedure p(a text) language sql as $$ select 1; $$',
  'alter procedure p(text) security definer',
  `comment on procedure p(text) is 'p'`,
  'drop procedure p(int), p(text)',
  `create aggregate total(int) (sfunc = int4pl, stype = int, initcond = '0')`,
  'alter aggregate total(int) rename to totals',
  `comment on aggregate totals(int) is 'sum'`,
  'drop aggregate totals(integer)',
  'drop function if exists f(int), f(bigint), no_function()',
  { sql: 'drop routine atomic', notInPlpgsql: 'static' },
]

const operators: (string | Case)[] = [
  'create operator === (leftarg = int, rightarg = int, function = int4eq)',
  'alter operator === (int, int) owner to lab_user',
  'alter operator public.=== (int, int) set schema app',
  `comment on operator app.=== (int, int) is 'same'`,
  'drop operator app.=== (int, int)',
  'create operator family fam using btree',
  'alter operator family fam using btree add operator 1 < (int4, int2), function 1 (int4, int2) btint42cmp(int4, int2)',
  'create operator class cls for type int using btree family fam as operator 1 <, operator 3 =, function 1 btint4cmp(int, int)',
  'alter operator class cls using btree rename to cls2',
  `comment on operator class cls2 using btree is 'class'`,
  'drop operator class cls2 using btree',
  'drop operator family fam using btree',
  'create access method am type index handler bthandler',
  `comment on access method am is 'like btree'`,
  'drop access method am',
]

const types: (string | Case)[] = [
  `create type mood as enum ('a', 'it''s; ok')`,
  `alter type mood add value 'c' before 'a'`,
  `alter type mood rename value 'a' to 'A'`,
  { sql: `alter type mood add value if not exists 'd'` },
  'alter type app.typ add attribute z int cascade',
  'alter type app.typ rename attribute z to zz cascade',
  'alter type app.typ drop attribute zz cascade',
  'create type rng as range (subtype = int8, multirange_type_name = "Multi R")',
  'create type shell',
  "create domain dom as varchar(10) check (value <> '\"')",
  'alter domain dom set default 3',
  `alter domain dom add constraint short check (length(value) < 5) not valid`,
  'alter domain dom rename constraint short to "s s"',
  'alter domain dom validate constraint "s s"',
  `comment on constraint "s s" on domain dom is 'checked'`,
  'alter domain dom rename to dom2',
  'alter type mood rename to mood2',
  'alter type mood2 owner to lab_user',
  'alter type mood2 set schema app',
  `comment on type app.mood2 is 'of the day'`,
  'create cast (app.typ as app.mood2) with inout',
  `comment on cast (app.typ as app.mood2) is 'cast'`,
  'drop cast (app.typ as app.mood2)',
  'create cast (rng as float8) with inout',
  'drop cast (rng as float8)',
  'drop type rng, shell',
  'drop domain dom2',
  `create collation coll (locale = 'C')`,
  'create collation if not exists app.coll from "C"',
  'alter collation coll rename to "Coll 2"',
  `comment on collation "Coll 2" is 'C'`,
  'drop collation "Coll 2", app.coll',
  `create conversion conv for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8`,
  'alter conversion conv rename to conv2',
  'drop conversion conv2',
]

const textSearch: (string | Case)[] = [
  'create text search dictionary d (template = simple, accept = false)',
  'alter text search dictionary d (accept = true)',
  'alter text search dictionary d rename to d2',
  'create text search configuration cfg (copy = simple)',
  'alter text search configuration cfg alter mapping for word, asciiword with d2',
  'alter text search configuration cfg drop mapping if exists for url',
  `comment on text search configuration cfg is 'cfg'`,
  'drop text search configuration cfg',
  'drop text search dictionary d2',
  'create text search parser prs (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end, lextypes = prsd_lextype)',
  'alter text search parser prs rename to prs2',
  'drop text search parser prs2',
  'create text search template tpl (lexize = dsimple_lexize)',
  'drop text search template tpl',
]

const rulesAndPolicies: (string | Case)[] = [
  'create trigger tr before insert on t for each row execute function g()',
  `create constraint trigger "C t" after update on t deferrable for each row when (new.a > 0) execute function g('a;', 'b')`,
  'create or replace trigger tr before update on t for each row execute function g()',
  'alter trigger tr on t rename to tr2',
  'alter table t disable trigger tr2',
  `comment on trigger tr2 on t is 'fires'`,
  'drop trigger tr2 on t',
  'create rule r as on update to t where old.a = 1 do also (select 1; select 2)',
  'alter rule r on t rename to r2',
  `comment on rule r2 on t is 'rule'`,
  'drop rule r2 on t',
  'create policy p on t for select to lab_user using (a > 0)',
  'alter policy p on t using (a > 1)',
  'alter policy p on t rename to p2',
  `comment on policy p2 on t is 'policy'`,
  'drop policy p2 on t',
  'create statistics st (dependencies) on a, b from t',
  'alter statistics st set statistics 50',
  'alter statistics st rename to st2',
  { sql: 'create statistics on a, b from t', since: 16 },
  'drop statistics st2',
]

const rights: (string | Case)[] = [
  'grant select, insert (a) on t to lab_user with grant option',
  'grant update on t to lab_user',
  'revoke grant option for select on table t from lab_user cascade',
  'revoke all on t from lab_user',
  'grant usage, create on schema app to lab_user, lab_owner',
  'grant all on all tables in schema app to lab_user',
  'grant usage on sequence s to public',
  'grant execute on function g() to lab_user',
  'grant usage on type app.mood2 to lab_user',
  'grant usage on language plpgsql to lab_user',
  'revoke usage on language plpgsql from lab_user',
  'alter default privileges in schema app grant select on tables to lab_user',
  'alter default privileges in schema app revoke select on tables from lab_user',
  'alter default privileges revoke execute on functions from public',
  'alter default privileges grant execute on functions to public',
]

const foreign: (string | Case)[] = [
  `create extension postgres_fdw version '1.0'`,
  "create server \"Loop\" foreign data wrapper postgres_fdw options (host '127.0.0.1', port '$PORT', dbname 'postgres')",
  `create user mapping for current_user server "Loop" options (user 'postgres')`,
  "create foreign table ft (a int) server \"Loop\" options (schema_name 'imp', table_name 'far')",
  'import foreign schema imp limit to (far) from server "Loop" into app',
  `alter foreign table ft options (set table_name 'nowhere')`,
  'alter foreign table ft rename to ft2',
  `alter server "Loop" options (add fetch_size '10')`,
  'alter user mapping for postgres server "Loop" options (drop user)',
  'alter foreign data wrapper postgres_fdw owner to postgres',
  `comment on server "Loop" is 'here'`,
  'grant usage on foreign server "Loop" to lab_user',
  'drop foreign table ft2, app.far',
  'drop user mapping for current_user server "Loop"',
  'drop server "Loop" cascade',
  'create foreign data wrapper fdw',
  `alter foreign data wrapper fdw options (a '1')`,
  'drop foreign data wrapper fdw',
  'drop extension postgres_fdw',
]

const extensions: (string | Case)[] = [
  { sql: `create extension hstore version '1.4'` },
  { sql: `alter extension hstore update to '1.6'` },
  { sql: 'alter extension hstore update', replay: { text: `alter extension hstore update TO '1.8'` } },
  'alter extension hstore set schema app',
  `create extension if not exists citext version '1.4'`,
  { sql: 'create extension if not exists citext', isSilent: true },
  {
    sql: 'create extension /* version */ tsm_system_rows with schema public',
    replay: { text: `create extension /* version */ tsm_system_rows with schema public VERSION '1.0'` },
  },
  'drop extension tsm_system_rows',
  'alter extension citext add function g()',
  'alter extension citext drop function g()',
  `comment on extension citext is 'no case'`,
  'drop extension if exists hstore, citext cascade',
  { sql: 'create language pltcl' },
  'alter language pltcl rename to tcl',
  'alter extension pltcl drop language tcl',
  'drop language tcl cascade',
  'drop extension if exists pltcl',
]

const publications: (string | Case)[] = [
  'create publication pub for table t',
  'alter publication pub add table part',
  `alter publication pub set (publish = 'insert')`,
  'alter publication pub rename to "Pub 2"',
  `comment on publication "Pub 2" is 'sent'`,
  'drop publication "Pub 2"',
  { sql: 'create publication walback_lab for table t', replay: 'skip' },
  { sql: 'alter publication walback_lab add table part', replay: 'skip' },
  { sql: 'drop publication walback_lab', replay: 'skip' },
  {
    sql: `create subscription sub connection 'dbname=nowhere' publication pub with (connect = false, slot_name = none, enabled = false)`,
    replay: 'skip',
  },
  { sql: `alter subscription sub set (synchronous_commit = 'off')`, replay: 'skip' },
  { sql: 'drop subscription sub', replay: 'skip' },
  'create schema walback_not',
  { sql: 'create schema walback', replay: 'skip' },
  { sql: 'create table walback.x (a int)', replay: 'skip' },
  { sql: 'grant usage on schema walback to lab_user', replay: 'skip' },
  { sql: 'grant select on walback.x to lab_user', replay: 'skip' },
  { sql: 'drop schema walback cascade', replay: 'skip' },
]

const drops: (string | Case)[] = [
  { sql: 'drop table if exists nowhere, app.nowhere', isSilent: true },
  'drop table if exists nowhere, ul, public."mixed_case"',
  'drop table like_t, typed_t, copy_t, app.copy_n, "commented"',
  `drop table app."Odd ""Name""; \n("`,
  `drop table "${long}", data, größe.tab`,
  'drop table part cascade',
  'drop table part_b',
  'drop sequence s',
  { sql: 'drop owned by lab_user', replay: 'state' },
  'drop table t cascade',
  'drop function g',
  'drop view nums',
  'drop schema app cascade',
  'drop schema "Elements", größe, walback_not cascade',
]

const all: (string | Case)[] = [
  ...schemas,
  'create schema größe',
  ...tables,
  ...indexes,
  ...sequencesAndViews,
  ...functions,
  ...operators,
  ...types,
  ...textSearch,
  ...rulesAndPolicies,
  ...rights,
  ...foreign,
  ...extensions,
  ...publications,
  { sql: 'drop table into_t, app.into_u', notInPlpgsql: 'all' },
  { sql: 'drop table if exists part_a' },
  ...drops,
  'drop schema if exists lab_user, lab_owner',
]

/** What this server can run. */
export const cases = (major: number, port: number): Case[] =>
  all
    .map((item): Case => (typeof item === 'string' ? { sql: item } : item))
    .filter(({ since = 0 }) => since <= major)
    .map((item) => ({
      ...item,
      sql: item.sql.replace('$PORT', String(port)).trim(),
      isSilent: item.isSilent ?? major < (item.firesSince ?? 0),
    }))
