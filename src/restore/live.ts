import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { RowHash } from '../codec/row-hash.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { qualified } from '../model/identifier.ts'
import { everything, isPartial, meantTables } from '../model/selection.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { copyIn, copyOut, wholeLines } from '../postgres/copy.ts'
import { explainLostSession } from '../postgres/replication-failure.ts'
import { copyOptions, openRowSession } from '../postgres/row-session.ts'
import { tablesOf } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import { inDatabase } from './in-database.ts'
import {
  columnNames,
  createSql,
  type Differences,
  type LiveTable,
  Merge,
  type MergeMode,
  readLiveTables,
  readSql,
} from './live-table.ts'
import type { RestorePlan } from './plan.ts'
import { type RestoreOptions, restore } from './restore.ts'
import { withScratchDatabase } from './scratch.ts'

/** Where rows go in a database that is in use: a new table, or the tables that they were in. */
export type LiveUse = { readonly as: QualifiedName | string } | { readonly merge: MergeMode }

/** What a merge finds in a table, before it does anything. */
export interface MergePreview extends QualifiedName, Differences {
  /** The first keys of rows that differ. */
  readonly conflicts: readonly string[]
  /** Tables that lose rows, or values, with rows that are deleted here. */
  readonly dragged: readonly (QualifiedName & { readonly onDelete: string })[]
}

export interface LiveTableReport extends QualifiedName {
  readonly inserted: number
  readonly updated: number
  readonly deleted: number
}

export interface LiveReport {
  readonly tables: readonly LiveTableReport[]
  readonly duration_ms: number
  readonly warnings: readonly string[]
  /** What else is to be said, and takes no row from what was restored. */
  readonly notes: readonly string[]
}

export interface LiveOptions extends RestoreOptions {
  /** Asked with what a merge would do, before it does it; throws to leave everything as it is. */
  readonly approve?: (previews: readonly MergePreview[]) => Promise<void>
}

/**
 * Puts selected tables, as a plan has them, into the live database that `conninfo` names. They are restored into a
 * database beside it first, on the same server; then one transaction takes them over, checks that they are what they
 * were, and else changes nothing.
 */
export async function restoreIntoLive(
  repository: Repository,
  plan: RestorePlan,
  conninfo: Conninfo,
  use: LiveUse,
  options: LiveOptions,
): Promise<LiveReport> {
  const started = performance.now()
  const { selected } = plan
  if (selected === undefined || !isPartial(selected.selection) || !selected.selection.rows)
    throw new WalbackError('usage', 'which tables are to be put into the live database?', {
      hint: 'name them with --table, or --schema',
    })
  try {
    if ('as' in use) await refuseTaken(conninfo, use.as, plan)
    return await withScratchDatabase(conninfo, async (database) => {
      const beside = { conninfo, database }
      // Nobody uses what is there: owners and rights do not matter, and roles need not be there.
      const roles = { noOwner: true, noPrivileges: true }
      const { warnings } = await restore(repository, plan, beside, { ...options, roles })
      const application = 'walback restore'
      const sessions: pg.Client[] = []
      try {
        const from = await openRowSession(conninfo, { database, application })
        sessions.push(from)
        const to = await openRowSession(conninfo, { application })
        sessions.push(to)
        // Triggers and constraints of the live tables may not qualify what they name.
        await to.query('SET search_path = DEFAULT')
        const work = new LiveWork(from, to, plan, options.signal)
        const tables = 'as' in use ? [await work.putBeside(use.as)] : await work.merge(use.merge, options)
        return { tables, duration_ms: Math.round(performance.now() - started), warnings, notes: work.notes }
      } finally {
        await Promise.all(sessions.map((client) => client.end().catch(() => undefined)))
      }
    })
  } catch (error) {
    throw explainLostSession(error)
  }
}

/** Says before a restore what would fail after it. Where a name without a schema is given, that is the table's own. */
async function refuseTaken(conninfo: Conninfo, as: QualifiedName | string, plan: RestorePlan): Promise<void> {
  const meant = tablesOf(plan.base).filter(({ oid }) => plan.selected?.tables.has(oid))
  const schemas = typeof as === 'string' ? [...new Set(meant.map(({ schema }) => schema))] : [as.schema]
  const name = typeof as === 'string' ? as : as.name
  await inDatabase(conninfo, conninfo.database, async (client) => {
    for (const schema of schemas) {
      const { rows } = await client.query<{ isThere: boolean; isTaken: boolean }>(
        `SELECT pg_catalog.to_regnamespace(pg_catalog.quote_ident($1)) IS NOT NULL AS "isThere",
           EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2) AS "isTaken"`,
        [schema, name],
      )
      if (rows[0]?.isThere === false && typeof as !== 'string')
        throw new WalbackError('refused', `the live database has no schema ${schema}`, {
          hint: 'make it, or name another',
        })
      if (rows[0]?.isTaken)
        throw new WalbackError('refused', `${schema}.${name} is there already`, { hint: 'give another name with --as' })
    }
  })
}

