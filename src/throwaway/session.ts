import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { noTimeoutsSql } from '../postgres/row-session.ts'

/** A session in a restored database, whatever that sets for its sessions that would stand in the way. */
export async function openSession(conninfo: Conninfo, signal?: AbortSignal): Promise<pg.Client> {
  const client = await connect(conninfo, {
    application: 'walback throwaway',
    settings: { default_transaction_read_only: 'off', statement_timeout: '0' },
    ...(signal === undefined ? {} : { signal }),
  })
  try {
    await client.query(noTimeoutsSql)
    return client
  } catch (error) {
    await client.end().catch(() => undefined)
    throw error
  }
}

/** Works in such a session; an abort ends it in the midst of whatever statement it is at. */
export async function inSession<T>(
  conninfo: Conninfo,
  signal: AbortSignal | undefined,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = await openSession(conninfo, signal)
  const interrupt = (): void => void client.end().catch(() => undefined)
  signal?.addEventListener('abort', interrupt, { once: true })
  try {
    throwIfAborted(signal)
    return await work(client)
  } catch (error) {
    throwIfAborted(signal)
    throw error
  } finally {
    signal?.removeEventListener('abort', interrupt)
    await client.end().catch(() => undefined)
  }
}
