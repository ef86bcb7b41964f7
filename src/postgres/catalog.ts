import type pg from 'pg'
import type { DatabaseProperties, LargeObject, QualifiedName, Role, Sequence, Table } from '../model/catalog.ts'
import { qualified } from '../model/identifier.ts'

/** Reads of the catalogs, under whatever snapshot the session has. */

const isUsers = `n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'walback')`
/** What an extension made itself is made again by CREATE EXTENSION. Tables and sequences that it has marked as its configuration hold the user's data all the same. */
const isExtensions = (oid: string): string =>
  `EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.classid = 'pg_catalog.pg_class'::regclass AND x.objid = ${oid} AND x.deptype = 'e')`
const isConfiguration = (oid: string): string =>
  `EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE ${oid} = ANY (e.extconfig))`
const isDumped = (oid: string): string => `(NOT ${isExtensions(oid)} OR ${isConfiguration(oid)})`

/** Of a partition `c`: the topmost parent, if one of the parents divides by the hash of an enum (as pg_dump's getPartitioningInfo asks). */
export const rootByEnumHash = `
  SELECT json_build_object('schema', rn.nspname, 'name', r.relname) AS via
  FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
  WHERE r.oid = pg_catalog.pg_partition_root(c.oid) AND EXISTS (
    SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = a.relid
    WHERE (SELECT o.oid FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod
           WHERE o.opcname = 'enum_ops' AND o.opcnamespace = 'pg_catalog'::regnamespace AND m.amname = 'hash') = ANY (p.partclass))`

/** Tables with rows of their own: ordinary ones and leaves of partitioned ones, logged or not. */
export async function readTables(client: pg.Client): Promise<Table[]> {
  type Row = Omit<Table, 'oid' | 'pages' | 'columns' | 'types' | 'extension' | 'via'> & {
    oid: string
    pages: string
    columns: string
    types: string
    condition: string | null
    via: QualifiedName | null
  }
  const { rows } = await client.query<Row>(`
    SELECT c.oid::text AS oid, n.nspname AS schema, c.relname AS name,
      (pg_catalog.pg_relation_size(c.oid) / 8192)::text AS pages, k.columns, k.types, e.condition, v.via
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      CROSS JOIN LATERAL (SELECT COALESCE(pg_catalog.json_agg(a.attname ORDER BY a.attnum)::text, '[]') AS columns,
          COALESCE(pg_catalog.json_agg(a.atttypid::bigint::text || '.' || a.atttypmod ORDER BY a.attnum)::text, '[]') AS types
        FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') k
      LEFT JOIN LATERAL (SELECT x.extcondition[pg_catalog.array_position(x.extconfig, c.oid)] AS condition
        FROM pg_catalog.pg_extension x WHERE c.oid = ANY (x.extconfig)) e ON true
      LEFT JOIN LATERAL (${rootByEnumHash}) v ON c.relispartition
    WHERE c.relkind = 'r' AND c.relpersistence IN ('p', 'u') AND ${isUsers} AND ${isDumped('c.oid')}
    ORDER BY c.oid`)
  // Where tables are many, many are alike: equal lists are one in memory.
  const lists = new Map<string, string[]>()
  const listOf = (json: string): string[] => {
    const list = lists.get(json) ?? (JSON.parse(json) as string[])
    lists.set(json, list)
    return list
  }
  return rows.map(({ condition, via, columns, types, ...row }) => ({
    ...row,
    columns: listOf(columns),
    types: listOf(types),
    oid: Number(row.oid),
    pages: Number(row.pages),
    ...(condition === null ? {} : { extension: { condition } }),
    ...(via === null ? {} : { via }),
  }))
}

/** Tables that the stream may name though no base holds rows of them: partitioned ones, and what extensions keep for themselves. */
export async function readTablesWithoutRows(client: pg.Client): Promise<number[]> {
  const { rows } = await client.query<{ oid: string }>(`
    SELECT c.oid::text AS oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE ${isUsers} AND (c.relkind = 'p' OR c.relkind = 'r' AND NOT ${isDumped('c.oid')}) ORDER BY c.oid`)
  return rows.map((row) => Number(row.oid))
}

