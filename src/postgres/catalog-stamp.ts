import type pg from 'pg'

/**
 * The stamp of a database's definitions: a hash of what its catalogs mean, which any lasting change of the schema
 * changes, whoever made it and whatever fired on it, and nothing else does. (Not TRUNCATE, VACUUM FULL, REINDEX
 * CONCURRENTLY, REFRESH of a filled view, ANALYZE, or a sequence that advances.) So it leaves out:
 * - what the server keeps for itself in the catalogs: files, statistics, ages, hints, and `attmissingval`, which a
 *   rewrite clears;
 * - ids of indexes, which REINDEX CONCURRENTLY replaces: an index goes by its name; and indexes that are not valid,
 *   which it makes on the way and which pg_dump leaves out too;
 * - what is temporary, of TOAST, or ours.
 *
 * Only what everybody may read is in it, so that it is the same for every role; so the options of user mappings are
 * not. Nor does it depend on settings of the session: values are hashed as they are, and not as text, but for those
 * whose text is fixed. Other versions of the server, and of this file (`kind`), have other stamps.
 *
 * It reads `kind-definitions-triggers-publications-members`. The third part is of the rows of our event triggers: it is
 * another one whenever somebody has disabled, enabled or replaced them, and what happened meanwhile may not be told. So
 * is the fourth, of our publications: one that was altered may have left rows out, also if it is as it was again. And so
 * the last, of the tables in those that are lists: one that was taken out and put back counts as another.
 */
const kind = '1'

interface Watched {
  readonly catalog: string
  /** Columns that do not count, in whichever versions have them. */
  readonly omit?: readonly string[]
  /** Further columns, as expressions over `t`, the catalog's row, and what `from` joins to it. */
  readonly also?: readonly string[]
  /** Joins; names of `shown` (see `stampSql`) among them. */
  readonly join?: string
  readonly where?: string
}

const hash = (values: readonly string[]): string => `pg_catalog.hash_record_extended(ROW(${values.join(', ')}), 0)`

/** Of a catalog whose rows belong to a relation. */
const ofRelation = (catalog: string, relation: string, omit: readonly string[] = []): Watched => ({
  catalog,
  omit,
  join: `JOIN shown s ON s.oid = t.${relation}`,
})
/** Of a catalog whose rows are in a schema. */
const inSchema = (catalog: string, column: string, omit: readonly string[] = []): Watched => ({
  catalog,
  omit,
  where: `t.${column} NOT IN (SELECT oid FROM hidden)`,
})
const ofType = (catalog: string, type: string): Watched => ({
  catalog,
  join: `JOIN pg_catalog.pg_type y ON y.oid = t.${type}`,
  where: 'y.typnamespace NOT IN (SELECT oid FROM hidden)',
})

/** The publications and event triggers that `init` makes: slotName in capture/setup.ts, ddl-capture-sql.ts. */
const isOurs = (name: string): string => `${name} LIKE 'walback\\_%'`

/** What comments on temporary objects can be about, beside relations: with the column that says whose it is. */
const subObjects = [
  ['pg_trigger', 'tgrelid'],
  ['pg_rewrite', 'ev_class'],
  ['pg_policy', 'polrelid'],
] as const
const schemaObjects = [
  ['pg_constraint', 'connamespace'],
  ['pg_type', 'typnamespace'],
  ['pg_proc', 'pronamespace'],
] as const
const isOfLasting = (catalog: string, relation: string): string =>
  `EXISTS (SELECT FROM pg_catalog.${catalog} x JOIN pg_catalog.pg_class c ON c.oid = x.${relation}
        WHERE x.oid = t.objoid AND c.relpersistence <> 't')`
const isInShown = (catalog: string, column: string): string =>
  `EXISTS (SELECT FROM pg_catalog.${catalog} x WHERE x.oid = t.objoid AND x.${column} NOT IN (SELECT oid FROM hidden))`

