import { randomBytes } from 'node:crypto'
import { quoteIdent } from '../model/identifier.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { holdName, onServer, temporaryPrefix } from './destination.ts'

/**
 * Works with a database that is there for this work only: it has a name that no other has, and is dropped after it. One
 * that a killed process left is dropped by the next restore on the server.
 */
export async function withScratchDatabase<T>(conninfo: Conninfo, work: (database: string) => Promise<T>): Promise<T> {
  const database = `${temporaryPrefix}${randomBytes(6).toString('hex')}`
  return onServer({ conninfo, database }, async (admin) => {
    // It is no leftover, also while nobody is connected to it.
    await holdName(admin, database)
    try {
      return await work(database)
    } finally {
      await onServer({ conninfo, database }, (client) =>
        client.query(`DROP DATABASE IF EXISTS ${quoteIdent(database)} WITH (FORCE)`),
      )
    }
  })
}
