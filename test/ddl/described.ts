/** All objects of a database as `describe` sees them, and what makes those of one database those of another. */
import pg from 'pg'
import { codeOf, messageOf } from '../../src/base/errors.ts'
import type { ObjectState } from '../../src/model/ddl-message.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { describeSql } from '../../src/postgres/describe-sql.ts'
import type { EmbeddedServer } from '../../src/postgres/embedded.ts'
import { rowSessionSql } from '../../src/postgres/row-session.ts'
import { dumpSchema } from '../../src/postgres/schema-dump.ts'
import { splitStatements } from '../../src/postgres/split-sql.ts'
import { repairSql, sameState, stateDifferences } from '../../src/restore/repair.ts'

export interface Described {
  readonly class: string
  readonly type: string
  readonly identity: string
  readonly state: ObjectState
}
export type Objects = ReadonlyMap<string, Described>

export interface Versions {
  readonly source: number
  readonly target: number
}

/** What belongs to a relation or domain is in its state too. */
const parts = ['pg_trigger', 'pg_rewrite', 'pg_policy', 'pg_constraint', 'pg_attrdef', 'pg_statistic_ext']
export const isPart = (object: Described): boolean => parts.includes(object.class) || object.state['kind'] === 'index'

const catalogs = [
  'pg_namespace',
  'pg_extension',
  'pg_class',
  'pg_type',
  'pg_proc',
  'pg_operator',
  'pg_opfamily',
  'pg_opclass',
  'pg_cast',
  'pg_collation',
  'pg_conversion',
  'pg_language',
  'pg_transform',
  'pg_am',
  'pg_ts_parser',
  'pg_ts_template',
  'pg_ts_dict',
  'pg_ts_config',
  'pg_foreign_data_wrapper',
  'pg_foreign_server',
  'pg_user_mapping',
  'pg_publication',
  'pg_event_trigger',
  'pg_default_acl',
  ...parts,
]

/** What commands name; where there is no such name, what the server calls it. */
const keyOf = ({ class: catalog, type, identity, state }: Described): string =>
  `${catalog} ${typeof state['target'] === 'string' ? state['target'] : `${type} ${identity}`}`

/** A database of its own with the functions that describe, the connection's to close. */
export async function openDatabase(server: EmbeddedServer, name: string, sql: readonly string[]): Promise<pg.Client> {
  const admin = new pg.Client(server.url())
  await admin.connect()
  await admin.query(`create database ${name} template template0`)
  await admin.end()
  const client = new pg.Client(server.url(name))
  client.on('error', () => undefined)
  await client.connect()
  for (const statement of sql) {
    await client.query(statement).catch((error: Error) => {
      throw new Error(`${error.message}\nin: ${statement}`)
    })
  }
  await client.query(`create schema if not exists walback; ${describeSql}`)
  return client
}

/** A dump's statements, in which walback's schema is not. */
export async function dumped(client: pg.Client, server: EmbeddedServer): Promise<string[]> {
  await client.query('begin isolation level repeatable read')
  const { rows } = await client.query<{ snapshot: string }>('select pg_export_snapshot() as snapshot')
  const dump = await dumpSchema(resolveConninfo(server.url(client.database), {}), {
    snapshot: rows[0]?.snapshot ?? '',
    serverVersion: await versionOf(client),
    excludeSchemas: ['walback'],
    lockTimeout_ms: 5000,
    prefer: 'builtin',
  })
  await client.query('commit')
  const statements = [...(await splitStatements(dump.preData)), ...(await splitStatements(dump.postData))]
  return statements.map(({ text }) => text)
}

export async function versionOf(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ v: number }>(`select current_setting('server_version_num')::int as v`)
  return rows[0]?.v ?? 0
}

/** What belongs to a relation is in its description too, so that either can be looked at without the other. */
export type Which = 'all' | 'wholes' | 'parts'

