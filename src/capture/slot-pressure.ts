import type pg from 'pg'
import { readServerLoad, readSlotDetails, type ServerLoad, type SlotDetails } from '../postgres/check-server-sql.ts'
import { readSlot, type SlotState } from '../postgres/source.ts'
import { type Finding, finding } from './check-finding.ts'
import { waitFindings } from './check-server.ts'

/** Without a limit a slot that keeps this much is worth a look. */
const muchLog_bytes = 8 * 1024 ** 3
/** Vacuum of the catalogs stands still since; a quarter of what forces the server to freeze. */
const oldCatalogs_transactions = 50_000_000
/** A limit that will be reached within this time is told of now. */
const soon_s = 3600
/** Growth from next to nothing says little: a server that begins to work after a quiet night. */
const least_bytes = 64 * 1024 ** 2

/** How much log a slot may keep: the server's own limit, past which it throws log away, and the guard's. */
export interface SlotLimits {
  readonly server_bytes: number | undefined
  readonly guard_bytes: number | undefined
}

/** One look at a slot and at what holds it back. */
export interface SlotReading {
  readonly slot: SlotState
  readonly details: SlotDetails
  readonly load: ServerLoad
}

/** Reads in a session with an empty search_path; undefined where there is no such slot. */
export async function readSlotReading(client: pg.Client, name: string): Promise<SlotReading | undefined> {
  const slot = await readSlot(client, name)
  if (slot === undefined) return undefined
  return { slot, details: await readSlotDetails(client, name), load: await readServerLoad(client) }
}

/** A reading in numbers, for logs and JSON. */
export const measures = (
  { slot, details }: SlotReading,
  growth_bytes_s?: number,
): Readonly<Record<string, unknown>> => ({
  retained_bytes: slot.retained_bytes,
  ...(growth_bytes_s === undefined ? {} : { growth_bytes_s: Math.round(growth_bytes_s) }),
  safe_bytes: details.safe_bytes ?? null,
  wal_status: slot.walStatus,
  catalog_xmin_age: details.catalogXminAge,
})

/** The limit that is reached first, and whose it is. */
export function nearestLimit({ server_bytes, guard_bytes }: SlotLimits): Limit | undefined {
  if (guard_bytes !== undefined && (server_bytes === undefined || guard_bytes < server_bytes))
    return { bytes: guard_bytes, name: 'guard.max_slot_wal' }
  return server_bytes === undefined ? undefined : { bytes: server_bytes, name: 'max_slot_wal_keep_size' }
}

interface Limit {
  readonly bytes: number
  readonly name: 'guard.max_slot_wal' | 'max_slot_wal_keep_size'
}

/** What is the matter with a slot that is there: what it keeps, how that grows, and what holds it back. Pure. */
export const slotPressure = (reading: SlotReading, limits: SlotLimits, growth_bytes_s?: number): Finding[] => [
  ...retentionFindings(reading.slot, limits, growth_bytes_s),
  ...catalogFindings(reading.slot, reading.details),
  ...waitFindings(reading.load).filter(({ level }) => level !== 'note'),
]

/** `growth_bytes_s` is how fast the log that is kept grows, where that was measured. */
export function retentionFindings(slot: SlotState, limits: SlotLimits, growth_bytes_s?: number): Finding[] {
  const { name, walStatus, retained_bytes } = slot
  const kept = `keeps ${mib(retained_bytes)} of log`
  const hint = 'let the agent run, and look why it is behind; or raise the limit, if the disk can spare it'
  const found = (level: 'error' | 'warning', why: string): Finding[] => [
    finding('slot-retention', level, why, { object: name, hint }),
  ]
  if (walStatus === 'unreserved')
    return found('error', `${kept}, past the limit: the next checkpoint may throw it away, which leaves a gap`)
  const limit = nearestLimit(limits)
  if (limit === undefined)
    return retained_bytes < muchLog_bytes ? [] : found('warning', `${kept}, and there is no limit`)
  const of = `${kept} of the ${mib(limit.bytes)} that it may (${limit.name})`
  if (retained_bytes > limit.bytes) return found('error', `${kept}, past the ${mib(limit.bytes)} of ${limit.name}`)
  const left_s =
    growth_bytes_s !== undefined && growth_bytes_s > 0 ? (limit.bytes - retained_bytes) / growth_bytes_s : soon_s
  if (left_s < soon_s && retained_bytes >= least_bytes) {
    const rate = `${mib(growth_bytes_s ?? 0)} a second`
    return found(
      'warning',
      `${of}, which grows by ${rate}: the limit is reached in about ${Math.ceil(left_s / 60)} min`,
    )
  }
  return retained_bytes * 2 < limit.bytes ? [] : found('warning', `${of}: past that the stream breaks`)
}

export function catalogFindings({ name }: SlotState, { catalogXminAge }: SlotDetails): Finding[] {
  if (catalogXminAge <= oldCatalogs_transactions) return []
  const why = `it has kept old rows of the catalogs for ${catalogXminAge} transactions, and vacuum cannot remove them`
  return [finding('catalog-xmin', 'warning', why, { object: name, hint: 'let the agent catch up' })]
}

/** How fast what a slot keeps grows, from looks at it; by a monotonic clock, so that a clock that is put changes nothing. */
export class SlotGrowth {
  private looks: { readonly at_ms: number; readonly retained_bytes: number }[] = []

  offer(retained_bytes: number, at_ms: number): void {
    this.looks = [...this.looks.filter((look) => at_ms - look.at_ms <= remembered_ms), { at_ms, retained_bytes }]
  }

  /** Another slot of the same name begins anew. */
  forget(): void {
    this.looks = []
  }

  /** Undefined until there are looks enough; negative while the slot is catching up. */
  get bytes_s(): number | undefined {
    const [first, last] = [this.looks[0], this.looks.at(-1)]
    if (first === undefined || last === undefined || this.looks.length < fewestLooks) return undefined
    const seconds = (last.at_ms - first.at_ms) / 1000
    return seconds > 0 ? (last.retained_bytes - first.retained_bytes) / seconds : undefined
  }
}

/** The server lets go of log in steps, at a checkpoint or each quarter of a minute: shorter spans would show those. */
const remembered_ms = 120_000
const fewestLooks = 3

export const mib = (bytes: number): string =>
  bytes < 1024 ** 3
    ? `${(bytes / 1024 ** 2).toFixed(bytes < 10 * 1024 ** 2 ? 1 : 0)} MiB`
    : `${(bytes / 1024 ** 3).toFixed(1)} GiB`
