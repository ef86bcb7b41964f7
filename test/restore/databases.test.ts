import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { takeBase } from '../../src/backup/base-backup.ts'
import { requireTimeline } from '../../src/capture/session.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { readManifest } from '../../src/repository/base.ts'
import { oneOrBoth } from '../support/majors.ts'
import { once, packages, Subject } from './round-trip.ts'

describe.each(oneOrBoth(14))('databases on %i', (major) => {
  let server: EmbeddedServer
  let extensions: string
  beforeAll(async () => {
    extensions = await mkdtemp(join(tmpdir(), 'walback-extensions-'))
    await chmod(extensions, 0o755)
    const path = major >= 18 ? { extension_control_path: `${extensions}:$system` } : {}
    server = await startEmbedded({ package: packages[major], settings: { fsync: 'off', ...path } })
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await rm(extensions, { recursive: true, force: true })
  })

  const encodings = [
    { encoding: 'LATIN1', text: 'café ÿ' },
    { encoding: 'WIN1251', text: 'ключ' },
    ...(major >= 18 ? [{ encoding: 'EUC_JP', text: '日本' }] : []),
    { encoding: 'SQL_ASCII', text: 'é漢' },
  ]
  it.each(encodings)('in $encoding keep names and values', async ({ encoding, text }) => {
    await using subject = await Subject.start(
      server,
      `template template0 encoding '${encoding}' lc_collate 'C' lc_ctype 'C'`,
    )
    await subject.sql(`
      create schema "s${text}"; create type "s${text}"."ty${text}" as enum ('${text}');
      create table "s${text}"."t${text}" ("k${text}" text primary key, "v${text}" text default '${text}', e "s${text}"."ty${text}", w text);
      create table plain (id int primary key, v text); alter table "s${text}"."t${text}" alter w set storage external;
      create table "b${text}" ("c${text}" text); create sequence "q${text}"; comment on table plain is 'it''s ${text}';
      create function "f${text}"() returns text language sql as $$ select '${text}' $$; create materialized view "m${text}" as select 1 as "${text}";
      insert into "s${text}"."t${text}" ("k${text}", e, w) select '${text}' || n, '${text}', repeat('${text}', 2000) from generate_series(1, 9) n;
      insert into plain values (1, '${text}'); insert into "b${text}" values ('${text}'), ('${text}'); select lo_from_bytea(1, '\\x00ff'); comment on large object 1 is '${text}'`)
    const archive = await subject.open()
    await archive.base()
    await subject.note('base')
    await subject.sql(`
      update "s${text}"."t${text}" set "k${text}" = "k${text}" || '${text}' where "k${text}" like '%1'; update "s${text}"."t${text}" set "v${text}" = null;
      delete from "b${text}" where ctid = '(0,1)'; update plain set v = v || v; select nextval('"q${text}"')`)
    await subject.note('later')
    await archive.catchUp()
    const reports = await subject.compare({ sizes: [2000] })
    expect(reports.flatMap((report) => report.warnings)).toEqual([])
  })

  it('in SQL_ASCII keep values that are no text in any encoding, and no base is taken with such definitions', async () => {
    await using subject = await Subject.start(
      server,
      `template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'`,
    )
    await subject.sql(`create table t (k text primary key, v text); insert into t select convert_from('\\xe9ff09'::bytea, 'SQL_ASCII') || n, convert_from('\\xc3'::bytea, 'SQL_ASCII') from generate_series(1, 5) n;
      create table b (v text); insert into b select v from t`)
    subject.also.push(
      `select encode(convert_to(k, 'SQL_ASCII'), 'hex') as k, encode(convert_to(v, 'SQL_ASCII'), 'hex') as v from t order by 1`,
    )
    const archive = await subject.open()
    await archive.base()
    await subject.sql(`update t set k = k || '1'; delete from b where ctid = '(0,2)'`)
    await subject.note('later')
    await archive.catchUp()
    await subject.compare()
    await subject.sql(
      `do $$ begin execute format('comment on table t is %L', convert_from('\\xe9'::bytea, 'SQL_ASCII')); end $$`,
    )
    await expect(archive.base()).rejects.toThrow('invalid byte sequence')
  })

  it('keep what belongs to the database itself', async () => {
    await once(server.url(), 'create role keeper; create role guest')
    await using subject = await Subject.start(server)
    const name = `"${(await once<{ d: string }>(subject.url, 'select current_database() as d'))[0]?.d}"`
    await subject.sql(`alter database ${name} set search_path = "$user", 'O''dd', public; alter database ${name} set work_mem = '7MB'; alter database ${name} set datestyle = 'SQL, DMY';
      alter database ${name} set "my.own" = 'it''s = \\ x'; alter database ${name} set temp_tablespaces = ''; alter role guest in database ${name} set work_mem = '8MB'; alter database ${name} set default_transaction_read_only = off;
      comment on database ${name} is 'our ''base'; revoke connect on database ${name} from public; grant connect on database ${name} to guest; grant create on database ${name} to keeper with grant option;
      alter database ${name} connection limit 17; alter database ${name} owner to keeper`)
    subject.also.push(
      `select s.setrole::regrole::text as role, s.setconfig from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase where d.datname = current_database() order by 1`,
      `select datdba::regrole, datconnlimit, shobj_description(oid, 'pg_database') as comment, (select array_agg(a::text order by a::text) from unnest(datacl) a) as acl, datcollate, datctype, encoding from pg_database where datname = current_database()`,
    )
    const archive = await subject.open()
    await archive.base()
    await subject.note('base')
    await archive.catchUp()
    const reports = await subject.compare({ sizes: [undefined] })
    expect(reports[0]?.warnings).toEqual([])
  })

  it('come to a server that lacks their roles, and lose nothing else', async () => {
    await once(server.url(), 'create role missing_one; create role missing_two; create role present')
    await using subject = await Subject.start(server)
    await subject.sql(
      `create schema theirs authorization missing_one; create table theirs.t (id int primary key, who text); insert into theirs.t values (1, 'x'); alter table theirs.t owner to missing_one;
      grant usage on schema theirs to present; grant select on theirs.t to missing_two, present; alter table theirs.t enable row level security; create policy everyone on theirs.t for select to missing_one, present, missing_two using (who = 'x'); create policy one on theirs.t to missing_one using (true);
      create policy mine on theirs.t to present with check (true); set session authorization missing_one; grant update on theirs.t to present with grant option; reset session authorization;
      set session authorization present; grant update on theirs.t to missing_two; reset session authorization; 
      alter default privileges for role missing_one grant select on tables to present; alter default privileges grant select on tables to missing_two; alter default privileges grant select on tables to present;
      create function theirs.f() returns int language sql as 'select 1'; alter function theirs.f() owner to missing_two; revoke all on function theirs.f() from public; grant execute on function theirs.f() to present;
      create materialized view theirs.m as select count(*) as n from theirs.t; alter materialized view theirs.m owner to missing_two;
      create extension postgres_fdw; create server far foreign data wrapper postgres_fdw; create user mapping for missing_one server far; create user mapping for present server far; alter server far owner to missing_one;
      create sequence theirs.q; alter sequence theirs.q owner to missing_one; create type theirs.e as enum ('a'); alter type theirs.e owner to missing_two`,
      `select lo_create(5); grant select on large object 5 to missing_one; grant select on large object 5 to present; alter large object 5 owner to missing_two`,
    )
    const archive = await subject.open()
    await archive.base()
    await subject.note('base')
    await archive.catchUp()
    await using poorer = await startEmbedded({ package: packages[major], settings: { fsync: 'off' } })
    await once(poorer.url(), 'create role present')
    subject.also.push(
      `select polname, polroles::regrole[]::text[] as roles from pg_policy order by 1`,
      `select grantee, privilege_type from information_schema.role_table_grants where table_schema = 'theirs' and grantee = 'present' order by 1, 2`,
      `select lomacl::text from pg_largeobject_metadata`,
      `select umuser::regrole from pg_user_mapping`,
    )
    const wanted = [
      [
        { polname: 'everyone', roles: ['present'] },
        { polname: 'mine', roles: ['present'] },
      ],
      [
        { grantee: 'present', privilege_type: 'SELECT' },
        { grantee: 'present', privilege_type: 'UPDATE' },
      ],
      [{ lomacl: '{postgres=rw/postgres,present=r/postgres}' }],
      [{ umuser: 'present' }],
    ]
    for (const moment of subject.moments) moment.also.splice(0, 4, ...wanted)
    const [report] = await subject.compare({
      on: poorer,
      sizes: [undefined],
      flags: ['--ignore-object', '^(owner|acl) |^policy'],
    })
    const help =
      '(--create-roles makes it, --map-role puts another in its place, --no-owner and --no-privileges leave such things out unasked)'
    expect(report?.warnings.toSorted()).toEqual([
      `the target has no role missing_one; left out for it: owner of 4 objects, 1 user mapping, 2 policies, 1 default privilege, 1 grant ${help}`,
      `the target has no role missing_two; left out for it: owner of 4 objects, 2 grants, 1 policy, 1 default privilege ${help}`,
    ])
  })

  it('are backed up whole by a role that row-level security applies to, or not at all', async () => {
    await once(server.url(), 'create role reader login replication; create role bypasser login replication bypassrls')
    await using subject = await Subject.start(server)
    await subject.sql(`create table seen (id int primary key, who text); insert into seen values (1, 'reader'), (2, 'other');
      alter table seen enable row level security; create policy own on seen using (who = current_user); grant pg_read_all_data to reader, bypasser`)
    const archive = await subject.open()
    const timeline = await requireTimeline(archive.repository, archive.source)
    const as = (role: string) => {
      const url = new URL(subject.url)
      url.username = role
      return takeBase(resolveConninfo(url.href, {}), archive.repository, timeline, { jobs: 1, lockTimeout_ms: 1000 })
    }
    await expect(as('reader')).rejects.toMatchObject({ message: expect.stringContaining('row-level security') })
    const base = await as('bypasser')
    const manifest = await readManifest(archive.repository, archive.source, base.id)
    expect(manifest?.tables.find((table) => table.name === 'seen')?.rows).toBe(2)
  })

  it.runIf(major >= 18)("bring the rows of extensions that are the user's", async () => {
    const folder = join(extensions, 'extension')
    await mkdir(folder)
    await writeFile(join(folder, 'shop.control'), `default_version = '1'\nrelocatable = false\n`)
    await writeFile(
      join(folder, 'shop--1.sql'),
      `create table shop_setting (id int primary key, v text, ours bool generated always as (id < 100) stored);
       create table shop_all (id serial primary key, v text); create table shop_cache (v text); create sequence shop_number; create table shop_log (v text);
       create function shop_note() returns trigger language plpgsql as 'begin insert into @extschema@.shop_log values (new.v); return new; end';
       create trigger note after insert on shop_setting for each row execute function shop_note();
       insert into shop_setting values (1, 'built in'), (2, 'built in too'); insert into shop_cache values ('made'); delete from shop_log;
       select pg_extension_config_dump('shop_setting', 'where not ours and shop_setting.v is not null'); select pg_extension_config_dump('shop_all', '');
       select pg_extension_config_dump('shop_number', ''); select pg_extension_config_dump('shop_all_id_seq', ''); select pg_extension_config_dump('shop_log', '');`,
    )
    await using subject = await Subject.start(server)
    await subject.sql(`create schema shops; create extension shop schema shops; create table mine (id int primary key, setting int references shops.shop_setting);
      insert into shops.shop_setting values (100, 'user''s'), (101, 'to go'), (102, null), (103, 'to change'); insert into shops.shop_all (v) values ('a'), ('b'); insert into mine values (1, 100), (2, 1); select nextval('shops.shop_number') from generate_series(1, 5)`)
    subject.also.push(
      `select * from shops.shop_setting where v is not null order by id`,
      `select * from shops.shop_all order by id`,
      `select * from shops.shop_log order by 1`,
      `select nextval('shops.shop_number') >= 6 as ahead, nextval('shops.shop_all_id_seq') > 2 as ahead_too`,
      `select nspname from pg_namespace where nspname !~ '^pg_|^walback$' order by 1`,
    )
    const archive = await subject.open()
    await archive.base()
    await subject.note('base')
    await subject.sql(`delete from shops.shop_setting where id = 101; update shops.shop_setting set v = 'changed', id = 104 where id = 103; insert into shops.shop_setting values (200, 'later'); insert into shops.shop_all (v) values ('c');
      insert into shops.shop_cache values ('derived'); update shops.shop_setting set v = 'built in' where id = 1; truncate shops.shop_cache`)
    await subject.note('later')
    await archive.catchUp()
    const reports = await subject.compare()
    expect(reports.flatMap((report) => report.warnings)).toEqual([])
  })
})
