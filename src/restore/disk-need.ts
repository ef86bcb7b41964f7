import type { RestorePlan } from './plan.ts'

/** Room that what is restored will take, about. */
export interface DiskNeed {
  readonly tables_bytes: number
  readonly indexes_bytes: number
  /** `source`: what tables and indexes filled there when the base was taken; `rows`: made up from the rows' own bytes. */
  readonly from: 'source' | 'rows'
}

/** Head and item pointer of a row on a page (storage-page-layout in the manual); values are about as long as their text. */
const rowOverhead_bytes = 28
/** What indexes take beside tables where nobody knows: between one narrow key and a table with several. */
const indexShare = 0.4

/**
 * What a plan's base comes to. What the stream has added or taken away is not in it, since rows that it holds may replace
 * each other; nor is what the server logs meanwhile, up to its max_wal_size and what it archives.
 */
export function diskNeedOf({ base, selected }: Pick<RestorePlan, 'base' | 'selected'>): DiskNeed {
  if (selected?.selection.rows === false) return { tables_bytes: 0, indexes_bytes: 0, from: 'rows' }
  const chosen = base.tables.filter(({ oid }) => selected === undefined || selected.tables.has(oid))
  const stored = (tables: typeof chosen): number =>
    tables.reduce((sum, { pieces }) => sum + pieces.reduce((all, { size_bytes }) => all + size_bytes, 0), 0)
  const all = stored(base.tables)
  const share = chosen.length === base.tables.length || all === 0 ? 1 : stored(chosen) / all
  if (base.sizes !== undefined) {
    const { tables_bytes, indexes_bytes } = base.sizes
    return {
      tables_bytes: Math.round(tables_bytes * share),
      indexes_bytes: Math.round(indexes_bytes * share),
      from: 'source',
    }
  }
  const rows = chosen.reduce((sum, table) => sum + table.rows, 0)
  const tables_bytes = Math.round(base.raw_bytes * share) + rows * rowOverhead_bytes
  return { tables_bytes, indexes_bytes: Math.round(tables_bytes * indexShare), from: 'rows' }
}
