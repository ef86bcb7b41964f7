import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { refuseUnknownTables } from '../history/changes.ts'
import { byCommit, type FoundTransaction } from '../history/find-transaction.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import type { Repository } from '../repository/repository.ts'
import { applyRows, type Policy } from './apply-rows.ts'
import { checkRows, type Mode } from './check-rows.ts'
import { checkForeignKeys, checkUnique, type ForeignKey, readForeignKeys } from './constraints.ts'
import { fillOldRows, type Layers } from './fill-old.ts'
import { type Conflict, conflictsOf, countStates, hasConflicts, type UndoTable } from './report.ts'
import { scriptFor } from './script.ts'
import { becomeReplica, inTransaction, openUndoSession, setApplicationPath, setEmptyPath } from './session.ts'
import { type StageOptions, Staging } from './stage.ts'
import type { Kind, StagedTable } from './staged-table.ts'
import { findTable } from './target-table.ts'

export interface UndoOptions extends Partial<StageOptions> {
  /** How many conflicts are told in full. */
  readonly shownConflicts?: number | undefined
  /** Of how many rows old values are looked for in a base at a time. */
  readonly rowsAtOnce?: number | undefined
}

export interface UndoReport {
  readonly tables: readonly UndoTable[]
  /** Rows that are not as the transaction left them. */
  readonly conflicts: number
  /** The first of them. */
  readonly shown: readonly Conflict[]
  /** Of the transaction that undid; undefined in a preview. */
  readonly xid: bigint | undefined
}

const undoMemory_bytes = 64 << 20
const filledRows = 500_000

/**
 * An undo of one or several transactions: read from the archive and brought to the server once, looked at as often as is
 * wanted, and carried out in one transaction. Between these nothing is held but the session and its temporary tables.
 */
export class Undo implements AsyncDisposable {
  private readonly client: pg.Client
  private readonly staging: Staging
  private readonly options: UndoOptions
  private foreignKeys: readonly ForeignKey[] = []

  private constructor(client: pg.Client, options: UndoOptions) {
    this.client = client
    this.options = options
    this.staging = new Staging(client, { ...options, memory_bytes: options.memory_bytes ?? undoMemory_bytes })
  }

  static async begin(
    repository: Repository,
    transactions: readonly FoundTransaction[],
    conninfo: Conninfo,
    options: UndoOptions = {},
  ): Promise<Undo> {
    refuseUnknownTables(transactions, options.tables)
    const client = await openUndoSession(conninfo, options.signal)
    const undo = new Undo(client, options)
    try {
      await undo.stage(repository, [...transactions].sort(byCommit))
      return undo
    } catch (error) {
      await undo[Symbol.asyncDispose]()
      throw error
    }
  }

  private async stage(repository: Repository, transactions: readonly FoundTransaction[]): Promise<void> {
    await inTransaction(this.client, 'BEGIN', async () => {
      // Event triggers of the application have nothing to say of our temporary tables.
      await becomeReplica(this.client)
      const staged: { readonly found: FoundTransaction; readonly layers: Layers }[] = []
      for (const found of transactions) staged.push({ found, layers: await this.staging.add(repository, found) })
      await this.staging.finish()
      for (const { found, layers } of staged) await this.fill(repository, found, layers)
      for (const table of this.tables) if (table.lacking > 0) await table.reconsider(this.client)
      this.foreignKeys = await readForeignKeys(
        this.client,
        this.tables.map(({ table }) => table.oid),
      )
      return { result: undefined, commit: true }
    })
    const lacking = this.tables.find((table) => table.lacking > 0)
    if (lacking) throw notInStream(lacking)
    if (this.tables.every(({ counts }) => counts.d + counts.i + counts.u === 0)) {
      throw new WalbackError('refused', 'there is nothing to undo: in the end no row was changed', {
        hint: '`walback show` shows what a transaction did',
      })
    }
  }

  private async fill(repository: Repository, found: FoundTransaction, layers: Layers): Promise<void> {
    const lacking = this.tables.filter((table) => table.lacksIn(layers))
    if (lacking.length === 0) return
    const { rowsAtOnce, signal } = this.options
    await fillOldRows(this.client, repository, found, lacking, layers, { rowsAtOnce: rowsAtOnce ?? filledRows, signal })
  }

  private get tables(): readonly StagedTable[] {
    return this.staging.tables
  }

  /** What would be done, and which rows stand in the way. Only reads, and locks nothing. */
  async preview(): Promise<UndoReport> {
    return await inTransaction(this.client, 'BEGIN READ ONLY', async () => {
      for (const layer of this.layers()) await this.check(layer, 'preview')
      return { result: await this.report(undefined), commit: false }
    })
  }

