import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { ObjectState } from '../../src/model/ddl-message.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { splitStatements } from '../../src/postgres/split-sql.ts'
import { repairSql, sameState, stateDifferences } from '../../src/restore/repair.ts'
import { schemaFor } from '../postgres/schema-dump-schema.ts'
import { everyKindOfObject, hostileNames } from '../restore/schemas.ts'
import { majors, packageOf } from '../support/majors.ts'
import { describeAll, dumped, isPart, mend, type Objects, openDatabase, unlike, versionOf } from './described.ts'
import { changesOfParts, mutableSchema, mutations, roles } from './mutations.ts'

const texts = async (...schemas: string[]): Promise<string[]> =>
  (await Promise.all(schemas.map(splitStatements))).flat().map(({ text }) => text)

async function start(major: number): Promise<EmbeddedServer> {
  const server = await startEmbedded({ package: packageOf(major), settings: { fsync: 'off' } })
  const admin = new pg.Client(server.url())
  await admin.connect()
  for (const role of roles) await admin.query(`create role ${pg.escapeIdentifier(role)}`)
  await admin.end()
  return server
}

/** Nothing left, nothing to be said. */
const right = { unresolved: [], refused: [], left: {} }

/** Runs in a transaction that is undone. */
async function undone<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query('begin')
  try {
    return await work()
  } finally {
    await client.query('rollback')
  }
}

