import type pg from 'pg'
import { codeOf, messageOf } from '../base/errors.ts'
import { qualified, quoteIdent } from '../model/identifier.ts'
import type { BaseTable } from '../repository/base.ts'

/**
 * Tables whose rows cannot be put where they were as they come. Base and stream meet in a table beside, which is proven
 * against the archive, and from which the server then takes the rows over:
 * - Configuration tables of extensions (pg_extension_config_dump). CREATE EXTENSION makes them, with rows of its own,
 *   and the user's are added to those. Which are the user's is a condition in the catalog that only the server can
 *   tell, and only of a row's last state.
 * - Partitions by the hash of an enum, which is the hash of an id that is another in every database: there a row
 *   belongs to another partition, and goes in through the top.
 */
const staging = 'walback$staging'

export const isStaged = (table: BaseTable): boolean => table.extension !== undefined || table.via !== undefined

/** Makes the tables beside; gives the table to fill in the place of each. Those whose table the target lacks are absent. */
export async function stageTables(
  client: pg.Client,
  tables: readonly BaseTable[],
  onWarning: (warning: string) => void,
): Promise<Map<number, BaseTable>> {
  const staged = new Map<number, BaseTable>()
  for (const table of tables.filter(isStaged)) {
    if (staged.size === 0) await client.query(`CREATE SCHEMA IF NOT EXISTS ${quoteIdent(staging)}`)
    const beside = besideOf(table)
    try {
      await client.query(`CREATE TABLE ${qualified(beside)} (LIKE ${qualified(table)} INCLUDING GENERATED)`)
      staged.set(table.oid, beside)
    } catch (error) {
      // Another version of the extension than the source's may have no such table.
      if (!table.extension || codeOf(error) !== '42P01') throw error
      onWarning(`left out (${messageOf(error)}): rows of the extension's table ${table.schema}.${table.name}`)
    }
  }
  return staged
}

/** The tables beside that an earlier attempt has made, by the ids of those that they stand for. */
export function stagedBefore(tables: readonly BaseTable[], oids: readonly number[]): Map<number, BaseTable> {
  const made = new Set(oids)
  return new Map(tables.filter(({ oid }) => made.has(oid)).map((table) => [table.oid, besideOf(table)]))
}

const besideOf = (table: BaseTable): BaseTable => ({ ...table, schema: staging, name: String(table.oid) })

/** Takes the rows over, and removes what was beside. The session is in a transaction. */
export async function settleTables(
  client: pg.Client,
  tables: readonly BaseTable[],
  staged: ReadonlyMap<number, BaseTable>,
  onWarning: (warning: string) => void,
): Promise<void> {
  if (staged.size === 0) return
  for (const table of tables) {
    const beside = staged.get(table.oid)
    if (beside === undefined || table.columns.length === 0) continue
    await client.query('SAVEPOINT rows')
    try {
      await quietTriggers(client)
      await client.query(takeOverSql(table, beside))
    } catch (error) {
      await client.query('ROLLBACK TO rows')
      if (!table.extension || !isAboutRows(error)) throw error
      onWarning(`left out (${messageOf(error)}): rows of the extension's table ${table.schema}.${table.name}`)
    }
  }
  await client.query(`DROP SCHEMA ${quoteIdent(staging)} CASCADE`)
}

function takeOverSql(table: BaseTable, beside: BaseTable): string {
  const columns = table.columns.map(quoteIdent).join(', ')
  return `INSERT INTO ${qualified(table.via ?? table)} (${columns}) OVERRIDING SYSTEM VALUE
    SELECT ${columns} FROM ${qualified(beside)} AS ${quoteIdent(table.name)} ${table.extension?.condition ?? ''}`
}

/** Triggers of the extension fired when the rows were new, and what they did is in the rows of other tables. */
async function quietTriggers(client: pg.Client): Promise<void> {
  await client.query('SAVEPOINT role')
  try {
    await client.query('SET LOCAL session_replication_role = replica')
  } catch (error) {
    // A superuser's to set, or from 15 on whoever was granted it; pg_dump's rows would fire the triggers too.
    if (codeOf(error) !== '42501') throw error
    await client.query('ROLLBACK TO role')
  }
}

/** The target's version of the extension has other columns, or brings these rows with it. */
const isAboutRows = (error: unknown): boolean => /^(?:23|42)/.test(codeOf(error) ?? '')