export async function readSequences(client: pg.Client): Promise<Sequence[]> {
  type Row = Omit<Sequence, 'oid' | 'last' | 'called'> & { oid: string; last: string | null }
  const { rows } = await client.query<Row>(`
    SELECT c.oid::text AS oid, n.nspname AS schema, c.relname AS name, p.last_value::text AS last,
      p.increment_by::text AS increment, p.min_value::text AS minimum, p.max_value::text AS maximum, p.cycle AS cycles,
      COALESCE((SELECT json_agg(json_build_object('schema', tn.nspname, 'table', t.relname, 'column', a.attname))
        FROM (SELECT d.refobjid AS relid, d.refobjsubid AS attnum FROM pg_catalog.pg_depend d
              WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0
              UNION
              SELECT ad.adrelid, ad.adnum FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef ad ON ad.oid = d.objid
              WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid) u
          JOIN pg_catalog.pg_class t ON t.oid = u.relid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
          JOIN pg_catalog.pg_attribute a ON a.attrelid = u.relid AND a.attnum = u.attnum), '[]') AS columns
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_sequences p ON p.schemaname = n.nspname AND p.sequencename = c.relname
    WHERE c.relkind = 'S' AND c.relpersistence IN ('p', 'u') AND ${isUsers} AND ${isDumped('c.oid')}
    ORDER BY c.oid`)
  const sequences: Sequence[] = []
  for (const { last, ...row } of rows) {
    const sequence = { ...row, oid: Number(row.oid) }
    if (last !== null) sequences.push({ ...sequence, last, called: true })
    else {
      // pg_sequences hides where a sequence stands that has not been called; the sequence itself tells.
      const own = await client.query<{ last: string; called: boolean }>(
        `SELECT last_value::text AS last, is_called AS called FROM ${qualified(row)}`,
      )
      sequences.push({ ...sequence, ...(own.rows[0] as { last: string; called: boolean }) })
    }
  }
  return sequences
}

/** Materialized views that hold rows. */
export async function readPopulatedViews(client: pg.Client): Promise<QualifiedName[]> {
  const { rows } = await client.query<QualifiedName>(`
    SELECT n.nspname AS schema, c.relname AS name
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'm' AND c.relispopulated AND ${isUsers} AND NOT ${isExtensions('c.oid')} ORDER BY c.oid`)
  return rows
}

export async function readDatabase(client: pg.Client, serverVersion: number): Promise<DatabaseProperties> {
  const provider = serverVersion >= 150000 ? 'd.datlocprovider' : `'c'`
  const locale = serverVersion >= 170000 ? 'd.datlocale' : serverVersion >= 150000 ? 'd.daticulocale' : 'NULL'
  const rules = serverVersion >= 160000 ? 'd.daticurules' : 'NULL'
  const { rows } = await client.query<DatabaseProperties>(`
    SELECT d.datname AS name, pg_catalog.pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate,
      d.datctype AS ctype, ${provider} AS provider, ${locale} AS locale, ${rules} AS "icuRules",
      pg_catalog.pg_get_userbyid(d.datdba) AS owner, d.datconnlimit AS "connectionLimit",
      pg_catalog.shobj_description(d.oid, 'pg_database') AS comment,
      COALESCE((SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase = d.oid AND s.setrole = 0), '{}') AS settings,
      COALESCE((SELECT pg_catalog.json_agg(json_build_object('role', pg_catalog.pg_get_userbyid(s.setrole), 'settings', s.setconfig) ORDER BY s.setrole)
        FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase = d.oid AND s.setrole <> 0), '[]') AS "roleSettings",
      CASE WHEN d.datacl IS NOT NULL THEN COALESCE((SELECT pg_catalog.json_agg(json_build_object('privilege', a.privilege_type, 'grantable', a.is_grantable,
          'role', CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee) END)) FROM pg_catalog.aclexplode(d.datacl) a), '[]') END AS grants
    FROM pg_catalog.pg_database d WHERE d.datname = current_database()`)
  return rows[0] as DatabaseProperties
}

