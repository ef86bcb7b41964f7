import { type Lsn, parseLsn } from '../model/lsn.ts'
import { parseSnapshot, type Snapshot } from '../model/snapshot.ts'
import type { BaseNames } from './base.ts'
import type { TransactionEntry } from './segment-format.ts'

/**
 * Where the stream must be read from at the latest, if this transaction's heartbeat settles it: transactions that a
 * snapshot does not see may have written their commit records before the snapshot was taken, but not before a
 * heartbeat to whose snapshot the oldest of them was still to come.
 */
export function horizonFor(snapshot: Snapshot, { heartbeat }: Pick<TransactionEntry, 'heartbeat'>): Lsn | undefined {
  if (heartbeat === undefined) return undefined
  return parseSnapshot(heartbeat.snapshot).xmax <= snapshot.xmin ? parseLsn(heartbeat.from) : undefined
}

/** The first of the snapshots that tables of the base were read under, if there are others than its own. */
export const oldestSnapshot = (snapshots: readonly string[]): Snapshot | undefined =>
  snapshots.map(parseSnapshot).sort((a, b) => (a.xmin < b.xmin ? -1 : 1))[0]

/**
 * Where a restore from the base begins to read, given the heartbeats of an unbroken run of segments up to and with the
 * one that holds the base's position, in order; undefined if it reads from the timeline's start.
 */
export function streamStart(
  base: Pick<BaseNames, 'snapshots' | 'snapshot'>,
  heartbeats: readonly Pick<TransactionEntry, 'heartbeat'>[],
): Lsn | undefined {
  const own = parseSnapshot(base.snapshot)
  const oldest = oldestSnapshot(base.snapshots) ?? own
  const first = oldest.xmin < own.xmin ? oldest : own
  for (const entry of heartbeats.toReversed()) {
    const horizon = horizonFor(first, entry)
    if (horizon !== undefined) return horizon
  }
  return undefined
}
