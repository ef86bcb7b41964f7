/** The DELETE without WHERE, and what there was just before it. */
import { type Visitor, visit } from './client.ts'
import { shopTables } from './shop.ts'
import { readTables, type TableState } from './state.ts'

export interface Accident {
  readonly xid: string
  /** How many rows it deleted. */
  readonly rows: number
  /** What was committed just before it: no more and no less. */
  readonly before: readonly TableState[]
}

/**
 * Holds the tables against writers for a moment, reads them, deletes, and commits. Whatever wrote to them before has
 * committed when the lock is granted, and whatever writes to them afterwards commits after this transaction. So what is
 * read here is exactly what a restore to just before this transaction must give.
 */
export function deleteWithoutWhere(visitor: Visitor, whileHeld: () => void): Promise<Accident> {
  return visit(visitor, async (client) => {
    await client.query('BEGIN')
    await client.query(`LOCK TABLE ${shopTables.join(', ')} IN SHARE ROW EXCLUSIVE MODE`)
    const before = await readTables(client)
    whileHeld()
    const { rowCount } = await client.query('DELETE FROM order_items')
    const { rows } = await client.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid')
    await client.query('COMMIT')
    return { xid: rows[0]?.xid ?? '', rows: rowCount ?? 0, before }
  })
}
