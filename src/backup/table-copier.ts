import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { forEachParallel } from '../base/parallel.ts'
import type { Throttle } from '../base/throttle.ts'
import type { Table } from '../model/catalog.ts'
import { qualified, quoteIdent } from '../model/identifier.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { copyOptions, openRowSession } from '../postgres/row-session.ts'
import { readTableLooks } from '../postgres/table-looks.ts'
import type { StoredTable } from '../repository/base-progress.ts'
import type { BaseStore } from './base-store.ts'
import type { LockWatch } from './lock-watch.ts'
import { joined, storeRows } from './rows.ts'
import { type HeldSnapshot, isLocked } from './snapshot.ts'
import { type Piece, TableQueue, type TableWork, type Task } from './table-queue.ts'

export interface CopierOptions {
  readonly conninfo: Conninfo
  readonly store: BaseStore
  readonly watch: LockWatch
  /** Sees the catalogs as they are now; it is in no transaction. */
  readonly looker: pg.Client
  readonly publications: readonly string[]
  readonly encoding: string
  readonly jobs: number
  readonly lockTimeout_ms: number
  readonly throttle: Throttle | undefined
  /** Throws when there is no sense in going on. */
  readonly check: () => void
  readonly onBytes: (bytes: number) => void
  readonly onTable: (table: StoredTable) => Promise<void>
  readonly signal: AbortSignal | undefined
}

interface Run {
  readonly held: HeldSnapshot
  readonly queue: TableQueue
  /** How old the snapshot may be for a table to be begun under it. */
  readonly maxAge_ms: number
  /** Something was begun, however old the snapshot was by then: each round comes a little further. */
  hasBegun: boolean
  readonly stale: Set<number>
  hasFailed: boolean
}

/**
 * Copies tables under a shared snapshot, side by side. A table is locked only while it is read, and each piece of it by
 * itself; so others wait for one piece at most, and the watch ends that for them. What the lock then does not show is
 * asked: a table that was altered, rewritten or truncated since the snapshot reads as empty under it, or in another form,
 * without an error. So it must look, once it is locked, as it does under the snapshot; else it is left for another one.
 */
export class TableCopier {
  private readonly options: CopierOptions
  private readonly sessions: (pg.Client | undefined)[] = []
  private looking: Promise<unknown> = Promise.resolve()

  constructor(options: CopierOptions) {
    this.options = options
  }

  /** Copies the tables, as far as the snapshot is young enough to begin them; gives those that have changed since it. */
  async copy(
    held: HeldSnapshot,
    tables: readonly Table[],
    maxAge_ms: number = Number.POSITIVE_INFINITY,
  ): Promise<ReadonlySet<number>> {
    const works = tables.flatMap((table) => {
      const look = held.looks.get(table.oid)
      return look === undefined ? [] : [{ table, look }]
    })
    const run: Run = {
      held,
      queue: new TableQueue(works),
      maxAge_ms,
      hasBegun: false,
      stale: new Set(),
      hasFailed: false,
    }
    const lanes = Array.from({ length: Math.min(this.options.jobs, tables.length) }, (_, lane) => lane)
    try {
      await forEachParallel(lanes, lanes.length, (lane) => this.lane(run, lane))
    } finally {
      await this.close()
    }
    return run.stale
  }

  private async lane(run: Run, lane: number): Promise<void> {
    try {
      while (!run.hasFailed) {
        const { check, signal, watch } = this.options
        throwIfAborted(signal)
        watch.check()
        check()
        const isYoung = performance.now() - run.held.taken_ms < run.maxAge_ms
        const task = run.queue.next(isYoung || !run.hasBegun)
        if (task === undefined) return
        run.hasBegun = true
        await this.attempt(run, task, lane)
      }
    } catch (error) {
      run.hasFailed = true
      throw error
    }
  }

  /** One transaction under the snapshot. What somebody came between of is put back. */
  private async attempt(run: Run, task: Task, lane: number): Promise<void> {
    const session = await this.session(lane)
    const left = new Set(task.parts)
    const whole: StoredTable[] = []
    try {
      const isLockHeld = await this.lock(session, run, task)
      for (const part of isLockHeld ? task.parts : []) {
        const stored = part.work.isStale ? undefined : await this.copyPiece(session, part.work, part.piece, run)
        if (stored) whole.push(stored)
        left.delete(part)
      }
      if (isLockHeld) await session.query('COMMIT')
    } catch (error) {
      this.sessions[lane] = undefined
      await session.end().catch(() => undefined)
      throwIfAborted(this.options.signal)
      if (!(await this.options.watch.hasEnded(pidOf(session)))) throw error
      for (const { work } of left) interrupted(work, yieldedTooOften(work.table))
    }
    run.queue.retry({ parts: [...left] })
    for (const table of whole) await this.options.onTable(table)
  }

