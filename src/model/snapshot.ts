import { WalbackError } from '../base/errors.ts'

/**
 * Transaction ids and snapshots. The server's snapshots carry 64-bit ids, the change stream 32-bit ones: ids from the
 * stream are widened before anything compares them.
 */
export type FullXid = bigint & { readonly __brand: 'FullXid' }

export const fullXid = (value: bigint): FullXid => value as FullXid

const half = 1n << 31n
const cycle = 1n << 32n

/** The 64-bit id nearest to `reference` whose low 32 bits are `xid`: ids in use at one time are less than 2^31 apart. */
export function widenXid(xid: number, reference: FullXid): FullXid {
  let full = (reference & ~(cycle - 1n)) | BigInt(xid)
  if (full > reference + half) full -= cycle
  else if (full < reference - half) full += cycle
  return fullXid(full < 0n ? full + cycle : full)
}

/** What `pg_current_snapshot()` says: ids below xmin are over, ids from xmax on had not begun, `running` is in between. */
export interface Snapshot {
  readonly xmin: FullXid
  readonly xmax: FullXid
  readonly running: ReadonlySet<FullXid>
}

/** Parses the text form `xmin:xmax:xip,xip`. */
export function parseSnapshot(text: string): Snapshot {
  const match = /^(\d+):(\d+):((?:\d+(?:,\d+)*)?)$/.exec(text)
  // Never taken for an empty one: a snapshot that sees nothing would have everything replayed twice.
  if (!match) throw new WalbackError('corrupt', `not a snapshot: ${JSON.stringify(text)}`)
  const [, xmin, xmax, list] = match
  const running = list ? list.split(',').map((id) => fullXid(BigInt(id))) : []
  return { xmin: fullXid(BigInt(xmin ?? '')), xmax: fullXid(BigInt(xmax ?? '')), running: new Set(running) }
}

export function formatSnapshot(snapshot: Snapshot): string {
  return `${snapshot.xmin}:${snapshot.xmax}:${[...snapshot.running].sort((a, b) => (a < b ? -1 : 1)).join(',')}`
}

/** Whether a committed top-level transaction's effects are in what was read under the snapshot. */
export function isVisible(xid: FullXid, snapshot: Snapshot): boolean {
  if (xid < snapshot.xmin) return true
  if (xid >= snapshot.xmax) return false
  return !snapshot.running.has(xid)
}
