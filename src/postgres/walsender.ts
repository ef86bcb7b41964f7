import type pg from 'pg'

/** What the server says of the process that serves a slot. */
export interface WalsenderState {
  readonly pid: number
  /**
   * True while it waits for us or for new log, when it reads what we send and answers; false while it is at work, and
   * may be silent for as long as that takes: it decodes a large transaction, or one of which nothing is published.
   */
  readonly isWaiting: boolean
  /** Our clock in the last status that it has read, or `never`; undefined where the server does not show it to us. */
  readonly heard: string | undefined
}

/** Undefined when nobody is served. Needs no more than the right to see one's own sessions. */
export async function readWalsender(client: pg.Client, slot: string): Promise<WalsenderState | undefined> {
  const { rows } = await client.query<{ pid: number; waiting: boolean | null; heard: string | null }>(
    // The wait for a physical standby (synchronized_standby_slots) answers us too.
    `SELECT s.active_pid AS pid, CASE WHEN r.state IS NOT NULL THEN coalesce(r.reply_time::text, 'never') END AS heard,
       a.wait_event_type IN ('Activity', 'Client') OR a.wait_event = 'WaitForStandbyConfirmation' AS waiting
     FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
       LEFT JOIN pg_catalog.pg_stat_replication r ON r.pid = s.active_pid
     WHERE s.slot_name = $1 AND s.active_pid IS NOT NULL`,
    [slot],
  )
  const row = rows[0]
  return row && { pid: row.pid, isWaiting: row.waiting ?? false, heard: row.heard ?? undefined }
}
