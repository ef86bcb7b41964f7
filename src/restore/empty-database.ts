import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import type { Workplace } from './destination.ts'
import { inDatabase } from './in-database.ts'

/** Every object that a user can have made in a database (ids below 16384 are initdb's), as (class, id, turn to be dropped in). */
const userObjects = `
  SELECT classid, objid, turn FROM (
    SELECT 'pg_catalog.pg_event_trigger'::regclass AS classid, oid AS objid, 1 AS turn FROM pg_catalog.pg_event_trigger
    UNION ALL SELECT 'pg_catalog.pg_publication'::regclass, oid, 1 FROM pg_catalog.pg_publication
    UNION ALL SELECT 'pg_catalog.pg_extension'::regclass, oid, 2 FROM pg_catalog.pg_extension
    UNION ALL SELECT 'pg_catalog.pg_namespace'::regclass, n.oid, 3 FROM pg_catalog.pg_namespace n WHERE n.nspname NOT LIKE 'pg\\_%'
    UNION ALL SELECT 'pg_catalog.pg_foreign_data_wrapper'::regclass, oid, 4 FROM pg_catalog.pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_catalog.pg_foreign_server'::regclass, oid, 4 FROM pg_catalog.pg_foreign_server
    UNION ALL SELECT 'pg_catalog.pg_cast'::regclass, oid, 4 FROM pg_catalog.pg_cast
    UNION ALL SELECT 'pg_catalog.pg_language'::regclass, oid, 4 FROM pg_catalog.pg_language
    UNION ALL SELECT 'pg_catalog.pg_am'::regclass, oid, 4 FROM pg_catalog.pg_am
    UNION ALL SELECT 'pg_catalog.pg_class'::regclass, c.oid, 5 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname NOT LIKE 'pg\\_%' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    UNION ALL SELECT 'pg_catalog.pg_proc'::regclass, oid, 6 FROM pg_catalog.pg_proc
    UNION ALL SELECT 'pg_catalog.pg_type'::regclass, t.oid, 7 FROM pg_catalog.pg_type t
      WHERE (t.typtype IN ('e', 'd', 'r', 'b') OR EXISTS (SELECT FROM pg_catalog.pg_class k WHERE k.oid = t.typrelid AND k.relkind = 'c'))
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.typarray = t.oid)
    UNION ALL SELECT 'pg_catalog.pg_operator'::regclass, oid, 8 FROM pg_catalog.pg_operator
    UNION ALL SELECT 'pg_catalog.pg_opclass'::regclass, oid, 8 FROM pg_catalog.pg_opclass
    UNION ALL SELECT 'pg_catalog.pg_opfamily'::regclass, oid, 9 FROM pg_catalog.pg_opfamily
    UNION ALL SELECT 'pg_catalog.pg_collation'::regclass, oid, 9 FROM pg_catalog.pg_collation
    UNION ALL SELECT 'pg_catalog.pg_conversion'::regclass, oid, 9 FROM pg_catalog.pg_conversion
    UNION ALL SELECT 'pg_catalog.pg_ts_config'::regclass, oid, 9 FROM pg_catalog.pg_ts_config
    UNION ALL SELECT 'pg_catalog.pg_ts_dict'::regclass, oid, 9 FROM pg_catalog.pg_ts_dict
    UNION ALL SELECT 'pg_catalog.pg_ts_parser'::regclass, oid, 9 FROM pg_catalog.pg_ts_parser
    UNION ALL SELECT 'pg_catalog.pg_ts_template'::regclass, oid, 9 FROM pg_catalog.pg_ts_template
    UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::regclass, oid, 9 FROM pg_catalog.pg_statistic_ext
  ) o WHERE objid >= 16384`

const contentsSql = `
  SELECT pg_catalog.pg_describe_object(classid, objid, 0) AS object FROM (${userObjects}) o
  UNION ALL SELECT 'large object ' || oid FROM pg_catalog.pg_largeobject_metadata
  UNION ALL SELECT 'default privileges of role ' || pg_catalog.pg_get_userbyid(defaclrole) FROM pg_catalog.pg_default_acl
  LIMIT 3`

