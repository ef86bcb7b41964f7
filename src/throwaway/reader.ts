import { randomBytes } from 'node:crypto'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { openSession } from './session.ts'

/**
 * Makes a role that reads everything in a restored database and may nothing else. What is asked of the past calls
 * functions and views that somebody else wrote: they must not run as a superuser, who may run programs on this machine.
 */
export async function makeReader(owner: Conninfo): Promise<Conninfo> {
  const [user, password] = [`walback_reader_${randomBytes(4).toString('hex')}`, randomBytes(24).toString('base64url')]
  const client = await openSession(owner)
  try {
    // Those of the source would fire on what follows.
    await client.query('SET event_triggers = off')
    const role = quoteIdent(user)
    const database = quoteIdent(owner.database)
    await client.query(`CREATE ROLE ${role} LOGIN BYPASSRLS PASSWORD ${quoteLiteral(password)}`)
    await client.query(`GRANT pg_read_all_data TO ${role}`)
    await client.query(`GRANT CONNECT ON DATABASE ${database} TO ${role}`)
    await client.query(`ALTER DATABASE ${database} CONNECTION LIMIT -1`)
    const { rows } = await client.query<{ name: string }>(
      `SELECT nspname AS name FROM pg_catalog.pg_namespace WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'`,
    )
    for (const { name } of rows)
      await client.query(`GRANT EXECUTE ON ALL ROUTINES IN SCHEMA ${quoteIdent(name)} TO ${role}`)
    return { ...owner, user, password }
  } finally {
    await client.end().catch(() => undefined)
  }
}
