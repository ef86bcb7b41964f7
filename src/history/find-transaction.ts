/** Finds a transaction in the archive by what people call it: `tx:3721`, or `3721@00000002` where timelines share it. */

import { WalbackError } from '../base/errors.ts'
import { parseLsn } from '../model/lsn.ts'
import { formatTime } from '../model/time.ts'
import type { Repository } from '../repository/repository.ts'
import { changesAnything, type SegmentSummary, type TransactionEntry } from '../repository/segment-format.ts'
import { scanSegments, timeOf } from '../repository/segments.ts'
import { readTimelines, type Timeline } from '../repository/timeline.ts'

/** Which transaction is meant. */
export interface TransactionName {
  /** With or without its epoch: the 32 bits that many tools show do as well. */
  readonly xid: bigint
  readonly timeline?: string
}

/** A transaction, and where it lies. */
export interface FoundTransaction {
  readonly timeline: Timeline
  readonly segment: SegmentSummary
  readonly entry: TransactionEntry
}

export function parseTransactionName(text: string): TransactionName {
  const match = /^\s*(?:tx:)?(\d{1,20})(?:@([0-9A-Fa-f]{1,8}))?\s*$/.exec(text)
  if (match === null) {
    throw new WalbackError('usage', `not a transaction id: ${JSON.stringify(text)}`, {
      hint: 'it is a number, as `walback log` shows it: 3721 or tx:3721',
    })
  }
  const [, xid = '', timeline] = match
  return { xid: BigInt(xid), ...(timeline === undefined ? {} : { timeline: timeline.padStart(8, '0').toUpperCase() }) }
}

const low = (1n << 32n) - 1n

/** Reads all trailers once. Each name must be that of one transaction; gives them in the order of the names. */
export async function findTransactions(
  repository: Repository,
  source: string,
  names: readonly TransactionName[],
  signal?: AbortSignal,
): Promise<FoundTransaction[]> {
  const searches = names.map((name) => new Search(name))
  for (const timeline of await readTimelines(repository, source, signal)) {
    for await (const segment of scanSegments(repository, timeline, { onHole: () => undefined, signal })) {
      for (const entry of segment.trailer.transactions)
        for (const search of searches) search.offer({ timeline, segment, entry })
    }
  }
  return searches.map((search) => search.result())
}

class Search {
  private readonly name: TransactionName
  private readonly exact: FoundTransaction[] = []
  private readonly short: FoundTransaction[] = []
  private below: bigint | undefined
  private above: bigint | undefined

  constructor(name: TransactionName) {
    this.name = name
  }

  offer(found: FoundTransaction): void {
    const { timeline, xid: wanted } = this.name
    if (timeline !== undefined && timeline !== found.timeline.id) return
    const xid = BigInt(found.entry.xid)
    if (xid === wanted) this.exact.push(found)
    else if (wanted <= low && (xid & low) === wanted) this.short.push(found)
    if (!changesAnything(found.entry)) return
    if (xid < wanted && (this.below === undefined || xid > this.below)) this.below = xid
    if (xid > wanted && (this.above === undefined || xid < this.above)) this.above = xid
  }

  result(): FoundTransaction {
    const found = this.exact.length > 0 ? this.exact : this.short
    const [first] = found
    if (first === undefined) throw this.unknown()
    if (found.length === 1) return first
    const several = found.map(
      ({ timeline, entry }) => `tx:${entry.xid}@${timeline.id} of ${formatTime(timeOf(entry))} (${entry.end})`,
    )
    throw new WalbackError('usage', `there are several transactions ${this.name.xid} in the archive`, {
      hint: `say which, with its timeline: ${several.join(', ')}`,
      facts: { transactions: found.map(({ timeline, entry }) => ({ xid: entry.xid, timeline: timeline.id })) },
    })
  }

  private unknown(): WalbackError {
    const { xid, timeline } = this.name
    const near = [this.below, this.above].filter((one) => one !== undefined).map((one) => `tx:${one}`)
    const where = timeline === undefined ? 'the archive' : `timeline ${timeline} of the archive`
    return new WalbackError('outside_window', `there is no transaction ${xid} in ${where}`, {
      hint: `${near.length > 0 ? `the nearest that changed anything: ${near.join(', ')}; ` : ''}\`walback log\` shows transactions. A transaction that wrote nothing that is captured, or was rolled back, is not in the archive; one of a moment ago may not be there yet`,
      facts: { nearest: near },
    })
  }
}

/** In the order of their commits: by timeline, then by position. */
export const byCommit = (a: FoundTransaction, b: FoundTransaction): number =>
  a.timeline.id.localeCompare(b.timeline.id) || (parseLsn(a.entry.commit) < parseLsn(b.entry.commit) ? -1 : 1)
