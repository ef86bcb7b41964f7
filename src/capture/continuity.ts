import { WalbackError } from '../base/errors.ts'
import { formatLsn, zeroLsn } from '../model/lsn.ts'
import type { ServerHistory } from '../postgres/server-history.ts'
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
  refuseOther(source, timeline)
  if (head.server && source.timeline !== undefined && source.timeline < head.server.timeline)
    throw leftBehind(source.timeline, head, head.server.timeline)
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

const majorOf = (version: number): number => Math.floor(version / 10_000)

/** A server or a database of its own is never carried on, whatever its name: its positions mean something else. */
function refuseOther(source: SourceFacts, timeline: Timeline): void {
  const restorable = `what is archived stays restorable (\`walback restore --source ${timeline.source}\`)`
  const facts = { expected: timeline.systemIdentifier, found: source.systemIdentifier }
  if (source.systemIdentifier !== timeline.systemIdentifier) {
    const [then, now] = [majorOf(timeline.serverVersion), majorOf(source.version)]
    const other = `this server is another one than ${timeline.source}'s archive was made from`
    if (then !== now) {
      throw new WalbackError('refused', `${other}: it is PostgreSQL ${now}, and that was ${then}`, {
        hint: `after an upgrade to a new major version a cluster is a new one: set it up under a name of its own, \`walback init --source ${timeline.source}-${now}\`, and take a base; ${restorable}`,
        facts,
      })
    }
    throw new WalbackError('refused', other, {
      hint: `check --db; for a restored or a new server use another --source name; ${restorable}`,
      facts,
    })
  }
  if (source.database.oid === timeline.database.oid) return
  throw new WalbackError(
    'refused',
    `database ${source.database.name} is another one than ${timeline.source}'s archive was made from (${timeline.database.name}), which was renamed, or dropped and made anew`,
    {
      hint: `check --db: a database that was renamed is carried on under its new name; for a new one use another --source name; ${restorable}`,
    },
  )
}

/** Where a timeline's archive stands in the server's histories; undefined in archives of walback 0.1. */
type Place = Pick<Head, 'end' | 'server'>

const leftBehind = (now: number, { end }: Place, known: number): WalbackError =>
  new WalbackError(
    'gap',
    `the server is on its timeline ${now}, and the archive on ${known}: it is an old primary that a failover has left behind, or was put back to an earlier state`,
    {
      hint: `name the primary in --db (several hosts, with target_session_attrs=read-write); if this server is the one to follow from now on, ${newTimelineHint}`,
      facts: { end: formatLsn(end), stale: true },
    },
  )

/**
 * Whether the server's log up to the archive's end is the log that was archived. A standby that is promoted, and a server
 * that is recovered from a backup, begin a new timeline of the server, and keep of the one before what they had of it:
 * what was archived past that point is not in their history, although their positions go on past it too. Throws `gap`,
 * with the fact `stale` when this server was left behind by the one that was archived last.
 */
export function checkHistory(server: ServerHistory, timeline: Timeline, head: Place): void {
  const gap = (message: string, facts: Record<string, unknown> = {}): WalbackError =>
    new WalbackError('gap', message, { hint: newTimelineHint, facts: { end: formatLsn(head.end), ...facts } })
  if (server.systemIdentifier !== timeline.systemIdentifier) {
    throw new WalbackError('database', 'the two connections have reached different servers', {
      hint: 'does --db name several clusters, or a proxy in front of them?',
      retryable: true,
    })
  }
  const known = head.server
  if (known === undefined) return
  if (known.timeline === server.timeline) {
    if (known.since === server.since) return
    throw gap(
      `the server has another history: its timeline ${server.timeline} began at ${formatLsn(server.since)}, that of the archive at ${formatLsn(known.since)}`,
    )
  }
  if (known.timeline > server.timeline) throw leftBehind(server.timeline, head, known.timeline)
  const place = server.before.findIndex((past) => past.timeline === known.timeline)
  const left = server.before[place]
  const since = place === 0 ? zeroLsn : server.before[place - 1]?.end
  if (left === undefined || since !== known.since)
    throw gap(`the server's history does not have the timeline ${known.timeline} that the archive is of`)
  if (left.end < head.end) {
    throw gap(
      `the server was promoted at ${formatLsn(left.end)}, before the archive's end at ${formatLsn(head.end)}: what was archived after that is not in its history`,
      { promoted: formatLsn(left.end) },
    )
  }
}
