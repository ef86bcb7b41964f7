/** Schemas that ask everything of a restore. */

const long = 'n'.repeat(63)

/** Quotes, keywords, newlines, blanks, 63 bytes, what looks like an end of something. */
export const hostileNames = `
  create schema "select"; create schema "Sp ace"; create schema "new
line"; create schema "é漢字"; create schema "a""b'c"; create schema "${long}"; create schema "$$; drop schema public; --";
  create type "select"."type" as enum ('a');
  create domain "Sp ace"."do main" as "select"."type";
  create table "select"."table" ("select" int primary key, "from" text, " " int, "a.b" int, "tab	x" "Sp ace"."do main", "new
line" text default E'x\\ny', "%s" text, "\\" text, "'" text, "$1" int, "${long}" int, ":x" int);
  create table "Sp ace"."Table" (like "select"."table" including all);
  create table "new
line"."ta
ble" ("co
l" serial primary key, v text unique);
  create table "é漢字"."táble" ("ключ" bigserial, "é" text, primary key ("ключ", "é"));
  create table "a""b'c"."d""e'f" ("g""h'i" int primary key, "j\\k" text constraint "check ""it""'s" check ("j\\k" <> 'x'));
  create table "${long}"."${long}" ("${long}" int constraint "${long.slice(1)}m" primary key);
  create table "$$; drop schema public; --"."walback_old" (place int, ctid_ int, o int, t int primary key);
  create table "$$; drop schema public; --"."-- Name: x; Type: TABLE; Schema: y; Owner: z" (a int);
  create index "in""dex
x" on "Sp ace"."Table" ("from");
  create sequence "a""b'c"."se""q'u";
  create view "select"."view" as select "select" as "where" from "select"."table";
  create function "a""b'c"."fun""c"("a""r g" int default 1) returns text language sql as $f$ select '$$; -- Name: x; Type: y; Schema: z; Owner: w' $f$;
  comment on table "a""b'c"."d""e'f" is E'com''ment\\n-- Name: q; Type: TABLE; Schema: s; Owner: o\\n\\\\';
  alter table "a""b'c"."d""e'f" owner to "O'Brien ""x"" é"; grant select on "Sp ace"."Table" to "O'Brien ""x"" é" with grant option;
  insert into "select"."table" values (1, 'f', 2, 3, 'a', 'n', '%', '\\', '''', 4, 5, 6);
  insert into "new
line"."ta
ble" (v) values ('a'), (E'\\n'); insert into "é漢字"."táble" ("é") values ('x'), ('é');
  insert into "a""b'c"."d""e'f" values (1, 'ok'); insert into "${long}"."${long}" values (1);
  insert into "$$; drop schema public; --"."walback_old" values (1, 2, 3, 4); insert into "$$; drop schema public; --"."-- Name: x; Type: TABLE; Schema: y; Owner: z" values (1);`

