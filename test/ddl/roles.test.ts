/** Changes of the schema, replayed where there are other roles than on the source. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { quoteIdent } from '../../src/model/identifier.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import type { RoleOptions } from '../../src/restore/role-plan.ts'
import { once, packages, Subject } from '../restore/round-trip.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { oneOrBoth } from '../support/majors.ts'
import { ourObjects } from '../support/walback.ts'

const cast = `create role maker; create role reader; create role granter; create role "Odd ""one"""; create role login_only login`

/** All of it comes after the base; `maker` runs what it can itself. */
const history = [
  `set role maker; create table made.t (id int primary key, v text); insert into made.t values (1, 'a'); create sequence made.q; create view made.w as select id from made.t; reset role`,
  `grant select, update (v) on made.t to reader; grant select on made.t to granter with grant option; set role granter; grant select on made.t to "Odd ""one"""; reset role; grant usage on schema made to public, reader; revoke select on made.w from maker`,
  `set role maker; alter default privileges in schema made grant select on tables to reader; create table made.later (id int); insert into made.later values (7); alter default privileges for role maker revoke execute on functions from public; reset role`,
  `create table public.given (id serial primary key, "role" text); insert into given ("role") values ('x'); alter table given owner to "Odd ""one"""; alter table made.later add column n int default 3, owner to granter`,
  `alter table made.t enable row level security; create policy for_some on made.t to reader, maker using (true); create policy for_one on made.t to "Odd ""one""" using (true); create policy for_all on made.t for select using (true); alter policy for_some on made.t to reader, granter`,
  `create function made.f() returns text language sql security definer set role = reader as $$ select current_user::text $$; alter function made.f() owner to granter; grant execute on function made.f() to reader`,
  `create schema authorization reader create table inside (id int); set role maker; grant select on made.w to current_user, public; reset role; revoke select on made.t from "Odd ""one""", granter cascade`,
  `create type made.e as enum ('a'); alter type made.e owner to reader; alter table made.t add column e made.e; create table made.derived as select id from made.t; alter table made.derived owner to maker; comment on table made.t is 'touched'`,
  `create extension postgres_fdw; create server far foreign data wrapper postgres_fdw; grant usage on foreign server far to reader; create user mapping for reader server far options (user 'u'); create user mapping for "Odd ""one""" server far; alter user mapping for reader server far options (set user 'v')`,
]

/** What the fingerprint does not ask. */
const questions = [
  `select defaclrole::regrole::text, defaclnamespace::regnamespace::text, defaclobjtype, (select array_agg(a::text order by a::text) from unnest(defaclacl) a) as acl from pg_default_acl order by 1, 2, 3`,
  `select polname, (select array_agg(r::regrole::text order by r::regrole::text) from unnest(polroles) r) as roles from pg_policy order by 1`,
  `select relname, relowner::regrole::text, (select array_agg(a::text order by a::text) from unnest(relacl) a) as acl from pg_class where oid >= 16384 and relkind in ('r', 'S', 'v') and relnamespace::regnamespace::text not in ('walback', 'pg_toast') order by 1`,
  `select proname, proowner::regrole::text, proacl::text, proconfig from pg_proc where proname = 'f'`,
  `select nspname, nspowner::regrole::text, (select array_agg(a::text order by a::text) from unnest(nspacl) a) as acl from pg_namespace where nspname in ('made', 'reader', 'maker') order by 1`,
  `select srvname, usename, umoptions from pg_user_mappings order by 1, 2`,
]
const answers = (url: string): Promise<unknown[]> => Promise.all(questions.map((query) => once(url, query)))

