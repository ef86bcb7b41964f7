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

/** Every permanent table of the user's, leaves of partitioned ones included. */
export const publishableTablesSql = `
  SELECT n.nspname AS schema, c.relname AS name,
    pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE ${userTables}
  ORDER BY 1, 2`

/**
 * Called at the end of every command that made or changed something: what it touched, and the leaves of a partitioned
 * table, get the identity that they need, in the transaction that made them so. A dropped index names no table, so
 * after those every table whose identity was an index is looked at. Where the publication is a list of tables, new ones
 * are added to it. `skip`: tables get no identity that the user did not give them; their inserts alone are published.
 */
export const keepIdentitiesSql = (identity: 'full' | 'skip'): string => `
CREATE OR REPLACE FUNCTION walback.keep_identities(tag text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $walback$
DECLARE
  touched oid[];
  r record;
BEGIN
  IF tag !~ '^(CREATE|ALTER|DROP|IMPORT|SELECT INTO)' OR tag ~ '(FUNCTION|PROCEDURE|VIEW|TRIGGER|COMMENT|POLICY|SEQUENCE|OPERATOR.*|AGGREGATE|PRIVILEGES|RULE|PUBLICATION|STATISTICS)$' THEN
    -- DROP FUNCTION CASCADE may take an index with it.
    IF tag <> 'DROP FUNCTION' THEN RETURN; END IF;
  END IF;
  SELECT array_agg(t.oid) INTO touched FROM (
    SELECT d.objid AS oid FROM pg_event_trigger_ddl_commands() d WHERE d.classid = 'pg_class'::regclass
    UNION SELECT l.relid FROM pg_event_trigger_ddl_commands() d, pg_partition_tree(d.objid) l WHERE d.classid = 'pg_class'::regclass
    UNION SELECT c.oid FROM pg_class c WHERE tag LIKE 'DROP %' AND c.relkind = 'r' AND c.relreplident IN ('i', 'd')) t;
  PERFORM set_config('walback.quiet', 'on', true);
  FOR r IN
    SELECT c.oid::regclass AS name, c.oid, c.relreplident, ${needsFull} AS needs_full, ${hasVirtual} AS has_virtual
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = ANY (touched) AND ${userTables}
  LOOP
${
  identity === 'full'
    ? `    IF r.needs_full AND r.relreplident <> 'f' AND NOT r.has_virtual THEN
      EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY FULL', r.name);
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
CREATE OR REPLACE FUNCTION walback.publish(relation oid, inserts_only boolean) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $walback$
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
