import type pg from 'pg'
import { formatLsn, type Lsn, parseLsn } from '../model/lsn.ts'
import { type FullXid, fullXid } from '../model/snapshot.ts'
import { messagePrefix, type StreamMessage } from '../model/stream-message.ts'
import { currentInsertLsn } from '../postgres/source.ts'
import type { CatalogWatch } from './catalog-watch.ts'
import type { Ask } from './control.ts'
import type { OwnObjects } from './own-objects.ts'
import { SequenceWatch } from './sequences.ts'

/** Says something in the change stream, in a transaction of its own, and waits until its commit is on the server's disk. */
export async function emit(client: pg.Client, message: StreamMessage): Promise<Lsn> {
  return (await say(client, message)).lsn
}

async function say(client: pg.Client, message: StreamMessage): Promise<{ readonly lsn: Lsn; readonly xid: FullXid }> {
  await client.query('SET synchronous_commit = local')
  const { rows } = await client.query<{ lsn: string; xid: string }>(
    'SELECT pg_catalog.pg_logical_emit_message(true, $1, $2)::text AS lsn, pg_catalog.pg_current_xact_id()::text AS xid',
    [messagePrefix, JSON.stringify(message)],
  )
  return { lsn: parseLsn(rows[0]?.lsn ?? ''), xid: fullXid(BigInt(rows[0]?.xid ?? '')) }
}

/**
 * One heartbeat: the server's snapshot, the sequences that moved, and the stamp of the catalogs where there is a watch
 * over them. It lets the archive's end move on a quiet database, tells a later base which transactions had not begun
 * here, and shows a change of the schema of which nothing else tells. Gives the position of the message.
 */
export async function writeHeartbeat(
  client: pg.Client,
  sequences: SequenceWatch,
  catalogs: CatalogWatch | undefined,
): Promise<Lsn> {
  // The position first: a transaction that is new to the snapshot commits after it, a target up to it is not ahead of
  // what the sequences are found to be.
  const from = await currentInsertLsn(client)
  const moved = await sequences.moved(client)
  const look = catalogs ? await catalogs.look(client) : { snapshot: await currentSnapshot(client) }
  const { lsn, xid } = await say(client, {
    v: 1,
    kind: 'heartbeat',
    from: formatLsn(from),
    ...look,
    sequences: moved,
  })
  catalogs?.wrote(xid)
  return lsn
}

async function currentSnapshot(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ snapshot: string }>('SELECT pg_catalog.pg_current_snapshot()::text AS snapshot')
  return rows[0]?.snapshot ?? ''
}

/** Beats without anybody waiting. One that cannot be written is no reason to stop: if the server is gone, the stream says so. */
export class Heart {
  private readonly ask: Ask
  private readonly catalogs: CatalogWatch
  private readonly objects: OwnObjects
  private sequences = new SequenceWatch()
  private isBeating = false

  constructor(ask: Ask, catalogs: CatalogWatch, objects: OwnObjects) {
    this.ask = ask
    this.catalogs = catalogs
    this.objects = objects
  }

  /** Writes a heartbeat, unless the last one is still on its way. */
  beat(): void {
    if (this.isBeating) return
    this.isBeating = true
    this.ask(async (client) => {
      await this.objects.look(client)
      await writeHeartbeat(client, this.sequences, this.catalogs)
    })
      .catch(() => {
        // What it had to say of sequences was not said: the next says all.
        this.sequences = new SequenceWatch()
      })
      .finally(() => {
        this.isBeating = false
      })
  }
}
