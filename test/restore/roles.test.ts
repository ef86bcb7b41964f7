import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Role, roleShape } from '../../src/model/catalog.ts'
import { quoteIdent, quoteLiteral } from '../../src/model/identifier.ts'
import { readRoles } from '../../src/postgres/catalog.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { membershipsOf } from '../../src/restore/create-roles.ts'
import { planRoles, type RoleOptions } from '../../src/restore/role-plan.ts'
import { Roles } from '../../src/restore/roles.ts'
import { here } from '../cli/walback.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { oneOrBoth } from '../support/majors.ts'
import { ourObjects } from '../support/walback.ts'
import { once, open, packages, Subject } from './round-trip.ts'

/** Roles by what they are for, under names that ask everything. */
interface Cast {
  readonly owner: string
  readonly reader: string
  readonly granter: string
  readonly group: string
  readonly mapped: string
  readonly settled: string
  readonly becomes: string
}

const hostile: Cast = {
  owner: `O'Brien "x" é`,
  reader: 'UPPER case=1, 2',
  granter: '$$; drop role postgres; --\n\\',
  group: 'ключ',
  mapped: 'select',
  settled: 'n'.repeat(63),
  becomes: '%s:x $1',
}
const others: Cast = {
  owner: 'owner two',
  reader: `Reader's "2"`,
  granter: 'granter=2',
  group: 'group two',
  mapped: 'mapped_two',
  settled: 'é\\2',
  becomes: 'becomes "two"',
}

const rolesSql = (major: number, { owner, reader, granter, group, mapped, settled, becomes }: Cast): string[] => {
  const q = quoteIdent
  return [
    `create role ${q(group)} noinherit; create role top nologin; create role ${q(becomes)} connection limit 3; create role bystander login password 'secret'`,
    `create role ${q(owner)} superuser createdb createrole login replication bypassrls connection limit 7 valid until '2031-02-03 04:05:06.7+02' password 'secret'`,
    `create role ${q(reader)} login valid until 'infinity'; create role ${q(granter)}; create role ${q(mapped)} in role pg_monitor; create role ${q(settled)}`,
    `comment on role ${q(owner)} is 'the ''owner'' \\'; alter role ${q(reader)} set search_path = "$user", 'O''dd', ''; alter role ${q(reader)} set work_mem = '7MB'`,
    `alter role ${q(settled)} set role = ${quoteLiteral(becomes)}; alter role ${q(settled)} set "my.own" = 'a=b\\'`,
    // The granters must have the option first, so the order counts.
    `grant ${q(group)} to ${q(granter)} with admin option; grant top to ${q(group)}; grant ${q(group)} to bystander`,
    `set session authorization ${q(granter)}; grant ${q(group)} to ${q(reader)} with admin option; reset session authorization`,
    ...(major >= 16
      ? [`grant top to ${q(mapped)} with inherit false, set false; grant top to ${q(granter)} with inherit true`]
      : []),
    ...(major >= 15 ? [`grant set on parameter log_min_duration_statement to ${q(reader)} with grant option`] : []),
  ]
}

