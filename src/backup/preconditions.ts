import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { readSlot, type SourceFacts } from '../postgres/source.ts'
import type { Repository } from '../repository/repository.ts'
import { readHead } from '../repository/segments.ts'
import type { Timeline } from '../repository/timeline.ts'

/** Refuses a server that a base cannot be taken from: one without a stream to carry it on would only look like a backup. */
export async function refuseUnfit(
  leader: pg.Client,
  repository: Repository,
  timeline: Timeline,
  facts: SourceFacts,
): Promise<void> {
  if (facts.inRecovery) throw isStandby()
  await refuseBrokenStream(leader, repository, timeline, facts)
}

async function refuseBrokenStream(
  leader: pg.Client,
  repository: Repository,
  timeline: Timeline,
  facts: Pick<SourceFacts, 'systemIdentifier' | 'database'>,
): Promise<void> {
  if (facts.systemIdentifier !== timeline.systemIdentifier || facts.database.oid !== timeline.database.oid) {
    throw new WalbackError('refused', `this database is another one than ${timeline.source}'s archive was made from`, {
      hint: 'check --db, or use another --source name',
    })
  }
  const slot = await readSlot(leader, timeline.slot)
  const head = await readHead(repository, timeline)
  const isBehind = slot?.confirmedFlushLsn !== undefined && slot.confirmedFlushLsn <= head.end
  // An active slot may have been confirmed further than the head that was read a moment before.
  if (slot !== undefined && slot.walStatus !== 'lost' && (isBehind || slot.active)) return
  throw new WalbackError('gap', `the replication slot ${timeline.slot} does not carry the archive on`, {
    hint: 'run `walback init` to begin a new timeline, then take the base',
  })
}

/** Its `pg_current_snapshot()` lists none of the running transactions (xid8funcs.c looks at xip, a standby has subxip). */
const isStandby = (): WalbackError =>
  new WalbackError(
    'refused',
    'this server is a standby, and snapshots there do not say which transactions are running: some would be lost between base and stream',
    { hint: 'take bases from the primary: name it in --db, or all hosts with target_session_attrs=primary' },
  )