  /** Carries it out, or, where a row stands in the way and the policy is to abort, nothing of it. */
  async apply(policy: Policy): Promise<UndoReport> {
    return await inTransaction(this.client, 'BEGIN', async () => {
      await this.prepare()
      for (const layer of this.layers()) {
        await this.check(layer, 'apply')
        if (policy === 'abort' && (await this.hasConflicts(layer)))
          return { result: await this.report(undefined), commit: false }
        await setApplicationPath(this.client)
        for (const step of ['d', 'u', 'i'] satisfies Kind[])
          for (const table of this.tables) await applyRows(this.client, table, layer, policy, step)
        await setEmptyPath(this.client)
      }
      await checkForeignKeys(this.client, this.tables, this.foreignKeys, policy)
      for (const table of this.tables) await checkUnique(this.client, table)
      const { rows } = await this.client.query<{ xid: string }>('SELECT pg_catalog.pg_current_xact_id()::text AS xid')
      return { result: await this.report(BigInt(rows[0]?.xid ?? 0)), commit: true }
    })
  }

  /** The undo as SQL, in pieces; of rows that stand in the way, what the policy says of them. */
  async *script(policy: Policy): AsyncGenerator<string> {
    await this.client.query('BEGIN READ ONLY')
    try {
      const layers = this.layers()
      for (const layer of layers) await this.check(layer, 'preview')
      yield* scriptFor(this.client, this.tables, layers, { policy, foreignKeys: this.foreignKeys })
    } finally {
      await this.client.query('ROLLBACK').catch(() => undefined)
    }
  }

  private layers(): number[] {
    const all = new Set(this.tables.flatMap((table) => [...table.layers]))
    return [...all].sort((a, b) => b - a)
  }

  private async check(layer: number, mode: Mode): Promise<void> {
    for (const table of this.tables) if (table.layers.has(layer)) await checkRows(this.client, table, layer, mode)
  }

  private async hasConflicts(layer: number): Promise<boolean> {
    for (const table of this.tables) if (await hasConflicts(this.client, table, layer)) return true
    return false
  }

  /** Nothing fires that would undo twice what is undone here, and the tables are what they were when this began. */
  private async prepare(): Promise<void> {
    const isReplica = await becomeReplica(this.client)
    for (const { table, sql, name } of this.tables) {
      await this.client.query(`LOCK TABLE ONLY ${sql} IN ROW EXCLUSIVE MODE`)
      const now = await findTable(this.client, table.relation, { isSource: this.staging.isSource })
      if (JSON.stringify(now) === JSON.stringify(table)) continue
      throw new WalbackError('failed', `table ${name} was altered meanwhile`, {
        hint: 'nothing was changed; run it again',
        retryable: true,
      })
    }
    if (!isReplica) this.refuseTriggers()
    const unchecked =
      this.foreignKeys.find(({ isTemporal }) => isTemporal)?.name ??
      this.tables.flatMap(({ table }) => table.deferrable).find(({ columns }) => columns === null)?.name
    if (isReplica && unchecked !== undefined)
      throw new WalbackError('refused', `constraint ${unchecked} is of a kind that an undo cannot check`, {
        hint: 'leave its tables out with --table, or write the undo as SQL (--sql) and run that',
      })
  }

  private refuseTriggers(): void {
    const loud = this.tables.find(({ table }) => table.triggers.some(({ enabled }) => enabled !== 'R'))
    const [key] = this.foreignKeys
    if (loud === undefined && key === undefined) return
    const what = loud ? `triggers of ${loud.name}` : `foreign key ${key?.name}`
    throw new WalbackError(
      'prerequisite',
      `the role may not set session_replication_role, and without that ${what} would act on the undo`,
      {
        hint: 'connect as a superuser, or, from PostgreSQL 15 on, let one run: GRANT SET ON PARAMETER session_replication_role TO the role. Or write the undo as SQL (--sql) and run that',
      },
    )
  }

  private async report(xid: bigint | undefined): Promise<UndoReport> {
    const tables: UndoTable[] = []
    const shown: Conflict[] = []
    for (const table of this.tables) {
      const counted = await countStates(this.client, table)
      tables.push(counted)
      const { changed, exists, gone } = counted.conflicts
      const left = (this.options.shownConflicts ?? 5) - shown.length
      if (changed + exists + gone > 0 && left > 0) shown.push(...(await conflictsOf(this.client, table, left)))
    }
    const conflicts = tables.reduce((sum, { conflicts: c }) => sum + c.changed + c.exists + c.gone, 0)
    return { tables, conflicts, shown, xid }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.end().catch(() => undefined)
  }
}

const notInStream = ({ name, lacking }: StagedTable): WalbackError =>
  new WalbackError(
    'refused',
    `how ${lacking} rows of ${name} had been is neither in the stream, which has only their keys, nor found in the base before`,
    {
      hint: `restore to before the transaction (\`walback restore --before-tx\`) and copy the rows. For the future: ALTER TABLE ${name} REPLICA IDENTITY FULL puts whole old rows into the stream`,
    },
  )
