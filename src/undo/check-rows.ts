import type pg from 'pg'
import { image, quoted, type StagedTable, same } from './staged-table.ts'

/**
 * What is found of a row that is to be undone:
 * `ok` it is as the transaction left it; `already` it is as it was before the transaction; `changed` it was changed since
 * in what would be set back; `exists` another row has its key; `gone` it is not there.
 */
export const states = ['ok', 'already', 'changed', 'exists', 'gone'] as const
export type State = (typeof states)[number]

export type Mode = 'preview' | 'apply'

/** Looks at the rows of a layer, one set at a time, and notes state and place of each. `apply` locks them first. */
export async function checkRows(client: pg.Client, staged: StagedTable, layer: number, mode: Mode): Promise<void> {
  if (staged.table.key === undefined) {
    await client.query(keylessSql(staged, layer, mode))
  } else {
    if (mode === 'apply') await client.query(lockSql(staged, layer))
    await client.query(keyedSql(staged, layer, mode))
  }
  await client.query(`ANALYZE ${staged.check}`)
}

/** Whether the live row has the key that the reversal looks for: an inserted row its old one, any other the one it has now. */
function matches(staged: StagedTable): string {
  const { key = [], columns } = staged.table
  return key
    .map(({ column, operator }) => {
      const index = columns.indexOf(column)
      const wanted = `CASE s.kind WHEN 'i' THEN ${staged.old(index)} ELSE ${staged.now(index)} END`
      return operator === undefined
        ? same([staged.live(index)], [wanted])
        : `${staged.live(index)} ${operator} ${wanted}`
    })
    .join(' AND ')
}

/** The live row with the key that the reversal's row had. */
function matchesOld(staged: StagedTable): string {
  const { key = [], columns } = staged.table
  return key
    .map(({ column, operator }) => {
      const index = columns.indexOf(column)
      const live = `w.${quoted(column)}`
      return operator === undefined ? same([live], [staged.old(index)]) : `${live} ${operator} ${staged.old(index)}`
    })
    .join(' AND ')
}

const lockSql = (staged: StagedTable, layer: number): string => `
  SELECT count(*) FROM (SELECT FROM ${staged.stage} s JOIN ONLY ${staged.sql} t ON ${matches(staged)}
    WHERE s.layer = ${layer} FOR UPDATE OF t) locked`

function keyedSql(staged: StagedTable, layer: number, mode: Mode): string {
  const all = staged.table.columns.map((_, index) => index)
  // Of rows that are there again, what has been added to the table since is no difference.
  const isAsLeft = same(
    all.map(staged.live),
    all.map((index) => staged.now(index)),
  )
  const isAsBefore = same(
    all.map(staged.live),
    all.map((index) => staged.old(index)),
  )
  const ofSet = (value: (index: number) => string): string =>
    staged.setBack
      .map(({ index }) => `(substr(s.marks, ${index + 1}, 1) <> 'x' OR ${same([staged.live(index)], [value(index)])})`)
      .join(' AND ') || 'true'
  // A row of the same layer that has the key now, and leaves it.
  const leaves = `EXISTS (SELECT FROM ${staged.stage} m WHERE m.layer ${mode === 'preview' ? '>=' : '='} ${layer}
      AND m.nkey = s.okey AND m.okey IS DISTINCT FROM m.nkey)`
  // A key may be equal and read otherwise (citext): then it is the row itself that has it.
  const isTaken = staged.hasMoves
    ? `s.okey <> s.nkey AND EXISTS (SELECT FROM ONLY ${staged.sql} w WHERE ${matchesOld(staged)} AND w.ctid <> t.ctid) AND NOT ${leaves}`
    : 'false'
  return `INSERT INTO ${staged.check} SELECT s.ord, s.layer, s.kind, CASE
      ${mode === 'preview' ? laterSql(staged, layer) : ''}
      WHEN s.kind = 'd' THEN CASE WHEN t.ctid IS NULL THEN 'already' WHEN ${isAsLeft} THEN 'ok' ELSE 'changed' END
      WHEN s.kind = 'i' THEN CASE WHEN t.ctid IS NULL OR ${leaves} THEN 'ok' WHEN ${isAsBefore} THEN 'already' ELSE 'exists' END
      WHEN t.ctid IS NULL THEN 'gone'
      WHEN ${ofSet((index) => staged.now(index))} THEN CASE WHEN ${isTaken} THEN 'exists' ELSE 'ok' END
      WHEN ${ofSet((index) => staged.old(index))} THEN 'already'
      ELSE 'changed' END, t.ctid
    FROM ${staged.stage} s LEFT JOIN ONLY ${staged.sql} t ON ${matches(staged)} WHERE s.layer = ${layer}`
}

/**
 * In a preview nothing has been undone yet: a row that a later layer touches too is compared with what that layer brings
 * it back to.
 */
function laterSql(staged: StagedTable, layer: number): string {
  if (Math.max(...staged.layers) === layer) return ''
  const agrees = staged.table.columns
    .map((_, index) => {
      const [own, other] = [`substr(s.marks, ${index + 1}, 1)`, `substr(m.marks, ${index + 1}, 1)`]
      return `(${own} NOT IN ('x', 'k') OR ${other} NOT IN ('x', 'k', '=') OR ${same([staged.now(index)], [staged.old(index, 'm')])})`
    })
    .join(' AND ')
  const later = `FROM ${staged.stage} m WHERE m.layer > s.layer AND m.okey = s.nkey ORDER BY m.layer LIMIT 1`
  return `WHEN s.kind <> 'i' AND EXISTS (SELECT ${later}) THEN CASE WHEN (SELECT ${agrees || 'true'} ${later}) THEN 'ok' ELSE 'changed' END`
}

/** Rows without a key: each reversal gets one row that reads as the transaction left it, and no two the same one. */
function keylessSql(staged: StagedTable, layer: number, mode: Mode): string {
  const all = staged.table.columns.map((_, index) => index)
  const wanted = image(all.map((index) => staged.now(index)))
  const live = image(all.map(staged.live))
  const isLater =
    mode === 'preview' && Math.max(...staged.layers) !== layer
      ? `WHEN EXISTS (SELECT FROM ${staged.stage} m WHERE m.layer > want.layer AND m.okey = want.nkey) THEN 'ok'`
      : ''
  return `WITH want AS (
      SELECT s.ord, s.layer, s.kind, s.nkey, ${wanted} AS image, row_number() OVER (PARTITION BY ${wanted} ORDER BY s.ord) AS copy
      FROM ${staged.stage} s WHERE s.layer = ${layer} AND s.kind <> 'i'),
    have AS (SELECT place, image, row_number() OVER (PARTITION BY image) AS copy FROM (
      SELECT t.ctid AS place, ${live} AS image FROM ONLY ${staged.sql} t WHERE ${live} IN (SELECT image FROM want)
      ${mode === 'apply' ? 'FOR UPDATE OF t' : ''}) found)
    INSERT INTO ${staged.check}
    SELECT want.ord, want.layer, want.kind, CASE ${isLater} WHEN have.place IS NULL THEN 'gone' ELSE 'ok' END, have.place
      FROM want LEFT JOIN have USING (image, copy)
    UNION ALL SELECT s.ord, s.layer, s.kind, 'ok', NULL FROM ${staged.stage} s WHERE s.layer = ${layer} AND s.kind = 'i'`
}
