import type pg from 'pg'
import { codeOf, WalbackError } from '../base/errors.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified, quoteIdent } from '../model/identifier.ts'
import { isPartial, meantTables } from '../model/selection.ts'
import type { Selected } from './selected.ts'
import type { TargetTables } from './target-tables.ts'

interface Relation extends QualifiedName {
  readonly oid: string
  readonly kind: 'r' | 'p' | 'f'
  readonly isPartition: boolean
  /** Ids of the tables above it. */
  readonly parents: readonly string[]
  /** Ids of the tables whose row type a column of it has. */
  readonly rowTypes: readonly string[]
}

/** The tables of users, with what ties one to another. Those of extensions go with these. */
const relationsSql = `
  SELECT c.oid::text AS oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind, c.relispartition AS "isPartition",
    COALESCE((SELECT pg_catalog.json_agg(i.inhparent::text) FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid), '[]') AS parents,
    COALESCE((SELECT pg_catalog.json_agg(DISTINCT r.typrelid::text) FROM pg_catalog.pg_attribute a
      JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_catalog.pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END
      JOIN pg_catalog.pg_type r ON r.oid IN (t.oid, b.oid) AND r.typtype = 'c'
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS "rowTypes"
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  ORDER BY c.oid`

/** What may go by CASCADE and is no part of what goes itself: by its address, with the table that it is a part of. */
const dependentsSql = `
  SELECT pg_catalog.format('%s/%s', classid::oid, objid) AS key, pg_catalog.pg_describe_object(classid, objid, 0) AS words, part_of AS "partOf"
  FROM (
    SELECT 'pg_catalog.pg_class'::regclass AS classid, oid AS objid, NULL::text AS part_of FROM pg_catalog.pg_class WHERE relkind IN ('v', 'm')
    UNION ALL SELECT 'pg_catalog.pg_proc'::regclass, oid, NULL FROM pg_catalog.pg_proc
    UNION ALL SELECT 'pg_catalog.pg_constraint'::regclass, oid, conrelid::text FROM pg_catalog.pg_constraint
    UNION ALL SELECT 'pg_catalog.pg_attrdef'::regclass, oid, adrelid::text FROM pg_catalog.pg_attrdef
    UNION ALL SELECT 'pg_catalog.pg_trigger'::regclass, oid, tgrelid::text FROM pg_catalog.pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'pg_catalog.pg_policy'::regclass, oid, polrelid::text FROM pg_catalog.pg_policy
    UNION ALL SELECT 'pg_catalog.pg_rewrite'::regclass, oid, ev_class::text FROM pg_catalog.pg_rewrite WHERE rulename <> '_RETURN'
  ) o WHERE objid >= 16384`

/** Drops the tables that were not selected; gives what went with them, each in a line. */
export async function dropUnselected(
  client: pg.Client,
  { selection, without }: Selected,
  tables: TargetTables,
): Promise<string[]> {
  if (!isPartial(selection)) return []
  const { rows: all } = await client.query<Relation>(relationsSql)
  const kept = meantTables(all, selection)
  if (kept.size === 0)
    throw new WalbackError('usage', 'no table is left of what was selected: none has such a name at the target', {
      hint: 'names are those that tables had at the target; `walback restore --schema-only` shows them',
    })
  const empty = new Map([...without].map((source) => [tables.target(source), source]))
  const unread = all.find(({ oid }) => kept.has(oid) && empty.has(oid) && selection.rows)
  if (unread !== undefined)
    throw new WalbackError(
      'failed',
      `the rows of ${unread.schema}.${unread.name} were not read, though it is selected`,
      {
        hint: 'restore without a selection; please report this',
      },
    )
  const needed = neededTypes(all, kept)
  const dropped = all.filter(({ oid }) => !kept.has(oid) && !needed.has(oid))
  const gone = new Set(dropped.map(({ oid }) => oid))
  const notes = all
    .filter(({ oid }) => needed.has(oid))
    .map((table) => `left without rows: ${table.schema}.${table.name}, whose type a column of what is selected has`)
  const before = await dependents(client)
  notes.push(...(await cutLoose(client, all, gone)))
  await cutForeignKeys(client, [...kept], [...needed])
  await drop(client, dropped)
  const filled = all.filter(({ oid, kind }) => needed.has(oid) && !empty.has(oid) && kind === 'r')
  await emptyTables(client, filled)
  tables.forgetTargets(filled.map(({ oid }) => oid))
  const after = await dependents(client)
  for (const [key, { words, partOf }] of before)
    if (!after.has(key) && (partOf === null || !gone.has(partOf)))
      notes.push(`left out: ${words}, which needs a table that is not restored`)
  return notes
}

