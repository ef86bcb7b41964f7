import type pg from 'pg'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { openRowSession } from '../postgres/row-session.ts'
import type { Timeline } from '../repository/timeline.ts'

/** How long an undo waits for a row or a table that others hold, while it holds rows itself. */
const lockTimeout = '30s'

/** A session for an undo: rows as the stream has them, and temporary tables of which no trigger of ours tells. */
export async function openUndoSession(conninfo: Conninfo, signal: AbortSignal | undefined): Promise<pg.Client> {
  const client = await openRowSession(conninfo, { application: 'walback undo', ...(signal ? { signal } : {}) })
  // Whatever it is at: without a COMMIT the server forgets all of it.
  signal?.addEventListener('abort', () => void client.end().catch(() => undefined), { once: true })
  await client.query(`SET walback.quiet = 'on'; SET lock_timeout = '${lockTimeout}'; SET client_min_messages = warning`)
  return client
}

/** Whether this is the database that the timeline was taken from, where tables have the ids that the stream names. */
export async function isSourceOf(client: pg.Client, { systemIdentifier, database }: Timeline): Promise<boolean> {
  const { rows } = await client.query<{ oid: string }>(
    'SELECT oid::text AS oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()',
  )
  if (rows[0]?.oid !== String(database.oid)) return false
  const system = await client.query<{ id: string }>(
    'SELECT system_identifier::text AS id FROM pg_catalog.pg_control_system()',
  )
  return system.rows[0]?.id === systemIdentifier
}

/** Makes the transaction a replica's, in which ordinary triggers do not fire; false where the role may not. */
export async function becomeReplica(client: pg.Client): Promise<boolean> {
  await client.query('SAVEPOINT walback_replica')
  try {
    await client.query('SET LOCAL session_replication_role = replica')
    await client.query('RELEASE SAVEPOINT walback_replica')
    return true
  } catch (error) {
    if (codeOf(error) !== '42501') throw error
    await client.query('ROLLBACK TO SAVEPOINT walback_replica')
    return false
  }
}

/**
 * What constraints, generated columns and indexes call may name things without their schema, and count on the
 * search_path that applications have. pg_catalog comes first, as it does with an empty one.
 */
export const setApplicationPath = (client: pg.Client): Promise<unknown> =>
  client.query(
    `SELECT set_config('search_path', concat_ws(', ', 'pg_catalog', nullif(reset_val, '')), true) FROM pg_catalog.pg_settings WHERE name = 'search_path'`,
  )

export const setEmptyPath = (client: pg.Client): Promise<unknown> => client.query(`SET LOCAL search_path = ''`)

/** Runs work in one transaction, which ends as the work says. */
export async function inTransaction<T>(
  client: pg.Client,
  begin: string,
  work: () => Promise<{ readonly result: T; readonly commit: boolean }>,
): Promise<T> {
  await client.query(begin)
  try {
    const { result, commit } = await work()
    await client.query(commit ? 'COMMIT' : 'ROLLBACK')
    return result
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined)
    throw explained(error)
  }
}

const field = (error: unknown, name: string): string | undefined => {
  if (typeof error !== 'object' || error === null || !(name in error)) return undefined
  const value: unknown = error[name as keyof typeof error]
  return typeof value === 'string' ? value : undefined
}

/** The server's refusals that say something to whoever undoes. */
function explained(error: unknown): unknown {
  const code = codeOf(error)
  if (error instanceof WalbackError || code === undefined || code.length !== 5) return error
  const detail = field(error, 'detail')
  const table = [field(error, 'schema'), field(error, 'table')].filter((part) => part !== undefined).join('.')
  const said = `${messageOf(error)}${table === '' ? '' : ` (table ${table})`}${detail === undefined ? '' : `: ${detail}`}`
  const nothing = 'nothing was changed'
  if (code.startsWith('23'))
    return new WalbackError('conflict', `a constraint does not let the rows back: ${said}`, {
      cause: error,
      hint: `${nothing}; other rows were changed since. Undo what changed them too, or leave the table out with --table`,
    })
  if (code === '55P03' || code === '40P01')
    return new WalbackError('locked', `others hold rows that are to be undone: ${said}`, {
      cause: error,
      hint: `${nothing}; try again when they are through (pg_locks, pg_stat_activity)`,
      retryable: true,
    })
  if (code === '42501')
    return new WalbackError('prerequisite', `the role may not do that: ${said}`, {
      cause: error,
      hint: `${nothing}; an undo needs SELECT, INSERT, UPDATE and DELETE on the tables, and TEMPORARY on the database`,
    })
  if (code.startsWith('22'))
    return new WalbackError('refused', `a value does not fit its column any more: ${said}`, {
      cause: error,
      hint: `${nothing}; the column's type was changed since. Leave the table out with --table`,
    })
  return new WalbackError('database', `the undo failed: ${said}`, { cause: error, hint: nothing })
}
