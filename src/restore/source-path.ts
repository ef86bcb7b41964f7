import type { DatabaseProperties } from '../model/catalog.ts'
import { settingSql } from './settings.ts'

/**
 * Sets the search_path that the source's applications work under, as far as its settings tell. Rows and definitions are
 * written with an empty one, so they name everything; but functions that a constraint, a generated column or an index
 * calls may not. pg_catalog comes first, as it does with an empty one: what is said without a schema still means its.
 */
export function sourcePathSql({ settings }: Pick<DatabaseProperties, 'settings'>): string {
  const own = settings.find((setting) => /^search_path=/i.test(setting)) ?? 'search_path="$user", public'
  return settingSql(own).replace(' = ', ` = 'pg_catalog', `)
}

export const emptyPathSql = `SET search_path = ''`
