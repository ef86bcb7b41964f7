import type pg from 'pg'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified } from '../model/identifier.ts'

/** A table that holds rows itself, as a database has it. */
export interface TableShape extends QualifiedName {
  /** In their order, without generated ones. */
  readonly columns: readonly string[]
  /** The columns of its primary key; none where it has none. */
  readonly key: readonly string[]
}

/** The tables of users, by their names: not those of extensions, nor what walback keeps in a source. */
export async function readTables(client: pg.Client): Promise<TableShape[]> {
  const { rows } = await client.query<TableShape>(`
    SELECT n.nspname::text AS schema, c.relname::text AS name,
      ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns,
      ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i
        CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
        WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place) AS key
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'walback')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C"`)
  return rows
}

export const nameOf = ({ schema, name }: QualifiedName): string => `${schema}.${name}`

export async function countRows(client: pg.Client, table: QualifiedName): Promise<number> {
  const { rows } = await client.query<{ rows: string }>(`SELECT count(*) AS rows FROM ONLY ${qualified(table)}`)
  return Number(rows[0]?.rows)
}
