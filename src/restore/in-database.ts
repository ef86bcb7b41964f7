import type pg from 'pg'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'

/** Does something in a session of its own in a database of the target's server. */
export async function inDatabase<T>(
  conninfo: Conninfo,
  database: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = await connect(conninfo, { database, application: 'walback restore' })
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}
