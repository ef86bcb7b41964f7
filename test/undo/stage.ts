/** A database whose transactions are captured and undone: the stage that the tests of undoing share. */
import { findTransactions, parseTransactionName } from '../../src/history/find-transaction.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import type { EmbeddedServer } from '../../src/postgres/embedded.ts'
import type { Policy } from '../../src/undo/apply-rows.ts'
import { Undo, type UndoOptions, type UndoReport } from '../../src/undo/undo.ts'
import { Subject } from '../restore/round-trip.ts'

/** Runs statements in one transaction and gives its id. */
export async function transaction({ client }: Subject, ...statements: string[]): Promise<string> {
  await client.query('BEGIN')
  try {
    for (const statement of statements) await client.query(statement)
    const { rows } = await client.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid')
    await client.query('COMMIT')
    return rows[0]?.xid ?? ''
  } catch (error) {
    await client.query('ROLLBACK')
    throw error
  }
}

export interface UndoRun extends UndoOptions {
  readonly policy?: Policy
  readonly url?: string
}

export async function begin(subject: Subject, xids: readonly string[], options: UndoRun): Promise<Undo> {
  const { repository, source } = subject.opened
  const found = await findTransactions(repository, source, xids.map(parseTransactionName))
  return await Undo.begin(repository, found, resolveConninfo(options.url ?? subject.url, {}), options)
}

/** Captures up to now, and undoes; the preview must have said the same. */
export async function undo(subject: Subject, xids: readonly string[], options: UndoRun = {}): Promise<UndoReport> {
  await subject.opened.catchUp()
  await using work = await begin(subject, xids, options)
  const preview = await work.preview()
  const report = await work.apply(options.policy ?? 'abort')
  const counts = ({ tables }: UndoReport): unknown =>
    tables.map(({ deletes, inserts, updates, conflicts }) => ({ deletes, inserts, updates, conflicts }))
  if (JSON.stringify(counts(preview)) !== JSON.stringify(counts(report)))
    throw new Error(
      `the preview said ${JSON.stringify(counts(preview))}, and this was found: ${JSON.stringify(counts(report))}`,
    )
  return report
}

export async function preview(subject: Subject, xids: readonly string[], options: UndoRun = {}): Promise<UndoReport> {
  await subject.opened.catchUp()
  await using work = await begin(subject, xids, options)
  return await work.preview()
}

/** The same as SQL. */
export async function scriptOf(subject: Subject, xids: readonly string[], options: UndoRun = {}): Promise<string> {
  await subject.opened.catchUp()
  await using work = await begin(subject, xids, options)
  let script = ''
  for await (const piece of work.script(options.policy ?? 'abort')) script += piece
  return script
}

/** Every row of the tables as text, sorted. */
export async function rowsOf({ client }: Subject, ...tables: string[]): Promise<Record<string, string[]>> {
  const found: Record<string, string[]> = {}
  for (const table of tables) {
    const { rows } = await client.query<{ row: string }>(`SELECT t::text AS row FROM ${table} t ORDER BY 1`)
    found[table] = rows.map(({ row }) => row)
  }
  return found
}

/** A database of its own with an archive. */
export async function openSubject(server: EmbeddedServer, ...schema: string[]): Promise<Subject> {
  const made = await Subject.start(server)
  await made.sql(...schema)
  await made.open()
  return made
}