describe.each(oneOrBoth(14))('roles of later changes of the schema, on %i', (major) => {
  let source: EmbeddedServer
  let target: EmbeddedServer
  let subject: Subject
  beforeAll(async () => {
    const start = () => startEmbedded({ package: packages[major], settings: { fsync: 'off' } })
    ;[source, target] = await Promise.all([start(), start()])
    await once(source.url(), cast)
    subject = await Subject.start(source)
    await subject.sql(
      'create schema made; grant create, usage on schema made to maker; grant usage on schema made to granter; grant maker to login_only',
    )
    const archive = await subject.open()
    await archive.base()
    for (const sql of history) await subject.sql(sql)
    await once(source.url(), 'create role younger')
    await subject.sql('create table young (id int); alter table young owner to younger')
    await archive.catchUp()
  })
  afterAll(async () => {
    await subject?.[Symbol.asyncDispose]()
    await source?.[Symbol.asyncDispose]()
    await target?.[Symbol.asyncDispose]()
  })

  let restored = 0
  const restoreTo = async (server: EmbeddedServer, roles: RoleOptions = {}, flags: string[] = []) => {
    const database = `restored_${++restored}`
    const destination = { conninfo: resolveConninfo(server.url(), {}), database }
    const report = await subject.restoreInto(destination, { kind: 'latest' }, { roles })
    const url = server.url(database)
    const [golden, actual] = [await fingerprint(subject.url, flags), await fingerprint(url, flags)]
    return { report, url, differences: differences(golden, actual, [...ourObjects, ...flags]) }
  }

  afterEach(async () => {
    for (const server of [source, target]) {
      for (let n = 1; n <= restored; n++) await once(server.url(), `drop database if exists restored_${n} with (force)`)
    }
    const roles = await once<{ name: string }>(
      target.url(),
      `select quote_ident(rolname) as name from pg_roles where rolname !~ '^(pg_|postgres$)'`,
    )
    for (const { name } of roles) await once(target.url(), `drop owned by ${name}; drop role ${name}`)
  })

  it('are as they were where they are there', async () => {
    const { report, url, differences } = await restoreTo(source)
    expect(report.warnings).toEqual([])
    expect(differences).toEqual([])
    expect(await answers(url)).toEqual(await answers(subject.url))
  })

  it('that are missing are reported once each, and nothing else is lost', async () => {
    const flags = ['--no-owner', '--no-acl', '--ignore-object', '^policy .*for_(one|some)$']
    const { report, url, differences } = await restoreTo(target, {}, flags)
    expect(differences).toEqual([])
    const lines = report.warnings.map((line) => /^the target has no role (.*?); left out for it: (.*) \(--/.exec(line))
    expect(lines.map((line, n) => line?.slice(1) ?? report.warnings[n])).toEqual([
      ['maker', '2 grants, owner of 5 objects, 2 default privileges, 1 policy'],
      ['granter', '2 grants, owner of 2 objects, 1 policy'],
      ['reader', '4 grants, 1 default privilege, 2 policies, owner of 3 objects, 2 user mappings'],
      ['Odd "one"', '1 grant, owner of 1 object, 1 policy, 1 user mapping'],
      ['younger', 'owner of 1 object'],
    ])
    const [defaults, policies, relations, , , mappings] = (await answers(url)) as Record<string, unknown>[][]
    expect([defaults, policies, mappings]).toEqual([[], [{ polname: 'for_all', roles: ['-'] }], []])
    expect(new Set(relations?.map(({ relowner }) => relowner))).toEqual(new Set(['postgres']))
  })

  it('are made where that is asked, a younger one with its name alone', async () => {
    const { report, url, differences } = await restoreTo(target, { create: true })
    expect(report.warnings).toEqual([expect.stringMatching(/^role younger was made with its name alone/)])
    expect(report.roles.created).toEqual(['Odd "one"', 'granter', 'maker', 'reader', 'younger'])
    expect(differences).toEqual([])
    expect(await answers(url)).toEqual(await answers(subject.url))
  })

  it('are others where they are told to be', async () => {
    const map = new Map(['maker', 'reader', 'granter', 'Odd "one"'].map((role) => [role, `${role}_2`]))
    for (const role of [...map.values(), 'younger']) await once(target.url(), `create role ${quoteIdent(role)}`)
    const flags = ['--no-owner', '--no-acl', '--ignore-object', '^policy .*for_(one|some)$|^routine made.f']
    const { report, url, differences } = await restoreTo(target, { map }, flags)
    expect(report.warnings).toEqual([])
    expect(differences).toEqual([])
    const [found, wanted] = await Promise.all([answers(url), answers(subject.url)])
    expect(JSON.parse(JSON.stringify(found).replaceAll('_2', ''))).toEqual(wanted)
  })

  it('are left out as asked', async () => {
    await once(target.url(), `${cast}; create role younger`)
    const flags = ['--no-owner', '--no-acl']
    const { report, url, differences } = await restoreTo(target, { noOwner: true, noPrivileges: true }, flags)
    expect(report.warnings).toEqual([])
    expect(report.roles.notes).toEqual([
      expect.stringMatching(/^everything belongs to postgres: left out as asked: \d+ owners$/),
      expect.stringMatching(/^nobody else was granted anything: left out as asked: \d+ statements about rights$/),
    ])
    expect(differences).toEqual([])
    const [defaults, policies, relations] = (await answers(url)) as Record<string, unknown>[][]
    const [, wanted] = await answers(subject.url)
    expect([defaults, policies]).toEqual([[], wanted])
    for (const relation of relations ?? []) expect(relation).toMatchObject({ relowner: 'postgres', acl: null })
  })

  it.runIf(major === 18)('are given by one who is no superuser as far as that goes', async () => {
    await using simple = await Subject.start(source)
    const archive = await simple.open()
    await archive.base()
    await simple.sql(
      `create table a (id int primary key); insert into a values (1); alter table a owner to reader; grant select on a to maker; alter table a add column b text default 'b'`,
      `create sequence q; alter sequence q owner to reader; create table mine (id int); grant select on mine to maker; alter default privileges for role reader grant select on tables to maker`,
    )
    await archive.catchUp()
    await once(
      target.url(),
      `${cast}; create role restorer login createdb; grant set on parameter session_replication_role to restorer`,
    )
    const url = new URL(target.url())
    url.username = 'restorer'
    const destination = { conninfo: resolveConninfo(url.href, {}), database: `restored_${++restored}` }
    const roles = { map: new Map([['postgres', 'restorer']]) }
    const report = await simple.restoreInto(destination, { kind: 'latest' }, { roles })
    expect(report.warnings).toEqual([
      'left out for role reader: owner of 2 objects, 1 default privilege (must be able to SET ROLE "reader")',
    ])
    const flags = ['--no-owner', '--no-acl']
    const restoredUrl = target.url(destination.database)
    const [golden, actual] = [await fingerprint(simple.url, flags), await fingerprint(restoredUrl, flags)]
    expect(differences(golden, actual, [...ourObjects, ...flags])).toEqual([])
    const acl = ['maker=r/restorer', 'restorer=arwdDxtm/restorer']
    expect((await answers(restoredUrl))[2]).toEqual([
      { relname: 'a', relowner: 'restorer', acl },
      { relname: 'mine', relowner: 'restorer', acl },
      { relname: 'q', relowner: 'restorer', acl: null },
    ])
  })

  it('lose what DROP OWNED takes from them in the database, and nothing elsewhere in the cluster', async () => {
    await using dropping = await Subject.start(source)
    const database = new URL(dropping.url).pathname.slice(1)
    await once(source.url(), `create role leaver; create role "Second ""leaver"`)
    await dropping.sql(
      `create schema s; grant usage on schema s to leaver, "Second ""leaver", reader; create table s.kept (a int, b int); grant select on s.kept to leaver with grant option; grant update (b) on s.kept to leaver, reader`,
      `set role leaver; grant select on s.kept to reader; reset role; create function s.f(a int, b text) returns int language sql as 'select 1'; grant execute on function s.f to leaver`,
      `create table s.theirs (id int primary key, v text); alter table s.theirs owner to leaver; insert into s.theirs values (1, 'x')`,
    )
    const archive = await dropping.open()
    await archive.base()
    await dropping.sql(
      `create domain s.d as int; revoke usage on type s.d from public; grant usage on type s.d to leaver, reader; create sequence s.q; grant all on sequence s.q to leaver; grant usage on language plpgsql to leaver; create procedure s.p() language sql as ''; grant all on procedure s.p to leaver`,
      `create extension postgres_fdw; create server far foreign data wrapper postgres_fdw; grant all on foreign server far to leaver; grant all on foreign data wrapper postgres_fdw to leaver; create user mapping for leaver server far`,
      `alter default privileges in schema s grant select on tables to leaver, reader; alter default privileges for role reader grant execute on functions to leaver; alter default privileges for role leaver grant select on tables to reader`,
      `alter table s.kept enable row level security; create policy one on s.kept to leaver using (true); create policy two on s.kept to reader, leaver using (true)`,
      `create table s.more (id int references s.theirs); alter table s.more owner to leaver; create view s.v as select * from s.theirs; alter view s.v owner to leaver; create view s.others as select * from s.v; create table s.points (id int references s.theirs, n int)`,
      `grant all on s.points to "Second ""leaver"; create table s.second (id int); alter table s.second owner to "Second ""leaver"`,
      'drop owned by leaver cascade',
      `set role "Second ""leaver"; drop owned by current_user; reset role; insert into s.points values (1, 2)`,
    )
    await archive.catchUp()
    await once(source.url(), `grant connect on database ${database} to leaver`)
    const rights = `select datacl::text from pg_database where datname = '${database}'`
    const before = await once(source.url(), rights)
    const name = `restored_${++restored}`
    const report = await dropping.restoreInto({ conninfo: resolveConninfo(source.url(), {}), database: name })
    expect(report.warnings).toEqual([])
    const [golden, actual] = [await fingerprint(dropping.url), await fingerprint(source.url(name))]
    expect(differences(golden, actual, ourObjects)).toEqual([])
    expect(await answers(source.url(name))).toEqual(await answers(dropping.url))
    expect(await once(source.url(), rights)).toEqual(before)
    // Those who have nothing left in the database need not be there.
    const reduced = await dropping.restoreInto({ conninfo: resolveConninfo(target.url(), {}), database: name })
    expect(reduced.warnings).toEqual([expect.stringMatching(/^the target has no role reader; /)])
  })
})
