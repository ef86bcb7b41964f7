import type pg from 'pg'
import { formatLsn, type Lsn, parseLsn } from '../model/lsn.ts'
import { messagePrefix, type StreamMessage } from '../model/stream-message.ts'
import { currentInsertLsn } from '../postgres/source.ts'
import { SequenceWatch } from './sequences.ts'

/** Says something in the change stream, in a transaction of its own, and waits until its commit is on the server's disk. */
export async function emit(client: pg.Client, message: StreamMessage): Promise<Lsn> {
  await client.query('SET synchronous_commit = local')
  const { rows } = await client.query<{ lsn: string }>(
    'SELECT pg_catalog.pg_logical_emit_message(true, $1, $2)::text AS lsn',
    [messagePrefix, JSON.stringify(message)],
  )
  return parseLsn(rows[0]?.lsn ?? '')
}

/**
 * One heartbeat: the server's snapshot, and the sequences that moved. It lets the archive's end move on a quiet
 * database, and tells a later base which transactions had not begun here. Gives the position of the message.
 */
export async function writeHeartbeat(client: pg.Client, sequences: SequenceWatch): Promise<Lsn> {
  // The position first: a transaction that is new to the snapshot commits after it, a target up to it is not ahead of
  // what the sequences are found to be.
  const from = await currentInsertLsn(client)
  const moved = await sequences.moved(client)
  const { rows } = await client.query<{ snapshot: string }>('SELECT pg_catalog.pg_current_snapshot()::text AS snapshot')
  return emit(client, {
    v: 1,
    kind: 'heartbeat',
    from: formatLsn(from),
    snapshot: rows[0]?.snapshot ?? '',
    sequences: moved,
  })
}

/** Beats without anybody waiting. One that cannot be written is no reason to stop: if the server is gone, the stream says so. */
export class Heart {
  private readonly client: pg.Client
  private sequences = new SequenceWatch()
  private isBeating = false

  constructor(client: pg.Client) {
    this.client = client
  }

  /** Writes a heartbeat, unless the last one is still on its way. */
  beat(): void {
    if (this.isBeating) return
    this.isBeating = true
    writeHeartbeat(this.client, this.sequences)
      .catch(() => {
        // What it had to say of sequences was not said: the next says all.
        this.sequences = new SequenceWatch()
      })
      .finally(() => {
        this.isBeating = false
      })
  }
}
