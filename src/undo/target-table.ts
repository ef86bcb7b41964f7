import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { qualified } from '../model/identifier.ts'
import type { RelationMessage } from '../model/pgoutput.ts'

/** A column of a table that takes part in an undo. */
export interface TargetColumn {
  readonly name: string
  /** Its type, of a domain the type below: a domain may refuse NULL, which stands for what is not there. */
  readonly type: string
  /** ` COLLATE …`, if it has one of its own: values are compared under the column's. */
  readonly collation: string
  /** GENERATED ALWAYS AS IDENTITY: no UPDATE may set it. */
  readonly isAlways: boolean
  /** Where in the rows of the stream its values are. */
  readonly place: number
}

export interface TargetTrigger {
  readonly name: string
  /** `O` fires in an ordinary session, `A` always, `R` in a replica's. */
  readonly enabled: 'O' | 'A' | 'R'
}

/** A table of the live database, and how the stream's rows of it are found there. */
export interface TargetTable {
  readonly oid: string
  readonly schema: string
  readonly name: string
  readonly relation: RelationMessage
  /** Columns that the stream has and the table still has, generated ones left out. */
  readonly columns: readonly TargetColumn[]
  /** Columns that take values and that the stream does not have: they were added since. */
  readonly added: readonly { readonly name: string }[]
  /** Columns that the server computes: from PostgreSQL 18 on the stream may have them. */
  readonly generated: readonly string[]
  /** Columns that the stream has and the table no longer has. */
  readonly dropped: readonly { readonly name: string; readonly place: number }[]
  /** What tells rows apart, with the operator of its index; undefined: nothing but the whole row does. */
  readonly key: readonly { readonly column: TargetColumn; readonly operator: string | undefined }[] | undefined
  readonly triggers: readonly TargetTrigger[]
  /** A constraint that is checked by a trigger which a replica's session does not fire. */
  readonly deferrable: readonly { readonly name: string; readonly columns: readonly string[] | null }[]
}

interface Described {
  readonly oid: string
  readonly schema: string
  readonly name: string
  readonly kind: string
  readonly columns: readonly {
    readonly name: string
    readonly type: string
    readonly collation: string
    readonly isGenerated: boolean
    readonly isAlways: boolean
  }[]
  readonly key: readonly { readonly name: string; readonly operator: string }[] | null
  readonly triggers: readonly TargetTrigger[]
  readonly deferrable: TargetTable['deferrable']
}

/** Finds a table of the stream in the database: by its id where that is the source itself, and else by its name. */
export async function findTable(
  client: pg.Client,
  relation: RelationMessage,
  options: { readonly isSource: boolean },
): Promise<TargetTable> {
  const byId = options.isSource ? await describe(client, 'c.oid = $1::oid', [relation.oid]) : undefined
  const found = byId ?? (await describe(client, 'n.nspname = $1 AND c.relname = $2', [relation.schema, relation.name]))
  if (found === undefined) {
    throw new WalbackError('refused', `there is no table ${relation.schema}.${relation.name} any more`, {
      hint: 'it was dropped since; leave it out with --table, or restore to before the transaction: `walback restore --before-tx`',
    })
  }
  return mapped(found, relation)
}

async function describe(client: pg.Client, where: string, values: unknown[]): Promise<Described | undefined> {
  const { rows } = await client.query<Described>(`${describeSql} AND ${where}`, values)
  return rows[0]
}

function mapped(found: Described, relation: RelationMessage): TargetTable {
  const { columns: all, key: index, kind: _, ...rest } = found
  const columns: TargetColumn[] = []
  const dropped: { name: string; place: number }[] = []
  for (const [place, { name }] of relation.columns.entries()) {
    const column = all.find((one) => one.name === name)
    if (column === undefined) dropped.push({ name, place })
    else if (!column.isGenerated)
      columns.push({ name, type: column.type, collation: column.collation, isAlways: column.isAlways, place })
  }
  const added = all.filter(({ name, isGenerated }) => !isGenerated && columns.every((column) => column.name !== name))
  const generated = all.flatMap(({ name, isGenerated }) => (isGenerated ? [name] : []))
  return { ...rest, relation, columns, added, generated, dropped, key: keyFor(relation, columns, index) }
}

