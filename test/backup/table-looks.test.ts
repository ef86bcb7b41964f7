import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { readTableLooks, type TableLook } from '../../src/postgres/table-looks.ts'
import { majors, packageOf } from '../support/majors.ts'

/** What is done to a table, and what its look says of rows that were read before. */
const changes: readonly (readonly [string, 'same' | 'other'])[] = [
  ['insert into t values (2); update t set n = n + 1; delete from t where n = 2', 'same'],
  ['vacuum t', 'same'],
  ['analyze t', 'same'],
  ['create index on t (n)', 'same'],
  ['create table unrelated (n int, m mood)', 'same'],
  ['truncate t', 'other'],
  ['alter table t add column more int; alter table t drop column more', 'other'],
  ['alter table t alter column n type int using n + 1', 'other'],
  ['alter table t rename to u; alter table u rename to t', 'other'],
  [`alter type mood rename value 'well' to 'fine'`, 'other'],
  [`alter type pair add attribute c int`, 'other'],
  ['alter publication p drop table t; alter publication p add table t', 'other'],
  ['vacuum full t', 'other'],
]

/** Tables of which the stream does not bring earlier rows to a later snapshot. */
const unfollowed = ['bare', 'names', 'inserts', 'arrays_of_names']

describe.each(majors)('on PostgreSQL %i', (major) => {
  let server: EmbeddedServer
  let client: pg.Client
  beforeAll(async () => {
    server = await startEmbedded({ package: packageOf(major) })
    client = new pg.Client({ connectionString: server.url() })
    await client.connect()
    await client.query(`
      create type mood as enum ('well', 'ill');
      create type pair as (a mood[], b int);
      create domain pairs as pair[];
      create table t (n int, o mood, p pairs);
    alter table t replica identity full;
      create unlogged table bare (n int);
      create table names (n int, r regclass);
      create type named as (r regproc[]);
      create table arrays_of_names (n named[]);
      create table inserts (n int);
      create publication p for table t, names, arrays_of_names;
      create publication i for table inserts with (publish = 'insert')`)
  })
  afterAll(async () => {
    await client?.end()
    await server?.[Symbol.asyncDispose]()
  })

  async function look(): Promise<{ readonly looks: Map<string, TableLook> }> {
    const read = await readTableLooks(client, ['p', 'i'])
    const { rows } = await client.query<{ oid: string; name: string }>(
      `select oid::text as oid, relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'`,
    )
    return { looks: new Map(rows.map(({ oid, name }) => [name, read.get(Number(oid)) as TableLook])) }
  }

  it('says which tables the stream brings to a later snapshot', async () => {
    const { looks } = await look()
    for (const [name, { isFollowed }] of looks) expect([name, isFollowed]).toEqual([name, !unfollowed.includes(name)])
  })

  it.each(changes)('%s: %s', async (sql, expected) => {
    const before = (await look()).looks.get('t')?.stamp
    for (const statement of sql.split('; ')) await client.query(statement)
    const after = (await look()).looks.get('t')?.stamp
    expect(after === before ? 'same' : 'other').toBe(expected)
    const { rows } = await client.query<{ oid: number }>(`select 't'::regclass::oid::int as oid`)
    const alone = await readTableLooks(client, ['p', 'i'], [rows[0]?.oid ?? 0])
    expect([...alone.values()].map(({ stamp }) => stamp)).toEqual([after])
  })
})
