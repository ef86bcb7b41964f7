import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { rowSessionSql } from '../postgres/row-session.ts'
import { compareTable, type RowDifferences } from './compare.ts'
import { inSession } from './session.ts'
import type { Past } from './stage.ts'
import { nameOf, readTables, type TableShape } from './tables.ts'

export interface DiffOptions {
  /** Which tables; all of them if not given. */
  readonly matches?: (table: QualifiedName) => boolean
  /** How many differing rows of each table are kept. */
  readonly limit: number
  readonly onTable?: (done: number, total: number) => void
  readonly signal?: AbortSignal | undefined
}

export interface TableDifference extends QualifiedName, RowDifferences {
  /** `created`, `dropped`: there is no table of this name before, or after. */
  readonly change: 'created' | 'dropped' | 'kept'
  /** Whether rows are told apart by a primary key. Without one a changed row is one that is gone and another that is new. */
  readonly hasKey: boolean
  /** Columns that only one of the two has; they are not compared. */
  readonly columns: { readonly added: readonly string[]; readonly dropped: readonly string[] }
}

/** Compares a source's tables, by their names, at two moments; gives those that differ, and how many there are. */
export async function diffPasts(
  before: Past,
  after: Past,
  options: DiffOptions,
): Promise<{ readonly compared: number; readonly differences: readonly TableDifference[] }> {
  const { signal } = options
  return await inSession(before.owner, signal, (left) =>
    inSession(after.owner, signal, async (right) => {
      // The same value is then the same text in both.
      for (const client of [left, right]) await client.query(rowSessionSql)
      const pairs = pair(await readTables(left), await readTables(right)).filter(
        ({ table }) => options.matches?.(table) ?? true,
      )
      const differences: TableDifference[] = []
      for (const [place, { was, is, table }] of pairs.entries()) {
        throwIfAborted(signal)
        const { encoding } = after.plan.base.database
        const found = await diffTable([left, was], [right, is], { encoding, limit: options.limit, signal })
        if (isDifferent(found)) differences.push({ schema: table.schema, name: table.name, ...found })
        options.onTable?.(place + 1, pairs.length)
      }
      return { compared: pairs.length, differences }
    }),
  )
}

type Found = Omit<TableDifference, keyof QualifiedName>

const isDifferent = ({ inserted, updated, deleted, change, columns: { added, dropped } }: Found): boolean =>
  inserted + updated + deleted + added.length + dropped.length > 0 || change !== 'kept'

interface Pair {
  readonly was: TableShape | undefined
  readonly is: TableShape | undefined
  readonly table: TableShape
}

function pair(before: readonly TableShape[], after: readonly TableShape[]): Pair[] {
  const old = new Map(before.map((table) => [nameOf(table), table]))
  const now = new Map(after.map((table) => [nameOf(table), table]))
  return [...new Set([...old.keys(), ...now.keys()])].sort().flatMap((name): Pair[] => {
    const [was, is] = [old.get(name), now.get(name)]
    const table = is ?? was
    return table ? [{ was, is, table }] : []
  })
}

async function diffTable(
  [left, was]: readonly [pg.Client, TableShape | undefined],
  [right, is]: readonly [pg.Client, TableShape | undefined],
  options: { readonly encoding: string; readonly limit: number; readonly signal: AbortSignal | undefined },
): Promise<Found> {
  const [old, now] = [was ?? is, is ?? was] as [TableShape, TableShape]
  const columns = now.columns.filter((name) => old.columns.includes(name))
  const isSameKey = old.key.join('\0') === now.key.join('\0') && now.key.every((name) => columns.includes(name))
  const key = isSameKey ? now.key : []
  const rows = await compareTable(
    { client: left, table: was },
    { client: right, table: is },
    { ...options, columns, key },
  )
  return {
    change: was === undefined ? 'created' : is === undefined ? 'dropped' : 'kept',
    hasKey: key.length > 0,
    columns: {
      added: now.columns.filter((name) => !columns.includes(name)),
      dropped: old.columns.filter((name) => !columns.includes(name)),
    },
    ...rows,
  }
}
