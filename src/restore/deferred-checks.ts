import type pg from 'pg'
import { z } from 'zod'
import { messageOf } from '../base/errors.ts'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import type { Checkpoints } from './checkpoints.ts'
import { isStatementError } from './replay-session.ts'

/**
 * CHECK constraints of tables that call functions or operators of the user's. PostgreSQL takes for granted that they
 * hold for a row for ever, but they may read other tables, or have been replaced since: a row that is there may not pass
 * when it is put back. So they are taken off before rows come, and put back after.
 */
export const deferredCheck = z.object({
  table: z.string(),
  name: z.string(),
  definition: z.string(),
  comment: z.string().nullable(),
})
export type DeferredCheck = z.infer<typeof deferredCheck>

const isExtensions = (classid: string, oid: string): string =>
  `EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.classid = ${classid} AND x.objid = ${oid} AND x.deptype = 'e')`

const checksOfUsers = `
  SELECT k.conrelid::pg_catalog.regclass::text AS "table", k.conname AS name, pg_catalog.pg_get_constraintdef(k.oid) AS definition,
    pg_catalog.obj_description(k.oid, 'pg_constraint') AS comment
  FROM pg_catalog.pg_constraint k
  WHERE k.contype = 'c' AND k.conrelid <> 0 AND k.convalidated AND k.coninhcount = 0
    AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = k.oid
      AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass) AND NOT ${isExtensions('d.refclassid', 'd.refobjid')})
    AND NOT ${isExtensions("'pg_catalog.pg_class'::regclass", 'k.conrelid')}
  ORDER BY k.oid`

/** Takes them off, in the order that is the reverse of the one in which they can be put back. */
export async function takeOffChecks(client: pg.Client): Promise<DeferredCheck[]> {
  const taken: DeferredCheck[] = []
  // What a table had beside what it inherited is its own once that is gone.
  for (;;) {
    const { rows } = await client.query<DeferredCheck>(checksOfUsers)
    if (rows.length === 0) return taken
    for (const { table, name } of rows) await client.query(`ALTER TABLE ${table} DROP CONSTRAINT ${quoteIdent(name)}`)
    taken.push(...rows)
  }
}

/** Puts them back; of one that does not hold for every row that is there, no more is asked than of new rows. */
export async function putBackChecks(
  client: pg.Client,
  taken: readonly DeferredCheck[],
  points: Checkpoints,
  onWarning: (warning: string) => void,
): Promise<void> {
  const last = taken.toReversed()
  for (const [place, { table, name, definition, comment }] of last.entries()) {
    const key = `check ${place}`
    if (points.has(key)) continue
    const described =
      comment === null ? '' : `; COMMENT ON CONSTRAINT ${quoteIdent(name)} ON ${table} IS ${quoteLiteral(comment)}`
    await points.run(
      client,
      key,
      `ALTER TABLE ${table} ADD CONSTRAINT ${quoteIdent(name)} ${definition} NOT VALID${described}`,
    )
  }
  for (const { table, name } of last) {
    try {
      await client.query(`ALTER TABLE ${table} VALIDATE CONSTRAINT ${quoteIdent(name)}`)
    } catch (error) {
      if (!isStatementError(error)) throw error
      onWarning(`not valid (${messageOf(error)}): constraint ${name} of table ${table}`)
    }
  }
}

/**
 * Puts rows into a table as they are while the table has no CHECK that is NOT VALID, since that says nothing of the rows
 * that are there. What a table has from its parent stays.
 */
export async function withoutUnprovenChecks(
  client: pg.Client,
  table: string,
  work: () => Promise<void>,
): Promise<void> {
  const { rows } = await client.query<DeferredCheck>(
    `SELECT k.conrelid::pg_catalog.regclass::text AS "table", k.conname AS name, pg_catalog.pg_get_constraintdef(k.oid) AS definition,
       pg_catalog.obj_description(k.oid, 'pg_constraint') AS comment
     FROM pg_catalog.pg_constraint k WHERE k.conrelid = $1 AND k.contype = 'c' AND NOT k.convalidated AND k.coninhcount = 0 ORDER BY k.oid`,
    [table],
  )
  for (const { table: name, name: check } of rows)
    await client.query(`ALTER TABLE ${name} DROP CONSTRAINT ${quoteIdent(check)}`)
  await work()
  for (const { table: name, name: check, definition, comment } of rows) {
    await client.query(`ALTER TABLE ${name} ADD CONSTRAINT ${quoteIdent(check)} ${definition}`)
    if (comment !== null)
      await client.query(`COMMENT ON CONSTRAINT ${quoteIdent(check)} ON ${name} IS ${quoteLiteral(comment)}`)
  }
}
