/**
 * Whether a restored database keeps its own promises. Rows that were replayed under a foreign key were not checked
 * against it, as in a replica, and an index that is there may have been left unfinished: the server itself is asked.
 */
import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { codeOf, messageOf } from '../base/errors.ts'
import { quoteIdent } from '../model/identifier.ts'

export interface Broken {
  readonly kind: 'foreign-key' | 'index'
  readonly name: string
  readonly message: string
}

export interface Integrity {
  readonly foreignKeys: number
  readonly indexes: number
  readonly broken: readonly Broken[]
  /** Constraints of which nothing is known for rows that were there before them, at the source as here. */
  readonly notValid: readonly string[]
}

export async function checkIntegrity(client: pg.Client, signal?: AbortSignal): Promise<Integrity> {
  await client.query(`SET search_path = ''`)
  await client.query(withoutEventTriggers)
  const keys = await checkForeignKeys(client, signal)
  const indexes = await checkIndexes(client, signal)
  const { rows } = await client.query<{ what: string }>(notValidSql)
  return {
    foreignKeys: keys.checked,
    indexes: indexes.checked,
    broken: [...keys.broken, ...indexes.broken],
    notValid: rows.map(({ what }) => what),
  }
}

/** Those of the source would fire on what is tried here; from PostgreSQL 17 on they can be kept from it. */
const withoutEventTriggers = `SELECT pg_catalog.set_config(name, 'off', false) FROM pg_catalog.pg_settings
  WHERE name = 'event_triggers' AND (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)`

interface Checked {
  readonly checked: number
  readonly broken: readonly Broken[]
}

/** Each foreign key is made once more, which reads all its rows, and taken back. */
async function checkForeignKeys(client: pg.Client, signal: AbortSignal | undefined): Promise<Checked> {
  const { rows } = await client.query<{ table: string; name: string; definition: string }>(foreignKeysSql)
  const broken: Broken[] = []
  for (const { table, name, definition } of rows) {
    throwIfAborted(signal)
    await client.query('BEGIN')
    try {
      await client.query(`ALTER TABLE ${table} ADD CONSTRAINT walback_checked_anew ${definition}`)
    } catch (error) {
      if (codeOf(error)?.length !== 5) throw error
      broken.push({ kind: 'foreign-key', name: `${table}.${name}`, message: withDetail(error) })
    } finally {
      await client.query('ROLLBACK').catch(() => undefined)
    }
  }
  return { checked: rows.length, broken }
}

const foreignKeysSql = `
  SELECT k.conrelid::pg_catalog.regclass::text AS "table", k.conname::text AS name, pg_catalog.pg_get_constraintdef(k.oid) AS definition
  FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.convalidated AND k.conparentid = 0 ORDER BY k.oid`

const notValidSql = `
  SELECT 'constraint ' || k.conname || ' of table ' || k.conrelid::pg_catalog.regclass AS what
  FROM pg_catalog.pg_constraint k
  WHERE NOT k.convalidated AND k.conrelid <> 0 AND pg_catalog.to_jsonb(k) ->> 'conenforced' IS DISTINCT FROM 'false'
  ORDER BY 1`

const withDetail = (error: unknown): string => {
  const { detail } = error as { detail?: unknown }
  return typeof detail === 'string' ? `${messageOf(error)} (${detail})` : messageOf(error)
}

interface Index {
  readonly oid: string
  readonly name: string
  readonly isWhole: boolean
  readonly isBtree: boolean
}

/** That each is finished, and, with amcheck where it can be had, that each btree is in order and has every row. */
async function checkIndexes(client: pg.Client, signal: AbortSignal | undefined): Promise<Checked> {
  const { rows } = await client.query<Index>(indexesSql)
  const broken: Broken[] = rows
    .filter(({ isWhole }) => !isWhole)
    .map(({ name }) => ({ kind: 'index', name, message: 'it is not valid: its building did not come to its end' }))
  await client.query('BEGIN')
  try {
    const schema = await amcheckSchema(client)
    for (const { oid, name, isBtree, isWhole } of schema === undefined ? [] : rows) {
      throwIfAborted(signal)
      if (!isBtree || !isWhole) continue
      await client.query('SAVEPOINT one')
      try {
        await client.query(`SELECT ${schema}.bt_index_check($1::pg_catalog.oid::pg_catalog.regclass, true)`, [oid])
        await client.query('RELEASE SAVEPOINT one')
      } catch (error) {
        if (codeOf(error)?.length !== 5) throw error
        broken.push({ kind: 'index', name, message: withDetail(error) })
        await client.query('ROLLBACK TO SAVEPOINT one')
      }
    }
  } finally {
    await client.query('ROLLBACK').catch(() => undefined)
  }
  return { checked: rows.length, broken }
}

const indexesSql = `
  SELECT c.oid::text AS oid, c.oid::pg_catalog.regclass::text AS name, i.indisvalid AND i.indisready AS "isWhole",
    a.amname = 'btree' AS "isBtree"
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_am a ON a.oid = c.relam JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'i' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY c.oid`

/** Where the functions of amcheck are, made for the transaction if need be; undefined where they cannot be had. */
async function amcheckSchema(client: pg.Client): Promise<string | undefined> {
  const installed = await client.query<{ schema: string }>(
    `SELECT extnamespace::pg_catalog.regnamespace::text AS schema FROM pg_catalog.pg_extension WHERE extname = 'amcheck'`,
  )
  if (installed.rows[0]) return installed.rows[0].schema
  const schema = quoteIdent('walback_amcheck')
  await client.query('SAVEPOINT amcheck')
  try {
    await client.query(`CREATE SCHEMA ${schema}`)
    await client.query(`CREATE EXTENSION amcheck SCHEMA ${schema}`)
    return schema
  } catch (error) {
    if (codeOf(error)?.length !== 5) throw error
    await client.query('ROLLBACK TO SAVEPOINT amcheck')
    return undefined
  }
}