/** A database that is there is used if it is empty, and emptied again if the restore fails. */
export async function useEmpty(conninfo: Conninfo, database: string): Promise<Workplace> {
  const publicSchema = await inDatabase(conninfo, database, async (client) => {
    const contents = await contentsOf(client, database)
    if (contents !== undefined) throw new WalbackError('refused', contents, { hint: notEmptyHint })
    return readPublicSchema(client)
  })
  return {
    database,
    isNew: false,
    finish: async () => undefined,
    discard: () =>
      inDatabase(conninfo, database, async (client) => {
        await client.query(emptySql)
        for (const statement of publicSchema) await client.query(statement)
      }),
  }
}

export const notEmptyHint =
  'name a database that does not exist yet, and it will be made; walback never restores over anything'

/** Says what keeps a database from being empty; undefined if nothing does. */
export async function contentsOf(client: pg.Client, database: string): Promise<string | undefined> {
  const { rows } = await client.query<{ object: string }>(contentsSql)
  if (rows.length === 0) return undefined
  return `database ${database} is not empty: it holds ${rows.map((row) => row.object).join(', ')}${rows.length === 3 ? ' and perhaps more' : ''}`
}

/** Statements that make the schema `public`, which every database comes with, what it is now. */
async function readPublicSchema(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ statement: string }>(`
    SELECT statement FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL (
      SELECT 0 AS turn, pg_catalog.format('COMMENT ON SCHEMA public IS %L', pg_catalog.obj_description(n.oid, 'pg_namespace')) AS statement
      UNION ALL SELECT 1, pg_catalog.format('ALTER SCHEMA public OWNER TO %I', pg_catalog.pg_get_userbyid(n.nspowner))
      UNION ALL SELECT 2, 'DO $$ DECLARE thing record; BEGIN
        FOR thing IN SELECT DISTINCT CASE a.grantee WHEN 0 THEN ''PUBLIC'' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
          FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a WHERE n.nspname = ''public''
        LOOP EXECUTE pg_catalog.format(''REVOKE ALL ON SCHEMA public FROM %s CASCADE'', thing.grantee); END LOOP; END $$'
      UNION ALL SELECT 3, pg_catalog.format('GRANT %s ON SCHEMA public TO %s%s', a.privilege_type,
          CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
          CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM pg_catalog.aclexplode(COALESCE(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
    ) s WHERE n.nspname = 'public' ORDER BY turn`)
  return rows.map((row) => row.statement)
}

/**
 * Takes out everything that a failed restore has put into a database that was empty before. What went with something
 * else is gone already when its turn comes; anything that cannot be dropped fails it.
 */
const emptySql = `DO $walback$
  DECLARE
    thing record;
    statements text[];
    statement text;
  BEGIN
    SELECT pg_catalog.array_agg(pg_catalog.format('DROP %s %s CASCADE', CASE i.type
        WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER' WHEN 'statistics object' THEN 'STATISTICS'
        WHEN 'composite type' THEN 'TYPE' ELSE i.type END, i.identity) ORDER BY o.turn, o.objid) INTO statements
      FROM (${userObjects}) o CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.classid, o.objid, 0) i;
    FOREACH statement IN ARRAY COALESCE(statements, '{}') LOOP
      BEGIN
        EXECUTE statement;
      EXCEPTION WHEN undefined_object OR undefined_table OR undefined_function OR invalid_schema_name THEN NULL;
      END;
    END LOOP;
    PERFORM pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata;
    -- Default privileges have no DROP: one that says what holds anyway is not kept.
    FOR thing IN SELECT DISTINCT pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(d.defaclrole)) AS owner, d.defaclnamespace = 0 AS everywhere,
        CASE WHEN d.defaclnamespace <> 0 THEN 'IN SCHEMA ' || d.defaclnamespace::regnamespace ELSE '' END AS place,
        CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END AS kind,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
      FROM pg_catalog.pg_default_acl d LEFT JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) a ON true LOOP
      EXECUTE pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %s %s REVOKE ALL ON %s FROM %s', thing.owner, thing.place, thing.kind, thing.grantee);
      CONTINUE WHEN NOT thing.everywhere;
      EXECUTE pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %s GRANT ALL ON %s TO %s', thing.owner, thing.kind, thing.owner);
      IF thing.kind IN ('FUNCTIONS', 'TYPES') THEN
        EXECUTE pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %s GRANT ALL ON %s TO PUBLIC', thing.owner, thing.kind);
      END IF;
    END LOOP;
  END $walback$`
