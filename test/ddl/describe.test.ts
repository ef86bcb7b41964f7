import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { splitStatements } from '../../src/postgres/split-sql.ts'
import { schemaFor } from '../postgres/schema-dump-schema.ts'
import { everyKindOfObject, hostileNames } from '../restore/schemas.ts'
import { majors, packageOf } from '../support/majors.ts'
import { describeAll, dumped, openDatabase, unlike, versionOf } from './described.ts'
import { roles } from './mutations.ts'

const texts = async (sql: string): Promise<string[]> => (await splitStatements(sql)).map(({ text }) => text)

describe.each(majors)('describe on PostgreSQL %i', (major) => {
  let server: EmbeddedServer
  let client: pg.Client
  beforeAll(async () => {
    server = await startEmbedded({ package: packageOf(major), settings: { fsync: 'off' } })
    const admin = new pg.Client(server.url())
    await admin.connect()
    for (const role of roles) await admin.query(`create role ${pg.escapeIdentifier(role)}`)
    await admin.end()
    client = await openDatabase(server, 'plain', [])
  })
  afterAll(async () => {
    await client.end()
    await server[Symbol.asyncDispose]()
  })

  const state = async (catalog: string, object: string): Promise<Record<string, unknown> | null> => {
    const { rows } = await client.query(`select walback.describe('${catalog}'::regclass, ${object}) as state`)
    return rows[0].state
  }

  test.each([
    ['every kind of object, hostile names', [hostileNames, everyKindOfObject(major)]],
    ['what a dump must carry over', [schemaFor(major)]],
  ])('%s: the same after a dump and a restore', async (name, schemas) => {
    const statements = (await Promise.all(schemas.map(texts))).flat()
    const database = `d${name.length}`
    await using clients = new Clients()
    const original = clients.add(await openDatabase(server, database, statements))
    const copy = clients.add(await openDatabase(server, `${database}_copy`, await dumped(original, server)))
    const [want, have] = [await describeAll(original), await describeAll(copy)]
    const version = await versionOf(original)
    expect(want.size).toBeGreaterThan(100)
    expect(unlike(want, have, { source: version, target: version })).toEqual({})
    // Whatever the session is like.
    await original.query(`set search_path = app, shop, "select", public; set datestyle = 'German'; set intervalstyle = iso_8601;
      set timezone = 'Asia/Tokyo'; set extra_float_digits = 0; set bytea_output = escape; set quote_all_identifiers = off;
      set standard_conforming_strings = off; set lc_monetary = 'C'; set xmlbinary = hex; set array_nulls = off; set row_security = off`)
    expect([...(await describeAll(original))]).toEqual([...want])
  })

  test('what has no definition of its own, is gone, is temporary or ours is NULL', async () => {
    await client.query(`create table here (id int primary key, t text); create temp table passing (id int primary key);
      create function pg_temp.f() returns int language sql as 'select 1'; create type pg_temp.y as enum ('a'); create table walback.ours (id int primary key)`)
    const nothing = [
      ['pg_class', '4000000000'],
      ['pg_type', '4000000000'],
      ['pg_proc', '4000000000'],
      ['pg_publication_rel', '4000000000'],
      ['pg_class', `'passing'::regclass`],
      ['pg_class', `'passing_pkey'::regclass`],
      ['pg_type', `'pg_temp.y'::regtype`],
      ['pg_proc', `'pg_temp.f'::regproc`],
      ['pg_constraint', `(select oid from pg_constraint where conname = 'passing_pkey')`],
      ['pg_namespace', `pg_my_temp_schema()`],
      ['pg_class', `'walback.ours'::regclass`],
      ['pg_constraint', `(select oid from pg_constraint where conname = 'ours_pkey')`],
      ['pg_proc', `'walback.describe'::regproc`],
      ['pg_namespace', `'walback'::regnamespace`],
      ['pg_class', `(select reltoastrelid from pg_class where relname = 'here')`],
      ['pg_type', `'here'::regtype`],
      ['pg_type', `'here[]'::regtype`],
    ]
    for (const [catalog = '', object = ''] of nothing)
      expect([object, await state(catalog, object)]).toEqual([object, null])
    expect(await state('pg_class', `'here'::regclass`)).toMatchObject({ kind: 'table', name: 'here' })
  })

  test('what older rows have in a column that was added without a rewrite is told as text', async () => {
    const columns: readonly [string, string][] = [
      ['int', '-7'],
      ['text', `'it''s "q" \\ {a,b} NULL'`],
      ['text', `''`],
      ['text', `'NULL'`],
      ['text', `' {" '`],
      ['box', `'(2,2),(1,1)'`],
      ['box[]', `'{(2,2),(1,1);(4,4),(3,3)}'`],
      ['int[]', `'[0:2]={1,NULL,3}'`],
      ['text[]', `'{"a\\"b\\\\c",NULL,"NULL"}'`],
      ['timestamptz', 'now()'],
      ['interval', `'1 year 2 days -3 s'`],
      ['bytea', `'\\x00ff'`],
      ['float8', `0.30000000000000004`],
      ['money', `'1234.5'`],
      ['tsrange', `'[2020-01-01, 2021-01-01)'`],
      ['json', `'{"a": ["\\\\"]}'`],
    ]
    await client.query('create table fast (id int); insert into fast values (1)')
    for (const [place, [type, value]] of columns.entries())
      await client.query(`alter table fast add column c${place} ${type} default ${value}`)
    const told = (await state('pg_class', `'fast'::regclass`))?.['columns'] as { name: string; missing?: string }[]
    expect(told.slice(1).map(({ missing }) => missing)).not.toContain(undefined)
    for (const [place, [type]] of columns.entries()) {
      const { rows } = await client.query(
        `select c${place}::text = ($1::text::${type})::text as same, $1 as told, c${place}::text as value from fast`,
        [told[place + 1]?.missing],
      )
      expect(rows).toMatchObject([{ same: true }])
    }
  })

  test('reads by index, locks no more than ACCESS SHARE, calls nothing of the user, needs no right', async () => {
    await client.query(`create function boom(int) returns int language plpgsql immutable as $$ begin raise 'called'; end $$;
      create table busy (a int default boom(1) check (boom(a) > 0), b int, c int generated always as (boom(b)) stored, unique (a));
      create index on busy (boom(b)) where boom(a) > 1; create table part (a int) partition by range (a); create view over_busy as select boom(a) from busy;
      create policy p on busy using (boom(a) > 1 and exists (select from part)); comment on column busy.a is 'a';
      create rule r as on insert to busy where boom(new.a) > 1 do also select 1; grant usage on schema walback to alice`)
    const named = await client.query(
      `select string_agg(format('walback.describe(''pg_class''::regclass, %s)', oid), ', ') as calls from pg_class where relname in ('busy', 'part', 'over_busy', 'busy_a_key')`,
    )
    const scans = async (): Promise<Map<string, string>> => {
      // The question itself is not to be among what it counts.
      await client.query('set local enable_seqscan = off')
      const { rows } = await client.query(
        `select relname, seq_scan from pg_stat_xact_all_tables where schemaname = 'pg_catalog'`,
      )
      await client.query('set local enable_seqscan = on')
      return new Map(rows.map((row) => [row.relname, row.seq_scan]))
    }
    await client.query('begin')
    const before = await scans()
    await client.query('set local role alice')
    const states = await client.query<unknown[]>({ text: `select ${named.rows[0].calls}`, rowMode: 'array' })
    expect(states.rows[0]).not.toContain(null)
    await client.query('reset role')
    expect([...(await scans())].filter(([name, count]) => count !== (before.get(name) ?? '0'))).toEqual([])
    const locks = await client.query(
      `select distinct mode from pg_locks where pid = pg_backend_pid() and locktype = 'relation'`,
    )
    expect(locks.rows).toEqual([{ mode: 'AccessShareLock' }])
    await client.query('rollback')
  })

  test('says that a snapshot of a transaction may be older than the catalogs', async () => {
    await client.query('create table aged (id int)')
    const other = new pg.Client(server.url('plain'))
    await other.connect()
    for (const level of ['repeatable read', 'serializable']) {
      await client.query(`begin isolation level ${level}`)
      await client.query('select 1')
      await other.query('alter table aged add column late int')
      expect(await state('pg_class', `'aged'::regclass`)).toMatchObject({ stale: true })
      await client.query('commit')
      expect(await state('pg_class', `'aged'::regclass`)).not.toHaveProperty('stale')
      await other.query('alter table aged drop column late')
    }
    await other.end()
  })
})

class Clients implements AsyncDisposable {
  private readonly clients: pg.Client[] = []
  add(client: pg.Client): pg.Client {
    this.clients.push(client)
    return client
  }
  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.clients) await client.end()
  }
}
