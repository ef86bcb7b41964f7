import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { forEachParallel } from '../base/parallel.ts'
import { RowHash } from '../codec/row-hash.ts'
import { qualified, quoteIdent } from '../model/identifier.ts'
import { copyOut, wholeLines } from '../postgres/copy.ts'
import { copyOptions } from '../postgres/row-session.ts'
import type { RowTarget } from './rows.ts'

/** Reads every table again, and compares number and hash of its rows with what the archive says they must be. */
export async function proveTables(
  lanes: readonly pg.Client[],
  tables: readonly { readonly table: RowTarget; readonly expected: RowHash }[],
  options: {
    readonly encoding: string
    readonly signal?: AbortSignal | undefined
    /** Called in the session that has read the table. */
    readonly onTable?: (client: pg.Client, table: RowTarget) => Promise<void> | void
  },
): Promise<void> {
  await forEachParallel(tables, lanes.length, async ({ table, expected }, lane) => {
    throwIfAborted(options.signal)
    const found = new RowHash()
    const columns = table.columns.length === 0 ? '' : ` (${table.columns.map(quoteIdent).join(', ')})`
    const sql = `COPY ${qualified(table)}${columns} TO STDOUT ${copyOptions(options.encoding)}`
    const client = lanes[lane] as pg.Client
    for await (const lines of wholeLines(copyOut(client, sql, options.signal))) found.addLines(lines)
    if (found.rows !== expected.rows || found.digest() !== expected.digest()) {
      throw new WalbackError(
        'corrupt',
        `table ${table.schema}.${table.name} was not restored as the archive has it: ${found.rows} rows where there should be ${expected.rows}, or other contents`,
        {
          hint: 'the restore was taken back; please report this',
        },
      )
    }
    await options.onTable?.(client, table)
  })
}