const watched: readonly Watched[] = [
  { catalog: 'pg_namespace', where: 't.oid NOT IN (SELECT oid FROM hidden)' },
  {
    catalog: 'pg_class',
    omit: [
      'relfilenode',
      'relpages',
      'reltuples',
      'relallvisible',
      'relallfrozen',
      'reltoastrelid',
      'relhasindex',
      'relhasrules',
      'relhastriggers',
      'relhassubclass',
      'relrewrite',
      'relfrozenxid',
      'relminmxid',
      'oid',
    ],
    also: ['s.key'],
    join: 'JOIN shown s ON s.oid = t.oid',
  },
  {
    catalog: 'pg_attribute',
    omit: ['attrelid', 'attcacheoff', 'atthasmissing', 'attmissingval'],
    also: ['s.key'],
    join: 'JOIN shown s ON s.oid = t.attrelid',
    where: 't.attnum > 0',
  },
  {
    catalog: 'pg_index',
    omit: ['indexrelid', 'indcheckxmin'],
    also: ['s.key'],
    join: 'JOIN shown s ON s.oid = t.indexrelid',
  },
  {
    catalog: 'pg_inherits',
    omit: ['inhrelid'],
    also: ['s.key'],
    join: 'JOIN shown s ON s.oid = t.inhrelid',
  },
  {
    catalog: 'pg_depend',
    omit: ['objid'],
    also: ['coalesce(s.key, t.objid::bigint)'],
    join: `LEFT JOIN shown s ON t.classid = 'pg_catalog.pg_class'::regclass AND s.oid = t.objid`,
    // Members of extensions, ALTER … DEPENDS ON EXTENSION, and what a sequence is owned by; the rest follows from others.
    where: `t.deptype IN ('e', 'x') OR t.deptype IN ('a', 'i') AND t.refobjsubid > 0 AND s.relkind = 'S'`,
  },
  {
    catalog: 'pg_description',
    omit: ['objoid'],
    also: ['coalesce(s.key, t.objoid::bigint)'],
    join: `LEFT JOIN shown s ON t.classoid = 'pg_catalog.pg_class'::regclass AND s.oid = t.objoid`,
    where: `t.objoid < 16384 OR CASE t.classoid WHEN 'pg_catalog.pg_class'::regclass THEN s.oid IS NOT NULL
      ${subObjects.map(([catalog, relation]) => `WHEN 'pg_catalog.${catalog}'::regclass THEN ${isOfLasting(catalog, relation)}`).join(' ')}
      ${schemaObjects.map(([catalog, column]) => `WHEN 'pg_catalog.${catalog}'::regclass THEN ${isInShown(catalog, column)}`).join(' ')}
      WHEN 'pg_catalog.pg_namespace'::regclass THEN t.objoid NOT IN (SELECT oid FROM hidden)
      WHEN 'pg_catalog.pg_publication'::regclass
        THEN t.objoid NOT IN (SELECT p.oid FROM pg_catalog.pg_publication p WHERE ${isOurs('p.pubname')})
      ELSE true END`,
  },
  { catalog: 'pg_seclabel' },
  ofRelation('pg_attrdef', 'adrelid'),
  ofRelation('pg_partitioned_table', 'partrelid'),
  ofRelation('pg_sequence', 'seqrelid'),
  ofRelation('pg_rewrite', 'ev_class'),
  ofRelation('pg_trigger', 'tgrelid', ['tgconstrindid']),
  ofRelation('pg_policy', 'polrelid'),
  ofRelation('pg_foreign_table', 'ftrelid'),
  inSchema('pg_constraint', 'connamespace', ['conindid']),
  inSchema('pg_type', 'typnamespace'),
  ofType('pg_enum', 'enumtypid'),
  ofType('pg_range', 'rngtypid'),
  inSchema('pg_proc', 'pronamespace'),
  {
    catalog: 'pg_aggregate',
    join: 'JOIN pg_catalog.pg_proc p ON p.oid = t.aggfnoid',
    where: 'p.pronamespace NOT IN (SELECT oid FROM hidden)',
  },
  inSchema('pg_operator', 'oprnamespace'),
  inSchema('pg_opclass', 'opcnamespace'),
  inSchema('pg_opfamily', 'opfnamespace'),
  inSchema('pg_collation', 'collnamespace'),
  inSchema('pg_conversion', 'connamespace'),
  inSchema('pg_statistic_ext', 'stxnamespace'),
  inSchema('pg_ts_config', 'cfgnamespace'),
  inSchema('pg_ts_dict', 'dictnamespace'),
  inSchema('pg_ts_parser', 'prsnamespace'),
  inSchema('pg_ts_template', 'tmplnamespace'),
  ...[
    'pg_ts_config_map',
    'pg_amop',
    'pg_amproc',
    'pg_am',
    'pg_cast',
    'pg_transform',
    'pg_extension',
    'pg_foreign_data_wrapper',
    'pg_foreign_server',
    'pg_language',
    'pg_default_acl',
  ].map((catalog) => ({ catalog })),
  { catalog: 'pg_event_trigger', where: `NOT ${isOurs('t.evtname')}` },
  { catalog: 'pg_publication', where: `NOT ${isOurs('t.pubname')}` },
  ...['pg_publication_rel', 'pg_publication_namespace'].map((catalog) => ({
    catalog,
    join: `JOIN pg_catalog.pg_publication p ON p.oid = t.${catalog === 'pg_publication_rel' ? 'prpubid' : 'pnpubid'}`,
    where: `NOT ${isOurs('p.pubname')}`,
  })),
]