/** The index's columns where every old row has them; else those that the stream itself tells rows apart by. */
function keyFor(
  relation: RelationMessage,
  columns: readonly TargetColumn[],
  index: Described['key'],
): TargetTable['key'] {
  const isFull = relation.identity === 'full'
  const isKnown = ({ place }: TargetColumn): boolean => isFull || relation.columns[place]?.isKey === true
  const indexed = index?.map(({ name, operator }) => ({ column: columns.find((one) => one.name === name), operator }))
  if (indexed?.every(({ column }) => column !== undefined && isKnown(column)))
    return indexed.map(({ column, operator }) => ({ column: column as TargetColumn, operator }))
  if (isFull) return undefined
  const identity = relation.columns.flatMap(({ isKey }, place) => (isKey ? [place] : []))
  // An insert into a table without an identity has the whole row, and no other change of it is in the stream.
  if (identity.length === 0) return undefined
  return identity.map((place) => {
    const column = columns.find((one) => one.place === place)
    if (column === undefined) {
      throw new WalbackError(
        'refused',
        `column ${relation.columns[place]?.name} of ${relation.schema}.${relation.name}, by which its rows were told apart, was dropped since`,
        { hint: `leave the table out with --table, or restore to before the transaction` },
      )
    }
    return { column, operator: undefined }
  })
}

export const nameOf = (table: { readonly schema: string; readonly name: string }): string => qualified(table)

const describeSql = `
  SELECT c.oid::text AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
    (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname, 'type', pg_catalog.format_type(b.oid, b.modifier),
        'collation', COALESCE((SELECT pg_catalog.format(' COLLATE %I.%I', o.nspname, l.collname) FROM pg_catalog.pg_collation l
          JOIN pg_catalog.pg_namespace o ON o.oid = l.collnamespace WHERE l.oid = a.attcollation AND l.collname <> 'default'), ''),
        'isGenerated', a.attgenerated <> '', 'isAlways', a.attidentity = 'a') ORDER BY a.attnum)
      FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL (
        WITH RECURSIVE base (oid, modifier) AS (SELECT a.atttypid, a.atttypmod
          UNION ALL SELECT t.typbasetype, t.typtypmod FROM base JOIN pg_catalog.pg_type t ON t.oid = base.oid WHERE t.typtype = 'd')
        SELECT base.oid, base.modifier FROM base JOIN pg_catalog.pg_type t ON t.oid = base.oid WHERE t.typtype <> 'd') b
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
    (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname,
        'operator', pg_catalog.format('OPERATOR(%I.%s)', o.nspname, p.oprname)) ORDER BY k.place)
      FROM (SELECT i.* FROM pg_catalog.pg_index i
          WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND (NOT a.attnotnull OR a.attgenerated <> ''))
            AND NOT EXISTS (SELECT FROM pg_catalog.unnest(i.indclass::oid[]) u(oid) JOIN pg_catalog.pg_opclass x ON x.oid = u.oid WHERE x.opcmethod <> 403)
          ORDER BY i.indisprimary DESC, i.indisreplident DESC, i.indimmediate DESC, i.indexrelid LIMIT 1) i
        CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::int2[]), pg_catalog.unnest(i.indclass::oid[])) WITH ORDINALITY k(attnum, opclass, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
        JOIN pg_catalog.pg_opclass x ON x.oid = k.opclass
        JOIN pg_catalog.pg_amop m ON m.amopfamily = x.opcfamily AND m.amopstrategy = 3 AND m.amoplefttype = x.opcintype AND m.amoprighttype = x.opcintype
        JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr JOIN pg_catalog.pg_namespace o ON o.oid = p.oprnamespace
      WHERE k.place <= i.indnkeyatts) AS key,
    COALESCE((SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', t.tgname, 'enabled', t.tgenabled) ORDER BY t.tgname)
      FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D'), '[]') AS triggers,
    COALESCE((SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', k.conname, 'columns', CASE WHEN k.contype IN ('p', 'u') THEN
        (SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (k.conkey)) END))
      FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.condeferrable AND k.contype IN ('p', 'u', 'x')), '[]') AS deferrable
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r'`
