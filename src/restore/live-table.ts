/** Tables of a live database that rows are put back into: what they look like, and the SQL of it. */

import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified, quoteIdent } from '../model/identifier.ts'

/** `insert-missing`: rows that are not there now. `overwrite`: those, and rows that differ. `replace`: none but these. */
export const mergeModes = ['insert-missing', 'overwrite', 'replace'] as const
export type MergeMode = (typeof mergeModes)[number]

interface Column {
  readonly name: string
  readonly type: string
  /** The collation, if it is not the type's. */
  readonly collation: string | null
  readonly isRequired: boolean
}

/** A table with rows: a plain one, or a partitioned one with those of its partitions. */
export interface LiveTable extends QualifiedName {
  readonly oid: string
  /** Ids of the tables that it inherits from, or is a partition of. */
  readonly parents: readonly string[]
  readonly isPartition: boolean
  readonly isPartitioned: boolean
  /** Columns that take values, in their order. */
  readonly columns: readonly Column[]
  /** Columns that the server computes. */
  readonly generated: readonly string[]
  /** The columns of its key; empty where it has none. */
  readonly key: readonly string[]
  /** Tables whose foreign keys name this one, and what a deletion does to their rows if it is not refused. */
  readonly referencedBy: readonly (QualifiedName & {
    readonly onDelete: 'CASCADE' | 'SET NULL' | 'SET DEFAULT' | null
  })[]
}

const tablesSql = `
  SELECT c.oid::text AS oid, n.nspname AS schema, c.relname AS name, c.relkind = 'p' AS "isPartitioned", c.relispartition AS "isPartition",
    COALESCE((SELECT pg_catalog.json_agg(i.inhparent::text) FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid), '[]') AS parents,
    COALESCE((SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname,
        'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'isRequired', a.attnotnull,
        'collation', CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::pg_catalog.regcollation::text END) ORDER BY a.attnum)
      FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''), '[]') AS columns,
    COALESCE((SELECT pg_catalog.json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> ''), '[]') AS generated,
    COALESCE((SELECT pg_catalog.json_agg(a.attname ORDER BY k.place)
      FROM (SELECT i.indkey FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident)
        ORDER BY i.indisprimary DESC LIMIT 1) i,
        pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum), '[]') AS key,
    COALESCE((SELECT pg_catalog.json_agg(pg_catalog.json_build_object('schema', fn.nspname, 'name', f.relname,
        'onDelete', CASE k.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'd' THEN 'SET DEFAULT' END))
      FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class f ON f.oid = k.conrelid
      JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
      WHERE k.contype = 'f' AND k.confrelid = c.oid AND k.conparentid = 0), '[]') AS "referencedBy"
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  ORDER BY n.nspname, c.relname`

export async function readLiveTables(client: pg.Client): Promise<LiveTable[]> {
  return (await client.query<LiveTable>(tablesSql)).rows
}

/** Where its rows are found: a plain table's are its own, whatever inherits from it. */
export const rowsOf = (table: LiveTable): string =>
  table.isPartitioned ? qualified(table) : `ONLY ${qualified(table)}`

export const columnNames = ({ columns }: LiveTable): string => columns.map(({ name }) => quoteIdent(name)).join(', ')

/** Reads its rows, all columns that take values. */
export const readSql = (table: LiveTable): string =>
  `(SELECT ${table.columns.length === 0 ? '' : columnNames(table)} FROM ${rowsOf(table)})`

/** A table of the same columns and key, and nothing else. */
export function createSql(table: LiveTable, as: QualifiedName): string {
  const columns = table.columns.map(({ name, type, collation, isRequired }) =>
    [quoteIdent(name), type, collation === null ? '' : `COLLATE ${collation}`, isRequired ? 'NOT NULL' : '']
      .filter((word) => word !== '')
      .join(' '),
  )
  const key = table.key.length === 0 ? [] : [`PRIMARY KEY (${table.key.map(quoteIdent).join(', ')})`]
  return `CREATE TABLE ${qualified(as)} (${[...columns, ...key].join(', ')})`
}

/** What differs between rows as they were and as they are. */
export interface Differences {
  /** Were there, and are not now. */
  readonly missing: number
  /** Have the same key, and other values. */
  readonly differing: number
  /** Are there now, and were not. */
  readonly extra: number
}

/** The SQL that brings one table's rows, which wait in a temporary table, into the live one. */
export class Merge {
  readonly live: LiveTable
  readonly beside: string
  private readonly columns: readonly string[]

