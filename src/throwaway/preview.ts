import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { codeOf, messageOf } from '../base/errors.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified, quoteIdent } from '../model/identifier.ts'
import { everything, matchSelection } from '../model/selection.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import type { SampleRow } from './compare.ts'
import { inSession } from './session.ts'
import type { Past } from './stage.ts'
import { countRows, nameOf, readTables, type TableShape } from './tables.ts'

export interface RowCount {
  readonly rows: number
  /** Counted just now, and not the server's own guess. */
  readonly isExact: boolean
}

export interface TablePreview extends QualifiedName {
  /** Undefined where there was no such table, or is none. */
  readonly rowsThen: number | undefined
  /** Undefined also where the live database could not be asked. */
  readonly rowsNow: RowCount | undefined
  /** The first rows of then. */
  readonly samples: readonly SampleRow[]
}

export interface Preview {
  readonly tables: readonly TablePreview[]
  /** Why there is nothing about now, if there is not. */
  readonly notAsked: string | undefined
}

export interface PreviewOptions {
  /** Rows of each table that are shown. */
  readonly samples: number
  readonly signal?: AbortSignal | undefined
}

/** Compares a past with the live database by the number of rows; reads little from the latter, and changes nothing. */
export async function previewPast(
  past: Past,
  live: Conninfo | undefined,
  { samples, signal }: PreviewOptions,
): Promise<Preview> {
  const then = await inSession(past.owner, signal, (client) => lookAtPast(client, samples, signal))
  const now = live === undefined ? 'no database was given (--db)' : await lookAtLive(live, signal)
  const isKnown = typeof now !== 'string'
  const isMeant = matchSelection(past.plan.selected?.selection ?? everything)
  const names = new Map<string, QualifiedName>(
    [...then.values(), ...(isKnown ? [...now.values()].filter(isMeant) : [])].map((one) => [nameOf(one), one]),
  )
  const tables = [...names].sort(([a], [b]) => (a < b ? -1 : 1))
  return {
    tables: tables.map(([key, { schema, name }]) => ({
      schema,
      name,
      rowsThen: then.get(key)?.rows,
      rowsNow: isKnown ? now.get(key)?.count : undefined,
      samples: then.get(key)?.samples ?? [],
    })),
    notAsked: isKnown ? undefined : now,
  }
}

interface PastTable extends QualifiedName {
  readonly rows: number
  readonly samples: readonly SampleRow[]
}

async function lookAtPast(
  client: pg.Client,
  samples: number,
  signal: AbortSignal | undefined,
): Promise<Map<string, PastTable>> {
  const found = new Map<string, PastTable>()
  for (const table of await readTables(client)) {
    throwIfAborted(signal)
    const { schema, name } = table
    const rows = await countRows(client, table)
    found.set(nameOf(table), { schema, name, rows, samples: await firstRows(client, table, samples) })
  }
  return found
}

async function firstRows(client: pg.Client, table: TableShape, count: number): Promise<SampleRow[]> {
  if (count === 0 || table.columns.length === 0) return []
  const columns = table.columns.map(quoteIdent).join(', ')
  const order = table.key.length === 0 ? '' : `ORDER BY ${table.key.map(quoteIdent).join(', ')}`
  const types = { getTypeParser: () => (value: string) => value } as pg.CustomTypesConfig
  const text = `SELECT ${columns} FROM ONLY ${qualified(table)} ${order} LIMIT ${count}`
  return (await client.query<Record<string, string | null>>({ text, types })).rows
}

interface LiveTable extends QualifiedName {
  readonly count: RowCount
}

/** Or why it could not be looked at: it may be away, which keeps nobody from looking at the past. */
async function lookAtLive(
  live: Conninfo,
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<string, LiveTable> | string> {
  try {
    const client = await connect(live, {
      application: 'walback preview',
      // Where policies apply to the role, a count of what they let through would be taken for all.
      settings: {
        default_transaction_read_only: 'on',
        row_security: 'off',
        statement_timeout: String(longestCount_ms),
      },
      ...(signal === undefined ? {} : { signal }),
    })
    try {
      return await countLive(client, signal)
    } finally {
      await client.end().catch(() => undefined)
    }
  } catch (error) {
    throwIfAborted(signal)
    return messageOf(error)
  }
}

async function countLive(client: pg.Client, signal: AbortSignal | undefined): Promise<Map<string, LiveTable>> {
  const found = new Map<string, LiveTable>()
  const begun_ms = performance.now()
  for (const { schema, name } of await readTables(client)) {
    throwIfAborted(signal)
    const { rows } = await client.query<{ estimate: string }>(
      'SELECT reltuples::bigint AS estimate FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)',
      [qualified({ schema, name })],
    )
    const estimate = Number(rows[0]?.estimate ?? -1)
    const isSoon = estimate <= mostCounted && performance.now() - begun_ms < allCounts_ms
    const exact = isSoon ? await exactCount(client, { schema, name }) : undefined
    if (exact !== undefined)
      found.set(nameOf({ schema, name }), { schema, name, count: { rows: exact, isExact: true } })
    else if (estimate >= 0)
      found.set(nameOf({ schema, name }), { schema, name, count: { rows: estimate, isExact: false } })
  }
  return found
}

/** Undefined where it takes too long, or may not be read. */
async function exactCount(client: pg.Client, table: QualifiedName): Promise<number | undefined> {
  try {
    return await countRows(client, table)
  } catch (error) {
    if (['57014', '42501', '42P01'].includes(codeOf(error) ?? '')) return undefined
    throw error
  }
}

/** The live database has other things to do: what is large is not counted, and the counting does not go on for long. */
const mostCounted = 1_000_000
const longestCount_ms = 2_000
const allCounts_ms = 15_000
