import { messageOf } from '../base/errors.ts'
import { isStatementError, type ReplaySession } from './replay-session.ts'

/**
 * Takes from roles what DROP OWNED does beside the objects that are theirs: their rights in this database, and their
 * places in policies. The command itself would do so in the whole cluster, of which other databases are none of ours.
 *
 * `as`: who ran the command. As there, rights that this role may not revoke stay. Returns what failed, each in a line.
 */
export async function dropRights(
  session: ReplaySession,
  roles: readonly string[],
  as: string | undefined,
): Promise<string[]> {
  const failures: string[] = []
  const run = async (sql: string, role: string | undefined): Promise<void> => {
    try {
      await session.runAs(sql, {}, role)
    } catch (error) {
      if (!isStatementError(error)) throw error
      failures.push(`${sql} (${messageOf(error)})`)
    }
  }
  // Whoever restores may not be able to speak for it.
  const runner = await session.runAs('SELECT', {}, as).then(
    () => as,
    (error: unknown) => {
      if (!isStatementError(error)) throw error
      return undefined
    },
  )
  const { rows } = await session.client.query<{ sql: string; unchecked: boolean }>(rightsSql, [roles])
  // The server checks nobody's rights for default privileges and policies.
  for (const { sql, unchecked } of rows) await run(sql, unchecked ? undefined : runner)
  return failures
}

const revoke = (catalog: string, object: string): string =>
  `WHEN 'pg_catalog.${catalog}'::pg_catalog.regclass THEN (${object})`

const named = (catalog: string, kind: string, name: string): string =>
  revoke(
    catalog,
    `SELECT pg_catalog.format('REVOKE ALL ON ${kind} %I FROM %s CASCADE', ${name}, r.name) FROM pg_catalog.${catalog} WHERE oid = d.objid`,
  )

const inSchema = (catalog: string, kind: string, schema: string, name: string): string =>
  revoke(
    catalog,
    `SELECT pg_catalog.format('REVOKE ALL ON ${kind} %I.%I FROM %s CASCADE', n.nspname, ${name}, r.name) FROM pg_catalog.${catalog} o JOIN pg_catalog.pg_namespace n ON n.oid = ${schema} WHERE o.oid = d.objid`,
  )

/** Rights on a table include those on its columns. Large objects are restored later, with the rights that the base has. */
const rightsSql = `
WITH roles AS (
  SELECT oid, pg_catalog.quote_ident(rolname) AS name FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)
), rights AS (
  SELECT DISTINCT d.classid, CASE d.classid
    ${inSchema('pg_class', 'TABLE', 'relnamespace', 'relname')}
    ${inSchema('pg_type', 'TYPE', 'typnamespace', 'typname')}
    ${named('pg_namespace', 'SCHEMA', 'nspname')}
    ${named('pg_language', 'LANGUAGE', 'lanname')}
    ${named('pg_foreign_data_wrapper', 'FOREIGN DATA WRAPPER', 'fdwname')}
    ${named('pg_foreign_server', 'FOREIGN SERVER', 'srvname')}
    ${revoke('pg_proc', `SELECT pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM %s CASCADE', d.objid::pg_catalog.regprocedure, r.name)`)}
    ${revoke(
      'pg_default_acl',
      `SELECT pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE ALL ON %s FROM %s CASCADE', pg_catalog.pg_get_userbyid(a.defaclrole), ' IN SCHEMA ' || pg_catalog.quote_ident(n.nspname),
        CASE a.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END, r.name)
      FROM pg_catalog.pg_default_acl a LEFT JOIN pg_catalog.pg_namespace n ON n.oid = a.defaclnamespace WHERE a.oid = d.objid`,
    )}
    END AS sql
  FROM pg_catalog.pg_shdepend d JOIN roles r ON r.oid = d.refobjid
  WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.deptype = 'a'
    AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
), policies AS (
  SELECT p.polname, p.polrelid, (
      SELECT pg_catalog.string_agg(pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(role)), ', ') FROM pg_catalog.unnest(p.polroles) role
      WHERE NOT EXISTS (SELECT FROM roles WHERE oid = role)
    ) AS others
  FROM pg_catalog.pg_policy p WHERE p.polroles && ARRAY(SELECT oid FROM roles)
)
SELECT sql, classid = 'pg_catalog.pg_default_acl'::pg_catalog.regclass AS unchecked FROM rights WHERE sql IS NOT NULL
UNION ALL
SELECT CASE WHEN others IS NULL THEN pg_catalog.format('DROP POLICY %I ON %s', polname, polrelid::pg_catalog.regclass)
  ELSE pg_catalog.format('ALTER POLICY %I ON %s TO %s', polname, polrelid::pg_catalog.regclass, others) END, true FROM policies`
