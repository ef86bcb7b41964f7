import { unreachable } from '../base/assert.ts'
import { formatLsn, type Lsn } from './lsn.ts'
import { formatTime, type Micros } from './time.ts'

/**
 * Where a restore stops, always a prefix of the transactions in the order of their commit records:
 * - `latest`: everything the archive holds;
 * - `time`: commits up to and including it, stopping at the first later one, as PostgreSQL's own recovery does;
 * - `lsn`: every transaction whose commit record ends at or before it;
 * - `tx`: up to a transaction, which is the last kept (inclusive) or the first left out;
 * - `mark`: up to a named point in the stream.
 */
export type RecoveryTarget =
  | { readonly kind: 'latest' }
  | { readonly kind: 'time'; readonly time: Micros }
  | { readonly kind: 'lsn'; readonly lsn: Lsn }
  | { readonly kind: 'tx'; readonly xid: bigint; readonly inclusive: boolean }
  | { readonly kind: 'mark'; readonly name: string }

/** A target in one word, as the command line takes it where it takes several. */
export function targetText(target: RecoveryTarget): string {
  switch (target.kind) {
    case 'latest':
      return 'latest'
    case 'time':
      return formatTime(target.time)
    case 'lsn':
      return formatLsn(target.lsn)
    case 'tx':
      return `${target.inclusive ? 'tx' : 'before-tx'}:${target.xid}`
    case 'mark':
      return `mark:${target.name}`
    default:
      return unreachable(target)
  }
}
