import { waitFor } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { quoteIdent } from '../model/identifier.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { begunShape } from './begun.ts'
import { Checkpoints, type Interrupted, resumableOf } from './checkpoints.ts'
import { dropRoles } from './create-roles.ts'
import { holdersSql, onServer, oursSql, temporaryPrefix } from './destination.ts'
import { inDatabase } from './in-database.ts'
import { readTargetRoles } from './role-plan.ts'

export interface InterruptedRestore extends Interrupted {
  /** Somebody is at work on it. */
  readonly isRunning: boolean
  /** What the database takes so far; undefined if it is just being removed. */
  readonly size_bytes: number | undefined
}

/**
 * The restores on a server that can be gone on with, or are under way; the newest first. None but this role's own: what
 * another has made may say, and do when it is read, whatever that one likes.
 */
export async function interruptedRestores(conninfo: Conninfo): Promise<InterruptedRestore[]> {
  return onServer({ conninfo, database: temporaryPrefix }, async (admin) => {
    const { rows } = await admin.query<Found>(oursSql, [temporaryPrefix])
    const found: InterruptedRestore[] = []
    for (const { oid, name, comment, inUse, isOwn } of rows) {
      const about = isOwn ? resumableOf(name, comment) : undefined
      if (about === undefined) continue
      const size = await admin
        .query<{ bytes: string | null }>('SELECT pg_catalog.pg_database_size($1::oid) AS bytes', [oid])
        .catch(() => undefined)
      const bytes = size?.rows[0]?.bytes ?? undefined
      found.push({ ...about, isRunning: inUse, size_bytes: bytes === undefined ? undefined : Number(bytes) })
    }
    return found.sort((a, b) => (a.begun < b.begun ? 1 : -1))
  })
}

interface Found {
  readonly oid: string
  readonly name: string
  readonly comment: string | null
  readonly inUse: boolean
  readonly isOwn: boolean
}

/** What another process needs to plan the same again: what the one that was interrupted was asked for. */
export async function readRequest(conninfo: Conninfo, { database }: Interrupted): Promise<unknown> {
  return (await readBegun(conninfo, database))?.request
}

const readBegun = (conninfo: Conninfo, database: string) =>
  inDatabase(conninfo, database, async (client) =>
    (await Checkpoints.resume(client, database)).get('schema', begunShape),
  )

/**
 * Ends a restore that is under way, so that it can be gone on with: its sessions in the database, and the one beside,
 * whose process may be gone with its host. False if there is nothing to go on with any more: it had just come too far.
 */
export async function pauseRestore(conninfo: Conninfo, { database }: Interrupted): Promise<boolean> {
  await onServer({ conninfo, database }, (admin) =>
    admin.query(
      `SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
       WHERE pid <> pg_catalog.pg_backend_pid() AND (datname = $1 OR pid IN (${holdersSql('$1::text')}))`,
      [database],
    ),
  )
  const left = async () => (await interruptedRestores(conninfo)).find((one) => one.database === database)
  const hasEnded = async (): Promise<{ readonly isThere: boolean } | undefined> => {
    const one = await left()
    return one?.isRunning ? undefined : { isThere: one !== undefined }
  }
  const ended = await waitFor(hasEnded, { timeout_ms: 30_000, interval_ms: 100 })
  if (ended) return ended.isThere
  throw new WalbackError('database', `the sessions in ${database} do not end`, { hint: 'pg_stat_activity shows them' })
}

/** Removes what an interrupted restore has left: the database, and the roles that it made. */
export async function discardRestore(conninfo: Conninfo, interrupted: InterruptedRestore): Promise<void> {
  const { database, isRunning } = interrupted
  if (isRunning)
    throw new WalbackError('locked', `somebody is at work on ${database}`, {
      hint: 'end it first, with `walback restore pause`',
    })
  const made = Object.values((await readBegun(conninfo, database))?.roles.made ?? {})
  await onServer({ conninfo, database }, async (admin) => {
    await admin.query(`DROP DATABASE ${quoteIdent(database)}`)
    if (made.length > 0) await dropRoles(admin, made, await readTargetRoles(admin))
  })
}