const ofDatabase = 'd.datname = pg_catalog.current_database()'

/** Parts that are not just a catalog's rows, each a query of one column of hashes. */
const otherParts: readonly (readonly [string, string])[] = [
  [
    'options of TOAST tables',
    `SELECT ${hash(['s.key', 'o.reloptions'])} FROM shown s JOIN pg_catalog.pg_class c ON c.oid = s.oid
     JOIN pg_catalog.pg_class o ON o.oid = c.reltoastrelid WHERE o.reloptions IS NOT NULL`,
  ],
  ['user mappings', `SELECT ${hash(['m.umid', 'm.srvid', 'm.umuser'])} FROM pg_catalog.pg_user_mappings m`],
  [
    'database',
    `SELECT ${hash(['d.datdba', 'd.datacl::text', 'd.datconnlimit', `pg_catalog.shobj_description(d.oid, 'pg_database')`])}
       FROM pg_catalog.pg_database d WHERE ${ofDatabase}
     UNION ALL SELECT ${hash(['s.setrole', 's.setconfig'])}
       FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase WHERE ${ofDatabase}`,
  ],
  // A role that is renamed is another for whoever restores: those that own something here, or have a right to it.
  [
    'roles',
    `SELECT DISTINCT ${hash(['r.oid', 'r.rolname'])}
     FROM pg_catalog.pg_shdepend h JOIN pg_catalog.pg_roles r ON r.oid = h.refobjid JOIN pg_catalog.pg_database d ON d.oid = h.dbid
       LEFT JOIN shown s ON h.classid = 'pg_catalog.pg_class'::regclass AND s.oid = h.objid
       LEFT JOIN pg_catalog.pg_type y ON h.classid = 'pg_catalog.pg_type'::regclass AND y.oid = h.objid
       LEFT JOIN pg_catalog.pg_proc p ON h.classid = 'pg_catalog.pg_proc'::regclass AND p.oid = h.objid
     WHERE h.refclassid = 'pg_catalog.pg_authid'::regclass AND ${ofDatabase}
       AND h.classid NOT IN ('pg_catalog.pg_publication'::regclass, 'pg_catalog.pg_event_trigger'::regclass)
       AND (h.classid <> 'pg_catalog.pg_class'::regclass OR s.oid IS NOT NULL)
       AND coalesce(y.typnamespace, p.pronamespace, CASE WHEN h.classid = 'pg_catalog.pg_namespace'::regclass THEN h.objid END, 0)
         NOT IN (SELECT oid FROM hidden)`,
  ],
]

/** Types without a hash of their own, or with a weak one, whose text no setting changes. */
const asText: ReadonlySet<string> = new Set(['pg_node_tree', '_aclitem', 'int2vector'])
const asHashed = (column: string, type: string): string => `${column}${asText.has(type) ? '::text' : ''}`

