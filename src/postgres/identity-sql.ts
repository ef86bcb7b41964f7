/**
 * Replica identities. A published table without one refuses UPDATE and DELETE, so every table that we publish gets one.
 * An identity with a generated column counts as none: up to 17 its values are not in the stream, and no base holds them.
 * From 18 on a virtual generated column cannot be published at all: with REPLICA IDENTITY FULL it makes UPDATE fail, so
 * the updates and deletes of a table that has one, and has no key, cannot be published.
 */

const userTables = `c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384
    AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'walback')`

const usableIndex = (kind: 'indisprimary' | 'indisreplident'): string => `EXISTS (SELECT FROM pg_catalog.pg_index i
        WHERE i.indrelid = c.oid AND i.${kind} AND i.indimmediate AND i.indisvalid
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND a.attnum = ANY (i.indkey)))`

/** Of a row `c` of pg_class: whether updates need REPLICA IDENTITY FULL, which it may have already. */
const needsFull = `CASE c.relreplident
      WHEN 'd' THEN NOT ${usableIndex('indisprimary')}
      WHEN 'i' THEN NOT ${usableIndex('indisreplident')}
      ELSE true END`

/** Of a row `c` of pg_class: whether it has a virtual generated column (18 and later). */
const hasVirtual = `EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND NOT a.attisdropped)`

/** Tables whose UPDATEs would fail once they are published: `full` mends that, or, where it is false, nothing does. */
export const tablesWithoutIdentitySql = `
  SELECT n.nspname AS schema, c.relname AS name, NOT ${hasVirtual} AS full
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE ${userTables} AND ${needsFull} AND (c.relreplident <> 'f' OR ${hasVirtual})
  ORDER BY 1, 2`

/** Tables that have FULL and no key that could be their identity: what `init` and the triggers make, and what users make too. */
export const keylessFullSql = `
  SELECT n.nspname::text AS schema, c.relname::text AS name
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE ${userTables} AND c.relreplident = 'f' AND NOT ${usableIndex('indisprimary')}`

/** Every permanent table of the user's, leaves of partitioned ones included. */
export const publishableTablesSql = `
  SELECT n.nspname AS schema, c.relname AS name,
    pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE ${userTables}
  ORDER BY 1, 2`

const setFullSql = `
  -- What ALTER TABLE would do is done in the catalog where that is permitted, so that event triggers of the application
  -- see no command of ours.
CREATE OR REPLACE FUNCTION walback.set_full(relation oid) RETURNS void LANGUAGE plpgsql AS $walback$
BEGIN
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    BEGIN
      UPDATE pg_index SET indisreplident = false WHERE indrelid = relation AND indisreplident;
      UPDATE pg_class SET relreplident = 'f' WHERE oid = relation;
      IF FOUND THEN RETURN; END IF;
    EXCEPTION WHEN OTHERS THEN
      -- A transaction that sees the catalog as it once was may not change it.
      NULL;
    END;
  END IF;
  EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY FULL', relation::regclass);
END
$walback$;`

/**
 * Called at the end of every command that made or changed something: what it touched, the leaves of a partitioned table
 * and the children of what it altered, and the tables that lost a key to what it dropped (noted in `walback.lost` by
 * note_dropped) get the identity that they need, in the transaction that made them so. Where the publication is a list
 * of tables, new ones are added to it. `skip`: tables get no identity that the user did not give them; their inserts
 * alone are published. REPLICA IDENTITY NOTHING is somebody's command, and is left to stand for the moment: the agent
 * puts FULL in its place (capture/identity-watch.ts).
 *
 * Only tables that this command has locked itself are altered: pg_partition_tree and the like would wait for others.
 */
export const keepIdentitiesSql = (identity: 'full' | 'skip'): string => `${identity === 'full' ? setFullSql : ''}
CREATE OR REPLACE FUNCTION walback.keep_identities() RETURNS void LANGUAGE plpgsql SET lock_timeout = '20ms' AS $walback$
DECLARE
  lost oid[] := string_to_array(nullif(current_setting('walback.lost', true), ''), ' ')::oid[];
  touched oid[];
  r record;
BEGIN
  IF lost IS NOT NULL THEN PERFORM set_config('walback.lost', '', true); END IF;
  WITH RECURSIVE tree (relid) AS (
    SELECT d.objid FROM pg_event_trigger_ddl_commands() d
      WHERE d.classid = 'pg_class'::regclass AND d.command_tag ~ '^(CREATE|ALTER|IMPORT|SELECT)' AND d.object_type IN ('table', 'table column')
    UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.relid
  )
  SELECT array_agg(relid) INTO touched FROM (SELECT relid FROM tree UNION SELECT unnest(lost)) t;
  IF touched IS NULL THEN RETURN; END IF;
  PERFORM set_config('walback.quiet', 'on', true);
  FOR r IN
    SELECT c.oid::regclass AS name, c.oid, c.relreplident, ${needsFull} AS needs_full, ${hasVirtual} AS has_virtual
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = ANY (touched) AND ${userTables}
  LOOP
${
  identity === 'full'
    ? `    IF r.needs_full AND r.relreplident NOT IN ('f', 'n') AND NOT r.has_virtual THEN
      PERFORM walback.set_full(r.oid);
    END IF;
    PERFORM walback.publish(r.oid, r.needs_full AND r.has_virtual);`
    : `    PERFORM walback.publish(r.oid, r.needs_full AND (r.relreplident <> 'f' OR r.has_virtual));`
}
  END LOOP;
  PERFORM set_config('walback.quiet', '', true);
END
$walback$;
  -- Sees to it that a table is in the publications that are lists, and that one whose updates cannot be published is in
  -- those of inserts alone; for its sake a publication of all tables becomes a list.
CREATE OR REPLACE FUNCTION walback.publish(relation oid, inserts_only boolean) RETURNS void LANGUAGE plpgsql AS $walback$
DECLARE
  p record;
  tables text;
BEGIN
  FOR p IN SELECT oid, pubname, puballtables, pubupdate, obj_description(oid, 'pg_publication') AS note,
             EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = pg_publication.oid AND r.prrelid = relation) AS has_it
           FROM pg_publication WHERE pubname LIKE 'walback\\_%' AND obj_description(oid, 'pg_publication') LIKE 'walback repository %'
  LOOP
    IF p.puballtables AND inserts_only THEN
      SELECT string_agg('ONLY ' || c.oid::regclass, ', ') INTO tables FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE ${userTables} AND c.oid <> relation AND NOT (${needsFull} AND ${hasVirtual});
      EXECUTE format('DROP PUBLICATION %I', p.pubname);
      EXECUTE format('CREATE PUBLICATION %I %s WITH (publish_generated_columns = stored)', p.pubname, 'FOR TABLE ' || nullif(tables, ''));
      EXECUTE format('COMMENT ON PUBLICATION %I IS %L', p.pubname, p.note);
    ELSIF NOT p.puballtables AND p.pubupdate <> inserts_only AND NOT p.has_it THEN
      EXECUTE format('ALTER PUBLICATION %I ADD TABLE ONLY %s', p.pubname, relation::regclass);
    ELSIF NOT p.puballtables AND p.pubupdate AND inserts_only AND p.has_it THEN
      EXECUTE format('ALTER PUBLICATION %I DROP TABLE ONLY %s', p.pubname, relation::regclass);
    END IF;
  END LOOP;
END
$walback$;`
