/** All objects of a database as `describe` sees them, and what makes those of one database those of another. */
import type pg from 'pg'
import { codeOf, messageOf } from '../../src/base/errors.ts'
import type { ObjectState } from '../../src/model/ddl-message.ts'
import { rowSessionSql } from '../../src/postgres/row-session.ts'
import { repairSql, sameState, stateDifferences } from '../../src/restore/repair.ts'

export interface Described {
  readonly class: string
  readonly type: string
  readonly identity: string
  readonly state: ObjectState
}

/** What belongs to a relation or domain is in its state too; only for some tests it counts by itself. */
const parts = ['pg_trigger', 'pg_rewrite', 'pg_policy', 'pg_constraint', 'pg_attrdef', 'pg_statistic_ext']

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

const keyOf = ({ type, identity }: Described): string => `${type} ${identity}`
const isPart = (object: Described): boolean => parts.includes(object.class) || object.state['kind'] === 'index'

/** The user's objects, by what the server calls them, those that extensions made left out. */
export async function describeAll(client: pg.Client): Promise<Map<string, Described>> {
  const queries = catalogs.map(
    (catalog) => `
      SELECT '${catalog}' AS class, i.type, i.identity, d.state
      FROM pg_catalog.${catalog} t, LATERAL walback.describe('pg_catalog.${catalog}'::regclass, t.oid) d (state),
        pg_catalog.pg_identify_object('pg_catalog.${catalog}'::regclass, t.oid, 0) i
      WHERE (t.oid >= 16384 OR '${catalog}' = 'pg_namespace' AND i.identity = 'public') AND d.state IS NOT NULL
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.${catalog}'::regclass AND e.objid = t.oid AND e.deptype = 'e'
          OR e.classid = 'pg_catalog.${catalog}'::regclass AND e.objid = t.oid AND e.deptype = 'i' AND '${catalog}' IN ('pg_proc', 'pg_cast'))`,
  )
  const { rows } = await client.query<Described>(queries.join(' UNION ALL '))
  if (process.env.NN) rows.splice(0, rows.length, ...rows.filter((r) => r.state['type'] !== 'not null'))
  return new Map(rows.map((row) => [keyOf(row), row]))
}

/** Names of objects that are not alike, each with what differs. */
export function unlike(
  want: ReadonlyMap<string, Described>,
  have: ReadonlyMap<string, Described>,
  versions: { source: number; target: number },
): Record<string, string[]> {
  const found: Record<string, string[]> = {}
  for (const key of new Set([...want.keys(), ...have.keys()])) {
    const lines = stateDifferences(want.get(key)?.state ?? null, have.get(key)?.state ?? null, versions)
    if (lines.length > 0) found[key] = lines
  }
  return found
}

export interface Mended {
  readonly statements: string[]
  readonly unresolved: string[]
  /** Refusals of the last round. */
  readonly refused: string[]
}

/** Repairs what differs, as often as a round changes something, since what one needs another makes. */
export async function mend(
  client: pg.Client,
  want: ReadonlyMap<string, Described>,
  versions: { source: number; target: number },
  before?: ReadonlyMap<string, Described>,
): Promise<Mended> {
  const statements: string[] = []
  const unresolved = new Set<string>()
  let refused: string[] = []
  await client.query(`${rowSessionSql}; SET standard_conforming_strings = on`)
  for (let round = 0; round < 8; round++) {
    const have = await describeAll(client)
    const keys = [...new Set([...want.keys(), ...have.keys()])]
    const different = keys.filter(
      (key) =>
        !sameState(
          want.get(key)?.state ?? null,
          have.get(key)?.state ?? null,
          versions,
          round === 0 ? before?.get(key)?.state : undefined,
        ),
    )
    refused = []
    unresolved.clear()
    if (different.length === 0) break
    let done = 0
    const objects = different.flatMap((key) => want.get(key) ?? have.get(key) ?? [])
    // What is part of another comes with it, or is looked at when that is right.
    const wholes = objects.filter((object) => !isPart(object))
    for (const object of wholes.length > 0 ? wholes : objects) {
      const key = keyOf(object)
      const [wanted, had] = [want.get(key)?.state ?? null, have.get(key)?.state ?? null]
      const named = { class: object.class, type: object.type, schema: null, identity: object.identity }
      const repair = repairSql(wanted, had, named, versions, before?.get(key)?.state)
      for (const line of repair.unresolved) unresolved.add(line)
      for (const sql of repair.statements) {
        await client.query('SAVEPOINT one')
        try {
          await client.query(sql)
          statements.push(sql)
          done++
        } catch (error) {
          await client.query('ROLLBACK TO one')
          if (codeOf(error) === undefined) throw error
          refused.push(`${sql} -- ${messageOf(error)}`)
        }
        await client.query('RELEASE one')
      }
    }
    if (done === 0) break
  }
  return { statements, unresolved: [...unresolved], refused }
}