export const everyKindOfObject = (major: number): string => `
  create schema app authorization alice; grant usage on schema app to bob; comment on schema app is 'the app';
  create extension hstore schema app; create extension postgres_fdw; create extension btree_gist; create extension pgcrypto;
  comment on extension hstore is 'ours';
  create table app.fired (what text, at timestamptz default now());
  create function app.fire() returns trigger language plpgsql as $$ begin insert into app.fired (what) values (tg_name); return null; end $$;
  create function app.event() returns event_trigger language plpgsql security definer as $$ begin insert into app.fired (what) values (tg_tag); end $$;

  create table app.person (id int primary key, name text not null, note text, boss int references app.person, unique (name));
  comment on column app.person.note is 'a note'; comment on constraint person_pkey on app.person is 'key';
  insert into app.person values (1, 'one', null, 1), (2, 'two', '', 1);
  create trigger audit after insert or update or delete on app.person for each row execute function app.fire();
  create trigger always after insert or update or delete or truncate on app.person execute function app.fire();
  alter table app.person enable always trigger always;
  create trigger replica_only after insert on app.person for each row execute function app.fire(); alter table app.person enable replica trigger replica_only;
  create trigger off after insert on app.person for each row execute function app.fire(); alter table app.person disable trigger off;
  create constraint trigger late after insert on app.person deferrable initially deferred for each row execute function app.fire();
  create rule copied as on insert to app.person do also insert into app.fired (what) values ('rule');
  alter table app.person alter name set statistics 500; alter table app.person alter name set (n_distinct = 5); alter table app.person set (fillfactor = 70);
  alter table app.person cluster on person_name_key;

  create table app.husband (id int primary key, wife int); create table app.wife (id int primary key, husband int references app.husband deferrable initially deferred);
  alter table app.husband add foreign key (wife) references app.wife;
  begin; insert into app.wife values (1, 1); insert into app.husband values (1, 1); commit;
  create table app.lazy (id int primary key deferrable initially deferred, u int unique deferrable);
  insert into app.lazy values (1, 1);
  create table app.booking (room int, during tstzrange, exclude using gist (room with =, during with &&) deferrable);
  insert into app.booking values (1, '[2020-01-01,2020-01-02)');
  create table app.dirty (n int, ref int); insert into app.dirty values (-1, 99);
  alter table app.dirty add constraint positive check (n > 0) not valid; alter table app.dirty add constraint dangling foreign key (ref) references app.person not valid;
  create function app.is_even(n int) returns bool language plpgsql immutable as $$ begin return n % 2 = 0; end $$;
  create table app.even (n int check (app.is_even(n))); insert into app.even values (2), (null);
  create domain app.even_number as int check (app.is_even(value)); create table app.even_too (n app.even_number primary key); insert into app.even_too values (4);

  create table app.secret (id int primary key, owner text); insert into app.secret values (1, 'alice'), (2, 'bob');
  alter table app.secret enable row level security; alter table app.secret force row level security; alter table app.secret owner to alice;
  create policy own on app.secret as permissive for all to alice, bob using (owner = current_user) with check (true);
  create policy none on app.secret as restrictive for delete using (false);

  create table app.document (id int primary key, title text, tags text[]); insert into app.document values (1, 'x', '{a}');
  create view app.document_titles with (security_barrier) as select id, title from app.document with local check option;
  create view app.grouped as select d.id, d.title, count(*) from app.document d group by d.id;
  create materialized view app.z_first as select id, title from app.document;
  create materialized view app.a_second as select count(*) as n from app.z_first; create unique index on app.a_second (n);
  create materialized view app.b_third as select n from app.a_second where n > 0;
  create materialized view app.by_key as select d.id, d.title, count(*) from app.document d group by d.id;
  create materialized view app.over_by_key as select count(*) as n from app.by_key;
  create materialized view app.empty_view as select 1 as n with no data; create materialized view app.on_empty as select 2 as n with no data;
  comment on materialized view app.z_first is 'first'; grant select on app.z_first to bob;
  create rule "to_title" as on insert to app.document_titles do instead insert into app.document (id, title) values (new.id, new.title);

  create sequence app.shared; create sequence app.small as smallint maxvalue 32767 start 32760; create sequence app.falling increment -3 minvalue -1000 maxvalue 0 start 0;
  create sequence app.cycled maxvalue 5 cycle; create sequence app.never start 42; create sequence app.full_one maxvalue 3; create sequence app.largest start 9223372036854775800; create sequence app.called cache 20;
  create table app.one (id int default nextval('app.shared') primary key); create table app.two (id int default nextval('app.shared') primary key);
  insert into app.one default values; insert into app.two default values; insert into app.two values (1000);
  select nextval('app.small'), nextval('app.falling'), nextval('app.falling'), nextval('app.called') from generate_series(1, 5); select nextval('app.cycled') from generate_series(1, 7);
  select nextval('app.full_one') from generate_series(1, 3); select nextval('app.largest'); select setval('app.small', 32766, false);
  create table app.identities (a int generated always as identity (start -5 increment -1 minvalue -100), b smallserial, c bigint generated by default as identity (sequence name app.named_seq cycle minvalue 1 maxvalue 9));
  insert into app.identities (b) values (default), (default);

  create type app.color as enum ('red', 'green'); alter type app.color add value 'a''b' before 'green'; create type app.shell; create type app.pair as (a int, b app.color);
  create table app.typed of app.pair (primary key (a)); insert into app.typed values (1, 'a''b');
  create function app.plus(int, app.color) returns int language sql immutable as 'select $1 + 1';
  create operator app.+! (leftarg = int, rightarg = app.color, function = app.plus);
  create aggregate app.total(int) (sfunc = int4pl, stype = int, initcond = '0');
  create procedure app.work(inout x int) language plpgsql as $$ begin x := x + 1; commit; end $$;
  create function app.modern(a int, b int) returns int language sql begin atomic; select a + b; select 1; end;
  create function app.set_returning(variadic t text[] default '{}') returns table (x text, y int) language sql security definer set search_path = app, pg_temp cost 7 rows 3 parallel safe as $f$ select unnest(t), 1 $f$;
  create function app.to_color(int) returns app.color language sql immutable as $$ select 'red'::app.color $$; create function app.reverse_cmp(int, int) returns int language sql immutable as 'select btint4cmp($2, $1)';
  create cast (app.pair as text) with inout as assignment; create cast (int as app.color) with function app.to_color(int) as implicit;
  create operator class app.reverse for type int using btree as operator 1 > , operator 2 >=, operator 3 =, operator 4 <=, operator 5 <, function 1 app.reverse_cmp(int, int);
  create table app.reversed (n int); create index on app.reversed (n app.reverse); insert into app.reversed select generate_series(1, 9);
  create collation app.german from "C"; create table app.collated (t text collate app.german, e int, primary key (t)); create index on app.collated (lower(t) collate "C" desc nulls last) include (e) where e > 0;
  create text search dictionary app.plain (template = simple, stopwords = 'english'); create text search configuration app.searching (copy = simple); alter text search configuration app.searching alter mapping for word with app.plain;
  create statistics app.stats (dependencies, mcv) on id, title from app.document; create statistics app.expr on lower(title) from app.document;
  create server remote foreign data wrapper postgres_fdw options (host 'nowhere', dbname 'it''s'); create user mapping for alice server remote options (user 'a', password 'p''w'); create foreign table app.far (n int options (column_name 'm')) server remote;
  create event trigger watcher on ddl_command_end execute function app.event(); create event trigger dropper on sql_drop when tag in ('DROP TABLE') execute function app.event(); alter event trigger watcher enable always; alter event trigger dropper disable;
  comment on event trigger watcher is 'watches';
  create publication theirs for table app.document, app.person with (publish = 'insert'); create publication everything for all tables with (publish = 'insert, truncate'); comment on publication theirs is 'theirs';${
    major >= 15
      ? " create publication in_schema for tables in schema app; create publication filtered for table app.document (id, title) where (id > 0) with (publish = 'insert');"
      : ''
  }
  create unlogged table app.unlogged_table (n int); insert into app.unlogged_table select generate_series(1, 5);
  create table app.columnless (); insert into app.columnless default values; insert into app.columnless default values;
  create table app.all_generated (g int generated always as (1 + 1) stored); insert into app.all_generated default values;
  create table app.gone (a int, b int, c text); insert into app.gone values (1, 2, 'x'); alter table app.gone drop column a; alter table app.gone drop column b;
  create table app.dated (d date, v int) partition by range (d); create table app.dated_1 partition of app.dated for values from ('2020-01-01') to ('2021-01-01'); create table app.dated_rest partition of app.dated default;
  create index on app.dated (v); alter table app.dated add primary key (d); create trigger row_trigger after insert on app.dated for each row execute function app.fire(); insert into app.dated values ('2020-05-05', 1), ('1999-01-01', 2);
  create table app.inherited (extra int) inherits (app.document); insert into app.inherited values (9, 'i', null, 1);
  select lo_from_bytea(7001, decode(string_agg(lpad(to_hex(n), 2, '0'), ''), 'hex')) from generate_series(0, 255) n; select lo_from_bytea(7002, convert_to(repeat('0123456789', 300000), 'UTF8'));
  select lo_create(7003); select lo_put(7003, 5000000, 'end'); select lo_create(4294967290);
  comment on large object 7001 is 'it''s \\ large'; grant select on large object 7001 to public; grant update on large object 7001 to bob with grant option; alter large object 7001 owner to alice; grant select on large object 7002 to "O'Brien ""x"" é";
  grant select (title), update (tags) on app.document to bob; grant all on app.person to bob with grant option; revoke all on function app.fire() from public; grant execute on function app.is_even(int) to alice; grant usage on type app.color to bob; revoke usage on type app.pair from public;
  grant usage on foreign server remote to bob; grant usage on sequence app.shared to bob;
  set session authorization bob; grant select on app.person to carol; reset session authorization;
  alter default privileges in schema app grant select on tables to bob; alter default privileges for role alice revoke execute on functions from public; alter default privileges for role bob grant all on sequences to alice;
  revoke all on schema public from public; grant usage on schema public to alice; comment on schema public is 'changed';
  refresh materialized view app.z_first; refresh materialized view app.a_second; refresh materialized view app.b_third; refresh materialized view app.by_key; refresh materialized view app.over_by_key;
  truncate app.fired;`
