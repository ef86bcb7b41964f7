/** What is in the shop's tables, in a form that two databases can be compared by. */
import type { Client } from './client.ts'
import { shopTables } from './shop.ts'

export interface TableState {
  readonly table: string
  readonly rows: number
  /** Of the text of all rows, in the order of that text. */
  readonly md5: string
}

/** Every row of every table, as the session sees it now. */
export async function readTables(client: Client): Promise<TableState[]> {
  const states: TableState[] = []
  for (const table of shopTables) {
    const { rows } = await client.query<{ rows: number; md5: string }>(
      `SELECT count(*)::int AS rows, md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE "C"), '')) AS md5
       FROM public.${table} t`,
    )
    states.push({ table, rows: rows[0]?.rows ?? 0, md5: rows[0]?.md5 ?? '' })
  }
  return states
}

/** Columns, constraints, indexes, views, functions, triggers and rights of the shop, each as PostgreSQL prints it. */
export async function readDefinitions(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ definition: string }>(`
    SELECT definition FROM (
      SELECT format('column %s.%s %s %s %s', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull,
                    pg_get_expr(adbin, adrelid)) AS definition
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0
      UNION ALL SELECT format('constraint %s %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
      UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
      UNION ALL SELECT format('view %s %s', viewname, definition) FROM pg_views WHERE schemaname = 'public'
      UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
      UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
      UNION ALL SELECT format('rights %s %s', oid::regclass, relacl)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relacl IS NOT NULL
    ) all_of_them ORDER BY definition COLLATE "C"`)
  return rows.map((row) => row.definition)
}