/** The user's objects, and the schema public; those that extensions made are left out, and what comes with types. */
export async function describeAll(client: pg.Client, which: Which = 'all'): Promise<Objects> {
  const queries = catalogs
    .filter((catalog) => which === 'all' || catalog === 'pg_class' || (which === 'parts') === parts.includes(catalog))
    .map(
      (catalog) => `
      SELECT '${catalog}' AS class, i.type, i.identity, d.state
      FROM pg_catalog.${catalog} t, LATERAL walback.describe('pg_catalog.${catalog}'::regclass, t.oid) d (state),
        pg_catalog.pg_identify_object('pg_catalog.${catalog}'::regclass, t.oid, 0) i
      WHERE (t.oid >= 16384 OR '${catalog}' = 'pg_namespace' AND i.identity = 'public') AND d.state IS NOT NULL
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.${catalog}'::regclass AND e.objid = t.oid
          AND e.deptype IN ('e', ${['pg_proc', 'pg_cast'].includes(catalog) ? `'i'` : 'NULL'}))`,
    )
  const { rows } = await client.query<Described>(queries.join(' UNION ALL '))
  const asked = rows.filter((row) => which === 'all' || isPart(row) === (which === 'parts'))
  return new Map(asked.map((row) => [keyOf(row), row]))
}

/** What differs, by object. */
export function unlike(want: Objects, have: Objects, versions: Versions): Record<string, string[]> {
  const found: Record<string, string[]> = {}
  for (const key of new Set([...want.keys(), ...have.keys()])) {
    const lines = stateDifferences(want.get(key)?.state ?? null, have.get(key)?.state ?? null, versions)
    if (lines.length > 0 && !isNewerName(have.get(key), versions)) found[key] = lines
  }
  return found
}

/** NOT NULL is an object from 18 on: no command of an older source names one, so nobody asks for it. */
const isNewerName = (have: Described | undefined, { source, target }: Versions): boolean =>
  source < 180_000 && target >= 180_000 && have?.state['type'] === 'not null'

export interface Mended {
  readonly statements: string[]
  readonly unresolved: string[]
  /** What the server refused in the last round. */
  readonly refused: string[]
  /** What differs then. */
  readonly left: Record<string, string[]>
}

/** Repairs what differs, inside a transaction, as often as that changes something: what one needs, another makes. */
export async function mend(
  client: pg.Client,
  want: Objects,
  versions: Versions,
  which: Which = 'all',
): Promise<Mended> {
  const statements: string[] = []
  await client.query(`${rowSessionSql}; SET standard_conforming_strings = on`)
  for (let round = 1; ; round++) {
    const have = await describeAll(client, which)
    const [unresolved, refused]: [string[], string[]] = [[], []]
    const done = statements.length
    const different = [...new Set([...want.keys(), ...have.keys()])].flatMap((key) => {
      const states = { want: want.get(key)?.state ?? null, have: have.get(key)?.state ?? null }
      const object = want.get(key) ?? have.get(key)
      const isSame = sameState(states.want, states.have, versions) || isNewerName(have.get(key), versions)
      return isSame || object === undefined ? [] : [{ object, states }]
    })
    // What is part of another comes with it, or is looked at when that is right.
    const wholes = different.filter(({ object }) => !isPart(object))
    for (const { object, states } of wholes.length > 0 ? wholes : different) {
      const repair = repairSql(states.want, states.have, { ...object, schema: null }, versions)
      unresolved.push(...repair.unresolved)
      for (const sql of repair.statements) {
        const refusal = await attempt(client, sql)
        if (refusal === undefined) statements.push(sql)
        else refused.push(`${sql} -- ${refusal}`)
      }
    }
    if (statements.length === done || round === 10)
      return { statements, unresolved, refused, left: unlike(want, have, versions) }
  }
}

/** Why the server refused a statement, which is undone then; undefined if it did not. */
async function attempt(client: pg.Client, sql: string): Promise<string | undefined> {
  await client.query('SAVEPOINT one')
  try {
    await client.query(sql)
    await client.query('RELEASE one')
    return undefined
  } catch (error) {
    if (codeOf(error) === undefined) throw error
    await client.query('ROLLBACK TO one; RELEASE one')
    return messageOf(error)
  }
}