class LiveWork {
  readonly notes: string[] = []
  private readonly from: pg.Client
  private readonly to: pg.Client
  private readonly plan: RestorePlan
  private readonly signal: AbortSignal | undefined

  constructor(from: pg.Client, to: pg.Client, plan: RestorePlan, signal: AbortSignal | undefined) {
    this.from = from
    this.to = to
    this.plan = plan
    this.signal = signal
  }

  /** The tables that were selected, as they were; rows of partitions come with the topmost. */
  private async selected(): Promise<LiveTable[]> {
    const all = await readLiveTables(this.from)
    const kept = meantTables(all, this.plan.selected?.selection ?? everything)
    return all.filter(({ oid, isPartition }) => kept.has(oid) && !isPartition)
  }

  private get copyOptions(): string {
    return copyOptions(this.plan.base.database.encoding)
  }

  /** Makes a new table of one that was. */
  async putBeside(as: QualifiedName | string): Promise<LiveTableReport> {
    const selected = await this.selected()
    const [table] = selected
    if (table === undefined || selected.length > 1)
      throw new WalbackError('usage', `--as is one table's name, and ${selected.length} are selected`, {
        hint: `name one of ${selected.map(({ schema, name }) => `${schema}.${name}`).join(', ')} with --table`,
      })
    const made = typeof as === 'string' ? { schema: table.schema, name: as } : as
    const inserted = await this.inTransaction(made, async () => {
      await this.to.query(createSql(table, made))
      const rows = await this.carry(table, `${qualified(made)}${columnsOf(table)}`)
      const found = await this.hash(this.to, `(SELECT * FROM ${qualified(made)})`)
      if (!isEqual(rows, found)) throw changedOnItsWay(made)
      return rows.rows
    })
    if (table.generated.length > 0)
      this.notes.push(
        `without what the server computes in ${table.schema}.${table.name}: ${table.generated.join(', ')}`,
      )
    return { ...made, inserted, updated: 0, deleted: 0 }
  }

  /** Brings the rows of the selected tables back into the tables of the same names. */
  async merge(mode: MergeMode, { approve }: LiveOptions): Promise<LiveTableReport[]> {
    const live = new Map((await readLiveTables(this.to)).map((table) => [qualified(table), table]))
    const merges: Merge[] = []
    for (const then of await this.selected()) {
      const now = live.get(qualified(then))
      if (now === undefined)
        throw new WalbackError('refused', `the live database has no table ${then.schema}.${then.name} any more`, {
          hint: 'restore it under another name with --as, or into a new database with --into',
        })
      const merge = new Merge(now, then, mode)
      await this.to.query(merge.prepareSql).catch((error: unknown) => {
        throw refusedByServer(then, error)
      })
      await this.carry(then, merge.fillTarget).catch((error: unknown) => {
        throw refusedByServer(then, error)
      })
      await this.to.query(`ANALYZE ${merge.beside}`)
      merges.push(merge)
    }
    const previews: MergePreview[] = []
    for (const merge of merges) previews.push(await this.preview(merge, mode))
    await approve?.(previews)
    const ordered = parentsFirst(merges)
    const names = merges.map(({ live: { schema, name } }) => ({ schema, name }))
    return this.inTransaction(names[0] as QualifiedName, () => this.apply(ordered, mode))
  }

  private async apply(merges: readonly Merge[], mode: MergeMode): Promise<LiveTableReport[]> {
    await this.to.query(`SET LOCAL lock_timeout = '${lockTimeout_s}s'`)
    await this.to.query(
      `LOCK TABLE ${merges.map(({ live }) => qualified(live)).join(', ')} IN SHARE ROW EXCLUSIVE MODE`,
    )
    await this.to.query('SET LOCAL lock_timeout = 0; SET CONSTRAINTS ALL DEFERRED')
    const before = new Map<Merge, Differences>()
    for (const merge of merges) before.set(merge, await this.differences(merge))
    const done = new Map(merges.map((merge) => [merge, { inserted: 0, updated: 0, deleted: 0 }]))
    const count = async (
      merge: Merge,
      what: keyof LiveTableReport & ('inserted' | 'updated' | 'deleted'),
      sql?: string,
    ) => {
      throwIfAborted(this.signal)
      const counts = done.get(merge)
      if (counts && sql !== undefined) counts[what] += (await this.to.query(sql)).rowCount ?? 0
    }
    // Rows that name others go first and come last.
    if (mode === 'replace') for (const merge of merges.toReversed()) await count(merge, 'deleted', merge.deleteSql)
    for (const merge of merges) {
      if (mode !== 'insert-missing') await count(merge, 'updated', merge.updateSql)
      await count(merge, 'inserted', merge.insertSql)
    }
    await this.to.query('SET CONSTRAINTS ALL IMMEDIATE')
    for (const merge of merges) {
      const { missing, differing, extra } = await this.differences(merge)
      const left = before.get(merge) as Differences
      const mayDiffer = mode === 'insert-missing' ? left.differing : 0
      const mayBeExtra = mode === 'replace' ? 0 : left.extra
      if (missing > 0 || differing !== mayDiffer || extra !== mayBeExtra) throw changedOnItsWay(merge.live)
    }
    return [...done].map(
      ([
        {
          live: { schema, name },
        },
        counts,
      ]) => ({ schema, name, ...counts }),
    )
  }

