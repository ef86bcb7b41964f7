import type pg from 'pg'
import type { Table } from '../model/catalog.ts'
import { type Descendant, everything, meantTables, noSuchTable, type Selection, unmatched } from '../model/selection.ts'

/** Of the tables that a session sees, those whose rows are meant, and the rest. */
export interface SelectedTables {
  readonly tables: readonly Table[]
  readonly leftOut: readonly Table[]
}

/** Refuses a selection that no table with rows has a part in; the tables below one that is meant are meant too. */
export async function selectFrom(
  client: pg.Client,
  tables: readonly Table[],
  selection: Selection | undefined,
): Promise<SelectedTables> {
  if (selection === undefined) return { tables, leftOut: [] }
  const { rows } = await client.query<Descendant>(relationsSql)
  const meant = meantTables(rows, selection)
  const isMeant = ({ oid }: Table): boolean => selection.rows && meant.has(String(oid))
  const chosen = tables.filter(isMeant)
  if (meant.size === 0 || (selection.rows && chosen.length === 0)) throw noSuchTable(tables, selection, 'the database')
  const [pattern] = unmatched(rows, selection)
  if (pattern !== undefined) throw noSuchTable(tables, { ...everything, tables: [pattern] }, 'the database')
  return { tables: chosen, leftOut: tables.filter((table) => !isMeant(table)) }
}

/** Tables of extensions too: the rows of some are dumped. */
const relationsSql = `
  SELECT c.oid::text AS oid, n.nspname AS schema, c.relname AS name,
    COALESCE((SELECT pg_catalog.json_agg(i.inhparent::text) FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid), '[]') AS parents
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
  ORDER BY c.oid`
