import type { Lsn } from './lsn.ts'
import type { Micros } from './time.ts'

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
