import type pg from 'pg'
import { codeOf, WalbackError } from '../base/errors.ts'
import { formatLsn, parseLsn } from '../model/lsn.ts'
import { parseBegin } from '../model/pgoutput.ts'
import { explainReplicationFailure } from '../postgres/replication-failure.ts'
import type { SlotState } from '../postgres/source.ts'
import type { Head } from '../repository/segments.ts'
import type { Timeline } from '../repository/timeline.ts'

/**
 * A slot that stands before the archive's end has lost what it had been told: the server crashed, or its disk was put
 * back to an earlier state, of which neither its timeline nor (once its log has grown past the archive's end again) its
 * positions tell. What the slot would send up to the archive's end settles it: the last transaction there must be the
 * last one that is stored. Throws `gap` if it is another.
 */
export async function checkOverlap(
  client: pg.Client,
  slot: SlotState | undefined,
  timeline: Timeline,
  head: Head,
): Promise<void> {
  const { last } = head
  if (last === undefined || slot?.confirmedFlushLsn === undefined || slot.confirmedFlushLsn > parseLsn(last.commit))
    return
  const found = await peekLast(client, timeline, head)
  if (found === 'unknown') return
  if (found?.commitLsn === parseLsn(last.commit) && found.xid === Number(BigInt(last.xid) & 0xffffffffn)) return
  throw new WalbackError(
    'gap',
    `the server has another history before ${formatLsn(head.end)}, which the archive reaches: it was put back to an earlier state, and has gone on from there`,
    {
      hint: 'run `walback init` to begin a new timeline, then `walback backup --full`; what is archived stays restorable',
      facts: { end: formatLsn(head.end) },
    },
  )
}

/** The last transaction that the slot would send up to the archive's end. Nothing is taken from the slot. */
async function peekLast(
  client: pg.Client,
  timeline: Timeline,
  head: Head,
): Promise<ReturnType<typeof parseBegin> | undefined | 'unknown'> {
  try {
    const { rows } = await client.query<{ data: Buffer }>(
      `SELECT data FROM pg_catalog.pg_logical_slot_peek_binary_changes($1, $2, NULL,
         'proto_version', '1', 'publication_names', $3, 'messages', 'true')
       WITH ORDINALITY AS change (lsn, xid, data, n) WHERE pg_catalog.get_byte(data, 0) = 66 ORDER BY n DESC LIMIT 1`,
      [timeline.slot, formatLsn(head.end), timeline.publications.map((name) => `"${name}"`).join(',')],
    )
    return rows[0] && parseBegin(rows[0].data)
  } catch (error) {
    // It takes longer than a question may: after a crash there is a checkpoint's worth of log at most, so this is rare.
    if (codeOf(error) === '57014') return 'unknown'
    throw codeOf(error) === undefined ? error : explainReplicationFailure(error, timeline)
  }
}
