import { quoteIdent, quoteLiteral } from '../model/identifier.ts'

/**
 * SQL that sets a source up. The order is what keeps applications unharmed: a published table without a replica
 * identity refuses UPDATE and DELETE, so identities come first, and the trigger that sees to future tables before them.
 */

/** Tables whose UPDATEs would fail once they are published: permanent, not the system's, without a usable identity. */
export const tablesWithoutIdentitySql = `
  SELECT n.nspname AS schema, c.relname AS name, c.oid::text AS oid
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384
    AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'walback')
    AND CASE c.relreplident
      WHEN 'f' THEN false
      WHEN 'd' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid)
      WHEN 'i' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid)
      ELSE true END
  ORDER BY 1, 2`

/** Every permanent table of the user's, leaves of partitioned ones included. */
export const publishableTablesSql = `
  SELECT n.nspname AS schema, c.relname AS name,
    pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384
    AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'walback')
  ORDER BY 1, 2`

/**
 * Gives tables that come without a key, or lose theirs, REPLICA IDENTITY FULL in the transaction that makes them so.
 * It runs inside the application's DDL: whatever goes wrong in it becomes a warning, never an error.
 */
export const identityTriggerSql = `
CREATE SCHEMA IF NOT EXISTS walback;
COMMENT ON SCHEMA walback IS 'walback: continuous backup. Remove it with \`walback uninstall\`.';
CREATE OR REPLACE FUNCTION walback.keep_replica_identity() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $walback$
DECLARE
  bare regclass;
BEGIN
  FOR bare IN
    SELECT c.oid::regclass
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
      -- What the command touched: the table, or the leaves of a partitioned one. A dropped index names no table, so
      -- after those every table whose identity was an index is looked at.
      AND (c.oid IN (SELECT l.relid FROM pg_event_trigger_ddl_commands() d, pg_partition_tree(d.objid) l
                     WHERE d.classid = 'pg_class'::regclass AND d.objid IS NOT NULL
                     UNION SELECT d.objid FROM pg_event_trigger_ddl_commands() d WHERE d.classid = 'pg_class'::regclass)
           OR (tg_tag LIKE 'DROP %' AND c.relreplident IN ('i', 'd')))
      AND CASE c.relreplident
        WHEN 'f' THEN false
        WHEN 'd' THEN NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid)
        WHEN 'i' THEN NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid)
        ELSE true END
  LOOP
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', bare);
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'walback could not set a replica identity: %', SQLERRM;
END
$walback$;
REVOKE ALL ON FUNCTION walback.keep_replica_identity() FROM PUBLIC;
DROP EVENT TRIGGER IF EXISTS walback_replica_identity;
CREATE EVENT TRIGGER walback_replica_identity ON ddl_command_end
  WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'ALTER TABLE', 'DROP INDEX', 'ALTER INDEX',
    'IMPORT FOREIGN SCHEMA', 'CREATE EXTENSION', 'ALTER EXTENSION', 'DROP TABLE', 'DROP SCHEMA', 'DROP TYPE', 'DROP OWNED', 'DROP EXTENSION', 'DROP FUNCTION')
  EXECUTE FUNCTION walback.keep_replica_identity();
ALTER EVENT TRIGGER walback_replica_identity ENABLE ALWAYS;`

export const setIdentityFullSql = (table: { schema: string; name: string }): string =>
  `ALTER TABLE ONLY ${quoteIdent(table.schema)}.${quoteIdent(table.name)} REPLICA IDENTITY FULL`

export const publishAllSql = (publication: string): string =>
  `CREATE PUBLICATION ${quoteIdent(publication)} FOR ALL TABLES`

export function publishListSql(
  publication: string,
  tables: readonly { schema: string; name: string }[],
  operations?: 'insert, truncate',
): string {
  const list = tables.map((table) => `${quoteIdent(table.schema)}.${quoteIdent(table.name)}`).join(',\n  ')
  const options = operations === undefined ? '' : ` WITH (publish = '${operations}')`
  return `CREATE PUBLICATION ${quoteIdent(publication)}${tables.length > 0 ? ` FOR TABLE ONLY\n  ${list.replaceAll(',\n  ', ',\n  ONLY ')}` : ''}${options}`
}

/** Not temporary, without two-phase decoding; as a failover slot where the server has them. */
export function createSlotSql(slot: string, serverVersion: number): string {
  const failover = serverVersion >= 170000 ? ', failover => true' : ''
  return `SELECT slot_name FROM pg_catalog.pg_create_logical_replication_slot(${quoteLiteral(slot)}, 'pgoutput', temporary => false, twophase => false${failover})`
}

export const dropSlotSql = (slot: string): string => `SELECT pg_catalog.pg_drop_replication_slot(${quoteLiteral(slot)})`

/** Removes what `init` made in the database; the slot is dropped by itself. */
export const removeSql = (publications: readonly string[]): string =>
  `DROP EVENT TRIGGER IF EXISTS walback_replica_identity;
${publications.map((name) => `DROP PUBLICATION IF EXISTS ${quoteIdent(name)};`).join('\n')}
DROP SCHEMA IF EXISTS walback CASCADE;`
