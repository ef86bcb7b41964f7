import type pg from 'pg'
import { codeOf } from '../base/errors.ts'
import type { Extension, RelationSizes } from '../model/catalog.ts'

/** Of a database, what a target has to have and to have room for. */

/** All but the one that every database has. */
export async function readExtensions(client: pg.Client): Promise<Extension[]> {
  const { rows } = await client.query<Extension>(
    `SELECT extname AS name, extversion AS version FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql' ORDER BY 1`,
  )
  return rows
}

/**
 * What tables, with what they keep out of line, and indexes fill now. Asking waits for whoever alters a table, so it is
 * given up soon: a plan without it estimates. In a transaction.
 */
export async function readRelationSizes(client: pg.Client): Promise<RelationSizes | undefined> {
  await client.query('SAVEPOINT sizes')
  try {
    await client.query(`SET LOCAL lock_timeout = '500ms'`)
    const { rows } = await client.query<{ tables: string | null; indexes: string | null }>(
      `SELECT pg_catalog.sum(size) FILTER (WHERE NOT "isIndex") AS tables, pg_catalog.sum(size) FILTER (WHERE "isIndex") AS indexes
       FROM (SELECT c.relkind = 'i' AND n.nspname <> 'pg_toast' AS "isIndex", pg_catalog.pg_relation_size(c.oid) AS size
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'm', 't', 'i') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema'
           AND (n.nspname !~ '^pg_' AND c.oid >= 16384 OR n.nspname = 'pg_toast' AND c.oid >= 16384
             OR c.oid = 'pg_catalog.pg_largeobject'::regclass)) s`,
    )
    return { tables_bytes: Number(rows[0]?.tables ?? 0), indexes_bytes: Number(rows[0]?.indexes ?? 0) }
  } catch (error) {
    if (codeOf(error) === undefined) throw error
    return undefined
  } finally {
    // Also without an error, for the setting.
    await client.query('ROLLBACK TO SAVEPOINT sizes')
  }
}
