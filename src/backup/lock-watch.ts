import type pg from 'pg'
import { sleep } from '../base/abort.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'

/**
 * Sees to it that nobody waits for a backup: a session of ours that holds a lock for which another session has waited
 * too long is ended, and with it the queue that forms behind an ALTER TABLE. What it was doing is done again later.
 * (Ended, not cancelled: a COPY whose reader is slow sits in the sending of its rows, where a cancel is not heard.)
 */
export class LockWatch implements AsyncDisposable {
  private readonly ended = new Set<number>()
  private readonly stop = new AbortController()
  private readonly client: pg.Client
  private readonly application: string
  private readonly after_ms: number
  private looking: Promise<void> = Promise.resolve()
  private readonly running: Promise<void>
  private failure: { readonly error: unknown } | undefined

  /** `application`: the application_name of the sessions that are to give way. */
  static async open(conninfo: Conninfo, application: string, after_ms: number): Promise<LockWatch> {
    const client = await connect(
      { ...conninfo, applicationName: `${application} watch` },
      { settings: { statement_timeout: '60000', lock_timeout: '1000', search_path: '' } },
    )
    return new LockWatch(client, application, after_ms)
  }

  private constructor(client: pg.Client, application: string, after_ms: number) {
    this.client = client
    this.application = application
    this.after_ms = after_ms
    this.running = this.watch().catch((error: unknown) => {
      this.failure = { error }
    })
  }

  /** Whether this session was ended here, by its process id on the server. */
  async hasEnded(pid: number): Promise<boolean> {
    await this.settled()
    return this.ended.has(pid)
  }

  /** Waits for a look that is under way: who was ended by it knows before the watch does. */
  async settled(): Promise<void> {
    await this.looking.catch(() => undefined)
  }

  /** How many sessions have been ended. */
  get count(): number {
    return this.ended.size
  }

  /** Throws if nobody watches any more: then nothing more may be locked. */
  check(): void {
    if (this.failure !== undefined) throw this.failure.error
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop.abort()
    await this.running
    await this.client.end().catch(() => undefined)
  }

  private async look(): Promise<void> {
    const { rows } = await this.client.query<{ pid: number }>(endBlockersSql, [this.application, this.after_ms])
    for (const { pid } of rows) this.ended.add(pid)
  }

  private async watch(): Promise<void> {
    const { signal } = this.stop
    while (!signal.aborted) {
      this.looking = this.look()
      await this.looking
      await sleep(Math.min(Math.max(this.after_ms / 3, 20), 500), signal).catch(() => undefined)
    }
  }
}

/**
 * All that conflicts with reading a table is ACCESS EXCLUSIVE, so whoever waits for that waits for us too. Who waits at
 * all is asked first, and costs next to nothing: reading pg_locks halts whoever takes a lock meanwhile, and pg_dump holds
 * one on every table. (Joined with itself, it was read anew for each of those, for minutes where tables are many.)
 */
const endBlockersSql = `
  WITH waiting AS MATERIALIZED (
    SELECT a.pid, b.pids AS blockers FROM pg_catalog.pg_stat_activity a CROSS JOIN LATERAL pg_catalog.pg_blocking_pids(a.pid) b (pids)
    WHERE b.pids && ARRAY (SELECT o.pid FROM pg_catalog.pg_stat_activity o WHERE o.application_name = $1)
  )
  SELECT DISTINCT h.pid, pg_catalog.pg_terminate_backend(h.pid)
  FROM waiting w JOIN pg_catalog.pg_stat_activity h ON h.pid = ANY (w.blockers) AND h.application_name = $1
  WHERE (SELECT l.waitstart FROM pg_catalog.pg_locks l
    WHERE l.pid = w.pid AND l.locktype = 'relation' AND NOT l.granted AND l.mode = 'AccessExclusiveLock')
    < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2::float8 / 1000)`
