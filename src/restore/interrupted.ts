import { WalbackError } from '../base/errors.ts'
import { quoteIdent } from '../model/identifier.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { begunShape } from './begun.ts'
import { Checkpoints, type Interrupted, resumableOf } from './checkpoints.ts'
import { dropRoles } from './create-roles.ts'
import { onServer, oursSql, temporaryPrefix } from './destination.ts'
import { readTargetRoles } from './role-plan.ts'

export interface InterruptedRestore extends Interrupted {
  /** Somebody is at work on it. */
  readonly isRunning: boolean
  /** What the database takes so far. */
  readonly size_bytes: number
}

/** The restores on a server that can be gone on with, or are under way; the newest first. */
export async function interruptedRestores(conninfo: Conninfo): Promise<InterruptedRestore[]> {
  return onServer({ conninfo, database: temporaryPrefix }, async (admin) => {
    const { rows } = await admin.query<{ name: string; comment: string | null; inUse: boolean; bytes: string }>(
      `SELECT o.*, pg_catalog.pg_database_size(o.name) AS bytes FROM (${oursSql}) o`,
      [temporaryPrefix],
    )
    return rows
      .flatMap(({ name, comment, inUse, bytes }) => {
        const about = resumableOf(name, comment)
        return about === undefined ? [] : [{ ...about, isRunning: inUse, size_bytes: Number(bytes) }]
      })
      .sort((a, b) => (a.begun < b.begun ? 1 : -1))
  })
}

/** What another process needs to plan the same again: what the one that was interrupted was asked for. */
export async function readRequest(conninfo: Conninfo, { database }: Interrupted): Promise<unknown> {
  return (await readBegun(conninfo, database))?.request
}

async function readBegun(conninfo: Conninfo, database: string) {
  const client = await connect(conninfo, { database, application: 'walback restore' })
  try {
    return (await Checkpoints.resume(client)).get('schema', begunShape)
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** Ends a restore that is under way, so that it can be gone on with. */
export async function pauseRestore(conninfo: Conninfo, { database }: Interrupted): Promise<void> {
  await onServer({ conninfo, database }, (admin) =>
    admin.query('SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = $1', [
      database,
    ]),
  )
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
