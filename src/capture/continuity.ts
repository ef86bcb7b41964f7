import { WalbackError } from '../base/errors.ts'
import { formatLsn } from '../model/lsn.ts'
import type { SlotState, SourceFacts } from '../postgres/source.ts'
import type { Head } from '../repository/segments.ts'
import type { Timeline } from '../repository/timeline.ts'

const newTimelineHint =
  'run `walback init` to begin a new timeline, then `walback backup --full`; what is archived stays restorable'

/**
 * Whether the slot carries on where the archive ends. The server moves a slot forward in silence (another reader, a
 * slot made anew, a standby promoted without it), so this is asked before every stream. Throws `gap` if it does not.
 */
export function checkContinuity(
  source: SourceFacts,
  slot: SlotState | undefined,
  timeline: Timeline,
  head: Head,
): void {
  const gap = (message: string, facts: Record<string, unknown> = {}): WalbackError =>
    new WalbackError('gap', message, { hint: newTimelineHint, facts })
  if (source.systemIdentifier !== timeline.systemIdentifier) {
    throw new WalbackError('refused', `this server is another one than ${timeline.source}'s archive was made from`, {
      hint: 'check --db; for a restored or a new server use another --source name',
      facts: { expected: timeline.systemIdentifier, found: source.systemIdentifier },
    })
  }
  if (source.database.oid !== timeline.database.oid) {
    throw new WalbackError(
      'refused',
      `database ${source.database.name} is another one than ${timeline.source}'s archive was made from (${timeline.database.name})`,
      {
        hint: 'check --db, or use another --source name',
      },
    )
  }
  if (slot === undefined) throw gap(`the replication slot ${timeline.slot} is gone`, { end: formatLsn(head.end) })
  if (slot.plugin !== 'pgoutput' || slot.database !== source.database.name) {
    throw new WalbackError(
      'prerequisite',
      `the replication slot ${timeline.slot} is not walback's: it reads ${slot.database} by ${slot.plugin}`,
      {
        hint: 'use another --source name, which gives another slot name',
      },
    )
  }
  if (slot.walStatus === 'lost')
    throw gap(`the server has thrown away log that slot ${timeline.slot} had not read`, { end: formatLsn(head.end) })
  // The slot's view of the log is its start and what is kept from there; the archive only ever holds log that is on disk.
  const written = slot.restartLsn === undefined ? undefined : slot.restartLsn + BigInt(slot.retained_bytes)
  if (written !== undefined && written < head.end) {
    throw gap(
      `the server's log ends before the archive, which reaches ${formatLsn(head.end)}: the server was put back to an earlier state`,
      {
        end: formatLsn(head.end),
      },
    )
  }
  if (slot.confirmedFlushLsn !== undefined && slot.confirmedFlushLsn > head.end) {
    throw gap(
      `slot ${timeline.slot} stands at ${formatLsn(slot.confirmedFlushLsn)}, past the archive's end at ${formatLsn(head.end)}: somebody else has read from it, or objects at the archive's end are gone`,
      {
        end: formatLsn(head.end),
        slot: formatLsn(slot.confirmedFlushLsn),
      },
    )
  }
}