/** Tables that are not kept, and whose row type one that is has a column of. */
function neededTypes(all: readonly Relation[], kept: ReadonlySet<string>): ReadonlySet<string> {
  const byId = new Map(all.map((table) => [table.oid, table]))
  const needed = new Set<string>()
  const pending = [...kept]
  for (let oid = pending.pop(); oid !== undefined; oid = pending.pop()) {
    for (const type of byId.get(oid)?.rowTypes ?? []) {
      if (kept.has(type) || needed.has(type) || !byId.has(type)) continue
      needed.add(type)
      pending.push(type)
    }
  }
  return needed
}

/** Takes what stays out from under what goes, which would else take it along. */
async function cutLoose(client: pg.Client, all: readonly Relation[], gone: ReadonlySet<string>): Promise<string[]> {
  const byId = new Map(all.map((table) => [table.oid, table]))
  const notes: string[] = []
  for (const table of all.filter(({ oid }) => !gone.has(oid))) {
    for (const parent of table.parents.flatMap((oid) => (gone.has(oid) ? (byId.get(oid) ?? []) : []))) {
      await client.query(
        table.isPartition
          ? `ALTER TABLE ${qualified(parent)} DETACH PARTITION ${qualified(table)}`
          : `ALTER TABLE ${qualified(table)} NO INHERIT ${qualified(parent)}`,
      )
      notes.push(
        `${table.schema}.${table.name} is a table of its own now, since ${parent.schema}.${parent.name} is not restored`,
      )
    }
  }
  return notes
}

/** Foreign keys to rows that are not there. What goes takes those to itself along. */
async function cutForeignKeys(client: pg.Client, from: readonly string[], to: readonly string[]): Promise<void> {
  const { rows } = await client.query<QualifiedName & { key: string }>(
    `SELECT n.nspname AS schema, c.relname AS name, k.conname AS key
     FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid = ANY ($1::oid[]) AND k.confrelid = ANY ($2::oid[])`,
    [from, to],
  )
  for (const { key, ...table } of rows)
    await client.query(`ALTER TABLE ${qualified(table)} DROP CONSTRAINT ${quoteIdent(key)}`)
}

/**
 * Nothing else goes with the rows: only these refer to each other by now. And no trigger fires, unless the role may not
 * see to it; then it is one on TRUNCATE alone that might.
 */
async function emptyTables(client: pg.Client, tables: readonly Relation[]): Promise<void> {
  if (tables.length === 0) return
  const isQuiet = await client.query('SET session_replication_role = replica').then(
    () => true,
    (error: unknown) => {
      if (codeOf(error) !== '42501') throw error
      return false
    },
  )
  await client.query(`TRUNCATE ${tables.map((table) => `ONLY ${qualified(table)}`).join(', ')}`)
  if (isQuiet) await client.query('RESET session_replication_role')
}

/** So many at a time, since each lock has its place in the server's memory. */
const atOnce = 64

async function drop(client: pg.Client, tables: readonly Relation[]): Promise<void> {
  for (const [kind, isOf] of [
    ['FOREIGN TABLE', ({ kind }: Relation) => kind === 'f'],
    ['TABLE', ({ kind }: Relation) => kind !== 'f'],
  ] as const) {
    const names = tables.filter(isOf).map(qualified)
    for (let first = 0; first < names.length; first += atOnce)
      await client.query(`DROP ${kind} IF EXISTS ${names.slice(first, first + atOnce).join(', ')} CASCADE`)
  }
}

async function dependents(client: pg.Client): Promise<Map<string, { words: string; partOf: string | null }>> {
  const { rows } = await client.query<{ key: string; words: string; partOf: string | null }>(dependentsSql)
  return new Map(rows.map(({ key, ...what }) => [key, what]))
}