const schemaSql = (database: string, { owner, reader, granter, mapped, settled, becomes }: Cast): string[] => {
  const q = quoteIdent
  return [
    `create schema app authorization ${q(owner)}; grant usage on schema app to ${q(reader)}, ${q(granter)}; revoke all on schema public from public; grant usage on schema public to ${q(reader)}`,
    `create table app.t (id int primary key, a text, b text); alter table app.t owner to ${q(owner)}; insert into app.t values (1, 'a', 'b')`,
    `grant select (a, b), update (b) on app.t to ${q(reader)}; grant all on app.t to ${q(granter)} with grant option; grant select on app.t to public`,
    `set session authorization ${q(granter)}; grant insert, select (a) on app.t to ${q(reader)}; grant delete on app.t to ${q(mapped)} with grant option; reset session authorization`,
    `revoke truncate on app.t from ${q(owner)}`,
    `alter table app.t enable row level security; create policy several on app.t as restrictive for update to ${q(reader)}, ${q(owner)}, current_user using (a = ${quoteLiteral(reader)}) with check (true); create policy one on app.t to ${q(mapped)} using (true)`,
    `create table app.who (r text primary key); insert into app.who values (${quoteLiteral(reader)})`,
    `create view app.v as select id from app.t; alter view app.v owner to ${q(granter)}; create materialized view app.m as select 1 as n; alter materialized view app.m owner to ${q(mapped)}`,
    `create sequence app.q; alter sequence app.q owner to ${q(reader)}; grant usage on sequence app.q to ${q(mapped)}; create type app.e as enum ('a'); alter type app.e owner to ${q(settled)}; revoke usage on type app.e from public; grant usage on type app.e to ${q(reader)}`,
    `create function app.f() returns int language sql set role to ${quoteLiteral(becomes)} as $$ select 1 $$; alter function app.f() owner to ${q(owner)}; revoke all on function app.f() from public; grant execute on function app.f() to ${q(reader)} with grant option`,
    `alter default privileges for role ${q(owner)} in schema app grant select on tables to ${q(reader)}; alter default privileges for role ${q(granter)} revoke execute on functions from public; alter default privileges for role ${q(owner)} grant all on sequences to ${q(mapped)} with grant option`,
    `create extension postgres_fdw; create server far foreign data wrapper postgres_fdw; alter server far owner to ${q(owner)}; grant usage on foreign server far to ${q(reader)}; create user mapping for ${q(mapped)} server far options (user 'u', password 'p'); create user mapping for public server far`,
    `create function app.event() returns event_trigger language plpgsql as 'begin end'; create event trigger seen on sql_drop execute function app.event(); alter event trigger seen owner to ${q(owner)}`,
    `create publication theirs for table app.who; alter publication theirs owner to ${q(owner)}`,
    `select lo_from_bytea(77, 'x'); grant select on large object 77 to ${q(reader)}, public; grant update on large object 77 to ${q(mapped)} with grant option; alter large object 77 owner to ${q(settled)}`,
    `revoke connect on database ${q(database)} from public; grant connect on database ${q(database)} to ${q(reader)}; grant create, connect on database ${q(database)} to ${q(granter)} with grant option; alter role ${q(settled)} in database ${q(database)} set role = ${quoteLiteral(reader)}; alter role ${q(reader)} in database ${q(database)} set search_path = '', "$user"; alter database ${q(database)} owner to ${q(owner)}`,
  ]
}

/** What the fingerprint does not ask, of a database. */
const questions = [
  `select datdba::regrole::text, (select array_agg(a::text order by a::text) from unnest(datacl) a) as acl from pg_database where datname = current_database()`,
  `select s.setrole::regrole::text as role, s.setconfig from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase where d.datname = current_database() order by 1`,
  `select oid, lomowner::regrole::text, (select array_agg(a::text order by a::text) from unnest(lomacl) a) as acl from pg_largeobject_metadata`,
  `select defaclrole::regrole::text, defaclnamespace::regnamespace::text, defaclobjtype, (select array_agg(a::text order by a::text) from unnest(defaclacl) a) as acl from pg_default_acl order by 1, 2, 3`,
  `select srvname, usename, (select array_agg(o order by o) from unnest(umoptions) o) as options from pg_user_mappings order by 1, 2`,
  `select polname, (select array_agg(r::regrole::text order by r::regrole::text) from unnest(polroles) r) as roles from pg_policy order by 1`,
  `select typname, typowner::regrole::text, typacl::text from pg_type where typname = 'e'`,
  `select nspname, nspowner::regrole::text, (select array_agg(a::text order by a::text) from unnest(nspacl) a) as acl from pg_namespace where nspname in ('app', 'public') order by 1`,
  `select evtname, evtowner::regrole::text from pg_event_trigger where evtname = 'seen'`,
  `select pubname, pubowner::regrole::text from pg_publication where pubname = 'theirs'`,
  `select srvname, srvowner::regrole::text, (select array_agg(a::text order by a::text) from unnest(srvacl) a) as acl from pg_foreign_server`,
]

/** All that pg_dumpall would say of roles, by name. */
async function rolesOf(server: EmbeddedServer, names?: readonly string[]): Promise<Record<string, unknown>[]> {
  const options = server.major >= 16 ? 'm.inherit_option, m.set_option' : 'null'
  const parameters =
    server.major >= 15
      ? `(select json_agg(json_build_array(parname, a.privilege_type, a.is_grantable)) from pg_parameter_acl, aclexplode(paracl) a where a.grantee = r.oid)`
      : 'null'
  const found = await once<Record<string, unknown>>(
    server.url(),
    `select rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil, rolpassword is not null as has_password,
       shobj_description(r.oid, 'pg_authid') as comment, ${parameters} as parameters,
       (select setconfig from pg_db_role_setting where setrole = r.oid and setdatabase = 0) as settings,
       (select json_agg(json_build_array(m.roleid::regrole, m.grantor::regrole, m.admin_option, ${options}) order by m.roleid::regrole::text, m.grantor::regrole::text) from pg_auth_members m where m.member = r.oid) as memberships
     from pg_authid r where rolname !~ '^pg_' order by rolname`,
  )
  return names === undefined ? found : found.filter(({ rolname }) => names.includes(String(rolname)))
}