  /** `then`: the table as it was. */
  constructor(live: LiveTable, then: LiveTable, mode: MergeMode) {
    this.live = live
    this.beside = `pg_temp.walback_rows_${live.oid}`
    this.columns = then.columns.map(({ name }) => quoteIdent(name))
    const known = new Set(live.columns.map(({ name }) => name))
    const lost = then.columns.filter(({ name }) => !known.has(name)).map(({ name }) => name)
    const what = `table ${live.schema}.${live.name}`
    if (lost.length > 0)
      throw new WalbackError('refused', `${what} has no column ${lost.join(', ')} any more, which its rows had`, {
        hint: 'restore it under another name with --as, and take from there what is wanted',
      })
    if (mode === 'replace') return
    if (live.key.length === 0)
      throw new WalbackError('refused', `${what} has no key to tell which of its rows are missing`, {
        hint: 'restore it under another name with --as, or put back all of its rows with --merge replace',
      })
    const unkeyed = live.key.filter((name) => !then.columns.some((column) => column.name === name))
    if (unkeyed.length > 0)
      throw new WalbackError('refused', `${what} had no column ${unkeyed.join(', ')}, which is in its key now`, {
        hint: 'restore it under another name with --as',
      })
  }

  private get hasKey(): boolean {
    const { key } = this.live
    return key.length > 0 && key.every((name) => this.columns.includes(quoteIdent(name)))
  }

  get prepareSql(): string {
    return `CREATE TEMP TABLE ${this.beside.replace('pg_temp.', '')} AS SELECT ${this.columns.join(', ')} FROM ${rowsOf(this.live)} WITH NO DATA`
  }

  get fillTarget(): string {
    return this.columns.length === 0 ? this.beside : `${this.beside} (${this.columns.join(', ')})`
  }

  /** As text, since a type may have no equality, or one that is not on the search_path. */
  private texts(of: string): string {
    return `ROW(${this.columns.map((column) => `${of}.${column}::text`).join(', ')})`
  }

  private get isSame(): string {
    return this.live.key.map((name) => `l.${quoteIdent(name)}::text = r.${quoteIdent(name)}::text`).join(' AND ')
  }

  get differencesSql(): string {
    const [live, beside] = [rowsOf(this.live), this.beside]
    if (!this.hasKey) {
      const rows = (from: string, as: string): string => `SELECT ${this.texts(as)}::text FROM ${from} ${as}`
      const count = (one: string, other: string): string => `(SELECT count(*) FROM (${one} EXCEPT ALL ${other}) d)`
      const [was, is] = [rows(beside, 'r'), rows(live, 'l')]
      return `SELECT ${count(was, is)} AS missing, 0 AS differing, ${count(is, was)} AS extra`
    }
    return `SELECT count(*) FILTER (WHERE there IS NULL) AS missing, count(*) FILTER (WHERE was IS NULL) AS extra,
        count(*) FILTER (WHERE there AND was AND differs) AS differing
      FROM (SELECT l."walback there" AS there, r."walback was" AS was, ${this.texts('l')} IS DISTINCT FROM ${this.texts('r')} AS differs
        FROM (SELECT true AS "walback there", * FROM ${live}) l FULL JOIN (SELECT true AS "walback was", * FROM ${beside}) r ON ${this.isSame}) d`
  }

  /** Keys of rows that differ, as the server writes rows. */
  conflictsSql(limit: number): string | undefined {
    if (!this.hasKey) return undefined
    const key = this.live.key.map((name) => `r.${quoteIdent(name)}`).join(', ')
    return `SELECT ROW(${key})::text AS key FROM ${this.beside} r JOIN ${rowsOf(this.live)} l ON ${this.isSame}
      WHERE ${this.texts('l')} IS DISTINCT FROM ${this.texts('r')} ORDER BY ${key} LIMIT ${limit}`
  }

  /** Takes out what was not there; rows without a key all, to be put in again. */
  get deleteSql(): string {
    const rest = this.hasKey ? ` WHERE NOT EXISTS (SELECT FROM ${this.beside} r WHERE ${this.isSame})` : ''
    return `DELETE FROM ${rowsOf(this.live)} l${rest}`
  }

  get updateSql(): string | undefined {
    const set = this.columns.filter((column) => !this.live.key.some((name) => quoteIdent(name) === column))
    if (!this.hasKey || set.length === 0) return undefined
    return `UPDATE ${rowsOf(this.live)} l SET ${set.map((column) => `${column} = r.${column}`).join(', ')}
      FROM ${this.beside} r WHERE ${this.isSame} AND ${this.texts('l')} IS DISTINCT FROM ${this.texts('r')}`
  }

  get insertSql(): string {
    const columns = this.columns.join(', ')
    const rest = this.hasKey ? ` WHERE NOT EXISTS (SELECT FROM ${rowsOf(this.live)} l WHERE ${this.isSame})` : ''
    return `INSERT INTO ${qualified(this.live)} (${columns}) OVERRIDING SYSTEM VALUE SELECT ${columns} FROM ${this.beside} r${rest}`
  }
}
