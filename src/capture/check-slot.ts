import { quoteLiteral } from '../model/identifier.ts'
import type { ServerLoad, SlotDetails } from '../postgres/check-server-sql.ts'
import { createSlotSql, dropSlotSql } from '../postgres/setup-sql.ts'
import { type SlotState, type SourceFacts, slotLimit_bytes } from '../postgres/source.ts'
import { type Finding, finding } from './check-finding.ts'
import { catalogFindings, mib, retentionFindings } from './slot-pressure.ts'

/** What is thrown away of a slot's log, or unread for this long, is somebody's oversight. */
const forgotten_us = 3_600_000_000n

/** How the slot stands, and what it holds back. */
export function slotFindings(
  facts: SourceFacts,
  load: ServerLoad,
  name: string,
  slot: SlotState | undefined,
  details: SlotDetails,
  guard_bytes?: number,
): Finding[] {
  const anew = 'run `walback init`, which begins a new timeline, then `walback backup --full`'
  if (slot === undefined) {
    return [
      finding('slot-missing', 'error', 'the replication slot is gone: nothing is captured, and there is a gap', {
        object: name,
        sql: createSlotSql(name, facts.version),
        hint: anew,
      }),
    ]
  }
  if (slot.plugin !== 'pgoutput' || slot.database !== facts.database.name) {
    const why = `the replication slot of this name reads database ${slot.database} by ${slot.plugin}`
    return [finding('slot-foreign', 'error', why, { object: name, hint: 'use another --source, which names the slot' })]
  }
  if (slot.walStatus === 'lost') {
    const cause = details.invalidation === undefined ? '' : ` (${details.invalidation})`
    const why = `the server has thrown away log that the slot had not read${cause}: nothing is captured, and there is a gap`
    return [finding('slot-lost', 'error', why, { object: name, sql: dropSlotSql(name), hint: anew })]
  }
  return [
    ...retentionFindings(slot, { server_bytes: slotLimit_bytes(facts), guard_bytes }),
    ...idleness(load, slot, details),
    ...catalogFindings(slot, details),
    ...failoverFindings(slot, details),
  ]
}

function idleness(load: ServerLoad, { name, active, retained_bytes }: SlotState, details: SlotDetails): Finding[] {
  if (active) return []
  const { inactiveSince_us } = details
  const isForgotten = inactiveSince_us !== undefined && load.now_us - inactiveSince_us > forgotten_us
  const since = isForgotten ? ` for ${Number((load.now_us - inactiveSince_us) / 3_600_000_000n)} h` : ''
  const why = `nobody has been reading from it${since}; it keeps ${mib(retained_bytes)} of log`
  const hint = 'run `walback agent`, or `walback backup --incremental` from cron'
  return [finding('slot-inactive', isForgotten ? 'warning' : 'note', why, { object: name, hint })]
}

function failoverFindings({ name }: SlotState, { failover }: SlotDetails): Finding[] {
  const findings: Finding[] = []
  if (failover === false) {
    const why = 'a standby that is promoted will not have it, which leaves a gap'
    const hint =
      'a slot is made a failover slot by ALTER_REPLICATION_SLOT on a replication connection, or made so by `walback init` after `walback uninstall`'
    findings.push(finding('slot-no-failover', 'note', why, { object: quoteLiteral(name), hint }))
  }
  return findings
}
