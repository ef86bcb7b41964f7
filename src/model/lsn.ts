import { WalbackError } from '../base/errors.ts'

/** A position in the write-ahead log, in bytes since the cluster's birth. Text (`0/16B3748`) exists only at the edges. */
export type Lsn = bigint & { readonly __brand: 'Lsn' }

export const lsn = (value: bigint): Lsn => value as Lsn
export const zeroLsn: Lsn = lsn(0n)

/** Parses PostgreSQL's `XXXXXXXX/XXXXXXXX`. */
export function parseLsn(text: string): Lsn {
  const match = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text.trim())
  if (!match) {
    throw new WalbackError('usage', `not a log position: ${JSON.stringify(text)}`, {
      hint: 'a log position (LSN) looks like 0/16B3748',
    })
  }
  return lsn((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`))
}

export function formatLsn(value: Lsn): string {
  return `${(value >> 32n).toString(16).toUpperCase()}/${(value & 0xffffffffn).toString(16).toUpperCase()}`
}

/** Sixteen hexadecimal digits, so that object keys sort as positions do. */
export function lsnKey(value: Lsn): string {
  return value.toString(16).toUpperCase().padStart(16, '0')
}

export function parseLsnKey(text: string): Lsn {
  return lsn(BigInt(`0x${text}`))
}

export const maxLsn = (a: Lsn, b: Lsn): Lsn => (a > b ? a : b)
