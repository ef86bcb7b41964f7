import { WalbackError } from '../base/errors.ts'
import { type Lsn, parseLsn } from '../model/lsn.ts'
import { type FullXid, fullXid, isVisible, parseSnapshot, type Snapshot } from '../model/snapshot.ts'
import { type Change, ChangeReader } from '../repository/change-reader.ts'
import { type ContainerReference, readContainer } from '../repository/container.ts'
import { loadParts, loadSegments } from '../repository/load-segments.ts'
import type { Repository } from '../repository/repository.ts'
import { type SegmentSummary, segmentHeader, type TransactionEntry } from '../repository/segment-format.ts'
import type { ObjectSource } from '../storage/storage.ts'
import type { PlannedReading } from './plan.ts'

/**
 * The changes of the transactions that a plan keeps and its base does not hold, in commit order, block by block.
 * Every object is checked whole; damage throws before the restore can end well.
 *
 * First come those that bring tables which were read under earlier snapshots to the base's, and only then the others,
 * for which the base is then as if it had been read at once. (Some of the others may have committed before some of
 * these: the base's snapshot sees the later and not the earlier, so neither has seen the other.)
 */
export async function* readChanges(
  repository: Repository,
  plan: PlannedReading,
  options: {
    readonly signal?: AbortSignal | undefined
    readonly onBytes?: (stored: number) => void
    /** Of the transactions that are kept only those that it sees. */
    readonly seenBy?: Snapshot
  } = {},
): AsyncGenerator<Iterable<Change>> {
  const { earlier, segments, unneeded } = plan
  const [before, after] = [earlierTables(plan), laterChanges(plan, options.seenBy)]
  yield* passOf(repository, earlier, new TransactionFilter(plan, before), { ...options, unneeded })
  yield* passOf(repository, segments, new TransactionFilter(plan, after), { ...options, unneeded })
}

async function* passOf(
  repository: Repository,
  segments: PlannedReading['segments'],
  filter: TransactionFilter,
  options: {
    readonly signal?: AbortSignal | undefined
    readonly onBytes?: (stored: number) => void
    readonly unneeded?: ReadonlySet<string> | undefined
  },
): AsyncGenerator<Iterable<Change>> {
  const needed = segments.filter(({ key }) => !options.unneeded?.has(key))
  const keyBefore = new Map(segments.map(({ key }, place) => [key, segments[place - 1]?.key]))
  let last: SegmentSummary | undefined
  for await (const { segment, source } of loadSegments(repository, needed, options.signal)) {
    const previous = last?.key === keyBefore.get(segment.key) ? last : undefined
    const { parts } = segment.trailer
    filter.beginSegment(segment.trailer.transactions)
    for await (const part of loadParts(repository, parts, options.signal)) {
      yield* blocks(part.source, { ...part.reference, kind: 'part' }, undefined, filter, options.signal)
      options.onBytes?.(part.reference.size_bytes)
    }
    const check = (header: unknown): void => checkHeader(header, segment, previous)
    const { key, sha256 } = segment
    yield* blocks(source, { key, sha256, kind: 'segment' }, check, filter, options.signal)
    options.onBytes?.(segment.size_bytes)
    filter.endSegment(segment.key)
    last = segment
  }
}

async function* blocks(
  source: ObjectSource,
  reference: ContainerReference,
  check: ((header: unknown) => void) | undefined,
  filter: TransactionFilter,
  signal: AbortSignal | undefined,
): AsyncGenerator<Iterable<Change>> {
  for await (const part of readContainer(source, reference, signal)) {
    if (part.kind === 'header') check?.(part.header)
    else if (part.kind === 'block') yield filter.changes(part.raw)
  }
}