/** All roles but the predefined ones, as `pg_dumpall --roles-only --no-role-passwords` has them. */
export async function readRoles(client: pg.Client): Promise<Role[]> {
  // The options of memberships are columns since 16, rights on parameters a catalog since 15.
  const { rows } = await client.query<Role>(`
    SELECT r.rolname AS name, r.rolsuper AS superuser, r.rolinherit AS inherit, r.rolcreaterole AS "createRole",
      r.rolcreatedb AS "createDatabase", r.rolcanlogin AS login, r.rolreplication AS replication,
      r.rolbypassrls AS "bypassRls", r.rolconnlimit AS "connectionLimit", r.rolvaliduntil::text AS "validUntil",
      ARRAY(SELECT DISTINCT g.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
            WHERE m.member = r.oid ORDER BY 1) AS "memberOf",
      COALESCE((SELECT pg_catalog.json_agg(json_build_object('role', g.rolname, 'grantor', o.rolname, 'admin', m.admin_option,
            'inherit', (pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean, 'set', (pg_catalog.to_jsonb(m) ->> 'set_option')::boolean)
            ORDER BY g.rolname, o.rolname)
        FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
          LEFT JOIN pg_catalog.pg_roles o ON o.oid = m.grantor WHERE m.member = r.oid), '[]') AS memberships,
      COALESCE((SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = r.oid AND s.setdatabase = 0), '{}') AS settings,
      pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment,
      COALESCE((SELECT pg_catalog.json_agg(json_build_object('provider', l.provider, 'label', l.label) ORDER BY l.provider)
        FROM pg_catalog.pg_shseclabel l WHERE l.classoid = 'pg_catalog.pg_authid'::regclass AND l.objoid = r.oid), '[]') AS "securityLabels",
      '[]'::json AS "parameterGrants"
    FROM pg_catalog.pg_roles r WHERE r.rolname NOT LIKE 'pg\\_%' ORDER BY 1`)
  const parameters = await client.query(
    `SELECT FROM pg_catalog.pg_class WHERE relname = 'pg_parameter_acl' AND relnamespace = 'pg_catalog'::regnamespace`,
  )
  if (parameters.rowCount === 0) return rows
  const grants = await client.query<{ role: string; grants: Role['parameterGrants'] }>(`
    SELECT r.rolname AS role, pg_catalog.json_agg(json_build_object('parameter', p.parname, 'privilege', a.privilege_type,
        'grantable', a.is_grantable) ORDER BY p.parname, a.privilege_type) AS grants
    FROM pg_catalog.pg_parameter_acl p CROSS JOIN LATERAL pg_catalog.aclexplode(p.paracl) a
      JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
    -- The first superuser has them anyway, and is written down with the first grant to another.
    WHERE a.grantee <> 10 GROUP BY r.rolname`)
  return rows.map((role) => ({
    ...role,
    parameterGrants: grants.rows.find((row) => row.role === role.name)?.grants ?? [],
  }))
}

export async function readLargeObjects(client: pg.Client): Promise<LargeObject[]> {
  const { rows } = await client.query<Omit<LargeObject, 'oid'> & { oid: string }>(`
    SELECT m.oid::text AS oid, pg_catalog.pg_get_userbyid(m.lomowner) AS owner, COALESCE(m.lomacl::text[], '{}') AS acl,
      pg_catalog.obj_description(m.oid, 'pg_largeobject') AS comment
    FROM pg_catalog.pg_largeobject_metadata m ORDER BY m.oid`)
  return rows.map((row) => ({ ...row, oid: Number(row.oid) }))
}

/** A query whose rows are (object, byte offset, bytes) of all large objects. */
export async function largeObjectDataSql(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ may: boolean }>(
    `SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT') AS may`,
  )
  // The table is a superuser's; others read object by object, whole.
  return rows[0]?.may
    ? 'SELECT loid, pageno::bigint * 2048, data FROM pg_catalog.pg_largeobject ORDER BY 1, 2'
    : 'SELECT oid, 0, pg_catalog.lo_get(oid) FROM pg_catalog.pg_largeobject_metadata ORDER BY 1'
}

