import { randomBytes } from 'node:crypto'
import type pg from 'pg'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import type { DatabaseProperties } from '../model/catalog.ts'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { noTimeoutsSql } from '../postgres/row-session.ts'
import { type Interrupted, resumableOf } from './checkpoints.ts'
import { useEmpty } from './empty-database.ts'
import { inDatabase } from './in-database.ts'

export interface Destination {
  readonly conninfo: Conninfo
  /** Made if it is not there; it must be empty if it is. */
  readonly database: string
}

/** A database that is being filled: nobody finds it under its name before it is finished. */
export interface Workplace {
  /** The database to restore into. */
  readonly database: string
  /** Whether it was made for the restore, and gets the properties of the source's. */
  readonly isNew: boolean
  /** What it says of itself, if it was made for the restore; an earlier attempt may have made it. */
  readonly about?: Interrupted & { readonly isResumed: boolean }
  /** Gives it its name; one that is new first gets its properties, in a session outside of it. */
  finish(properties: (client: pg.Client, database: string) => Promise<void>): Promise<void>
  /** Leaves the server as it was. */
  discard(why: { readonly isDiskFull: boolean }): Promise<void>
  /** Leaves it as it is, to be gone on with. */
  leave?(): Promise<void>
}

/**
 * Prepares where to restore. A database that is not there is built under a temporary name and renamed at the end, so
 * that even a killed restore leaves nothing under the name that was asked for. One that is there and empty is used as
 * it is, and emptied again if the restore fails.
 */
export async function prepareDestination(
  destination: Destination,
  source: { readonly name: string; readonly database: DatabaseProperties },
  resumed?: Interrupted,
): Promise<Workplace> {
  const admin = await connectForAdmin(destination)
  try {
    await admin.query(noTimeoutsSql)
    if (resumed !== undefined) return await goOn(admin, destination, resumed)
    if (await isThere(admin, destination.database)) {
      const workplace = await useEmpty(destination.conninfo, destination.database)
      await admin.end()
      return workplace
    }
    await dropLeftovers(admin, temporaryPrefix)
    return await makeNew(admin, destination, source)
  } catch (error) {
    await admin.end().catch(() => undefined)
    throw error
  }
}

async function isThere(admin: pg.Client, database: string): Promise<boolean> {
  const { rows } = await admin.query('SELECT FROM pg_catalog.pg_database WHERE datname = $1', [database])
  return rows.length > 0
}

/** A session beside the target: in `postgres`, or in `template1` where there is none. */
export async function connectForAdmin({ conninfo, database }: Destination): Promise<pg.Client> {
  const candidates = ['postgres', 'template1', conninfo.database].filter((name) => name !== database)
  let failure: unknown
  for (const candidate of candidates) {
    try {
      return await connect(conninfo, { database: candidate, application: 'walback restore' })
    } catch (error) {
      failure ??= error
      if (!(error instanceof WalbackError) || codeOf(error.cause) !== '3D000') throw error
    }
  }
  throw failure
}

