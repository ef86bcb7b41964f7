import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified, quoteIdent, quoteLiteral } from '../model/identifier.ts'
import { formatLsn } from '../model/lsn.ts'
import { copyOut } from '../postgres/copy.ts'
import { rowSessionSql } from '../postgres/row-session.ts'
import { dumpSchema } from '../postgres/schema-dump.ts'
import { inSession } from './session.ts'
import type { Past } from './stage.ts'

export interface SqlOutOptions {
  readonly signal?: AbortSignal | undefined
}

/** What was written. */
export interface SqlOutReport {
  readonly tables: number
  readonly rows: number
  readonly tool: string
}

/** Takes pieces of text in order, and waits where it has to. */
type Write = (piece: Buffer | string) => Promise<void>

/**
 * Writes a past as plain SQL, for `psql`: what must be there before rows, rows as `COPY`, positions of sequences, large
 * objects, what waits for the rows, and materialized views that were filled. In UTF-8, whatever the source's encoding.
 */
export async function writeSql(past: Past, write: Write, options: SqlOutOptions = {}): Promise<SqlOutReport> {
  const { signal } = options
  return await inSession(past.owner, signal, async (client) => {
    await client.query(rowSessionSql)
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
    const { rows } = await client.query<{ snapshot: string; version: string }>(
      `SELECT pg_catalog.pg_export_snapshot() AS snapshot, current_setting('server_version_num') AS version`,
    )
    const { snapshot = '', version = '0' } = rows[0] ?? {}
    const schema = await dumpSchema(past.owner, {
      snapshot,
      serverVersion: Number(version),
      excludeSchemas: ['walback'],
      lockTimeout_ms,
      ...(signal ? { signal } : {}),
    })
    const { plan } = past
    const major = Math.floor(Number(version) / 10_000)
    await write(
      [
        `-- ${plan.base.database.name} as of ${formatLsn(plan.reached)}, restored by walback from ${plan.source}`,
        `-- for PostgreSQL ${major} or newer: psql --set ON_ERROR_STOP=1 --single-transaction --file FILE --dbname EMPTY_DATABASE`,
        `-- roles that it names have to be there; settings of the database itself are not in it\n\n`,
      ].join('\n'),
    )
    await write(schema.preData)
    const written = await writeRows(client, write, signal)
    await writeSequences(client, write)
    await writeLargeObjects(client, write, signal)
    await write(schema.postData)
    await writeViews(client, write)
    return { ...written, tool: schema.tool }
  })
}

const lockTimeout_ms = 30_000

interface DumpedTable extends QualifiedName {
  readonly columns: readonly string[]
  /** Of a configuration table of an extension: which of its rows are the user's, or nothing for all; null for others. */
  readonly condition: string | null
}

const tablesSql = `
  SELECT n.nspname::text AS schema, c.relname::text AS name,
    ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns,
    (SELECT e.extcondition[pg_catalog.array_position(e.extconfig, c.oid)] FROM pg_catalog.pg_extension e
      WHERE c.oid = ANY (e.extconfig)) AS condition
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'walback')
    AND (NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
      OR EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig)))
  ORDER BY c.oid`

async function writeRows(
  client: pg.Client,
  write: Write,
  signal: AbortSignal | undefined,
): Promise<{ tables: number; rows: number }> {
  const { rows: tables } = await client.query<DumpedTable>(tablesSql)
  let rows = 0
  for (const table of tables) {
    throwIfAborted(signal)
    const columns = table.columns.map(quoteIdent).join(', ')
    const list = columns === '' ? '' : ` (${columns})`
    await write(
      `--\n-- Rows of ${comment(`${table.schema}.${table.name}`)}\n--\n\nCOPY ${qualified(table)}${list} FROM stdin;\n`,
    )
    const where = table.condition ? ` ${table.condition}` : ''
    const sql = `COPY (SELECT ${columns} FROM ONLY ${qualified(table)}${where}) TO STDOUT WITH (ENCODING 'UTF8')`
    for await (const chunk of copyOut(client, sql, signal)) {
      for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, at + 1)) rows++
      await write(chunk)
    }
    await write('\\.\n\n')
  }
  return { tables: tables.length, rows }
}

const newline = 10

/** A name may have a newline, after which a comment would be SQL. */
const comment = (text: string): string => text.replace(/[\r\n]/g, ' ')

async function writeSequences(client: pg.Client, write: Write): Promise<void> {
  const { rows } = await client.query<QualifiedName>(
    `SELECT n.nspname::text AS schema, c.relname::text AS name FROM pg_catalog.pg_class c
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' ORDER BY c.oid`,
  )
  for (const sequence of rows) {
    const state = await client.query<{ last: string; called: boolean }>(
      `SELECT last_value::text AS last, is_called AS called FROM ${qualified(sequence)}`,
    )
    const { last, called } = state.rows[0] ?? { last: '1', called: false }
    await write(`SELECT pg_catalog.setval(${quoteLiteral(qualified(sequence))}, ${last}, ${called});\n`)
  }
  await write('\n')
}

async function writeLargeObjects(client: pg.Client, write: Write, signal: AbortSignal | undefined): Promise<void> {
  const { rows } = await client.query<{ oid: string; owner: string }>(
    'SELECT oid::text AS oid, pg_catalog.pg_get_userbyid(lomowner)::text AS owner FROM pg_catalog.pg_largeobject_metadata ORDER BY oid',
  )
  for (const { oid, owner } of rows) {
    await write(`SELECT pg_catalog.lo_create('${oid}');\nALTER LARGE OBJECT ${oid} OWNER TO ${quoteIdent(owner)};\n`)
    for (let next = 0, isMore = true; isMore; ) {
      throwIfAborted(signal)
      const { rows: pages } = await client.query<{ page: number; offset: string; bytes: string }>(
        `SELECT pageno AS page, (pageno::int8 * 2048)::text AS offset, pg_catalog.encode(data, 'hex') AS bytes
         FROM pg_catalog.pg_largeobject WHERE loid = $1 AND pageno >= $2 ORDER BY pageno LIMIT ${pagesAtOnce}`,
        [oid, next],
      )
      for (const { offset, bytes } of pages)
        if (bytes !== '') await write(`SELECT pg_catalog.lo_put('${oid}', ${offset}, '\\x${bytes}');\n`)
      next = (pages.at(-1)?.page ?? 0) + 1
      isMore = pages.length === pagesAtOnce
    }
  }
}

/** A large object may have terabytes. */
const pagesAtOnce = 512

/** One that reads another was made after it. */
async function writeViews(client: pg.Client, write: Write): Promise<void> {
  const { rows } = await client.query<QualifiedName>(
    `SELECT n.nspname::text AS schema, c.relname::text AS name FROM pg_catalog.pg_class c
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' AND c.relispopulated ORDER BY c.oid`,
  )
  for (const view of rows) await write(`REFRESH MATERIALIZED VIEW ${qualified(view)};\n`)
}
