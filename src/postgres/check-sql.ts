import type pg from 'pg'
import type { NotCarried, QualifiedName } from '../model/catalog.ts'
import { eventTriggers } from './ddl-capture-sql.ts'

/** Reads what `check` looks at in the catalogs, in a session with an empty search_path; needs no right but to connect. */

/** Something in the database that a restore may not give back as it is. What `detail` says depends on the kind. */
export interface ObjectOfNote {
  readonly kind: ObjectKind
  /** Its name, quoted for SQL where it is one. */
  readonly object: string
  readonly detail: string | null
}

const isUsers = `n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'walback')`
const isMember = (catalog: string, oid: string): string =>
  `EXISTS (SELECT FROM pg_depend x WHERE x.classid = '${catalog}'::regclass AND x.objid = ${oid} AND x.deptype = 'e')`
const usersRelations = `FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE ${isUsers} AND c.oid >= 16384 AND NOT ${isMember('pg_class', 'c.oid')}`
const relation = `format('%I.%I', n.nspname, c.relname)`

/** Functions of the user's that expressions of a catalog's rows call, also as operators; with what calls them. */
const calledFunctions = (catalog: 'pg_attrdef' | 'pg_class' | 'pg_constraint'): string => `
    SELECT d.classid AS catalog, d.objid AS caller, d.objsubid AS part, p.oid AS function FROM pg_depend d JOIN pg_proc p ON p.oid = d.refobjid
      WHERE d.classid = '${catalog}'::regclass AND d.refclassid = 'pg_proc'::regclass AND p.oid >= 16384
        AND NOT ${isMember('pg_proc', 'p.oid')}
    UNION SELECT d.classid, d.objid, d.objsubid, o.oprcode FROM pg_depend d JOIN pg_operator o ON o.oid = d.refobjid
      WHERE d.classid = '${catalog}'::regclass AND d.refclassid = 'pg_operator'::regclass AND o.oid >= 16384
        AND NOT ${isMember('pg_operator', 'o.oid')}`

const owners = [
  ['pg_class', 'relowner', `t.relkind NOT IN ('i', 'I', 't')`],
  ['pg_proc', 'proowner'],
  ['pg_namespace', 'nspowner'],
  ['pg_type', 'typowner', `t.typrelid = 0 AND t.typelem = 0`],
  ['pg_operator', 'oprowner'],
] as const

