import type pg from 'pg'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified, quoteIdent } from '../model/identifier.ts'
import { rootByEnumHash } from '../postgres/catalog.ts'
import { type BaseManifest, type BaseTable, tablesOf } from '../repository/base.ts'
import { temporaryPrefix } from './destination.ts'
import type { RestoredTable } from './rows.ts'

/** A table of the target as it is now. */
export interface TargetTable {
  readonly schema: string
  readonly name: string
  /** `r` a table with rows of its own, `p` a partitioned one. */
  readonly kind: string
  /** Columns that take values: all but generated ones. */
  readonly columns: readonly string[]
  /** Whether a foreign key names it, which forbids TRUNCATE. */
  readonly isReferenced: boolean
  /** Of a partition by the hash of an enum: the topmost table, in any of whose partitions a row may be here. */
  readonly spreadOver: QualifiedName | null
  /** Triggers and rules that fire even in a replica's session: each with the word that puts it back. */
  readonly loud: readonly {
    readonly kind: 'TRIGGER' | 'RULE'
    readonly name: string
    readonly as: 'ALWAYS' | 'REPLICA'
  }[]
}

interface Entry {
  /** Its id on the target, which stays the same whatever it is called. */
  target: string
  restored: RestoredTable | undefined
  /** The columns' types in the base, until a command has touched it. */
  types: readonly string[] | undefined
}

/** The relations of the stream, by their ids on the source, as they are found on the target while its schema changes. */
export class TargetTables {
  private readonly entries = new Map<number, Entry>()
  private readonly generated = new Map<number, ReadonlySet<string>>()

  /** The relations that the base brought, under the names that they have in it. */
  async addBase(
    client: pg.Client,
    relations: readonly {
      readonly oid: number
      readonly schema: string
      readonly name: string
      readonly types?: BaseTable['types']
    }[],
  ): Promise<void> {
    const { rows } = await client.query<{ oid: string | null }>(
      'SELECT pg_catalog.to_regclass(name)::pg_catalog.oid::text AS oid FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY t(name, place) ORDER BY place',
      [relations.map(qualified)],
    )
    for (const [place, { oid, types }] of relations.entries()) {
      const target = rows[place]?.oid
      if (target) this.entries.set(oid, { target, restored: undefined, types })
    }
    await this.readGenerated(
      client,
      relations.map(({ oid }) => oid),
    )
  }

  setRestored(source: number, restored: RestoredTable): void {
    const entry = this.entries.get(source)
    if (entry) entry.restored = restored
  }

  /** A command made or changed a relation: what was known of its rows and columns no longer holds. */
  async touch(client: pg.Client, source: number, target: string): Promise<void> {
    const known = this.entries.get(source)
    if (known) known.target = target
    else this.entries.set(source, { target, restored: undefined, types: undefined })
    await this.forget(client, [target])
  }

  /** The rows of these relations of the target, and of those below them, may read otherwise from now on. */
  async forget(client: pg.Client, targets: readonly string[]): Promise<void> {
    const { rows } = await client.query<{ oid: string }>(
      `WITH RECURSIVE below (oid) AS (SELECT pg_catalog.unnest($1::oid[]) UNION
         SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN below ON below.oid = i.inhparent)
       SELECT oid::text AS oid FROM below`,
      [targets],
    )
    const changed = new Set(rows.map((row) => row.oid))
    const sources = [...this.entries].filter(([, entry]) => changed.has(entry.target))
    for (const [, entry] of sources) this.forgetEntry(entry)
    await this.readGenerated(
      client,
      sources.map(([source]) => source),
    )
  }

  forgetAll(): void {
    for (const entry of this.entries.values()) this.forgetEntry(entry)
  }

  drop(source: number): void {
    this.entries.delete(source)
    this.generated.delete(source)
  }

  has(source: number): boolean {
    return this.entries.has(source)
  }

  /** Id on the target. */
  target(source: number): string | undefined {
    return this.entries.get(source)?.target
  }

  typesInBase(source: number): readonly string[] | undefined {
    return this.entries.get(source)?.types
  }

  /** Columns that the server computes: from 18 on the stream may have them. */
  generatedColumns(source: number): ReadonlySet<string> {
    return this.generated.get(source) ?? none
  }

  /** What is known of the rows of a table that no command has touched. */
  restored(source: number): RestoredTable | undefined {
    return this.entries.get(source)?.restored
  }

