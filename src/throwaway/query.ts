import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { messageOf, WalbackError } from '../base/errors.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { loadParser, parseQuery } from '../postgres/split-sql.ts'
import { inSession } from './session.ts'

/** A row's values as the server writes them. */
export type TextRow = readonly (string | null)[]

export interface QueryReader {
  /** Called once, before any row. */
  columns(names: readonly string[]): void
  /** Called with some rows at a time; false ends the reading. */
  rows(rows: readonly TextRow[]): boolean
}

/** Refuses what is not one SELECT, as far as our parser understands it: before minutes go into a restore. */
export async function checkQuery(sql: string): Promise<void> {
  await loadParser()
  const statements = parseQuery(sql)
  const [first, second] = statements ?? []
  if (statements === undefined) return
  if (first !== undefined && second === undefined && first.kind === 'SelectStmt') return
  const what = first === undefined ? 'no statement' : second === undefined ? 'not a SELECT' : 'more than one statement'
  throw new WalbackError('usage', `${what}: ${JSON.stringify(sql)}`, {
    hint: 'give one SELECT, VALUES, TABLE or WITH … SELECT; for more, restore into a database with `walback restore --into`',
  })
}

/** Runs one SELECT, which may write nothing, and reads its rows in batches. */
export async function runQuery(
  conninfo: Conninfo,
  sql: string,
  reader: QueryReader,
  signal?: AbortSignal,
): Promise<void> {
  await inSession(conninfo, signal, async (client) => {
    await client.query('BEGIN READ ONLY')
    const rows = await open(client, sql)
    reader.columns(rows.fields.map(({ name }) => name))
    for (let batch = await fetch(client); batch.length > 0; batch = await fetch(client)) {
      throwIfAborted(signal)
      if (!reader.rows(batch)) return
    }
  }).catch((error: unknown) => {
    throwIfAborted(signal)
    if (error instanceof WalbackError) throw error
    throw new WalbackError('failed', `the query failed: ${messageOf(error)}`, { cause: error })
  })
}

const batchRows = 1000
const cursor = 'walback_query'

/** A cursor takes one statement, and no more than a SELECT. A first FETCH of nothing tells its columns. */
async function open(client: pg.Client, sql: string): Promise<pg.QueryArrayResult> {
  const text = `DECLARE ${cursor} NO SCROLL CURSOR FOR ${sql}`
  await client.query({ text, queryMode: 'extended' } as pg.QueryConfig)
  return await client.query({ text: `FETCH 0 FROM ${cursor}`, rowMode: 'array' })
}

async function fetch(client: pg.Client): Promise<TextRow[]> {
  const types = { getTypeParser: () => (value: string) => value }
  const { rows } = await client.query<(string | null)[]>({
    text: `FETCH ${batchRows} FROM ${cursor}`,
    rowMode: 'array',
    types: types as pg.CustomTypesConfig,
  })
  return rows
}