describe.each(majors)('repair on PostgreSQL %i', (major) => {
  let server: EmbeddedServer
  let [source, target]: pg.Client[] = []
  let versions = { source: 0, target: 0 }
  const clients = (): { source: pg.Client; target: pg.Client } => {
    if (source === undefined || target === undefined) throw new Error('not started')
    return { source, target }
  }
  beforeAll(async () => {
    server = await start(major)
    source = await openDatabase(server, 'original', [mutableSchema])
    target = await openDatabase(server, 'copy', [mutableSchema])
    const version = await versionOf(source)
    versions = { source: version, target: version }
  })
  afterAll(async () => {
    await source?.end()
    await target?.end()
    await server[Symbol.asyncDispose]()
  })

  test('each object that is dropped is made again, with all it had and all that went with it', async () => {
    const { target } = clients()
    const want = await describeAll(target)
    let dropped = 0
    for (const [key, { class: catalog, state }] of want) {
      const isPart = ['pg_constraint', 'pg_trigger', 'pg_rewrite', 'pg_policy'].includes(catalog)
      const goesAlong =
        state['constraint'] !== undefined || state['identityOf'] !== undefined || state['parent'] !== undefined
      if (typeof state['target'] !== 'string' || isPart || goesAlong || key === 'pg_namespace SCHEMA "public"') continue
      const result = await undone(target, async () => {
        await target.query(`drop ${state['target']} ${catalog === 'pg_user_mapping' ? '' : 'cascade'}`)
        return { key, ...(await mend(target, want, versions)) }
      })
      // A dropped type takes columns along, which come back at the end.
      const { left } = result
      for (const name of Object.keys(left)) {
        const isTold = result.unresolved.some((line) => line.includes('the order of its columns'))
        if (isTold && left[name]?.every((line) => /in another order|definition: CREATE STATISTICS/.test(line)))
          delete left[name]
      }
      expect({ key, refused: result.refused, left }).toEqual({ key, refused: [], left: {} })
      dropped++
    }
    expect(dropped).toBeGreaterThan(35)
  })

  test('each of many changes is caught up with', async () => {
    const { source, target } = clients()
    for (const sql of mutations(major)) {
      const want = await undone(source, async () => {
        await source.query(sql)
        return describeAll(source, 'wholes')
      })
      const result = await undone(target, () => mend(target, want, versions, 'wholes'))
      expect(result.statements, sql).not.toEqual([])
      expect({ sql, ...result }).toEqual({ sql, statements: result.statements, ...right })
    }
  })

  test('a trigger, a constraint, an index, … is caught up with by itself', async () => {
    const { source, target } = clients()
    for (const sql of changesOfParts) {
      const want = await undone(source, async () => {
        await source.query(sql)
        return describeAll(source)
      })
      const parts = new Map([...want].filter(([, object]) => isPart(object)))
      const result = await undone(target, async () => ({
        ...(await mend(target, parts, versions, 'parts')),
        left: unlike(want, await describeAll(target), versions),
      }))
      expect(result.statements, sql).not.toEqual([])
      expect({ sql, ...result }).toEqual({ sql, statements: result.statements, ...right })
    }
  })

  test('whole databases are made from the states of their objects', async () => {
    for (const [name, schemas] of Object.entries({
      kinds: [hostileNames, everyKindOfObject(major)],
      rich: [schemaFor(major)],
    })) {
      const original = await openDatabase(server, name, await texts(...schemas))
      const empty = await openDatabase(server, `${name}_empty`, [])
      try {
        const want = await describeAll(original)
        const { unresolved, refused, left } = await undone(empty, () => mend(empty, want, versions))
        expect({ name, unresolved, refused, left }).toEqual({ name, ...right })
      } finally {
        await original.end()
        await empty.end()
      }
    }
  })

  test('rows get the values that the source has in a column that the command added, and only then', async () => {
    const { source, target } = clients()
    for (const client of [source, target])
      await client.query(`create table m.filled (id int); insert into m.filled values (1), (2)`)
    const object = { class: 'pg_class', type: 'table', schema: 'm', identity: 'm.filled' }
    const state = async (client: pg.Client): Promise<ObjectState> =>
      (await client.query(`select walback.describe('pg_class'::regclass, 'm.filled'::regclass) as state`)).rows[0].state
    const values = async (client: pg.Client): Promise<unknown> =>
      (await client.query(`select row_to_json(f)::text as row from m.filled f order by id`)).rows
    const command = `alter table m.filled add column at timestamptz default clock_timestamp(), add column who text default 'it''s \\ ' || now()`
    const stable = command.replace('clock_timestamp()', 'now()')
    const before = await state(target)
    await source.query(stable)
    await target.query(stable)
    expect(await values(target)).not.toEqual(await values(source))
    const [want, have] = [await state(source), await state(target)]
    // Nobody who does not know what was there before may touch rows.
    expect(repairSql(want, have, object, versions)).toEqual({ statements: [], unresolved: [], lost: [] })
    expect(sameState(want, have, versions)).toBe(true)
    expect(sameState(want, have, versions, before)).toBe(false)
    const repair = repairSql(want, have, object, versions, before)
    expect(repair).toMatchObject({ statements: [expect.stringMatching(/^UPDATE ONLY/)], unresolved: [] })
    for (const sql of repair.statements) await target.query(sql)
    expect(await values(target)).toEqual(await values(source))
    // The next command finds columns that are no news, however they began.
    const later = await state(target)
    for (const client of [source, target]) await client.query('alter table m.filled add column n int default 7')
    expect(repairSql(await state(source), await state(target), object, versions, later)).toEqual({
      statements: [],
      unresolved: [],
      lost: [],
    })
    // A column that is not there at all is made with the values that its rows have.
    await target.query('alter table m.filled drop column n, drop column who, drop column at')
    const again = repairSql(await state(source), await state(target), object, versions)
    expect(again.unresolved).toEqual([])
    for (const sql of again.statements) await target.query(sql)
    expect(await values(target)).toEqual(await values(source))
    expect(stateDifferences(await state(source), await state(target), versions)).toEqual([])
    for (const client of [source, target]) await client.query('drop table m.filled')
  })

  test('what statements cannot bring back is told by name', async () => {
    const { target } = clients()
    const told = async (make: string, change: string, kind = 'table'): Promise<unknown> =>
      undone(target, async () => {
        const look = async (): Promise<ObjectState | null> =>
          [...(await describeAll(target)).values()].find(({ identity }) => identity === 'm.x')?.state ?? null
        await target.query(
          `${make}; alter table if exists m.x replica identity full`.replace(kind === 'table' ? /$^/ : /; alter.*/, ''),
        )
        const have = await look()
        await target.query(change)
        const want = await look()
        return repairSql(want, have, { class: 'pg_class', type: kind, schema: 'm', identity: 'm.x' }, versions)
      })
    const filled = `create table m.x (a int, b int, c int); insert into m.x values (1, 2, 3)`
    const line = (text: string) => [expect.stringContaining(`m.x: ${text}`)]
    expect(await told(filled, 'alter table m.x drop column c; alter table m.x add column d int')).toMatchObject({
      unresolved: line('column "d" was added, without the values that its rows had'),
      lost: line('column "d" was added, without the values that its rows had'),
    })
    expect(await told(filled, 'alter table m.x rename column b to d')).toMatchObject({
      statements: [expect.stringContaining('RENAME COLUMN "b" TO "d"')],
      unresolved: [],
    })
    expect(await told(filled, 'alter table m.x alter column b type text')).toMatchObject({
      unresolved: line('values of column "b" were cast from integer to "text"'),
    })
    expect(
      await told(filled, 'alter table m.x drop column a; alter table m.x add column a int default 1'),
    ).toMatchObject({
      unresolved: line('the order of its columns'),
      lost: [],
    })
    expect(
      await told(filled, 'drop table m.x; create view m.x as select 1 as a; comment on view m.x is null'),
    ).toMatchObject({
      statements: [],
      unresolved: line('it is a table and should be a view'),
    })
    expect(
      await told(`create type m.x as enum ('a', 'b')`, `drop type m.x; create type m.x as enum ('b')`, 'type'),
    ).toMatchObject({ statements: [], unresolved: line('its labels are') })
    expect(
      await told('create domain m.x as int', 'drop domain m.x; create domain m.x as bigint', 'domain'),
    ).toMatchObject({ statements: [], unresolved: line('it is a domain over integer and should be over bigint') })
  })
})

