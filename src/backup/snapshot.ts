import type pg from 'pg'
import { sleep } from '../base/abort.ts'
import { codeOf, WalbackError } from '../base/errors.ts'
import type { Table } from '../model/catalog.ts'
import { type Lsn, parseLsn } from '../model/lsn.ts'
import type { Selection } from '../model/selection.ts'
import { parseSnapshot, type Snapshot } from '../model/snapshot.ts'
import { type Micros, micros } from '../model/time.ts'
import { readTables } from '../postgres/catalog.ts'
import { readTableLooks, type TableLook } from '../postgres/table-looks.ts'
import { selectFrom } from './select-tables.ts'

/** A snapshot that workers may share, held open by the session that took it. */
export interface HeldSnapshot {
  /** For SET TRANSACTION SNAPSHOT. */
  readonly exported: string
  readonly snapshotText: string
  /** Every transaction that the snapshot sees has its commit record before this. */
  readonly lsn: Lsn
  /** The server's clock just after. */
  readonly time: Micros
  /** When it was taken (monotonic, ms). */
  readonly taken_ms: number
  /** The tables it sees whose rows are meant. None is locked: whoever reads one has to look at it again once it is. */
  readonly tables: readonly Table[]
  /** And the others. */
  readonly leftOut: readonly Table[]
  readonly looks: ReadonlyMap<number, TableLook>
}

export interface SnapshotOptions {
  /** The snapshot taken just after the slot was made. */
  readonly slotSnapshot: Snapshot
  readonly publications: readonly string[]
  /** Whose rows are meant; of all tables, if not given. */
  readonly selection?: Selection | undefined
  readonly onWait?: (transactions: number) => void
  readonly signal?: AbortSignal | undefined
}

/**
 * Takes a snapshot of a base, and leaves the session in its transaction.
 *
 * A transaction that was running when the slot was made, and is running still, may have written its commit record
 * before the stream begins: it would be neither in the base nor in the stream. So the base waits for those, and for
 * no others.
 */
export async function takeSnapshot(client: pg.Client, options: SnapshotOptions): Promise<HeldSnapshot> {
  const deadline = performance.now() + slotWait_ms
  for (;;) {
    const held = await tryOnce(client, options).catch((error: unknown) => {
      throw codeOf(error) === '55P03' ? isLocked(error) : error
    })
    if (typeof held === 'object') return held
    await client.query('ROLLBACK')
    if (performance.now() > deadline) {
      throw new WalbackError(
        'database',
        `${held} transactions that were running when the slot was made have not ended in ${slotWait_ms / 60_000} min`,
        {
          hint: 'end them (SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start), then run the backup again',
          retryable: true,
        },
      )
    }
    options.onWait?.(held)
    await sleep(200, options.signal)
  }
}

/** The snapshot; or how many transactions it has to wait for. */
async function tryOnce(client: pg.Client, options: SnapshotOptions): Promise<HeldSnapshot | number> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
  const taken_ms = performance.now()
  const { rows } = await client.query<{ exported: string; snapshot: string; lsn: string; time: string }>(`
    SELECT pg_catalog.pg_export_snapshot() AS exported, pg_catalog.pg_current_snapshot()::text AS snapshot,
      pg_catalog.pg_current_wal_insert_lsn()::text AS lsn,
      (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint::text AS time`)
  const row = rows[0] as { exported: string; snapshot: string; lsn: string; time: string }
  const snapshot = parseSnapshot(row.snapshot)
  const waiting = [...snapshot.running].filter((xid) => options.slotSnapshot.running.has(xid)).length
  if (waiting > 0) return waiting
  return {
    exported: row.exported,
    snapshotText: row.snapshot,
    lsn: parseLsn(row.lsn),
    time: micros(BigInt(row.time)),
    taken_ms,
    ...(await selectFrom(client, await readTables(client), options.selection)),
    looks: await readTableLooks(client, options.publications),
  }
}

/** The size of a table is not to be had either while it is locked. */
export const isLocked = (cause: unknown): WalbackError =>
  new WalbackError('database', 'a table is locked by another session, so the backup cannot go on', {
    cause,
    hint: 'somebody holds ACCESS EXCLUSIVE (ALTER TABLE, VACUUM FULL, …); run the backup again when it is done',
    retryable: true,
  })

const slotWait_ms = 30 * 60_000
