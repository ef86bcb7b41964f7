import type pg from 'pg'
import { quoteLiteral } from '../model/identifier.ts'
import { type ConnectOptions, connect } from './connect.ts'
import type { Conninfo } from './conninfo.ts'

/**
 * Settings under which rows are read and written everywhere, so that text means the same in a base, in the stream and
 * in a restore. (With extra_float_digits=0 the stream has 0.3 for 0.30000000000000004; with another datestyle or
 * intervalstyle, text that reads back as something else.)
 */
export const rowSettings: Readonly<Record<string, string>> = {
  datestyle: 'ISO, YMD',
  intervalstyle: 'postgres',
  extra_float_digits: '3',
  bytea_output: 'hex',
  lc_monetary: 'C',
  timezone: 'UTC',
  xmlbinary: 'base64',
  // With `document`, what is no whole document is refused; with array_nulls off, NULL in an array is read as a word.
  xmloption: 'content',
  array_nulls: 'on',
  // With row_security on, a role that policies apply to would read (and back up) only the rows they let through.
  row_security: 'off',
  search_path: '',
  statement_timeout: '0',
  idle_in_transaction_session_timeout: '0',
}

/**
 * Opens a session for rows: canonical settings, and no conversion of rows on the wire, since one that fails would end a
 * base or a stream, and bytes are to stay bytes. A replication session speaks the server's own encoding. Any other
 * speaks UTF-8, so that names in its SQL are understood, and each COPY names the encoding of its rows (`copyOptions`).
 */
export async function openRowSession(conninfo: Conninfo, options: ConnectOptions): Promise<pg.Client> {
  const client = await connect(conninfo, options)
  try {
    await client.query(rowSessionSql)
    if (options.replication) {
      const { rows } = await client.query<{ server_encoding: string }>('SHOW server_encoding')
      await client.query(`SET client_encoding = '${rows[0]?.server_encoding ?? 'UTF8'}'`)
    } else await client.query(noTimeoutsSql)
    return client
  } catch (error) {
    await client.end().catch(() => undefined)
    throw error
  }
}

/** For a COPY of rows: they are, and stay, in the encoding of the database that they were read from. */
export const copyOptions = (sourceEncoding: string): string => `WITH (ENCODING ${quoteLiteral(sourceEncoding)})`

/** Timeouts that not every version knows. A session may wait for hours while others work, in a transaction or not. */
export const noTimeoutsSql = `SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
  WHERE name IN ('idle_session_timeout', 'transaction_timeout', 'lock_timeout')`

/** As simple statements, which a replication connection takes too. */
export const rowSessionSql = Object.entries(rowSettings)
  .map(([name, value]) => `SET ${name} = '${value}'`)
  .join('; ')