// The fingerprint lists the roles of a policy in the order that pg_dump happened to find them.
const unordered = ['--ignore-object', '^policy app.t.several$']

const answers = (url: string): Promise<unknown[]> => Promise.all(questions.map((query) => once(url, query)))

const servers: Partial<Record<'source' | 'target', Record<14 | 18, EmbeddedServer>>> = {}
const serverOf = (side: 'source' | 'target', major: 14 | 18): EmbeddedServer => {
  const server = servers[side]?.[major]
  if (server === undefined) throw new Error('it has not started')
  return server
}
beforeAll(async () => {
  for (const side of ['source', 'target'] as const) {
    const start = (major: 14 | 18) => startEmbedded({ package: packages[major], settings: { fsync: 'off' } })
    servers[side] = { 14: await start(14), 18: await start(18) }
  }
  for (const major of [14, 18] as const)
    for (const sql of rolesSql(major, hostile)) await once(serverOf('source', major).url(), sql)
})
afterAll(async () => {
  for (const of of Object.values(servers)) for (const server of Object.values(of)) await server[Symbol.asyncDispose]()
})

/** Every test finds the targets without roles. */
afterEach(async () => {
  for (const target of Object.values(servers.target ?? {})) {
    const databases = await once<{ name: string }>(
      target.url(),
      `select quote_ident(datname) as name from pg_database where datname !~ '^(postgres|template)'`,
    )
    for (const { name } of databases) await once(target.url(), `drop database ${name} with (force)`)
    const roles = await once<{ names: string | null }>(
      target.url(),
      `select string_agg(quote_ident(rolname), ', ') as names from pg_roles where rolname !~ '^(pg_|postgres$)'`,
    )
    if (roles[0]?.names) await once(target.url(), `drop owned by ${roles[0].names}; drop role ${roles[0].names}`)
  }
})

