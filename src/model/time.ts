import { Temporal } from 'temporal-polyfill'
import { WalbackError } from '../base/errors.ts'

/** A moment in microseconds since 1970-01-01T00:00:00Z: PostgreSQL's resolution, which a JavaScript Date cuts off. */
export type Micros = bigint & { readonly __brand: 'Micros' }

export const micros = (value: bigint): Micros => value as Micros

const postgresEpoch = 946_684_800_000_000n

/** From the replication protocol's clock, microseconds since 2000-01-01. */
export const fromPostgresTime = (value: bigint): Micros => micros(value + postgresEpoch)
export const toPostgresTime = (value: Micros): bigint => value - postgresEpoch
export const nowMicros = (): Micros => micros(BigInt(Date.now()) * 1000n)

/** RFC 3339 in UTC, always with six decimals, so that text sorts as time does. */
export function formatTime(value: Micros): string {
  return Temporal.Instant.fromEpochNanoseconds(value * 1000n).toString({ fractionalSecondDigits: 6 })
}

/** The moment as a zone's clocks showed it, with the zone's name. */
export function formatTimeIn(value: Micros, zone: string): string {
  const local = Temporal.Instant.fromEpochNanoseconds(value * 1000n).toZonedDateTimeISO(zone)
  return `${local.toPlainDateTime().toString({ fractionalSecondDigits: 6 }).replace('T', ' ')} ${zone}`
}

/** The zone of this machine, by its IANA name. */
export const localZone = (): string => Temporal.Now.timeZoneId()

export interface TimeReading {
  readonly time: Micros
  /** True when the input named no zone and `zone` supplied it: the caller echoes such a reading. */
  readonly assumedZone: boolean
}

const isoForm = /^(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}(?::[0-5]\d(?:[.,]\d{1,6})?)?) ?(Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?$/
const agoForm = /^(\d{1,6}) ?(s|sec|secs|seconds?|m|min|mins|minutes?|h|hours?|d|days?) ago$/i
const unit_us: Record<string, bigint> = { s: 1_000_000n, m: 60_000_000n, h: 3_600_000_000n, d: 86_400_000_000n }

/**
 * Reads a recovery time: ISO 8601 to the microsecond with a zone, the same without one when `zone` is given, `now`,
 * or `N minutes ago`. Nothing is understood in part: what does not match whole is refused, as are slashed dates.
 */
export function parseTime(text: string, options: { zone?: string | undefined; now?: Micros } = {}): TimeReading {
  const input = text.trim()
  const now = options.now ?? nowMicros()
  if (input === 'now') return { time: now, assumedZone: false }
  const ago = agoForm.exec(input)
  if (ago) {
    const unit = unit_us[(ago[2] ?? '').charAt(0).toLowerCase()] ?? 0n
    return { time: micros(now - BigInt(ago[1] ?? 0) * unit), assumedZone: false }
  }
  const iso = isoForm.exec(input)
  if (!iso) {
    throw new WalbackError('usage', `not a time: ${JSON.stringify(text)}`, {
      hint: 'write it as 2026-11-23T14:05:11.402Z or 2026-11-23T15:05:11+01:00, or as "10 minutes ago"',
    })
  }
  const [, date = '', clock = '', zone] = iso
  if (zone === undefined && options.zone === undefined) {
    throw new WalbackError('usage', `the time ${JSON.stringify(text)} names no zone`, {
      hint: `add Z for UTC or an offset such as +01:00, or give --tz, for example --tz Europe/Berlin`,
    })
  }
  try {
    const local = Temporal.PlainDateTime.from(`${date}T${clock.replace(',', '.')}`, { overflow: 'reject' })
    // A time that a zone's clocks skip or show twice is no moment: it is refused, and an offset settles it.
    const moment = local.toZonedDateTime(zone === undefined ? (options.zone ?? 'UTC') : offset(zone), {
      disambiguation: 'reject',
    })
    return { time: micros(moment.epochNanoseconds / 1000n), assumedZone: zone === undefined }
  } catch (error) {
    throw new WalbackError('usage', `not a time: ${JSON.stringify(text)}`, {
      cause: error,
      hint: 'check the day, the hour and the zone name; where clocks were set back or forward, give an offset such as +01:00',
    })
  }
}

function offset(zone: string): string {
  if (/^(Z|UTC)$/i.test(zone)) return 'UTC'
  const digits = zone.slice(1).replace(':', '')
  return `${zone[0]}${digits.slice(0, 2)}:${digits.slice(2) || '00'}`
}