describe('repair across majors', () => {
  const [oldest = 0, newest = 0] = [majors[0], majors.at(-1)]

  test(`states of ${oldest} are the same on ${newest}, and make what a dump makes there`, async () => {
    await using from = await start(oldest)
    await using to = await start(newest)
    for (const [name, schemas] of Object.entries({
      kinds: [hostileNames, everyKindOfObject(oldest), mutableSchema, viewsOfOneTable],
      rich: [schemaFor(oldest)],
    })) {
      const original = await openDatabase(from, name, await texts(...schemas))
      // A dump takes its time; one will do.
      const restored = await openDatabase(to, name, name === 'kinds' ? await dumped(original, from) : [])
      const empty = await openDatabase(to, `${name}_empty`, [])
      try {
        const versions = { source: await versionOf(original), target: await versionOf(restored) }
        const want = await asOn(restored, await describeAll(original))
        if (name === 'kinds')
          await undone(restored, async () =>
            expect(await mend(restored, want, versions)).toEqual({ statements: [], ...right }),
          )
        const { unresolved, refused, left } = await undone(empty, () => mend(empty, want, versions))
        expect({ name, unresolved, refused, left }).toEqual({ name, ...right })
      } finally {
        for (const client of [original, restored, empty]) await client.end()
      }
    }
  })

  test('a view that differs is no other spelling', () => {
    const state = (definition: string): ObjectState => ({
      kind: 'view',
      target: 'VIEW "v"',
      schema: 's',
      name: 'v',
      columns: [],
      definition,
    })
    const same = (a: string, b: string, versions = { source: 140000, target: 180000 }): boolean =>
      sameState(state(a), state(b), versions)
    const before = ` SELECT "t"."a",\n    "t"."b" AS "x"\n   FROM "s"."t"\n  WHERE ("t"."a" > 'FROM "u", "t".'::"text");`
    const since = ` SELECT "a",\n    "b" AS "x"\n   FROM "s"."t"\n  WHERE ("a" > 'FROM "u", "t".'::"text");`
    expect(same(before, since)).toBe(true)
    expect(same(before, since, { source: 160000, target: 180000 })).toBe(false)
    expect(same(before, since.replace('"a" >', '"b" >'))).toBe(false)
    expect(same(before, since.replace(`'::"text"`, ` '::"text"`))).toBe(false)
    expect(same(` SELECT "t"."a" FROM ("t" JOIN "u" ON true);`, ` SELECT "a" FROM ("t" JOIN "u" ON true);`)).toBe(false)
    expect(same(` SELECT "x"."a" FROM "t" "x";`, ` SELECT "a" FROM "t" "x";`)).toBe(true)
    expect(same(` SELECT "x"."a" FROM "t" "x";`, ` SELECT "a" FROM "t" "y";`)).toBe(false)
  })

  test('what was seen by an old snapshot changes nothing, and what cannot be read is told', () => {
    const versions = { source: 180000, target: 180000 }
    const table = {
      kind: 'table',
      target: 'TABLE "s"."t"',
      schema: 's',
      name: 't',
      owner: 'o',
      columns: [{ name: 'a', type: 'integer' }],
    }
    const object = { class: 'pg_class', type: 'table', schema: 's', identity: 's.t' }
    const stale = { ...table, columns: [], stale: true }
    expect(repairSql(stale, table, object, versions)).toEqual({
      statements: [],
      unresolved: [expect.stringContaining('table s.t: it differs, but')],
      lost: [],
    })
    expect(repairSql({ ...table, stale: true }, table, object, versions)).toEqual({
      statements: [],
      unresolved: [],
      lost: [],
    })
    expect(repairSql({ ...table, columns: 5 }, null, object, versions).unresolved).toEqual([
      expect.stringContaining('table s.t: what was recorded of it cannot be read'),
      expect.stringContaining('without the rows'),
    ])
    expect(repairSql(null, table, object, versions).statements).toEqual(['DROP TABLE "s"."t"'])
    expect(repairSql(null, null, object, versions)).toEqual({ statements: [], unresolved: [], lost: [] })
    // A column that the command itself adds: what its rows have is the default, or in the stream.
    const wider = { ...table, columns: [...table.columns, { name: 'b', type: 'integer' }] }
    expect(repairSql(wider, table, object, versions).lost).toHaveLength(1)
    expect(repairSql(wider, table, object, versions, wider).lost).toHaveLength(1)
    expect(repairSql(wider, table, object, versions, table).lost).toEqual([])
    const made = repairSql(table, null, { ...object, tag: 'CREATE TABLE AS' }, versions)
    expect(made).toMatchObject({
      statements: [expect.stringMatching(/^CREATE TABLE/), 'ALTER TABLE "s"."t" OWNER TO "o"'],
      unresolved: [],
    })
  })
})