/** By kind, a query of (object, detail). */
const queries = {
  'unlogged-table': `SELECT ${relation}, NULL ${usersRelations} AND c.relkind = 'r' AND c.relpersistence = 'u'`,
  // How many.
  'large-objects': `SELECT 'large objects', count(*)::text FROM pg_largeobject_metadata HAVING count(*) > 0`,
  'materialized-view': `SELECT ${relation}, NULL ${usersRelations} AND c.relkind = 'm' AND c.relispopulated`,
  // Its server.
  'foreign-table': `SELECT ${relation}, (SELECT s.srvname FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid)
    ${usersRelations} AND c.relkind = 'f'`,
  subscription: `SELECT format('%I', subname), NULL FROM pg_subscription
    WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`,
  'own-event-trigger': `SELECT format('%I', evtname), NULL FROM pg_event_trigger t
    WHERE evtname NOT LIKE 'walback\\_%' AND NOT ${isMember('pg_event_trigger', 't.oid')}`,
  // The provider, and how many.
  'security-label': `SELECT provider, count(*)::text FROM pg_seclabel GROUP BY provider`,
  // How many relations lie in it; of the database, null.
  tablespace: `SELECT format('%I', s.spcname), count(*)::text FROM pg_class c JOIN pg_tablespace s ON s.oid = c.reltablespace
      JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE ${isUsers} AND c.relpersistence <> 't' GROUP BY s.spcname
    UNION ALL SELECT format('%I', s.spcname), NULL FROM pg_database d JOIN pg_tablespace s ON s.oid = d.dattablespace
      WHERE d.datname = current_database() AND s.spcname <> 'pg_default'`,
  // Its version.
  extension: `SELECT format('%I', extname), extversion FROM pg_extension WHERE extname <> 'plpgsql'`,
  // The recorded and the present version.
  'collation-version': `SELECT format('%I.%I', n.nspname, c.collname), c.collversion || ' -> ' || pg_collation_actual_version(c.oid)
    FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
    WHERE c.collversion <> pg_collation_actual_version(c.oid)
      AND EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_collation'::regclass AND d.refobjid = c.oid)`,
  'invalid-index': `SELECT ${relation}, NULL ${usersRelations} AND c.relkind = 'i'
    AND EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = c.oid AND NOT i.indisvalid)
    AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index b WHERE b.index_relid = c.oid)`,
  'hash-of-enum': `SELECT ${relation}, NULL ${usersRelations} AND c.relkind = 'p'
    AND EXISTS (SELECT FROM pg_partitioned_table p JOIN pg_opclass o ON o.oid = ANY (p.partclass) JOIN pg_am m ON m.oid = o.opcmethod
      WHERE p.partrelid = c.oid AND p.partstrat = 'h' AND o.opcname = 'enum_ops' AND m.amname = 'hash')`,
  // What it is: table, view, event trigger, …
  'reserved-name': `SELECT ${relation}, CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' ELSE 'table' END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'walback' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    UNION ALL SELECT format('%I', evtname), 'event trigger' FROM pg_event_trigger
      WHERE evtname LIKE 'walback\\_%' AND evtname NOT IN (${eventTriggers.map((name) => `'${name}'`).join(', ')})`,
  // The function.
  'generated-by-function': `SELECT DISTINCT ${relation} || '.' || quote_ident(a.attname), f.function::regprocedure::text
    FROM (${calledFunctions('pg_attrdef')} UNION ${calledFunctions('pg_class')}) f
      -- Up to 14 it is the column that depends on the function, from 15 on its expression.
      JOIN pg_attrdef e ON (f.catalog, f.caller) = ('pg_attrdef'::regclass, e.oid) OR (f.catalog, f.caller, f.part) = ('pg_class'::regclass, e.adrelid, e.adnum)
      JOIN pg_attribute a ON a.attrelid = e.adrelid AND a.attnum = e.adnum AND a.attgenerated = 's'
      JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${isUsers}`,
  'check-by-function': `SELECT DISTINCT (CASE WHEN k.conrelid <> 0 THEN k.conrelid::regclass::text ELSE k.contypid::regtype::text END) || '.' || quote_ident(k.conname), f.function::regprocedure::text
    FROM (${calledFunctions('pg_constraint')}) f JOIN pg_constraint k ON k.oid = f.caller AND k.contype = 'c'
      JOIN pg_proc p ON p.oid = f.function AND p.provolatile <> 'i'`,
  'rows-hidden': `SELECT ${relation}, NULL ${usersRelations} AND c.relkind = 'r' AND c.relrowsecurity AND row_security_active(c.oid)`,
  // The schema, where the role may not even use that.
  'table-unreadable': `SELECT ${relation}, CASE WHEN NOT has_schema_privilege(n.oid, 'USAGE') THEN quote_ident(n.nspname) END
    ${usersRelations} AND c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
    AND NOT (has_schema_privilege(n.oid, 'USAGE') AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END)`,
  // The id of the role.
  'owner-missing': owners
    .map(
      ([catalog, column, also]) =>
        `SELECT (pg_identify_object('${catalog}'::regclass, t.oid, 0)).identity, t.${column}::text FROM ${catalog} t
         WHERE ${also ?? 'true'} AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = t.${column})`,
    )
    .join(' UNION ALL '),
  // The roles that own something here or were granted something.
  role: `SELECT 'roles', string_agg(DISTINCT r.rolname, ', ' ORDER BY r.rolname) FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
    WHERE d.refclassid = 'pg_authid'::regclass AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND r.rolname NOT LIKE 'pg\\_%' HAVING count(*) > 0`,
} as const satisfies Readonly<Record<string, string>>

export type ObjectKind = keyof typeof queries

export async function readObjectsOfNote(client: pg.Client, serverVersion: number): Promise<ObjectOfNote[]> {
  const parts = Object.entries(queries).map(
    ([kind, query]) => `SELECT '${kind}' AS kind, q.object, q.detail FROM (${query}) q (object, detail)`,
  )
  // The version of the database's own collation is recorded since 15.
  if (serverVersion >= 150000) {
    parts.push(`SELECT 'collation-version', 'database', datcollversion || ' -> ' || pg_database_collation_actual_version(oid)
      FROM pg_database WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid)`)
  }
  const { rows } = await client.query<ObjectOfNote>(`${parts.join('\nUNION ALL ')}\nORDER BY 1, 2`)
  return rows
}

/** What a base's manifest says of what neither the stream nor a restore carries. */
export async function readNotCarried(client: pg.Client): Promise<NotCarried> {
  const unlogged = await client.query<QualifiedName>(
    `SELECT n.nspname AS schema, c.relname AS name ${usersRelations} AND c.relkind = 'r' AND c.relpersistence = 'u' ORDER BY 1, 2`,
  )
  const { rows } = await client.query<Pick<NotCarried, 'subscriptions' | 'tablespaces'>>(`
    SELECT ARRAY(SELECT subname::text FROM pg_subscription
        WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1) AS subscriptions,
      ARRAY(SELECT DISTINCT s.spcname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_tablespace s ON s.oid = c.reltablespace WHERE ${isUsers} AND c.relpersistence <> 't' ORDER BY 1) AS tablespaces`)
  return {
    unlogged: unlogged.rows,
    subscriptions: rows[0]?.subscriptions ?? [],
    tablespaces: rows[0]?.tablespaces ?? [],
  }
}