  private async preview(merge: Merge, mode: MergeMode): Promise<MergePreview> {
    const { schema, name, referencedBy } = merge.live
    const differences = await this.differences(merge)
    const sql = differences.differing > 0 ? merge.conflictsSql(shownConflicts) : undefined
    const { rows } = sql === undefined ? { rows: [] } : await this.to.query<{ key: string }>(sql)
    const dragged = referencedBy.flatMap(({ onDelete, ...table }) =>
      mode === 'replace' && differences.extra > 0 && onDelete !== null ? { ...table, onDelete } : [],
    )
    return { schema, name, ...differences, conflicts: rows.map(({ key }) => key), dragged }
  }

  private async differences(merge: Merge): Promise<Differences> {
    const { rows } = await this.to.query<Record<keyof Differences, string>>(merge.differencesSql)
    const { missing, differing, extra } = rows[0] as Record<keyof Differences, string>
    return { missing: Number(missing), differing: Number(differing), extra: Number(extra) }
  }

  /** Copies a table's rows over; gives their number and hash. */
  private async carry(table: LiveTable, into: string): Promise<RowHash> {
    const hash = new RowHash()
    const read = copyOut(this.from, `COPY ${readSql(table)} TO STDOUT ${this.copyOptions}`, this.signal)
    async function* lines(): AsyncGenerator<Buffer> {
      for await (const block of wholeLines(read)) {
        hash.addLines(block)
        yield block
      }
    }
    await copyIn(this.to, `COPY ${into} FROM STDIN ${this.copyOptions}`, lines(), this.signal)
    return hash
  }

  private async hash(client: pg.Client, query: string): Promise<RowHash> {
    const hash = new RowHash()
    const sql = `COPY ${query} TO STDOUT ${this.copyOptions}`
    for await (const block of wholeLines(copyOut(client, sql, this.signal))) hash.addLines(block)
    return hash
  }

  /** All or nothing. */
  private async inTransaction<T>(table: QualifiedName, work: () => Promise<T>): Promise<T> {
    await this.to.query('BEGIN')
    let isEnding = false
    try {
      const result = await work()
      throwIfAborted(this.signal)
      isEnding = true
      await this.to.query('COMMIT')
      return result
    } catch (error) {
      await this.to.query('ROLLBACK').catch(() => undefined)
      if (!isEnding) throwIfAborted(this.signal)
      const known = explainLostSession(error)
      if (isEnding && known instanceof WalbackError) throw mayBeDone(known)
      throw refusedByServer(table, known)
    }
  }
}

const lockTimeout_s = 10
const shownConflicts = 10

const columnsOf = (table: LiveTable): string => (table.columns.length === 0 ? '' : ` (${columnNames(table)})`)

const isEqual = (a: RowHash, b: RowHash): boolean => a.rows === b.rows && a.digest() === b.digest()

const changedOnItsWay = ({ schema, name }: QualifiedName): WalbackError =>
  new WalbackError('refused', `rows of ${schema}.${name} would not be what they were: a trigger or rule changes them`, {
    hint: 'nothing was changed; disable the trigger for the time of the restore, or restore under another name with --as',
  })

/** The session was lost while the server was told to commit. */
const mayBeDone = (error: WalbackError): WalbackError =>
  new WalbackError('database', `${error.message}; whether all of it was done, or nothing, is not known`, {
    cause: error,
    hint: 'look at the tables; it was one transaction, so do it again if nothing has changed',
  })

function refusedByServer(table: QualifiedName, error: unknown): WalbackError {
  if (error instanceof WalbackError) return error
  const code = codeOf(error)
  const hints: Readonly<Record<string, string>> = {
    '23503': 'select the tables too that the rows refer to, or those that refer to them, with --table',
    '23505': 'rows that are there now take what must be unique; --merge replace removes them, --as touches none',
    '42P07': 'choose another name with --as, or drop that table first',
    '42704': 'the live database lacks a type that the table had; restore into a new database with --into',
    '55P03': 'another session holds the table; try again, or end what holds it',
  }
  return new WalbackError('refused', `${messageOf(error)} (${table.schema}.${table.name})`, {
    cause: error,
    hint: `nothing was changed; ${hints[code ?? ''] ?? 'restore under another name with --as, and take from there what is wanted'}`,
  })
}

/** Tables that others name come before those. */
function parentsFirst(merges: readonly Merge[]): Merge[] {
  const ordered = new Set<Merge>()
  const visiting = new Set<Merge>()
  const visit = (merge: Merge): void => {
    if (ordered.has(merge) || visiting.has(merge)) return
    visiting.add(merge)
    const names = (other: Merge): boolean =>
      other.live.referencedBy.some((table) => qualified(table) === qualified(merge.live))
    for (const other of merges) if (other !== merge && names(other)) visit(other)
    ordered.add(merge)
  }
  for (const merge of merges) visit(merge)
  return [...ordered]
}