  /** The rows of a table are not what the archive says. */
  forgetRows(source: number): void {
    const entry = this.entries.get(source)
    if (entry) entry.restored = undefined
  }

  /** The same of those with these ids on the target. */
  forgetTargets(targets: readonly string[]): void {
    for (const entry of this.entries.values()) if (targets.includes(entry.target)) entry.restored = undefined
  }

  sources(): readonly number[] {
    return [...this.entries.keys()]
  }

  /** The tables as they are on the target now; those that are gone are absent. */
  async current(client: pg.Client, sources: readonly number[]): Promise<Map<number, TargetTable>> {
    const asked = sources.flatMap((source) => this.entries.get(source)?.target ?? [])
    const { rows } = await client.query<TargetTable & { oid: string }>(currentSql, [asked])
    const byTarget = new Map(rows.map(({ oid, ...table }) => [oid, table]))
    const found = new Map<number, TargetTable>()
    for (const source of sources) {
      const table = byTarget.get(this.entries.get(source)?.target ?? '')
      if (table) found.set(source, table)
    }
    return found
  }

  private forgetEntry(entry: Entry): void {
    entry.restored = undefined
    entry.types = undefined
  }

  private async readGenerated(client: pg.Client, sources: readonly number[]): Promise<void> {
    const asked = sources.flatMap((source) => this.entries.get(source)?.target ?? [])
    if (asked.length === 0) return
    const { rows } = await client.query<{ oid: string; names: string[] }>(
      `SELECT attrelid::text AS oid, pg_catalog.json_agg(attname) AS names FROM pg_catalog.pg_attribute
       WHERE attrelid = ANY ($1::oid[]) AND attnum > 0 AND NOT attisdropped AND attgenerated <> '' GROUP BY attrelid`,
      [asked],
    )
    const byTarget = new Map(rows.map(({ oid, names }) => [oid, new Set(names)]))
    for (const source of sources) {
      const names = byTarget.get(this.entries.get(source)?.target ?? '')
      if (names) this.generated.set(source, names)
      else this.generated.delete(source)
    }
  }
}

const none: ReadonlySet<string> = new Set()

const currentSql = `
  SELECT c.oid::text AS oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
    COALESCE((SELECT pg_catalog.json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''), '[]') AS columns,
    EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.confrelid = c.oid AND k.contype = 'f' AND k.conrelid <> c.oid) AS "isReferenced",
    (SELECT v.via FROM (${rootByEnumHash}) v WHERE c.relispartition) AS "spreadOver",
    COALESCE((SELECT pg_catalog.json_agg(l) FROM (
      SELECT 'TRIGGER' AS kind, t.tgname AS name, CASE t.tgenabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END AS "as"
      FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'R')
      UNION ALL
      SELECT 'RULE', r.rulename, CASE r.ev_enabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END
      FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_enabled IN ('A', 'R') AND r.rulename <> '_RETURN') l), '[]') AS loud
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::oid[])`

/** Lets no trigger or rule of the table fire while rows are put as they are. */
export async function quietly(client: pg.Client, table: TargetTable, work: () => Promise<void>): Promise<void> {
  for (const { kind, name } of table.loud)
    await client.query(`ALTER TABLE ${qualified(table)} DISABLE ${kind} ${quoteIdent(name)}`)
  await work()
  for (const { kind, name, as } of table.loud)
    await client.query(`ALTER TABLE ${qualified(table)} ENABLE ${as} ${kind} ${quoteIdent(name)}`)
}

/** Of the tables that were made after the base the unlogged ones, in lines: the stream has no rows of theirs. */
export async function madeUnlogged(client: pg.Client, base: BaseManifest, tables: TargetTables): Promise<string[]> {
  const known = tablesOf(base).flatMap(({ oid }) => tables.target(oid) ?? [])
  const { rows } = await client.query<QualifiedName>(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND c.oid <> ALL ($1::oid[]) AND n.nspname !~ '^pg_'
       AND NOT pg_catalog.starts_with(n.nspname, $2) ORDER BY 1, 2`,
    // What is done is noted in a schema that is called as the database.
    [known, temporaryPrefix],
  )
  return rows.map(({ schema, name }) => `left empty: unlogged table ${schema}.${name}, which was made after the base`)
}