/** A segment must be the one that follows the one before: a swap of two is seen here, without a database. */
function checkHeader(json: unknown, segment: SegmentSummary, previous: SegmentSummary | undefined): void {
  const header = segmentHeader.safeParse(json).data
  const isRight =
    header !== undefined &&
    parseLsn(header.start) === segment.start &&
    (previous === undefined || header.previous === previous.sha256)
  if (isRight) return
  throw new WalbackError('corrupt', `${segment.key} does not follow the segment before it`, {
    hint: 'objects of the repository were exchanged or restored from elsewhere; bring the original back from another copy',
  })
}

/** What of the stream is wanted. */
interface Wanted {
  /** Which tables' changes of a transaction, by its id and the end of its commit: all, none, or those that it names. */
  readonly tables: (xid: FullXid, end: Lsn) => 'all' | 'none' | ((oid: number) => boolean)
}

/** Whether a transaction is kept and the base's snapshot does not see it. */
export function replayedAfter({ base, cut }: Pick<PlannedReading, 'base' | 'cut'>) {
  const snapshot = parseSnapshot(base.snapshot)
  return (xid: FullXid, end: Lsn): boolean => end <= cut && !isVisible(xid, snapshot)
}

function laterChanges(plan: PlannedReading, seenBy: Snapshot | undefined): Wanted {
  const isReplayed = replayedAfter(plan)
  const isKept = (xid: FullXid, end: Lsn): boolean =>
    isReplayed(xid, end) && (seenBy === undefined || isVisible(xid, seenBy))
  return { tables: (xid, end) => (isKept(xid, end) ? 'all' : 'none') }
}

/** What the base's snapshot sees, and that which a table was read under did not. */
function earlierTables({ base }: PlannedReading): Wanted {
  const last = parseSnapshot(base.snapshot)
  const snapshots = new Map<string, Snapshot>()
  const byTable = new Map<number, Snapshot>()
  for (const { oid, snapshot } of base.tables) {
    if (snapshot === undefined) continue
    const parsed = snapshots.get(snapshot) ?? parseSnapshot(snapshot)
    snapshots.set(snapshot, parsed)
    byTable.set(oid, parsed)
  }
  return {
    tables: (xid) => {
      if (!isVisible(xid, last)) return 'none'
      const blind = new Set([...snapshots.values()].filter((snapshot) => !isVisible(xid, snapshot)))
      if (blind.size === 0) return 'none'
      return (oid) => blind.has(byTable.get(oid) as Snapshot)
    },
  }
}

/** Lets through what is wanted. */
class TransactionFilter extends ChangeReader {
  private readonly wanted: Wanted
  private transactions: readonly TransactionEntry[] = []
  private place = -1
  private tables: ReturnType<Wanted['tables']> = 'none'

  constructor(plan: PlannedReading, wanted: Wanted) {
    super(plan.timeline.encoding)
    this.wanted = wanted
  }

  beginSegment(transactions: readonly TransactionEntry[]): void {
    this.transactions = transactions
    this.place = -1
    this.tables = 'none'
    this.startAnew()
  }

  endSegment(key: string): void {
    if (this.isInside) throw new WalbackError('corrupt', `${key} ends inside a message`)
    if (this.place + 1 === this.transactions.length) return
    throw new WalbackError(
      'corrupt',
      `${key} holds ${this.place + 1} transactions, and its trailer names ${this.transactions.length}`,
    )
  }

  protected override begin(): void {
    const entry = this.transactions[++this.place]
    if (entry === undefined)
      throw new WalbackError('corrupt', 'a segment holds more transactions than its trailer names')
    this.tables = this.wanted.tables(fullXid(BigInt(entry.xid)), parseLsn(entry.end))
  }

  protected override commit(): boolean {
    const isWhole = this.tables === 'all'
    this.tables = 'none'
    return isWhole
  }

  protected override get wantsMessages(): boolean {
    return this.tables === 'all'
  }

  protected override isWanted(oid: number): boolean {
    return typeof this.tables === 'string' ? this.tables === 'all' : this.tables(oid)
  }
}
