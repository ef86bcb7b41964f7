import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { qualified, quoteIdent } from '../model/identifier.ts'
import { actedOn, count, type Policy } from './apply-rows.ts'
import { quoted, type StagedTable } from './staged-table.ts'

/**
 * What a replica's session does not check: foreign keys, and unique constraints that are deferrable, are triggers of the
 * server. So the rows that were undone are looked at before the transaction commits.
 */
export interface ForeignKey {
  readonly name: string
  readonly child: { readonly oid: string; readonly schema: string; readonly name: string }
  /** The table that the constraint names, of a partitioned one the topmost. */
  readonly parent: { readonly schema: string; readonly name: string }
  /** The table itself that rows are referenced in: a partition. */
  readonly referenced: string
  readonly columns: readonly { readonly child: string; readonly parent: string; readonly operator: string }[]
  readonly isTemporal: boolean
}

export async function readForeignKeys(client: pg.Client, tables: readonly string[]): Promise<ForeignKey[]> {
  const { rows } = await client.query<ForeignKey>(foreignKeysSql, [tables])
  return rows
}

/** Throws if a foreign key no longer holds. */
export async function checkForeignKeys(
  client: pg.Client,
  all: readonly StagedTable[],
  keys: readonly ForeignKey[],
  policy: Policy,
): Promise<void> {
  for (const key of keys) {
    for (const staged of all) {
      if (staged.table.oid === key.child.oid) await checkParents(client, staged, key, policy)
      if (staged.table.oid === key.referenced) await checkChildren(client, staged, key, policy)
    }
  }
}

const done = (staged: StagedTable, policy: Policy): string =>
  `JOIN ${staged.check} c ON c.ord = s.ord AND (c.kind = 'd' AND c.state IN ${actedOn('d', policy)}
    OR c.kind = 'i' AND c.state IN ${actedOn('i', policy)} OR c.kind = 'u' AND c.state IN ${actedOn('u', policy)})`

/** Rows that were put back need the rows that they refer to; these are kept from going until the end. */
async function checkParents(client: pg.Client, staged: StagedTable, key: ForeignKey, policy: Policy): Promise<void> {
  const places = key.columns.map(({ child }) => staged.table.columns.findIndex(({ name }) => name === child))
  if (places.includes(-1)) return await checkAll(client, key)
  const value = (index: number): string =>
    `(CASE substr(s.marks, ${index + 1}, 1) WHEN '=' THEN ${staged.now(index)} ELSE ${staged.old(index)} END)`
  const refers = places.map((index) => `${value(index)} IS NOT NULL`).join(' AND ')
  const isChanged = places.map((index) => `substr(s.marks, ${index + 1}, 1) IN ('x', 'k')`).join(' OR ')
  const holds = key.columns
    .map(({ parent, operator }, n) => `p.${quoteIdent(parent)} ${operator} ${value(places[n] as number)}`)
    .join(' AND ')
  const from = `FROM ${staged.stage} s ${done(staged, policy)}`
  const where = `c.kind <> 'd' AND (${isChanged}) AND ${refers}`
  await client.query(
    `SELECT count(*) FROM (SELECT FROM ${qualified(key.parent)} p WHERE EXISTS (SELECT ${from} WHERE ${where} AND ${holds}) FOR KEY SHARE OF p) locked`,
  )
  // A later layer may have taken the row away again.
  const isThere = staged.layers.size > 1 ? ` AND ${remains(staged, places, key, value)}` : ''
  const missing = await count(
    client,
    `SELECT count(*) ${from} WHERE ${where} AND NOT EXISTS (SELECT FROM ${qualified(key.parent)} p WHERE ${holds})${isThere}`,
  )
  if (missing === 0) return
  throw violated(
    key,
    `${missing} rows of ${staged.name} would refer to rows of ${nameIn(key.parent)} that are not there`,
  )
}

const remains = (
  staged: StagedTable,
  places: readonly number[],
  key: ForeignKey,
  value: (index: number) => string,
): string =>
  `EXISTS (SELECT FROM ONLY ${staged.sql} x WHERE ${key.columns
    .map(({ child }, n) => `x.${quoteIdent(child)} IS NOT DISTINCT FROM ${value(places[n] as number)}`)
    .join(' AND ')})`

/** Rows that were taken out, or got their key back, must not be referred to any more. */
async function checkChildren(client: pg.Client, staged: StagedTable, key: ForeignKey, policy: Policy): Promise<void> {
  const places = key.columns.map(({ parent }) => staged.table.columns.findIndex(({ name }) => name === parent))
  if (places.includes(-1)) return await checkAll(client, key)
  const isChanged = places.map((index) => `substr(s.marks, ${index + 1}, 1) = 'x'`).join(' OR ')
  const refers = key.columns
    .map(({ child, operator }, n) => `${staged.now(places[n] as number)} ${operator} f.${quoteIdent(child)}`)
    .join(' AND ')
  const holds = key.columns
    .map(({ child, parent, operator }) => `p.${quoteIdent(parent)} ${operator} f.${quoteIdent(child)}`)
    .join(' AND ')
  const left = await count(
    client,
    `SELECT count(*) FROM ${qualified(key.child)} f WHERE EXISTS (
        SELECT FROM ${staged.stage} s ${done(staged, policy)} WHERE (c.kind = 'd' OR c.kind = 'u' AND (${isChanged})) AND ${refers})
      AND NOT EXISTS (SELECT FROM ${qualified(key.parent)} p WHERE ${holds})`,
  )
  if (left === 0) return
  throw violated(key, `${left} rows of ${nameIn(key.child)} refer to rows of ${staged.name} that would be gone`)
}

