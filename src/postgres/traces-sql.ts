import type pg from 'pg'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import { keylessFullSql } from './identity-sql.ts'

/** Something that bears walback's name in a database, or is built on what does. */
export interface Trace {
  readonly kind: 'slot' | 'publication' | 'event trigger' | 'schema'
  readonly name: string
  /** A slot that is being read; a trigger whose function is in the schema `walback`; a schema that `init` made. */
  readonly isOurs: boolean
}

/** Everything of walback's that is in a database, whichever source it belongs to; in the order in which it is removed. */
export async function readTraces(client: pg.Client): Promise<Trace[]> {
  const { rows } = await client.query<Trace>(String.raw`
    SELECT kind, name, "isOurs" FROM (
      SELECT 1, 'slot', slot_name::text, plugin = 'pgoutput' FROM pg_catalog.pg_replication_slots
        WHERE slot_name LIKE 'walback\_%' AND database = current_database()
      UNION ALL SELECT 2, 'event trigger', evtname::text, pronamespace IS NOT DISTINCT FROM pg_catalog.to_regnamespace('walback')
        FROM pg_catalog.pg_event_trigger t LEFT JOIN pg_catalog.pg_proc p ON p.oid = t.evtfoid
        WHERE evtname LIKE 'walback\_%' OR pronamespace = pg_catalog.to_regnamespace('walback')
      UNION ALL SELECT 3, 'publication', pubname::text, true FROM pg_catalog.pg_publication
        WHERE pubname LIKE 'walback\_%' OR pg_catalog.obj_description(oid, 'pg_publication') LIKE 'walback repository %'
      UNION ALL SELECT 4, 'schema', nspname::text, coalesce(pg_catalog.obj_description(oid, 'pg_namespace') LIKE 'walback:%', false)
        FROM pg_catalog.pg_namespace WHERE nspname = 'walback'
    ) t (place, kind, name, "isOurs") ORDER BY place, name`)
  return rows
}

/** What removes it. */
export function removeTraceSql({ kind, name }: Trace): string {
  switch (kind) {
    case 'slot':
      return `SELECT pg_catalog.pg_drop_replication_slot(${quoteLiteral(name)})`
    case 'event trigger':
      return `DROP EVENT TRIGGER ${quoteIdent(name)}`
    case 'publication':
      return `DROP PUBLICATION ${quoteIdent(name)}`
    case 'schema':
      return `DROP SCHEMA ${quoteIdent(name)} CASCADE`
  }
}

/** A table without a usable key that has REPLICA IDENTITY FULL. */
export interface FullTable {
  readonly schema: string
  readonly name: string
  /** Publications of others that it is in: without an identity its updates would fail. */
  readonly publications: readonly string[]
}

export async function readFullTables(client: pg.Client, ours: readonly string[]): Promise<FullTable[]> {
  const { rows } = await client.query<FullTable>(
    `SELECT f.schema, f.name, ARRAY(SELECT p.pubname::text FROM pg_catalog.pg_publication_tables p
         WHERE p.schemaname = f.schema AND p.tablename = f.name AND p.pubname <> ALL ($1) ORDER BY 1) AS publications
       FROM (${keylessFullSql}) f ORDER BY 1, 2`,
    [ours],
  )
  return rows
}
