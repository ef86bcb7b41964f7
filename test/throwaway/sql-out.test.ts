import pg from 'pg'
import { expect, it } from 'vitest'
import { everything } from '../../src/model/selection.ts'
import { copyIn } from '../../src/postgres/copy.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { selectTables } from '../../src/restore/selected.ts'
import { type SqlOutOptions, writeSql } from '../../src/throwaway/sql-out.ts'
import { openStage } from '../../src/throwaway/stage.ts'
import { packages, Subject } from '../restore/round-trip.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { ourObjects } from '../support/walback.ts'

const schema = [
  'create extension if not exists plpgsql',
  `create type mood as enum ('fine', 'bad "one"')`,
  'create domain even as int check (value % 2 = 0)',
  'create schema "s;\n--x"',
  'create table a (id serial primary key, m mood, e even, t text collate "C", twice int generated always as (id * 2) stored)',
  `insert into a (m, e, t) values ('fine', 2, E'a\\tb\\n\\\\.\\n'), ('bad "one"', null, null), (null, 4, '')`,
  'create table "s;\n--x"."t""\n;" (a int references a, "b\nc" text[])',
  `insert into "s;\n--x"."t""\n;" values (1, '{x,NULL,"NULL"}'), (2, null)`,
  'create table p (k int, v text) partition by list (k)',
  'create table p1 partition of p for values in (1)',
  'create table p2 partition of p default',
  `insert into p values (1, 'one'), (2, 'two')`,
  'create table none ()',
  'insert into none default values',
  'create sequence alone start 7 increment -3 maxvalue 100',
  `select nextval('alone')`,
  'create view v as select id, t from a',
  'create materialized view m as select count(*) from a',
  'create materialized view empty as select 1 as one with no data',
  `create function f(x int) returns int language plpgsql as $$ begin return x; -- ;\nend $$`,
  `create function t() returns trigger language plpgsql as 'begin return new; end'`,
  'create trigger tr before insert on a for each row execute function t()',
  'create index on a (t)',
  'create table child (id int, of int)',
  'create table parent (id int primary key)',
  'insert into child values (1, 7); insert into parent values (7)',
  'alter table child add foreign key (of) references parent',
  `comment on table a is 'it''s; a -- comment'`,
  `select lo_from_bytea(4711, decode(repeat('00ff5c', 2000), 'hex'))`,
]

/** Runs a dump as psql would. */
async function load(url: string, dump: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query('begin')
    for (let rest = dump; rest !== ''; ) {
      const copy = /^COPY (?:[^;"]|"(?:[^"]|"")*")* FROM stdin;\n/m.exec(rest)
      const sql = copy === null ? rest : rest.slice(0, copy.index)
      if (sql.trim() !== '') await client.query(sql)
      if (copy === null) break
      const rows = rest.slice(copy.index + copy[0].length)
      const end = rows.startsWith('\\.\n') ? 0 : rows.indexOf('\n\\.\n') + 1
      await copyIn(client, copy[0], [Buffer.from(rows.slice(0, end))])
      rest = rows.slice(end + 3)
    }
    await client.query('commit')
  } finally {
    await client.end()
  }
}

it('writes a past as SQL that gives the same database', async () => {
  await using subject = await Subject.start(packages[18])
  await subject.sql(...schema)
  const archive = await subject.open()
  await archive.base()
  await subject.sql(
    `insert into a (m, t) values ('fine', 'later')`,
    'alter table a add late int default 5',
    'delete from p where k = 2',
    'refresh materialized view m',
  )
  const golden = await fingerprint(subject.url)
  await archive.catchUp()
  const { repository, source } = subject.opened
  const plan = await planRestore(repository, source, { kind: 'latest' })
  await using stage = await openStage([plan])
  const dump = async (selected: typeof plan, how: SqlOutOptions = {}): Promise<string> => {
    const pieces: string[] = []
    const past = await stage.bringBack(repository, selected, { jobs: 1 })
    await writeSql(past, { part: async () => async (piece) => void pieces.push(String(piece)) }, how)
    return pieces.join('')
  }
  const text = await dump(plan)
  await subject.sql('create database loaded', 'create database few')
  await load(subject.server.url('loaded'), text)
  const found = differences(golden, await fingerprint(subject.server.url('loaded')), ourObjects)
  expect(found).toEqual([])
  // Rows alone, into a database that has the schema.
  const schemaOnly = await dump(await selectTables(repository, plan, { ...everything, rows: false }))
  await subject.sql('create database in_two')
  await load(subject.server.url('in_two'), schemaOnly)
  await load(subject.server.url('in_two'), await dump(plan, { dataOnly: true }))
  expect(differences(golden, await fingerprint(subject.server.url('in_two')), ourObjects)).toEqual([])
  const some = await dump(await selectTables(repository, plan, { ...everything, tables: ['p'] }))
  await load(subject.server.url('few'), some)
  const loaded = await fingerprint(subject.server.url('few'))
  expect(Object.keys(loaded.rows).sort()).toEqual(['"public"."p1"', '"public"."p2"', 'large objects'])
  for (const name of ['"public"."p1"', '"public"."p2"']) expect(loaded.rows[name]).toBe(golden.rows[name])
  expect(loaded.rows['large objects']).toMatch(/^0 /)
})