const viewsOfOneTable = `
  create view m.one as select a.id as x, (select max(b.id) from m.ref b where b.t = a.id) from m.apart a where a.name is distinct from 'x' group by a.id having count(*) > 0 order by a.id;
  create view m.function as select g.n from generate_series(1, 3) with ordinality g(n, o);
  create view m.nested as select s.id from (select id, name from m.apart union all select id, v from m.ref) s where s.id > 1 limit 3;
  create view m.several as select a.id, r.v from m.apart a, m.ref r; create view m.united as select id from m.apart union select id from m.ref;
  create view m.withs as with w as (select id from m.apart) select w.id from w; create view m.sample as select id from only m.apart tablesample system (10) for update;
  create materialized view m.kept as select t.n, row_number() over (partition by t.n) from m.t t window w as (order by t.n) with no data;
  create view m.updated as select t.* from m.t t; create rule r as on insert to m.updated do instead insert into m.apart (id) values (new.id) returning apart.id, name, 1, null::m.mood, 1, 1, now()`

/** Each server has its own versions of extensions, and from 15 on another owner of the schema public. */
async function asOn(client: pg.Client, want: Objects): Promise<Objects> {
  const objects = new Map(want)
  const { rows } = await client.query<{ name: string; version: string }>(
    'select name, default_version as version from pg_available_extensions',
  )
  const version = new Map(rows.map((row) => [row.name, row.version]))
  for (const [key, object] of want) {
    if (object.class !== 'pg_extension') continue
    objects.set(key, { ...object, state: { ...object.state, version: version.get(String(object.state['name'])) } })
  }
  const schema = 'pg_namespace SCHEMA "public"'
  const own = (await describeAll(client, 'wholes')).get(schema)
  if (own !== undefined) objects.set(schema, own)
  return objects
}
