import type pg from 'pg'
import { codeOf } from '../base/errors.ts'
import { type FullXid, parseSnapshot, type Snapshot } from '../model/snapshot.ts'
import { catalogStampSql } from '../postgres/catalog-stamp.ts'

/** A snapshot of the server, with the stamp of the catalogs as it sees them where that was read. */
export interface Look {
  readonly snapshot: string
  readonly catalog?: string
}

/**
 * Reads the catalogs' stamp for heartbeats, at most a hundredth of the time: after a reading it rests a hundred times as
 * long as that took, and while nobody but us writes anything in the whole cluster it does not read at all. (The
 * counters of pg_stat_sys_tables would say less: they arrive seconds after the commit or not at all, and a stamp must be
 * of its snapshot, or a change would be put down to the wrong transactions.)
 */
export class CatalogWatch {
  private readonly onFailure: ((error: unknown) => void) | undefined
  private sql: string | undefined
  private cost_ms: number | undefined
  private nextReading_ms = 0
  private last: { readonly seen: Snapshot; readonly catalog: string; readonly own: FullXid | undefined } | undefined
  private hasFailed = false

  /** `onFailure`: the catalogs cannot be read (said once), which is no reason to have no heartbeats. */
  constructor(onFailure?: (error: unknown) => void) {
    this.onFailure = onFailure
  }

  async look(client: pg.Client): Promise<Look> {
    const { snapshot } = await one<{ snapshot: string }>(client, `SELECT ${current} AS snapshot`)
    const seen = parseSnapshot(snapshot)
    if (this.last && isUnchanged(this.last, seen)) {
      const { catalog } = this.last
      this.last = { seen, catalog, own: undefined }
      return { snapshot, catalog }
    }
    if (performance.now() < this.nextReading_ms) return { snapshot }
    const started = performance.now()
    try {
      this.sql ??= await catalogStampSql(client)
      const look = await one<Required<Look>>(client, `SELECT ${current} AS snapshot, (${this.sql}) AS catalog`)
      this.last = { seen: parseSnapshot(look.snapshot), catalog: look.catalog, own: undefined }
      return look
    } catch (error) {
      // Without a code it is the connection that failed; with one of class 57 the server is going, unless it gave the
      // reading up for taking too long (57014).
      const code = codeOf(error)
      if (code === undefined || (code.startsWith('57') && code !== '57014')) throw error
      if (!this.hasFailed) this.onFailure?.(error)
      this.hasFailed = true
      return { snapshot }
    } finally {
      const now = performance.now()
      // A reading that waited for a lock (VACUUM FULL pg_class) is no measure: it counts as twice the one before.
      this.cost_ms = Math.min(now - started, 2 * (this.cost_ms ?? now - started))
      this.nextReading_ms = now + restFactor * this.cost_ms
    }
  }

  /** The heartbeat that says what was seen last was written by this transaction. */
  wrote(own: FullXid): void {
    if (this.last) this.last = { ...this.last, own }
  }
}

const restFactor = 100
const current = 'pg_catalog.pg_current_snapshot()::text'

/**
 * Whether nobody but the heartbeat itself can have changed anything between two snapshots: nothing was running at the
 * first, whose next id became the heartbeat's, and at the second only that is over.
 */
function isUnchanged(
  { seen, own }: { readonly seen: Snapshot; readonly own: FullXid | undefined },
  now: Snapshot,
): boolean {
  if (own === undefined || seen.xmax !== own || seen.running.size > 0) return false
  return now.xmax === own + 1n && now.running.size === 0
}

async function one<Row extends pg.QueryResultRow>(client: pg.Client, sql: string): Promise<Row> {
  return (await client.query<Row>(sql)).rows[0] as Row
}
