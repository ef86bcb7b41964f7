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
  /** Rows, positions of sequences and large objects alone, for a database that has the schema. */
  readonly dataOnly?: boolean
  readonly signal?: AbortSignal | undefined
}

/** What was written. */
export interface SqlOutReport {
  readonly tables: number
  readonly rows: number
}

/** Takes pieces of text in order, and waits where it has to. */
type Write = (piece: Buffer | string) => Promise<void>

/** Where the SQL goes, part by part, in the order in which it is to be run. Parts may all go to one place. */
export interface SqlSink {
  part(name: string): Promise<Write>
}

/**
 * Writes a past as plain SQL, for `psql`: what must be there before rows, rows as `COPY`, positions of sequences, large
 * objects, what waits for the rows, and materialized views that were filled. In UTF-8, whatever the source's encoding.
 */
export async function writeSql(past: Past, sink: SqlSink, options: SqlOutOptions = {}): Promise<SqlOutReport> {
  const { dataOnly = false, signal } = options
  return await inSession(past.owner, signal, async (client) => {
    await client.query(rowSessionSql)
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
    const { rows } = await client.query<{ snapshot: string; version: string }>(
      `SELECT pg_catalog.pg_export_snapshot() AS snapshot, current_setting('server_version_num') AS version`,
    )
    const { snapshot = '', version = '0' } = rows[0] ?? {}
    const schema = dataOnly
      ? undefined
      : await dumpSchema(past.owner, {
          snapshot,
          serverVersion: Number(version),
          excludeSchemas: ['walback'],
          lockTimeout_ms,
          ...(signal ? { signal } : {}),
        })
    const before = await sink.part('before')
    await before(heading(past, Number(version), dataOnly))
    await before(schema?.preData ?? settingsForRows)
    const written = await writeRows(client, sink, { parentsFirst: dataOnly, signal })
    await writeSequences(client, await sink.part('sequences'))
    await writeLargeObjects(client, await sink.part('large-objects'), signal)
    const after = await sink.part('after')
    await after(schema?.postData ?? '')
    await writeViews(client, after)
    return written
  })
}

function heading({ plan }: Past, version: number, dataOnly: boolean): string {
  return [
    `-- ${comment(plan.base.database.name)} as of ${formatLsn(plan.reached)}, restored by walback from ${comment(plan.source)}`,
    `-- for PostgreSQL ${Math.floor(version / 10_000)} or newer: psql --set ON_ERROR_STOP=1 --single-transaction --file FILE --dbname ${dataOnly ? 'DATABASE' : 'EMPTY_DATABASE'}`,
    dataOnly
      ? '-- rows alone, for tables that are there and empty; their triggers fire'
      : '-- roles that it names have to be there; settings of the database itself are not in it',
    '\n',
  ].join('\n')
}

/** Those by which the rows are read as they were written. */
const settingsForRows = `SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET row_security = off;
SELECT pg_catalog.set_config('search_path', '', false);

`

const lockTimeout_ms = 30_000

interface DumpedTable extends QualifiedName {
  readonly oid: string
  /** Ids of the tables that its foreign keys name. */
  readonly refersTo: readonly string[]
  readonly columns: readonly string[]
  /** Of a configuration table of an extension: which of its rows are the user's, or nothing for all; null for others. */
  readonly condition: string | null
}

const tablesSql = `
  SELECT c.oid::text AS oid, n.nspname::text AS schema, c.relname::text AS name,
    ARRAY(SELECT r.oid::text FROM pg_catalog.pg_constraint k,
        LATERAL (SELECT k.confrelid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(k.confrelid)) r
      WHERE k.contype = 'f' AND k.conrelid = c.oid) AS "refersTo",
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
  sink: SqlSink,
  { parentsFirst, signal }: { readonly parentsFirst: boolean; readonly signal: AbortSignal | undefined },
): Promise<SqlOutReport> {
  const { rows: tables } = await client.query<DumpedTable>(tablesSql)
  let rows = 0
  for (const table of parentsFirst ? inOrder(tables) : tables) {
    throwIfAborted(signal)
    const write = await sink.part(`rows of ${table.schema}.${table.name}`)
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

/** Tables whose rows others refer to come before those; in a circle, as they come. */
function inOrder(tables: readonly DumpedTable[]): DumpedTable[] {
  const byId = new Map(tables.map((table) => [table.oid, table]))
  const ordered = new Set<DumpedTable>()
  const seen = new Set<DumpedTable>()
  // By a list of one's own, for a chain of foreign keys may be long.
  for (const first of tables) {
    const pending = [first]
    for (let table = pending.at(-1); table !== undefined; table = pending.at(-1)) {
      seen.add(table)
      const next = table.refersTo.flatMap((oid) => byId.get(oid) ?? []).find((other) => !seen.has(other))
      if (next !== undefined) pending.push(next)
      else {
        ordered.add(table)
        pending.pop()
      }
    }
  }
  return [...ordered]
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
