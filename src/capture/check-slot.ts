import { quoteLiteral } from '../model/identifier.ts'
import type { ServerLoad, SlotDetails } from '../postgres/check-server-sql.ts'
import { createSlotSql, dropSlotSql } from '../postgres/setup-sql.ts'
import type { SlotState, SourceFacts } from '../postgres/source.ts'
import { type Finding, finding } from './check-finding.ts'

/** What is thrown away of a slot's log, or unread for this long, is somebody's oversight. */
const forgotten_us = 3_600_000_000n
/** Without a limit of its own a slot that keeps this much is worth a look. */
const muchLog_bytes = 8 * 1024 ** 3
/** Vacuum of the catalogs stands still since; a quarter of what forces the server to freeze. */
const oldCatalogs_transactions = 50_000_000

/** How the slot stands, and what it holds back. */
export function slotFindings(
  facts: SourceFacts,
  load: ServerLoad,
  name: string,
  slot: SlotState | undefined,
  details: SlotDetails,
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
  return [...retention(facts, slot), ...idleness(load, slot, details), ...minor(slot, details)]
}

function retention({ maxSlotWalKeepSize_mb }: SourceFacts, { name, walStatus, retained_bytes }: SlotState): Finding[] {
  const kept = `keeps ${mib(retained_bytes)} of log`
  const hint = 'let the agent run, and look why it is behind; or raise max_slot_wal_keep_size'
  const found = (level: 'error' | 'warning', why: string): Finding[] => [
    finding('slot-retention', level, why, { object: name, hint }),
  ]
  if (walStatus === 'unreserved')
    return found('error', `${kept}, past the limit: the next checkpoint may throw it away, which leaves a gap`)
  if (maxSlotWalKeepSize_mb < 0)
    return retained_bytes < muchLog_bytes ? [] : found('warning', `${kept}, and there is no limit`)
  const limit_bytes = maxSlotWalKeepSize_mb * 1024 * 1024
  if (retained_bytes * 2 < limit_bytes) return []
  return found('warning', `${kept} of the ${mib(limit_bytes)} that it may: past that the stream breaks`)
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

function minor({ name }: SlotState, { catalogXminAge, failover }: SlotDetails): Finding[] {
  const findings: Finding[] = []
  if (catalogXminAge > oldCatalogs_transactions) {
    const why = `it has kept old rows of the catalogs for ${catalogXminAge} transactions, and vacuum cannot remove them`
    findings.push(finding('catalog-xmin', 'warning', why, { object: name, hint: 'let the agent catch up' }))
  }
  if (failover === false) {
    const why = 'a standby that is promoted will not have it, which leaves a gap'
    const hint =
      'a slot is made a failover slot by ALTER_REPLICATION_SLOT on a replication connection, or made so by `walback init` after `walback uninstall`'
    findings.push(finding('slot-no-failover', 'note', why, { object: quoteLiteral(name), hint }))
  }
  return findings
}

const mib = (bytes: number): string =>
  bytes < 1024 ** 3 ? `${Math.round(bytes / 1024 ** 2)} MiB` : `${(bytes / 1024 ** 3).toFixed(1)} GiB`
