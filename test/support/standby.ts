/** A physical standby of an embedded server, made by a copy under backup mode, as the manual's low-level procedure has it. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { waitFor } from '../../src/base/abort.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { copyInBackupMode, openFolder, withClient } from './referee.ts'

export interface Standby extends AsyncDisposable {
  readonly server: EmbeddedServer
  /** Waits until it has replayed everything that the primary has written. */
  caughtUp(): Promise<void>
  /** Ends the recovery; it is a primary, on a timeline of the server of its own, when this resolves. */
  promote(): Promise<void>
}

export const standbySlot = 'standby'

/**
 * Starts a standby that streams from `primary` through a physical slot. `conninfo`: more of its primary_conninfo, such
 * as the dbname that synchronized slots want. It answers queries.
 */
export async function startStandby(
  primary: EmbeddedServer,
  options: {
    readonly package?: string
    readonly settings?: Readonly<Record<string, string>>
    readonly conninfo?: string
  } = {},
): Promise<Standby> {
  const folder = await openFolder('walback-standby-')
  try {
    await withClient(primary.url(), async (client) => {
      const { rows } = await client.query('select from pg_replication_slots where slot_name = $1', [standbySlot])
      if (rows.length === 0) await client.query(`select pg_create_physical_replication_slot($1, true)`, [standbySlot])
      await copyInBackupMode(client, primary, folder.path)
    })
    const data = join(folder.path, 'data')
    await writeFile(join(data, 'standby.signal'), '')
    const server = await startEmbedded({
      dataDirectory: data,
      ...(options.package ? { package: options.package } : {}),
      settings: {
        primary_conninfo: `host=127.0.0.1 port=${primary.port} user=postgres ${options.conninfo ?? ''}`,
        primary_slot_name: standbySlot,
        hot_standby_feedback: 'on',
        wal_receiver_status_interval: '1s',
        wal_retrieve_retry_interval: '200ms',
        ...options.settings,
      },
    })
    return {
      server,
      caughtUp: () => caughtUp(primary, server),
      promote: () =>
        withClient(server.url(), async (client) => {
          const { rows } = await client.query<{ done: boolean }>('select pg_promote(true, 60) as done')
          if (!rows[0]?.done) throw new Error('the standby has not been promoted within 60 s')
        }),
      [Symbol.asyncDispose]: async () => {
        await server[Symbol.asyncDispose]()
        await folder[Symbol.asyncDispose]()
      },
    }
  } catch (error) {
    await folder[Symbol.asyncDispose]()
    throw error
  }
}

async function caughtUp(primary: EmbeddedServer, standby: EmbeddedServer): Promise<void> {
  const lsn = await withClient(primary.url(), async (client) => {
    const { rows } = await client.query<{ lsn: string }>('select pg_current_wal_flush_lsn()::text as lsn')
    return rows[0]?.lsn
  })
  await withClient(standby.url(), async (client) => {
    const probe = async (): Promise<true | undefined> => {
      const { rows } = await client.query<{ done: boolean }>('select pg_last_wal_replay_lsn() >= $1 as done', [lsn])
      return rows[0]?.done || undefined
    }
    if (!(await waitFor(probe, { timeout_ms: 30_000, interval_ms: 20 })))
      throw new Error(`the standby has not reached ${lsn} within 30 s`)
  })
}