/** Does something in a session beside the target. */
export async function onServer<T>(destination: Destination, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connectForAdmin(destination)
  try {
    return await work(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}

export const temporaryPrefix = 'walback_restoring_'

/** `admin` stays open as long as the restore runs: its lock tells other restores that the database is no leftover. */
async function makeNew(
  admin: pg.Client,
  destination: Destination,
  { name, database: source }: { readonly name: string; readonly database: DatabaseProperties },
): Promise<Workplace> {
  const database = `${temporaryPrefix}${randomBytes(6).toString('hex')}`
  const { rows } = await admin.query<{ v: string }>(`SELECT current_setting('server_version_num') AS v`)
  await holdName(admin, database)
  try {
    await admin.query(createDatabaseSql(database, source, Number(rows[0]?.v)))
  } catch (error) {
    throw new WalbackError('database', `cannot make a database: ${messageOf(error)}`, {
      cause: error,
      hint:
        codeOf(error) === '42501'
          ? 'the role needs CREATEDB; or make an empty database yourself and name it with --into-url'
          : `make an empty database yourself (the source has encoding ${source.encoding}, collation ${source.collate}) and name it with --into-url`,
    })
  }
  const about = {
    database,
    into: destination.database,
    source: name,
    begun: new Date().toISOString(),
    isResumed: false,
  }
  return workplaceOf(admin, destination, about)
}

/** Takes up a database that an earlier attempt has left; only one may. */
async function goOn(admin: pg.Client, destination: Destination, resumed: Interrupted): Promise<Workplace> {
  const { rows } = await admin.query<{ got: boolean }>(
    `SELECT pg_catalog.pg_try_advisory_lock(${lockKey(resumed.database)}) AS got`,
  )
  if (!rows[0]?.got)
    throw new WalbackError('locked', `somebody is at work on ${resumed.database}`, {
      hint: 'wait for it, or end it with `walback restore pause`',
    })
  if (await isThere(admin, destination.database))
    throw new WalbackError('refused', `there is a database ${destination.database} by now`, {
      hint: 'rename or drop it, and resume then; or remove the interrupted restore with `walback restore discard`',
    })
  return workplaceOf(admin, destination, { ...resumed, isResumed: true })
}

function workplaceOf(
  admin: pg.Client,
  destination: Destination,
  about: Interrupted & { readonly isResumed: boolean },
): Workplace {
  const { database } = about
  // A fresh session, since the one that was opened first may have been idle for hours, or been ended.
  const withAdmin = async (work: (client: pg.Client) => Promise<void>): Promise<void> => {
    try {
      await onServer(destination, work)
    } finally {
      await admin.end().catch(() => undefined)
    }
  }
  return {
    database,
    isNew: true,
    about,
    leave: () => admin.end().catch(() => undefined),
    finish: (properties) =>
      withAdmin(async (client) => {
        await client.query(`COMMENT ON DATABASE ${quoteIdent(database)} IS NULL`)
        await properties(client, database)
        await rename(client, database, destination.database)
      }),
    discard: ({ isDiskFull }) =>
      withAdmin(async (client) => {
        if (isDiskFull) await dropTables(destination.conninfo, database).catch(() => undefined)
        await client.query(`DROP DATABASE IF EXISTS ${quoteIdent(database)} WITH (FORCE)`)
      }),
  }
}

/**
 * Dropping a database takes a checkpoint, for which a full disk has no room, and one that could not be dropped cannot be
 * entered any more; dropping tables takes none, and makes room.
 */
const dropTables = (conninfo: Conninfo, database: string): Promise<void> =>
  inDatabase(conninfo, database, async (client) => {
    const { rows } = await client.query<{ table: string }>(
      `SELECT oid::pg_catalog.regclass::text AS "table" FROM pg_catalog.pg_class
       WHERE relkind = 'r' AND oid >= 16384 ORDER BY pg_catalog.pg_table_size(oid) DESC`,
    )
    for (const { table } of rows) await client.query(`DROP TABLE IF EXISTS ${table} CASCADE`).catch(() => undefined)
  })

async function rename(client: pg.Client, database: string, name: string): Promise<void> {
  try {
    await client.query(`ALTER DATABASE ${quoteIdent(database)} RENAME TO ${quoteIdent(name)}`)
  } catch (error) {
    if (codeOf(error) !== '42P04') throw error
    throw new WalbackError('refused', `somebody made a database ${name} while it was being restored`, {
      cause: error,
      hint: 'that one was left alone, and the restored one was removed; restore again under another name',
    })
  }
}

export function createDatabaseSql(name: string, source: DatabaseProperties, serverVersion: number): string {
  const parts = [
    `CREATE DATABASE ${quoteIdent(name)} TEMPLATE template0`,
    `ENCODING ${quoteLiteral(source.encoding)}`,
    `LC_COLLATE ${quoteLiteral(source.collate)}`,
    `LC_CTYPE ${quoteLiteral(source.ctype)}`,
  ]
  if (serverVersion >= 150000 && source.provider === 'i') {
    parts.push('LOCALE_PROVIDER icu', `ICU_LOCALE ${quoteLiteral(source.locale ?? 'und')}`)
    if (serverVersion >= 160000 && source.icuRules !== null) parts.push(`ICU_RULES ${quoteLiteral(source.icuRules)}`)
  } else if (serverVersion >= 170000 && source.provider === 'b') {
    parts.push('LOCALE_PROVIDER builtin', `BUILTIN_LOCALE ${quoteLiteral(source.locale ?? 'C.UTF-8')}`)
  } else if (serverVersion >= 150000) parts.push('LOCALE_PROVIDER libc')
  return parts.join(' ')
}

/** Says, as long as the session lasts, that a database of this name is no leftover. */
export async function holdName(session: pg.Client, database: string): Promise<void> {
  await session.query(`SELECT pg_catalog.pg_advisory_lock_shared(${lockKey(database)})`)
}

/**
 * Databases under a temporary name that begins with $1: what they say of themselves (nothing, if they are being dropped:
 * the limit of their connections is then -2), whether a session is in them or holds
 * their name, and whether they are this role's own.
 */
export const oursSql = `
  SELECT d.oid::text AS oid, d.datname AS name, CASE WHEN d.datconnlimit <> -2 THEN pg_catalog.shobj_description(d.oid, 'pg_database') END AS comment,
    EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datname = d.datname) OR EXISTS (${holdersSql('d.datname::text')}) AS "inUse",
    d.datdba = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) AS "isOwn"
  FROM pg_catalog.pg_database d WHERE pg_catalog.starts_with(d.datname::text, $1) AND pg_catalog.pg_has_role(d.datdba, 'USAGE')`

/**
 * Drops what was left behind by somebody who was killed: under a temporary name of ours, and in nobody's use. What can
 * be gone on with is somebody's work, and stays.
 */
export async function dropLeftovers(admin: pg.Client, prefix: string): Promise<void> {
  const { rows } = await admin.query<{ name: string; comment: string | null; inUse: boolean }>(oursSql, [prefix])
  for (const { name, comment, inUse } of rows) {
    if (inUse || resumableOf(name, comment) !== undefined) continue
    const lock = await admin.query<{ got: boolean }>(`SELECT pg_catalog.pg_try_advisory_lock(${lockKey(name)}) AS got`)
    if (!lock.rows[0]?.got) continue
    await admin.query(`DROP DATABASE IF EXISTS ${quoteIdent(name)}`).catch(() => undefined)
    await admin.query(`SELECT pg_catalog.pg_advisory_unlock(${lockKey(name)})`)
  }
}

const lockKey = (database: string): string => `pg_catalog.hashtext(${quoteLiteral(database)})`

/** The sessions that hold a database's name (`holdName`), beside this database. A lock's number is in two halves. */
export function holdersSql(name: string): string {
  return `SELECT l.pid FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
      AND l.database = (SELECT s.oid FROM pg_catalog.pg_database s WHERE s.datname = pg_catalog.current_database())
      AND (l.classid::pg_catalog.int8 << 32) | l.objid::pg_catalog.int8 = pg_catalog.hashtext(${name})::pg_catalog.int8`
}
