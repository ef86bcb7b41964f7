import type pg from 'pg'
import { sleep } from '../base/abort.ts'
import { codeOf, WalbackError } from '../base/errors.ts'
import type { Table } from '../model/catalog.ts'
import { qualified } from '../model/identifier.ts'
import { type Lsn, parseLsn } from '../model/lsn.ts'
import { parseSnapshot, type Snapshot } from '../model/snapshot.ts'
import { type Micros, micros } from '../model/time.ts'
import { readTables } from '../postgres/catalog.ts'

/** A snapshot that workers may share, held open by the session that took it. */
export interface HeldSnapshot {
  /** For SET TRANSACTION SNAPSHOT. */
  readonly exported: string
  readonly snapshot: Snapshot
  readonly snapshotText: string
  /** Every transaction that the snapshot sees has its commit record before this. */
  readonly lsn: Lsn
  /** The server's clock just after. */
  readonly time: Micros
  /** The tables it sees, each locked against being rewritten. */
  readonly tables: readonly Table[]
}

export interface SnapshotOptions {
  readonly lockTimeout_ms: number
  /** The snapshot taken just after the slot was made. */
  readonly slotSnapshot: Snapshot
  readonly onWait?: (transactions: number) => void
  readonly signal?: AbortSignal | undefined
}

/**
 * Takes the snapshot of a base. Tables are locked ACCESS SHARE before it is taken: one that is rewritten or truncated
 * between a snapshot and its COPY reads as empty, without an error. The lock statement takes no snapshot yet.
 *
 * A transaction that was running when the slot was made, and is running still, may have written its commit record
 * before the stream begins: it would be neither in the base nor in the stream. So the base waits for those, and for
 * no others.
 */
export async function takeSnapshot(client: pg.Client, options: SnapshotOptions): Promise<HeldSnapshot> {
  const deadline = performance.now() + slotWait_ms
  for (let attempt = 1; ; attempt++) {
    const held = await tryOnce(client, options)
    if (typeof held === 'object') return held
    await client.query('ROLLBACK')
    if (held === 'moved' && attempt >= attempts) {
      throw new WalbackError('database', 'tables kept being created or dropped while the snapshot was taken', {
        hint: 'run the backup again at a quieter moment',
        retryable: true,
      })
    }
    if (held === 'moved') continue
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

/** The snapshot; or `moved` when tables came or went meanwhile; or how many transactions it has to wait for. */
async function tryOnce(client: pg.Client, options: SnapshotOptions): Promise<HeldSnapshot | 'moved' | number> {
  const before = await readTables(client)
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
  if (!(await lock(client, before, options.lockTimeout_ms))) return 'moved'
  const { rows } = await client.query<{ exported: string; snapshot: string; lsn: string; time: string }>(`
    SELECT pg_catalog.pg_export_snapshot() AS exported, pg_catalog.pg_current_snapshot()::text AS snapshot,
      pg_catalog.pg_current_wal_insert_lsn()::text AS lsn,
      (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint::text AS time`)
  const row = rows[0] as { exported: string; snapshot: string; lsn: string; time: string }
  const snapshot = parseSnapshot(row.snapshot)
  const waiting = [...snapshot.running].filter((xid) => options.slotSnapshot.running.has(xid)).length
  if (waiting > 0) return waiting
  const tables = await readTables(client)
  const locked = new Set(before.map((table) => table.oid))
  if (tables.some((table) => !locked.has(table.oid)) || tables.length !== before.length) return 'moved'
  return {
    exported: row.exported,
    snapshot,
    snapshotText: row.snapshot,
    lsn: parseLsn(row.lsn),
    time: micros(BigInt(row.time)),
    tables,
  }
}

async function lock(client: pg.Client, tables: readonly Table[], timeout_ms: number): Promise<boolean> {
  await client.query(`SET LOCAL lock_timeout = ${timeout_ms}`)
  try {
    for (let at = 0; at < tables.length; at += tablesPerLock) {
      const names = tables.slice(at, at + tablesPerLock).map((table) => `ONLY ${qualified(table)}`)
      await client.query(`LOCK TABLE ${names.join(', ')} IN ACCESS SHARE MODE`)
    }
    return true
  } catch (error) {
    if (codeOf(error) === '42P01') return false
    if (codeOf(error) === '55P03') {
      throw new WalbackError('database', 'a table is locked by another session, so the backup cannot begin', {
        cause: error,
        hint: 'somebody holds ACCESS EXCLUSIVE (ALTER TABLE, VACUUM FULL, …); run the backup again when it is done',
        retryable: true,
      })
    }
    if (codeOf(error) === '42501') {
      throw new WalbackError('prerequisite', `the role may not read every table: ${(error as Error).message}`, {
        cause: error,
        hint: 'GRANT pg_read_all_data TO the role, or connect as a superuser or the owner',
      })
    }
    throw error
  }
}

const attempts = 10
const tablesPerLock = 500
const slotWait_ms = 30 * 60_000