/** Where in the statement a part of an expression stood, REINDEX CONCURRENTLY forgets. */
const withoutLocations = (column: string, type: string): string =>
  type === 'pg_node_tree'
    ? `pg_catalog.regexp_replace(${column}::text, ':location -?[0-9]+', '', 'g')`
    : asHashed(column, type)

/**
 * A query of one row and column, the stamp as the snapshot of the statement sees it, for this server's catalogs. Sums
 * of hashes need no order; each row's is hashed once more, since a sum of `hash_record_extended` alone, which is
 * linear, would stay the same when two rows exchange a value.
 */
export async function catalogStampSql(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ catalog: string; columns: { name: string; type: string }[] }>(
    `SELECT c.relname AS catalog, pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname, 'type', y.typname) ORDER BY a.attnum) AS columns
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
     WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relname = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
     GROUP BY c.relname`,
    [watched.map(({ catalog }) => catalog)],
  )
  const columnsOf = new Map(rows.map(({ catalog, columns }) => [catalog, columns]))
  const parts = watched.flatMap(({ catalog, omit = [], also = [], join = '', where = 'true' }) => {
    const columns = columnsOf.get(catalog)
    // pg_publication_namespace is of 15 and later.
    if (columns === undefined) return []
    const values = columns
      .filter(({ name }) => !omit.includes(name))
      .map(({ name, type }) => (catalog === 'pg_index' ? withoutLocations : asHashed)(`t.${name}`, type))
    return [
      partSql(catalog, `SELECT ${hash([...also, ...values])} FROM pg_catalog.${catalog} t ${join} WHERE ${where}`),
    ]
  })
  parts.push(...otherParts.map(([name, sql]) => partSql(name, sql)))
  return `WITH hidden AS MATERIALIZED (
      SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^pg_(toast|temp_|toast_temp_)' OR nspname = 'walback'),
    shown AS MATERIALIZED (
      SELECT c.oid, c.relkind, CASE WHEN c.relkind IN ('i', 'I') THEN pg_catalog.hashtextextended(c.relname, c.relnamespace::bigint)
        ELSE c.oid::bigint END AS key
      FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
      WHERE c.relnamespace NOT IN (SELECT oid FROM hidden) AND (c.relkind <> 'i' OR i.indisvalid))
    SELECT '${kind}-' || pg_catalog.md5(pg_catalog.string_agg(part, ' ' ORDER BY place)) || '-' || (
      SELECT ${briefly(`e.evtname || e.evtenabled::text || e.xmin::text, ' ' ORDER BY e.evtname`)}
      FROM pg_catalog.pg_event_trigger e WHERE ${isOurs('e.evtname')}) || '-' || (
      SELECT ${briefly(`u.pubname || u.xmin::text, ' ' ORDER BY u.pubname`)}
      FROM pg_catalog.pg_publication u WHERE ${isOurs('u.pubname')}) || '-' || (
      SELECT pg_catalog.left(pg_catalog.md5(pg_catalog.count(*) || ' ' || coalesce(pg_catalog.sum(pg_catalog.hashint8extended(r.oid::bigint, 0)), 0)), 8)
      FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication u ON u.oid = r.prpubid WHERE ${isOurs('u.pubname')}) FROM (
      ${parts.map((part, place) => `SELECT ${place} AS place, (${part}) AS part`).join('\n      UNION ALL ')}) p`
}

const briefly = (aggregated: string): string =>
  `pg_catalog.left(pg_catalog.md5(coalesce(pg_catalog.string_agg(${aggregated}), '')), 8)`

/** The stamp as the session's snapshot sees it. */
export async function readCatalogStamp(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ stamp: string }>(`SELECT (${await catalogStampSql(client)}) AS stamp`)
  return rows[0]?.stamp ?? ''
}

const partSql = (name: string, hashes: string): string =>
  `SELECT '${name} ' || pg_catalog.count(*) || ' '
     || coalesce(pg_catalog.sum(pg_catalog.hashtextextended(h.hash::text COLLATE "C", 0)), 0) FROM (${hashes}) h(hash)`
