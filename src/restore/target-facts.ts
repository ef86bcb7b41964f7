import { stat, statfs } from 'node:fs/promises'
import type pg from 'pg'
import { codeOf, messageOf } from '../base/errors.ts'
import type { DatabaseProperties } from '../model/catalog.ts'
import { quoteLiteral } from '../model/identifier.ts'
import { isStatementError } from './replay-session.ts'
import { readTargetRoles, type TargetRoles } from './role-plan.ts'

/** An extension that a server can make. */
export interface AvailableExtension {
  readonly name: string
  readonly version: string
  /** Whether only a superuser can make it. */
  readonly needsSuperuser: boolean
}

/** Where a new database would lie; undefined `bytes`: it is not known how much is free there, and `why`. */
export type FreeDisk =
  | { readonly bytes: number; readonly path: string }
  | { readonly bytes: undefined; readonly why: string }

/** What there is to know of a target before anything is done there. */
export interface TargetFacts extends TargetRoles {
  readonly serverVersionText: string
  readonly isStandby: boolean
  readonly mayCreateDatabase: boolean
  readonly mayCreateRole: boolean
  readonly extensions: ReadonlyMap<string, AvailableExtension> | undefined
  readonly tablespaces: ReadonlySet<string>
  readonly hasIcu: boolean
  /** The database that is named, if it is there. */
  readonly database: { readonly encoding: string; readonly collate: string } | undefined
  /** What the server says against the source's locale; undefined if nothing, or if it cannot be asked. */
  readonly localeRefusal: string | undefined
  readonly free: FreeDisk
}

/** Reads them in a session beside the target's database. Changes nothing. */
export async function readTargetFacts(
  client: pg.Client,
  database: string,
  source: DatabaseProperties,
): Promise<TargetFacts> {
  const { rows } = await client.query<
    Pick<TargetFacts, 'serverVersionText' | 'isStandby' | 'mayCreateDatabase' | 'mayCreateRole' | 'hasIcu'> & {
      tablespaces: string[]
      encoding: string | null
      collate: string | null
    }
  >(
    `SELECT current_setting('server_version') AS "serverVersionText", pg_catalog.pg_is_in_recovery() AS "isStandby",
       r.rolsuper OR r.rolcreatedb AS "mayCreateDatabase", r.rolsuper OR r.rolcreaterole AS "mayCreateRole",
       EXISTS (SELECT FROM pg_catalog.pg_collation WHERE collprovider = 'i') AS "hasIcu",
       ARRAY(SELECT spcname::text FROM pg_catalog.pg_tablespace) AS tablespaces,
       pg_catalog.pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate
     FROM pg_catalog.pg_roles r LEFT JOIN pg_catalog.pg_database d ON d.datname = $1 WHERE r.rolname = current_user`,
    [database],
  )
  const [row] = rows
  return {
    ...(await readTargetRoles(client)),
    serverVersionText: row?.serverVersionText ?? '',
    isStandby: row?.isStandby === true,
    mayCreateDatabase: row?.mayCreateDatabase === true,
    mayCreateRole: row?.mayCreateRole === true,
    hasIcu: row?.hasIcu === true,
    tablespaces: new Set(row?.tablespaces),
    extensions: await readAvailable(client),
    database: row?.encoding == null ? undefined : { encoding: row.encoding, collate: row.collate ?? '' },
    localeRefusal: await askForLocale(client, source),
    free: await readFreeDisk(client),
  }
}

/** Undefined where the server cannot tell: it reads a file for each, of which one may be broken. */
async function readAvailable(client: pg.Client): Promise<Map<string, AvailableExtension> | undefined> {
  const answer = client.query<AvailableExtension>(
    `SELECT e.name::text AS name, e.default_version AS version, COALESCE(v.superuser AND NOT v.trusted, false) AS "needsSuperuser"
     FROM pg_catalog.pg_available_extensions e
       LEFT JOIN pg_catalog.pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version`,
  )
  try {
    return new Map((await answer).rows.map((extension) => [extension.name, extension]))
  } catch (error) {
    if (!isStatementError(error)) throw error
    return undefined
  }
}

/**
 * Asks whether there are the locales that the database was made with, by a temporary collation that is taken back. The
 * encoding is this session's database's: where the source has another, a refusal could be about that, and nobody is asked.
 */
async function askForLocale(client: pg.Client, { encoding, collate, ctype }: DatabaseProperties) {
  const { rows } = await client.query<{ encoding: string }>(`SELECT current_setting('server_encoding') AS encoding`)
  if (rows[0]?.encoding !== encoding) return undefined
  await client.query('BEGIN')
  try {
    await client.query(
      `CREATE COLLATION pg_temp.walback_look (LC_COLLATE = ${quoteLiteral(collate)}, LC_CTYPE = ${quoteLiteral(ctype)})`,
    )
    return undefined
  } catch (error) {
    if (codeOf(error) === undefined) throw error
    return codeOf(error) === '22023' ? messageOf(error) : undefined
  } finally {
    await client.query('ROLLBACK')
  }
}

/** Of a server on this host, as far as its role may ask where it lies. */
async function readFreeDisk(client: pg.Client): Promise<FreeDisk> {
  let row: { path: string; modified: string; changed: string } | undefined
  try {
    const { rows } = await client.query<{ path: string; modified: string; changed: string }>(
      `SELECT current_setting('data_directory') AS path, extract(epoch FROM s.modification)::bigint::text AS modified,
         extract(epoch FROM s.change)::bigint::text AS changed FROM pg_catalog.pg_stat_file('.') s`,
    )
    row = rows[0]
  } catch (error) {
    if (codeOf(error) !== '42501') throw error
    return { bytes: undefined, why: 'only a superuser is told where the server keeps its data' }
  }
  const elsewhere = { bytes: undefined, why: 'the server is on another host' } as const
  if (row === undefined) return elsewhere
  try {
    const found = await stat(row.path)
    // A path means nothing on another host, also where one of that name is here: it is the folder if its clocks are.
    const isSame = seconds(found.mtimeMs) === row.modified && seconds(found.ctimeMs) === row.changed
    if (!isSame) return elsewhere
    const { bavail, bsize } = await statfs(row.path)
    return { bytes: bavail * bsize, path: row.path }
  } catch (error) {
    if (codeOf(error) === undefined) throw error
    return codeOf(error) === 'ENOENT' ? elsewhere : { bytes: undefined, why: messageOf(error) }
  }
}

const seconds = (time_ms: number): string => String(Math.floor(time_ms / 1000))
