/** Compares what was restored with what there was, and looks at what the live database has since. */
import { count, table } from '../format.ts'
import { type Visitor, visit } from './client.ts'
import { readDefinitions, readTables, type TableState } from './state.ts'

export interface ComparedTable {
  readonly table: string
  readonly before: TableState
  readonly restored: TableState
  readonly equal: boolean
}

export interface Comparison {
  readonly tables: readonly ComparedTable[]
  /** How many definitions both databases have, word for word. */
  readonly definitions: number
  readonly equal: boolean
}

/** The restored database against the state that was read just before the delete, and its definitions against the live ones. */
export async function compare(before: readonly TableState[], live: Visitor, restored: Visitor): Promise<Comparison> {
  const wanted = await visit(live, readDefinitions)
  const found = await visit(restored, async (client) => ({
    tables: await readTables(client),
    definitions: await readDefinitions(client),
  }))
  const tables = before.map((state, index): ComparedTable => {
    const other = found.tables[index] ?? { table: state.table, rows: 0, md5: '' }
    return {
      table: state.table,
      before: state,
      restored: other,
      equal: state.rows === other.rows && state.md5 === other.md5,
    }
  })
  const isSameShape = wanted.join('\n') === found.definitions.join('\n')
  return { tables, definitions: wanted.length, equal: isSameShape && tables.every((one) => one.equal) }
}

export function comparisonTable({ tables }: Comparison): string {
  const rows = tables.map(({ table: name, before, restored, equal }) => [
    name,
    count(before.rows),
    before.md5,
    count(restored.rows),
    restored.md5,
    equal ? 'equal' : 'DIFFERENT',
  ])
  return table(
    [['TABLE', 'ROWS BEFORE', 'MD5 OF ROWS BEFORE', 'RESTORED', 'MD5 OF ROWS RESTORED', ''], ...rows],
    [1, 3],
  )
}

/** The orders that customers were promised after the delete. */
export interface Aftermath {
  readonly confirmed: number
  readonly in_live: number
  readonly in_restored: number
  /** Items that the live database has now: all of them were bought after the delete. */
  readonly items: number
}

export async function examineAftermath(
  orders: readonly number[],
  live: Visitor,
  restored: Visitor,
): Promise<Aftermath> {
  const found = (visitor: Visitor): Promise<{ orders: number; items: number }> =>
    visit(visitor, async (client) => {
      const { rows } = await client.query<{ orders: number; items: number }>(
        `SELECT (SELECT count(*) FROM orders WHERE id = ANY ($1))::int AS orders,
                (SELECT count(*) FROM order_items)::int AS items`,
        [orders],
      )
      return rows[0] ?? { orders: 0, items: 0 }
    })
  const [here, there] = [await found(live), await found(restored)]
  return { confirmed: orders.length, in_live: here.orders, in_restored: there.orders, items: here.items }
}