  /** Locks the task's tables, and marks those that have changed since the snapshot. False if a lock is not to be had now. */
  private async lock(session: pg.Client, run: Run, { parts }: Task): Promise<boolean> {
    const names = parts.map(({ work }) => `ONLY ${qualified(work.table)}`)
    try {
      // The lock takes no snapshot; with the commands in one message it costs one round trip.
      await session.query(
        `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '${run.held.exported}';
         SET LOCAL lock_timeout = ${this.options.lockTimeout_ms}; LOCK TABLE ${names.join(', ')} IN ACCESS SHARE MODE`,
      )
    } catch (error) {
      const code = codeOf(error)
      if (code === '42501') throw notReadable(error)
      if (code !== '55P03' && !isGone(code)) throw error
      await session.query('ROLLBACK')
      if (parts.length > 1) return false
      const { work } = parts[0] as Task['parts'][number]
      if (isGone(code)) this.markStale(run, work)
      else interrupted(work, isLocked(error))
      return false
    }
    const oids = parts.map(({ work }) => work.table.oid)
    const now = await this.look(oids)
    for (const { work } of parts) if (now.get(work.table.oid)?.stamp !== work.look.stamp) this.markStale(run, work)
    return true
  }

  /** The session is shared by those that copy side by side, and is asked one thing at a time. */
  private look(oids: readonly number[]): ReturnType<typeof readTableLooks> {
    const look = this.looking.then(() => readTableLooks(this.options.looker, this.options.publications, oids))
    this.looking = look.catch(() => undefined)
    return look
  }

  private markStale(run: Run, work: TableWork): void {
    work.isStale = true
    run.stale.add(work.table.oid)
  }

  /** Gives the table if this was the last that it lacked. */
  private async copyPiece(
    session: pg.Client,
    work: TableWork,
    piece: Piece,
    run: Run,
  ): Promise<StoredTable | undefined> {
    const { store, signal, throttle, onBytes, encoding } = this.options
    const { table } = work
    work.stored[piece.index] = await storeRows(
      session,
      copySql(table, piece, encoding),
      store.rows(table, piece.index),
      { signal, onBytes, throttle },
    ).catch((error: unknown) => {
      throw codeOf(error) === '54000' ? tooLarge(table, error) : error
    })
    const stored = work.stored.filter((one) => one !== undefined)
    if (stored.length < work.pieces.length || work.isStale) return undefined
    return { oid: table.oid, stamp: work.look.stamp, snapshot: run.held.snapshotText, ...joined(stored) }
  }

  private async session(lane: number): Promise<pg.Client> {
    const { conninfo, signal } = this.options
    this.sessions[lane] ??= await openRowSession(conninfo, signal === undefined ? {} : { signal })
    return this.sessions[lane]
  }

  private async close(): Promise<void> {
    await Promise.all(this.sessions.splice(0).map((session) => session?.end().catch(() => undefined)))
  }
}

const pidOf = (session: pg.Client): number => (session as pg.Client & { readonly processID: number }).processID

/** The table, or its schema, is not there any more, at least not under this name. */
const isGone = (code: string | undefined): boolean => code === '42P01' || code === '3F000'

function interrupted(work: TableWork, whenTooOften: WalbackError): void {
  work.interruptions++
  if (work.interruptions > interruptionsPerTable) throw whenTooOften
}

const interruptionsPerTable = 12

function copySql(table: Table, { pages }: Piece, encoding: string): string {
  // Without a list COPY takes all columns but generated ones, also where there are none.
  if (pages === undefined) return `COPY ${qualified(table)} TO STDOUT ${copyOptions(encoding)}`
  const columns = table.columns.map(quoteIdent).join(', ')
  const end = pages.next === undefined ? '' : ` AND ctid < '(${pages.next},0)'::tid`
  return `COPY (SELECT ${columns} FROM ONLY ${qualified(table)} WHERE ctid >= '(${pages.first},0)'::tid${end}) TO STDOUT ${copyOptions(encoding)}`
}

/** COPY builds a line in one piece of memory, which PostgreSQL bounds. */
const tooLarge = (table: Table, cause: unknown): WalbackError =>
  new WalbackError('database', `table ${table.schema}.${table.name} cannot be read: ${messageOf(cause)}`, {
    cause,
    hint: 'it has a row that takes 1 GiB or more as text (a byte of bytea takes two); COPY, and pg_dump, cannot write it',
  })

const notReadable = (cause: unknown): WalbackError =>
  new WalbackError('prerequisite', `the role may not read every table: ${messageOf(cause)}`, {
    cause,
    hint: 'GRANT pg_read_all_data TO the role, or connect as a superuser or the owner',
  })

const yieldedTooOften = ({ schema, name }: Table): WalbackError =>
  new WalbackError(
    'database',
    `table ${schema}.${name} was not read: ${interruptionsPerTable} times another session waited for a lock on it that the backup held`,
    {
      hint: 'run the backup when nobody alters it, or let others wait for longer: --yield-after 30s',
      retryable: true,
    },
  )