describe.each(oneOrBoth(18))('roles on another cluster, %i', (major) => {
  let source: EmbeddedServer
  let target: EmbeddedServer
  let subject: Subject
  beforeAll(async () => {
    source = serverOf('source', major)
    target = serverOf('target', major)
    subject = await Subject.start(source)
    await subject.sql(...schemaSql(new URL(subject.url).pathname.slice(1), hostile))
    const archive = await subject.open()
    await archive.base()
    await archive.catchUp()
  })
  afterAll(async () => {
    await subject?.[Symbol.asyncDispose]()
  })

  const restoreTo = (database: string, roles?: RoleOptions, user = 'postgres') => {
    const url = new URL(target.url())
    url.username = user
    return subject.restoreInto(
      { conninfo: resolveConninfo(url.href, {}), database },
      { kind: 'latest' },
      roles === undefined ? {} : { roles },
    )
  }
  const compare = async (golden: string, restored: string, flags: string[] = []) => ({
    differences: differences(await fingerprint(golden, flags), await fingerprint(restored, flags), [
      ...ourObjects,
      ...flags,
    ]),
    answers: await answers(restored),
  })

  it('are made, with all that they were but their passwords, and nothing else is', async () => {
    const before = await rolesOf(target)
    const report = await restoreTo('made', { create: true })
    expect(report.warnings).toEqual([])
    const wanted = [...Object.values(hostile), 'top'].sort()
    expect(report.roles.created).toEqual(wanted)
    const golden = (await rolesOf(source, wanted)).map((role) => ({ ...role, has_password: false }))
    expect(await rolesOf(target, wanted)).toEqual(golden)
    const untouched = (await rolesOf(target)).filter(({ rolname }) => !wanted.includes(String(rolname)))
    // The first grant of a parameter writes down what its owner has anyway.
    const plain = (roles: typeof before) => roles.map(({ parameters: _, ...role }) => role)
    expect(plain(untouched)).toEqual(plain(before))
    expect(await compare(subject.url, target.url('made'), unordered)).toEqual({
      differences: [],
      answers: await answers(subject.url),
    })
    expect(report.roles.notes).toEqual([
      expect.stringContaining('made 8 roles without passwords'),
      `role ${hostile.group} had members that were not made so again: bystander`,
    ])
    // Those that are there are taken as they are.
    const again = await restoreTo('again', { create: true })
    expect(again).toMatchObject({ warnings: [], roles: { created: [], notes: [] } })
  })

  it.each(['new', 'empty'])('are removed again when a restore into a database that is %s fails', async (kind) => {
    await once(target.url(), 'create database empty')
    const before = await rolesOf(target)
    const stop = new AbortController()
    const failing = subject.restoreInto(
      { conninfo: resolveConninfo(target.url(), {}), database: kind },
      { kind: 'latest' },
      {
        roles: { create: true },
        signal: stop.signal,
        onProgress: async ({ phase }) => {
          if (phase === 'proof') stop.abort()
        },
      },
    )
    await expect(failing).rejects.toMatchObject({ code: 'interrupted' })
    expect(await rolesOf(target)).toEqual(before)
  })

  it('are others, where they are told to be', async () => {
    for (const sql of rolesSql(major, others)) await once(target.url(), sql)
    await once(target.url(), 'create database wanted')
    for (const sql of schemaSql('wanted', others)) await once(target.url('wanted'), sql)
    const before = await rolesOf(target)
    const map = new Map(Object.keys(hostile).map((key) => [hostile[key as keyof Cast], others[key as keyof Cast]]))
    const report = await restoreTo('mapped', { map })
    expect(report.warnings).toEqual([])
    expect(await rolesOf(target)).toEqual(before)
    // Rows, and what is only text in an expression, are not changed.
    const flags = ['--ignore-object', '^policy app.t.several$|^"app"."who"$']
    expect(await compare(target.url('wanted'), target.url('mapped'), flags)).toEqual({
      differences: [],
      answers: await answers(target.url('wanted')),
    })
    const policies = await once<{ roles: string[] }>(
      target.url('mapped'),
      `select polroles::regrole[]::text[] as roles from pg_policy where polname = 'several'`,
    )
    expect(policies[0]?.roles.sort()).toEqual([quoteIdent(others.owner), quoteIdent(others.reader), 'postgres'].sort())
  })

  it('may be fewer: two in whose place one is put, which is made like the first', async () => {
    const map = new Map([
      [hostile.reader, 'both'],
      [hostile.mapped, 'both'],
    ])
    const report = await restoreTo('fewer', { map, create: true })
    expect(report.warnings).toEqual([])
    expect(report.roles.created).toEqual(
      ['both', 'top', ...Object.values(hostile).filter((name) => !map.has(name))].sort(),
    )
    const [both] = await rolesOf(target, ['both'])
    expect(both).toMatchObject({
      rolcanlogin: true,
      settings: [expect.stringContaining('search_path'), 'work_mem=7MB'],
    })
    const [policy] = await once<{ roles: string[] }>(
      target.url('fewer'),
      `select polroles::regrole[]::text[] as roles from pg_policy where polname = 'one'`,
    )
    expect(policy?.roles).toEqual(['"both"'])
  })

  it('are left out as asked: everything is whose who restores', async () => {
    const report = await restoreTo('plain', { noOwner: true, noPrivileges: true })
    expect(report.roles.notes).toEqual([
      expect.stringMatching(/^everything belongs to postgres: left out as asked: \d+ owners$/),
      expect.stringMatching(/^nobody else was granted anything: left out as asked: \d+ statements about rights$/),
    ])
    // What is neither an owner nor a right is still reported.
    expect(report.warnings.join('\n').replace(/\(--[^)]*\)/g, '')).not.toMatch(/owner|grant/)
    expect(report.warnings.length).toBeGreaterThan(0)
    const flags = ['--no-owner', '--no-acl', '--ignore-object', '^policy ']
    expect((await compare(subject.url, target.url('plain'), flags)).differences).toEqual([])
    const rights = `select count(*)::int as n from (select relowner as o, relacl as a from pg_class union all select proowner, proacl from pg_proc union all select typowner, typacl from pg_type
      union all select srvowner, srvacl from pg_foreign_server union all select lomowner, lomacl from pg_largeobject_metadata union all select datdba, datacl from pg_database where datname = current_database()
      union all select defaclrole, defaclacl from pg_default_acl) x where o <> 10`
    expect(await once(target.url('plain'), rights)).toEqual([{ n: 0 }])
    expect(
      await once(target.url('plain'), `select relname from pg_class where oid >= 16384 and relacl is not null`),
    ).toEqual([])
  })

  it('that are missing are reported once each, with what is lost and what helps', async () => {
    await once(target.url(), `create role ${quoteIdent(hostile.owner)} superuser`)
    const report = await restoreTo('less')
    const missing = Object.values(hostile).filter(
      (name) => name !== hostile.owner && name !== hostile.becomes && name !== hostile.group,
    )
    expect(report.warnings).toHaveLength(missing.length)
    for (const name of missing) {
      expect(report.warnings).toContainEqual(
        expect.stringMatching(/^the target has no role .*; left out for it: .* \(--create-roles makes it, --map-role/s),
      )
      expect(report.warnings.filter((line) => line.startsWith(`the target has no role ${name}; `))).toHaveLength(1)
    }
    const reader = report.warnings.find((line) => line.includes(` ${hostile.reader}; `))
    expect(reader).toContain('owner of 1 object')
    expect(reader).toMatch(/\d+ grants, .*1 policy/)
    expect(reader).toContain('1 default privilege')
    expect(report.warnings.find((line) => line.includes(` ${hostile.granter}; `))).toMatch(/grantor 3 times/)
    const [policy] = await once<{ roles: string[] }>(
      target.url('less'),
      `select polroles::regrole[]::text[] as roles from pg_policy where polname = 'several'`,
    )
    expect(policy?.roles.sort()).toEqual([quoteIdent(hostile.owner), 'postgres'])
  })

  it('are given by one who is no superuser as far as that goes', async () => {
    await once(target.url(), `create role restorer login createdb createrole`)
    await once(
      source.url(),
      `create role "Boss" superuser login; create role plain connection limit 4 noinherit; create role beyond; grant beyond to plain`,
    )
    await using simple = await Subject.start(source)
    await simple.sql(
      `create schema theirs authorization plain; create table theirs.t (id int primary key); alter table theirs.t owner to plain; insert into theirs.t values (1)`,
      `create schema "Boss" authorization "Boss"; create table "Boss".b (id int); alter table "Boss".b owner to "Boss"; grant select on "Boss".b to plain`,
    )
    const archive = await simple.open()
    await archive.base()
    await archive.catchUp()
    const url = new URL(target.url())
    url.username = 'restorer'
    const report = await simple.restoreInto(
      { conninfo: resolveConninfo(url.href, {}), database: 'simple' },
      { kind: 'latest' },
      { roles: { create: true, map: new Map([['postgres', 'restorer']]) } },
    )
    expect(report.roles.created).toEqual(['Boss', 'beyond', 'plain'])
    const ofTemplate = / owner of 1 object \(must be owner of schema public\)$/
    expect(report.warnings.filter((line) => !ofTemplate.test(line))).toEqual([
      expect.stringMatching(/^role Boss was made without SUPERUSER \(/),
    ])
    expect((await compare(simple.url, target.url('simple'))).differences).toEqual([])
    // What was lent for the restore is taken back: only the right to administer what was made stays, as 16 and newer give it.
    const lent = await once<{ inherits: boolean }>(
      target.url('simple'),
      `select pg_has_role('restorer', rolname, 'usage') as inherits from pg_roles where rolname in ('Boss', 'plain', 'beyond')`,
    )
    expect(lent.map(({ inherits }) => inherits)).toEqual([false, false, false])
    expect(
      (await rolesOf(target, ['plain'])).map(({ memberships, rolconnlimit, rolinherit }) => ({
        memberships: (memberships as unknown[][]).map(([role]) => role),
        rolconnlimit,
        rolinherit,
      })),
    ).toEqual([{ memberships: ['beyond'], rolconnlimit: 4, rolinherit: false }])
    await once(target.url(), `create role powerless login createdb`)
    url.username = 'powerless'
    const refused = simple.restoreInto(
      { conninfo: resolveConninfo(url.href, {}), database: 'refused' },
      { kind: 'latest' },
      { roles: { create: true, map: new Map([['plain', 'new one']]) } },
    )
    await expect(refused).rejects.toMatchObject({
      code: 'prerequisite',
      message: expect.stringContaining('cannot make role new one'),
    })
    // Without being told to, they are left out, with one line for each role and the server's reason.
    const reduced = await simple.restoreInto({ conninfo: resolveConninfo(url.href, {}), database: 'reduced' })
    expect(reduced.warnings.every((line) => line.startsWith('left out for role '))).toBe(true)
    expect(reduced.warnings.length).toBeLessThanOrEqual(3)
  })

  it('that rows name are made too, or it is said what is missing', async () => {
    await using naming = await Subject.start(source)
    await naming.sql(
      `create table who (id int primary key, r regrole, a aclitem[])`,
      `insert into who values (1, 'bystander', array['top=r/bystander']::aclitem[])`,
    )
    const archive = await naming.open()
    await archive.base()
    await archive.catchUp()
    const destination = { conninfo: resolveConninfo(target.url(), {}), database: 'naming' }
    await expect(naming.restoreInto(destination)).rejects.toMatchObject({
      code: 'prerequisite',
      message: 'a row names a role that the target lacks: role "bystander" does not exist',
      hint: expect.stringContaining('--create-roles'),
    })
    const report = await naming.restoreInto(destination, { kind: 'latest' }, { roles: { create: true } })
    expect(report.roles.created).toContain('bystander')
    expect((await compare(naming.url, target.url('naming'))).differences).toEqual([])
  })

  it.runIf(major === 18)('show in the plan, and obey the command line', async () => {
    await using folder = { path: subject.opened.folder, [Symbol.asyncDispose]: async () => undefined }
    const run = (...args: string[]) =>
      here(['restore', '--repo', subject.opened.folder, '--to', 'latest', '--into-url', target.url('asked'), ...args], {
        cwd: folder.path,
      })
    const plan = await run('--plan')
    expect(plan.exit).toBe(0)
    expect(plan.stdout).toMatch(
      /^ {2}roles {6}the server lacks .*O'Brien "x" é.*: what is theirs is left out\n {13}\(see --create-roles/m,
    )
    const made = JSON.parse((await run('--plan', '--json', '--create-roles', '-O')).stdout) as {
      roles: { create: string[]; missing: string[] }
    }
    expect(made.roles.missing).toEqual([])
    expect(made.roles.create).toContain(hostile.reader)
    const away = await here(
      [
        'restore',
        '--repo',
        subject.opened.folder,
        '--to',
        'latest',
        '--into-url',
        'postgres://127.0.0.1:1/x',
        '--plan',
      ],
      { cwd: folder.path },
    )
    expect(away).toMatchObject({ exit: 0, stdout: expect.stringMatching(/^ {2}server {5}not looked at: /m) })
    const unknown = await run('--map-role', 'becoms=x')
    expect(unknown.exit).toBe(2)
    const far = await run('--map-role', `"${hostile.reader}"=postgre`)
    expect(far).toMatchObject({
      exit: 30,
      stderr: expect.stringContaining('hint: did you mean postgres? make it first'),
    })
    expect(await run('--map-role', 'postgres')).toMatchObject({ exit: 2, stderr: expect.stringContaining('OLD=NEW') })
    expect(await run('--map-role', 'a=b', '--map-role', 'a=c')).toMatchObject({ exit: 2 })
    const quiet = await run('--yes', '--no-owner', '--no-privileges', '--create-roles')
    expect(quiet).toMatchObject({ exit: 0, stderr: expect.stringContaining('everything belongs to postgres: ') })
    const names = Object.values(hostile).filter((name) => name !== hostile.becomes && name !== hostile.group)
    const maps = names.flatMap((name) => ['--map-role', `${name.includes('=') ? quoteIdent(name) : name}=postgres`])
    const mapped = await here(
      [
        'restore',
        '--repo',
        subject.opened.folder,
        '--to',
        'latest',
        '--into-url',
        target.url('mapped'),
        '--yes',
        '--json',
        ...maps,
      ],
      { cwd: folder.path },
    )
    expect(JSON.parse(mapped.stdout.trim().split('\n').at(-1) ?? '')).toMatchObject({
      type: 'summary',
      roles: { created: [] },
    })
  })
})

it.each([
  { from: 14, to: 18, lost: [] },
  {
    from: 18,
    to: 14,
    lost: [
      /^role UPPER case=1, 2 was made without SET of parameter log_min_duration_statement \(/,
      /^role select is no member of top: it was one without SET and INHERIT, which this server cannot say$/,
    ],
  },
] as const)('roles of $from are made on $to as far as that can say it', async ({ from, to, lost }) => {
  const source = serverOf('source', from)
  const target = serverOf('target', to)
  const reader = await open(source.url())
  const inCast = (role: Role): boolean => [...Object.values(hostile), 'top'].includes(role.name)
  const recorded = (await readRoles(reader).finally(() => reader.end())).filter(inCast)
  const maker = await open(target.url())
  const roles = await Roles.open(maker, recorded, { create: true })
  const names = recorded.map(({ name }) => name)
  await roles.provide(maker, new Set(names)).finally(() => maker.end())
  expect(roles.warnings()).toEqual(lost.map((line) => expect.stringMatching(line)))
  const common = async (server: EmbeddedServer) =>
    (await rolesOf(server, names)).map(({ memberships, parameters: _, has_password: __, ...role }) => ({
      ...role,
      groups: ((memberships ?? []) as [string, string, boolean][])
        .map(([group, , admin]) => `${group} ${admin}`)
        .filter((group) => from < to || !(role['rolname'] === 'select' && group.startsWith('top'))),
    }))
  expect(await common(target)).toEqual(await common(source))
})

describe('which roles are made', () => {
  const role = (name: string, more: Partial<Role> = {}): Role => ({
    name,
    superuser: false,
    inherit: true,
    createRole: false,
    createDatabase: false,
    login: false,
    replication: false,
    bypassRls: false,
    connectionLimit: -1,
    validUntil: null,
    memberOf: [],
    settings: [],
    comment: null,
    securityLabels: [],
    parameterGrants: [],
    ...more,
  })
  const recorded = [
    role('app', { memberOf: ['group'], settings: ['role=acts', 'work_mem=1MB'] }),
    role('group', { memberOf: ['top'] }),
    role('top', { memberOf: ['pg_monitor'] }),
    role('acts'),
    role('other', { memberOf: ['app'] }),
  ]
  const plan = (named: string[], there: string[], options: RoleOptions) => {
    const { missing, create } = planRoles(recorded, new Set(named), new Set(['pg_monitor', ...there]), options)
    return {
      missing,
      create: [...create].map(([name, { name: like }]) => (name === like ? name : `${name} like ${like}`)),
    }
  }

  it('are those that are named, and what they are members of or become', () => {
    expect(plan(['app'], [], { create: true })).toEqual({ missing: [], create: ['app', 'group', 'acts', 'top'] })
    expect(plan(['app'], ['group'], { create: true })).toEqual({ missing: [], create: ['app', 'acts'] })
    expect(plan(['app', 'unknown'], ['app'], { create: true })).toEqual({ missing: ['unknown'], create: [] })
    expect(plan(['app', 'top'], ['top'], {})).toEqual({ missing: ['app'], create: [] })
  })

  it('are those that are put in their place, where there is none', () => {
    const map = new Map([['app', 'new']])
    expect(plan(['app'], ['new'], { map })).toEqual({ missing: [], create: [] })
    expect(plan(['app'], [], { map, create: true }).create).toEqual(['new like app', 'group', 'acts', 'top'])
    expect(plan(['app'], [], { map: new Map([['app', 'acts']]), create: true }).create).toEqual(['acts'])
  })

  it('are known by the names of their groups alone in bases of walback 0.1', () => {
    const { memberships: _, comment: __, securityLabels: ___, parameterGrants: ____, ...old } = role('old')
    const read = roleShape.parse({ ...old, memberOf: ['group'] })
    expect(read).toMatchObject({ comment: null, securityLabels: [], parameterGrants: [] })
    expect(membershipsOf(read)).toEqual([{ role: 'group', grantor: null, admin: false, inherit: null, set: null }])
  })

  it('are refused where the map cannot be meant', () => {
    const attempt = (map: [string, string][], options: RoleOptions = {}): unknown => {
      try {
        return plan(['app', 'named'], ['there'], { ...options, map: new Map(map) })
      } catch (error) {
        return error
      }
    }
    expect(attempt([['ap', 'there']])).toMatchObject({ code: 'usage', hint: 'did you mean app?' })
    expect(attempt([['something else', 'there']])).toMatchObject({
      code: 'usage',
      hint: expect.stringContaining('acts, app'),
    })
    expect(attempt([['app', 'ther']])).toMatchObject({
      code: 'prerequisite',
      hint: expect.stringContaining('did you mean there?'),
    })
    expect(attempt([['named', 'there']])).not.toBeInstanceOf(Error)
    expect(attempt([['app', 'ther']], { create: true })).not.toBeInstanceOf(Error)
  })
})
