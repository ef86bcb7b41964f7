import type pg from 'pg'

/** What a session sees of a table, as far as it decides whether rows that were read earlier can still be used. */
export interface TableLook {
  /**
   * Another one whenever the table was altered, rewritten or truncated, or a type of its columns was, or the publication
   * of it. (By the transactions that wrote its catalog rows, so that a change that was taken back is seen too. ANALYZE,
   * VACUUM and indexes leave no such mark.)
   */
  readonly stamp: string
  /**
   * Whether the stream brings rows that were read earlier exactly to a later snapshot: all changes of the table are
   * published, and the text of its values depends on nothing but themselves (that of a regclass depends on names).
   */
  readonly isFollowed: boolean
}

/** Looks at ordinary tables, under whatever snapshot the session has; at all, or at those with the given ids. */
export async function readTableLooks(
  client: pg.Client,
  publications: readonly string[],
  oids?: readonly number[],
): Promise<Map<number, TableLook>> {
  const { rows } = await client.query<{ oid: string; stamp: string; followed: boolean }>(
    looksSql(oids !== undefined),
    oids === undefined ? [publications] : [publications, oids],
  )
  return new Map(rows.map(({ oid, stamp, followed }) => [Number(oid), { stamp, isFollowed: followed }]))
}

/**
 * `uses`: which types a table's columns are made of, through arrays, domains, ranges and composites.
 *
 * A look at few tables is asked for with every few that are copied, so it must not cost what a look at all does: catalogs
 * are reached by their indexes, from the tables, which OFFSET 0 sees to where the planner's guess would be the other way.
 */
const looksSql = (isSome: boolean): string => `
  WITH RECURSIVE naming AS MATERIALIZED (${namingTypes}), own AS (
    SELECT c.oid, c.xmin, c.relfilenode, c.relpersistence FROM pg_catalog.pg_class c
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' ${isSome ? 'AND c.oid = ANY ($2::oid[])' : ''}
  ), uses (relid, typid) AS (
    SELECT own.oid, a.atttypid FROM own CROSS JOIN LATERAL (
      SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = own.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND (a.atttypid >= ${firstUserOid} OR a.atttypid IN (SELECT oid FROM naming)) OFFSET 0) a
    UNION
    SELECT u.relid, p.typid FROM uses u
      CROSS JOIN LATERAL (SELECT t.* FROM pg_catalog.pg_type t WHERE t.oid = u.typid OFFSET 0) t
      CROSS JOIN LATERAL (
        SELECT t.typelem UNION ALL SELECT t.typbasetype
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid OR r.rngmultitypid = t.oid
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) p (typid)
    WHERE p.typid <> 0
  ), marks AS (
    SELECT t.oid, t.oid || '/' || t.xmin
      || COALESCE((SELECT pg_catalog.string_agg(e.oid || '/' || e.xmin, ' ' ORDER BY e.oid)
           FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid), '')
      || COALESCE((SELECT pg_catalog.string_agg(a.attnum || '/' || a.xmin, ' ' ORDER BY a.attnum)
           FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0), '') AS seen
    FROM (SELECT DISTINCT typid FROM uses) u
      CROSS JOIN LATERAL (SELECT t.oid, t.xmin, t.typrelid FROM pg_catalog.pg_type t WHERE t.oid = u.typid OFFSET 0) t
  ), types AS (
    SELECT u.relid AS oid, pg_catalog.string_agg(m.seen, ',' ORDER BY m.oid)
      || (SELECT pg_catalog.string_agg(x.oid || '/' || x.xmin, ' ' ORDER BY x.oid) FROM pg_catalog.pg_extension x) AS seen,
      pg_catalog.bool_or(u.typid IN (SELECT oid FROM naming)) AS names
    FROM uses u JOIN marks m ON m.oid = u.typid GROUP BY 1
  ), publications AS (
    SELECT pg_catalog.string_agg(p.oid || '/' || p.xmin, ' ' ORDER BY p.oid) AS seen,
      COALESCE(pg_catalog.bool_or(p.puballtables AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate), false) AS whole
    FROM pg_catalog.pg_publication p WHERE p.pubname = ANY ($1)
  )
  SELECT own.oid::text AS oid,
    pg_catalog.md5(pg_catalog.concat_ws('|', own.xmin, own.relfilenode, a.seen, t.seen, COALESCE(r.seen, ''), q.seen)) AS stamp,
    own.relpersistence = 'p' AND (q.whole OR COALESCE(r.whole, false)) AND NOT COALESCE(t.names, false) AS followed
  FROM own CROSS JOIN publications q LEFT JOIN types t ON t.oid = own.oid
    CROSS JOIN LATERAL (
      SELECT pg_catalog.string_agg(a.attnum || '/' || a.xmin, ' ' ORDER BY a.attnum) AS seen
      FROM pg_catalog.pg_attribute a WHERE a.attrelid = own.oid AND a.attnum > 0) a
    CROSS JOIN LATERAL (
      SELECT pg_catalog.string_agg(r.oid || '/' || r.xmin, ' ' ORDER BY r.oid) AS seen,
        pg_catalog.bool_or(p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate) AS whole
      FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
      WHERE r.prrelid = own.oid AND p.pubname = ANY ($1)) r`

/** Below it are the ids that every server has of its own (FirstNormalObjectId in access/transam.h). */
const firstUserOid = 16_384

/** Types whose values are ids and whose text is names: a rename changes what the same value reads as. */
const namingTypes = `SELECT y.oid FROM pg_catalog.pg_type y
  WHERE y.oid < ${firstUserOid} AND y.typnamespace = 'pg_catalog'::regnamespace AND y.typname ~ '^_?(reg|aclitem)'`
