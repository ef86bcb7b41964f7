import type pg from 'pg'
import { quoteIdent } from '../model/identifier.ts'

/** A name of at most 63 bytes that says from which database and when: `app_before_20261128T103000Z`. */
export function datedName(database: string, what: 'before' | 'undone' | 'restored', now: Date): string {
  const stamp = now
    .toISOString()
    .replace(/[-:]/g, '')
    .replace(/\.\d+Z$/, 'Z')
  const tail = `_${what}_${stamp}`
  let head = database
  while (Buffer.byteLength(head) > 63 - tail.length) head = [...head].slice(0, -1).join('')
  return `${head}${tail}`
}

const isBefore = (name: string, of: string): boolean => {
  const [, head] = /^(.*)_before_\d{8}T\d{6}Z$/s.exec(name) ?? []
  return head !== undefined && of.startsWith(head) && (head === of || Buffer.byteLength(name) > 60)
}

/** The databases that restores in place have put aside under dated names, the newest first. */
export async function databasesBefore(client: pg.Client, database: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>('SELECT datname AS name FROM pg_catalog.pg_database')
  const stamp = (name: string): string => name.slice(-16)
  return rows
    .map(({ name }) => name)
    .filter((name) => isBefore(name, database))
    .sort((a, b) => (stamp(a) < stamp(b) ? 1 : -1))
}

export const allowConnectionsSql = (database: string, allowed: boolean): string =>
  `ALTER DATABASE ${quoteIdent(database)} WITH ALLOW_CONNECTIONS ${allowed}`

export const renameSql = (from: string, to: string): string =>
  `ALTER DATABASE ${quoteIdent(from)} RENAME TO ${quoteIdent(to)}`