/** A column that was added since, or that the server computes, is not in what was undone: every row is looked at. */
async function checkAll(client: pg.Client, key: ForeignKey): Promise<void> {
  const refers = key.columns.map(({ child }) => `f.${quoteIdent(child)} IS NOT NULL`).join(' AND ')
  const holds = key.columns
    .map(({ child, parent, operator }) => `p.${quoteIdent(parent)} ${operator} f.${quoteIdent(child)}`)
    .join(' AND ')
  const missing = await count(
    client,
    `SELECT count(*) FROM ${qualified(key.child)} f WHERE ${refers} AND NOT EXISTS (SELECT FROM ${qualified(key.parent)} p WHERE ${holds})`,
  )
  if (missing === 0) return
  throw violated(
    key,
    `${missing} rows of ${nameIn(key.child)} refer to rows of ${nameIn(key.parent)} that are not there`,
  )
}

const nameIn = ({ schema, name }: { readonly schema: string; readonly name: string }): string => `${schema}.${name}`

const violated = (key: ForeignKey, what: string): WalbackError =>
  new WalbackError('conflict', `foreign key ${key.name} would not hold: ${what}`, {
    hint: 'nothing was changed. Undo the transactions that made them too, in one command, or leave the table out with --table',
    facts: { constraint: key.name },
  })

/** Two rows of the same key, which the server would find at the end of a transaction of its own. */
export async function checkUnique(client: pg.Client, staged: StagedTable): Promise<void> {
  for (const { name, columns } of staged.table.deferrable) {
    if (columns === null) continue
    const list = columns.map((column) => quoted({ name: column })).join(', ')
    const twice = await count(
      client,
      `SELECT count(*) FROM (SELECT FROM ONLY ${staged.sql} WHERE num_nulls(${list}) = 0 GROUP BY ${list} HAVING count(*) > 1) twice`,
    )
    if (twice === 0) continue
    throw new WalbackError(
      'conflict',
      `unique constraint ${name} of ${staged.name} would not hold: ${twice} keys twice`,
      {
        hint: 'nothing was changed; leave the table out with --table, or change the rows that took the keys',
        facts: { constraint: name },
      },
    )
  }
}

/**
 * Foreign keys of the tables, and those that refer to them. The server has further entries for the partitions of what is
 * referred to, and for those of who refers: of the first kind the one of the table that is asked for is needed, and where
 * it leads; the second says nothing new of a table that is referred to.
 */
const foreignKeysSql = `
  SELECT k.conname AS name, pg_catalog.json_build_object('oid', k.conrelid::text, 'schema', cn.nspname, 'name', cc.relname) AS child,
    pg_catalog.json_build_object('schema', pn.nspname, 'name', pc.relname) AS parent, k.confrelid::text AS referenced,
    pg_catalog.to_jsonb(k) ->> 'conperiod' IS NOT DISTINCT FROM 'true' AS "isTemporal",
    (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('child', ca.attname, 'parent', pa.attname,
        'operator', pg_catalog.format('OPERATOR(%I.%s)', o.nspname, op.oprname)) ORDER BY u.place)
      FROM ROWS FROM (pg_catalog.unnest(k.conkey), pg_catalog.unnest(root.confkey), pg_catalog.unnest(k.conpfeqop)) WITH ORDINALITY u(child, parent, operator, place)
      JOIN pg_catalog.pg_attribute ca ON ca.attrelid = k.conrelid AND ca.attnum = u.child
      JOIN pg_catalog.pg_attribute pa ON pa.attrelid = root.confrelid AND pa.attnum = u.parent
      JOIN pg_catalog.pg_operator op ON op.oid = u.operator JOIN pg_catalog.pg_namespace o ON o.oid = op.oprnamespace) AS columns
  FROM pg_catalog.pg_constraint k
  CROSS JOIN LATERAL (
    WITH RECURSIVE up AS (SELECT k.oid, k.conrelid, k.confrelid, k.confkey, k.conparentid, 0 AS height
      UNION ALL SELECT q.oid, q.conrelid, q.confrelid, q.confkey, q.conparentid, up.height + 1 FROM up
        JOIN pg_catalog.pg_constraint q ON q.oid = up.conparentid AND q.conrelid = up.conrelid)
    SELECT * FROM up ORDER BY height DESC LIMIT 1) root
  JOIN pg_catalog.pg_class cc ON cc.oid = k.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = cc.relnamespace
  JOIN pg_catalog.pg_class pc ON pc.oid = root.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace
  WHERE k.contype = 'f' AND pg_catalog.to_jsonb(k) ->> 'conenforced' IS DISTINCT FROM 'false'
    AND (k.conrelid = ANY ($1::oid[]) AND root.oid = k.oid
      OR k.confrelid = ANY ($1::oid[]) AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint q WHERE q.oid = root.conparentid AND q.conrelid <> k.conrelid))
  ORDER BY 1`