/**
 * A fingerprint of every definition that pg_dump reads with functions that look at the catalogs as they are now and not
 * as they were in its snapshot. When it is the same before and after a dump, no DDL committed in between.
 */
export async function definitionsStamp(client: pg.Client): Promise<string> {
  const { rows: columns } = await client.query<{ list: string }>(
    `SELECT pg_catalog.string_agg('t.' || a.attname, ', ' ORDER BY a.attnum) AS list FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = 'pg_catalog.pg_class'::regclass AND a.attnum > 0 AND a.attname <> ALL ($1)`,
    [passingOfClass],
  )
  const values: Readonly<Record<string, string>> = { pg_class: `pg_catalog.md5(ROW(${columns[0]?.list})::text)` }
  const parts = watchedCatalogs.map(
    ([catalog, key, belongs]) =>
      `SELECT '${catalog}' AS k, t.${key} AS o, ${values[catalog] ?? 't.xmin::text'} AS x FROM pg_catalog.${catalog} t WHERE ${belongs ?? 'true'}`,
  )
  // Sums of hashes need no order, and it is the sorting of many that takes long.
  const { rows } = await client.query<{ stamp: string }>(
    `SELECT pg_catalog.count(*) || ' ' || pg_catalog.sum(pg_catalog.hashtextextended((k || ' ' || o || ' ' || x) COLLATE "C", 0)) AS stamp
     FROM (${parts.join(' UNION ALL ')}) s`,
  )
  return rows[0]?.stamp ?? ''
}

// Sessions that make temporary tables all the time are no reason to read the schema again.
const notTemporary = (namespace: string): string =>
  `${namespace} NOT IN (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_')`
const ofLastingRelation = (relation: string): string =>
  `${relation} IN (SELECT oid FROM pg_catalog.pg_class WHERE relpersistence <> 't')`

/** Of pg_class: TRUNCATE, CLUSTER and REFRESH give a relation another file, over and over where they are a job's; nothing else of it. */
const passingOfClass = [
  'relfilenode',
  'relpages',
  'reltuples',
  'relallvisible',
  'relallfrozen',
  'relfrozenxid',
  'relminmxid',
]

/** Catalog, the column that tells its rows apart, and which rows count: all if not said. */
const watchedCatalogs: readonly (readonly [string, string, string?])[] = [
  ['pg_namespace', 'oid', notTemporary('t.oid')],
  ['pg_class', 'oid', `t.relpersistence <> 't'`],
  ['pg_type', 'oid', notTemporary('t.typnamespace')],
  ['pg_constraint', 'oid', notTemporary('t.connamespace')],
  ['pg_attrdef', 'oid', ofLastingRelation('t.adrelid')],
  ['pg_rewrite', 'oid', ofLastingRelation('t.ev_class')],
  ['pg_trigger', 'oid', ofLastingRelation('t.tgrelid')],
  ['pg_index', 'indexrelid', ofLastingRelation('t.indrelid')],
  ['pg_inherits', 'inhrelid', ofLastingRelation('t.inhrelid')],
  ['pg_sequence', 'seqrelid', ofLastingRelation('t.seqrelid')],
  ['pg_policy', 'oid'],
  ['pg_proc', 'oid', notTemporary('t.pronamespace')],
  ['pg_range', 'rngtypid'],
  ['pg_description', 'objoid'],
  ['pg_seclabel', 'objoid'],
  ...[
    'pg_operator',
    'pg_opclass',
    'pg_opfamily',
    'pg_cast',
    'pg_collation',
    'pg_conversion',
    'pg_extension',
    'pg_enum',
    'pg_foreign_server',
    'pg_foreign_data_wrapper',
    'pg_language',
    'pg_publication',
    'pg_statistic_ext',
    'pg_ts_config',
    'pg_ts_dict',
    'pg_ts_parser',
    'pg_ts_template',
    'pg_event_trigger',
    'pg_default_acl',
  ].map((name) => [name, 'oid'] as const),
]
