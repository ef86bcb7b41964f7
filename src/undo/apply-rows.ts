import type pg from 'pg'
import { codeOf, WalbackError } from '../base/errors.ts'
import type { Kind, StagedTable } from './staged-table.ts'
import { quoted } from './staged-table.ts'

export type Policy = 'abort' | 'skip' | 'force'

/** Which states are acted upon. What is gone, or would take another row's key, cannot be forced. */
export const actedOn = (kind: Kind, policy: Policy): string => {
  const forced = policy !== 'force' ? '' : kind === 'i' ? `, 'exists'` : `, 'changed'`
  return `('ok'${forced})`
}

/** Carries a layer out whose rows have been checked and are locked. */
export async function applyRows(
  client: pg.Client,
  staged: StagedTable,
  layer: number,
  policy: Policy,
  step: Kind,
): Promise<void> {
  if (staged.counts[step] === 0) return
  const chosen = `c.layer = ${layer} AND c.kind = '${step}' AND c.state IN ${actedOn(step, policy)}`
  const expected = await count(client, `SELECT count(*) FROM ${staged.check} c WHERE ${chosen}`)
  if (expected === 0) return
  const done =
    step === 'd'
      ? await rows(client, deleteSql(staged, chosen))
      : step === 'u'
        ? await update(client, staged, chosen)
        : await insert(client, staged, chosen)
  if (done === expected) return
  throw new WalbackError(
    'failed',
    `${expected} rows of ${staged.name} were to be undone, and ${done} were: something in the database changes what is done to it`,
    { hint: 'look for triggers and rules that are enabled ALWAYS or REPLICA; nothing was changed' },
  )
}

const rows = async (client: pg.Client, sql: string): Promise<number> => (await client.query(sql)).rowCount ?? 0

export async function count(client: pg.Client, sql: string): Promise<number> {
  const { rows: found } = await client.query<{ count: string }>(sql)
  return Number(found[0]?.count ?? 0)
}

const deleteSql = (staged: StagedTable, chosen: string): string =>
  `DELETE FROM ONLY ${staged.sql} t USING ${staged.check} c WHERE ${chosen} AND t.ctid = c.place`

/** The value that a column gets back, or the one that it has. */
const valueBack = (staged: StagedTable, index: number, live: string): string =>
  `CASE substr(s.marks, ${index + 1}, 1) WHEN 'x' THEN ${staged.old(index)} ELSE ${live} END`

async function update(client: pg.Client, staged: StagedTable, chosen: string): Promise<number> {
  const sets = staged.setBack.map(
    ({ column, index }) => `${quoted(column)} = ${valueBack(staged, index, staged.live(index))}`,
  )
  await client.query('SAVEPOINT walback_update')
  try {
    const done = await rows(
      client,
      `UPDATE ONLY ${staged.sql} t SET ${sets.join(', ')} FROM ${staged.check} c JOIN ${staged.stage} s ON s.ord = c.ord
        WHERE ${chosen} AND t.ctid = c.place`,
    )
    await client.query('RELEASE SAVEPOINT walback_update')
    return done
  } catch (error) {
    if (!needsRewrite.includes(codeOf(error) ?? '')) throw error
    await client.query('ROLLBACK TO SAVEPOINT walback_update')
  }
  return await rewrite(client, staged, chosen)
}

/**
 * Rows that exchange their keys collide while they are set back one after the other (23505), and no UPDATE may set an
 * identity column that is GENERATED ALWAYS (428C9). Such rows are taken out and put in again.
 */
const needsRewrite = ['23505', '23P01', '428C9']

async function rewrite(client: pg.Client, staged: StagedTable, chosen: string): Promise<number> {
  const { columns, added } = staged.table
  const names = [...columns, ...added].map(quoted)
  const values = [
    ...columns.map((column, index) => valueBack(staged, index, `m.${quoted(column)}`)),
    ...added.map((column) => `m.${quoted(column)}`),
  ]
  await client.query(
    `CREATE TEMP TABLE walback_moved ON COMMIT DROP AS SELECT 0::bigint AS walback_ord, ${names.map((name) => `t.${name}`).join(', ')} FROM ONLY ${staged.sql} t WITH NO DATA`,
  )
  await client.query(
    `WITH taken AS (${deleteSql(staged, chosen)} RETURNING c.ord, ${names.map((name) => `t.${name}`).join(', ')})
      INSERT INTO pg_temp.walback_moved SELECT * FROM taken`,
  )
  const done = await rows(
    client,
    `INSERT INTO ${staged.sql} (${names.join(', ')}) OVERRIDING SYSTEM VALUE
      SELECT ${values.join(', ')} FROM pg_temp.walback_moved m JOIN ${staged.stage} s ON s.ord = m.walback_ord ORDER BY s.ord`,
  )
  await client.query('DROP TABLE pg_temp.walback_moved')
  return done
}

async function insert(client: pg.Client, staged: StagedTable, chosen: string): Promise<number> {
  const { columns, key = [] } = staged.table
  const from = `FROM ${staged.check} c JOIN ${staged.stage} s ON s.ord = c.ord`
  const put = await rows(
    client,
    columns.length === 0
      ? `INSERT INTO ${staged.sql} SELECT ${from} WHERE ${chosen} AND c.state = 'ok'`
      : `INSERT INTO ${staged.sql} (${columns.map(quoted).join(', ')}) OVERRIDING SYSTEM VALUE
          SELECT ${columns.map((_, index) => staged.old(index)).join(', ')} ${from} WHERE ${chosen} AND c.state = 'ok' ORDER BY s.ord`,
  )
  const settable = columns.flatMap((column, index) =>
    column.isAlways || key.some((one) => one.column === column) ? [] : [`${quoted(column)} = ${staged.old(index)}`],
  )
  const forced = `${chosen} AND c.state = 'exists'`
  const overwritten =
    settable.length === 0
      ? await count(client, `SELECT count(*) FROM ${staged.check} c WHERE ${forced}`)
      : await rows(
          client,
          `UPDATE ONLY ${staged.sql} t SET ${settable.join(', ')} ${from} WHERE ${forced} AND t.ctid = c.place`,
        )
  return put + overwritten
}
