import type pg from 'pg'
import type { State } from './check-rows.ts'
import { type Kind, quoted, type StagedTable } from './staged-table.ts'

/** What an undo does to a table, or would do. */
export interface UndoTable {
  readonly schema: string
  readonly name: string
  /** Rows without a conflict: inserted ones that go, deleted ones that come back, updated ones that are set back. */
  readonly deletes: number
  readonly inserts: number
  readonly updates: number
  /** Rows that are as they were before the transaction already. */
  readonly already: number
  readonly conflicts: Readonly<Record<'changed' | 'exists' | 'gone', number>>
  /** Triggers that do not fire, since what they did in the transaction is undone as rows. */
  readonly silentTriggers: readonly string[]
  /** Triggers that fire all the same: they are enabled ALWAYS or REPLICA. */
  readonly firingTriggers: readonly string[]
}

/** A row that stands in the way. */
export interface Conflict {
  readonly schema: string
  readonly name: string
  readonly undo: 'delete' | 'insert' | 'update'
  readonly state: Exclude<State, 'ok' | 'already'>
  /** What identifies the row: its key, or, where there is none, all of it. */
  readonly row: Readonly<Record<string, string | null>>
}

const undoOf: Readonly<Record<Kind, Conflict['undo']>> = { d: 'delete', i: 'insert', u: 'update' }

/** Of what has been checked. */
export async function countStates(client: pg.Client, { table, check }: StagedTable): Promise<UndoTable> {
  const { rows } = await client.query<{ kind: Kind; state: State; count: string }>(
    `SELECT kind::text AS kind, state, count(*) FROM ${check} GROUP BY 1, 2`,
  )
  const of = (state: State, kind?: Kind): number =>
    rows
      .filter((row) => row.state === state && (kind === undefined || row.kind === kind))
      .reduce((sum, row) => sum + Number(row.count), 0)
  const names = (isSilent: boolean): string[] =>
    table.triggers.filter(({ enabled }) => (enabled === 'O') === isSilent).map(({ name }) => name)
  return {
    schema: table.schema,
    name: table.name,
    deletes: of('ok', 'd'),
    inserts: of('ok', 'i'),
    updates: of('ok', 'u'),
    already: of('already'),
    conflicts: { changed: of('changed'), exists: of('exists'), gone: of('gone') },
    silentTriggers: names(true),
    firingTriggers: names(false),
  }
}

export async function hasConflicts(client: pg.Client, { check }: StagedTable, layer: number): Promise<boolean> {
  const { rows } = await client.query(
    `SELECT FROM ${check} WHERE layer = ${layer} AND state NOT IN ('ok', 'already') LIMIT 1`,
  )
  return rows.length > 0
}

export async function conflictsOf(client: pg.Client, staged: StagedTable, limit: number): Promise<Conflict[]> {
  const { table, stage, check } = staged
  const shown = table.key?.map(({ column }) => column) ?? table.columns
  const text = (value: string): string => `CASE WHEN num_nulls(${value}) = 0 THEN concat(${value}) END`
  const value = (index: number): string =>
    `CASE s.kind WHEN 'i' THEN ${text(staged.old(index))} ELSE ${text(staged.now(index))} END`
  const pairs = shown.map((column) => `${value(table.columns.indexOf(column))} AS ${quoted(column)}`)
  const { rows } = await client.query<{ kind: Kind; state: Conflict['state']; row: Record<string, string | null> }>(
    `SELECT c.kind::text AS kind, c.state, (SELECT pg_catalog.to_json(r) FROM (SELECT ${pairs.join(', ')}) r) AS row
      FROM ${check} c JOIN ${stage} s ON s.ord = c.ord WHERE c.state NOT IN ('ok', 'already') ORDER BY c.ord LIMIT ${limit}`,
  )
  return rows.map(({ kind, state, row }) => ({
    schema: table.schema,
    name: table.name,
    undo: undoOf[kind],
    state,
    row,
  }))
}
