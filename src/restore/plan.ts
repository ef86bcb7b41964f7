import { assert } from '../base/assert.ts'
import { WalbackError } from '../base/errors.ts'
import { formatLsn, type Lsn, maxLsn, parseLsn } from '../model/lsn.ts'
import { parseSnapshot, type Snapshot } from '../model/snapshot.ts'
import type { RecoveryTarget } from '../model/target.ts'
import { micros } from '../model/time.ts'
import { type BaseManifest, earlierSnapshots, readManifests } from '../repository/base.ts'
import { horizonFor, oldestSnapshot } from '../repository/reach.ts'
import type { Repository } from '../repository/repository.ts'
import { changesAnything, type SegmentSummary, type TransactionEntry } from '../repository/segment-format.ts'
import {
  holeError,
  listSegments,
  readSegment,
  type StoredSegment,
  scanSegments,
  timeOf,
} from '../repository/segments.ts'
import { readTimelines, type Timeline } from '../repository/timeline.ts'
import { UnseenChanges } from '../repository/unseen-changes.ts'
import { madeExtensions, makesExtension } from './made-extensions.ts'
import { type DdlOfNote, notRestored } from './not-restored.ts'
import { type Miss, refusal, type Window } from './refused-target.ts'
import type { Selected } from './selected.ts'
import { type SequencePosition, type SequenceSample, sequencePositions } from './sequences.ts'
import { type Cut, CutSearch, isReachable, type Outside, searchFrom } from './target.ts'
import { unseenLines } from './unseen-lines.ts'

/** What a restore will do. Made without touching anything; a restore takes nothing but this and a destination. */
export interface RestorePlan {
  readonly source: string
  readonly target: RecoveryTarget
  readonly timeline: Timeline
  readonly base: BaseManifest
  /**
   * The segments that bring tables which were read under earlier snapshots to the base's; none where there are no such
   * tables.
   */
  readonly earlier: readonly StoredSegment[]
  /** The segments to be read after that, in order. */
  readonly segments: readonly StoredSegment[]
  /** Transactions that end at or before this are kept. */
  readonly cut: Lsn
  /** Of the segments those, by their keys, that have nothing of what was selected. */
  readonly unneeded?: ReadonlySet<string>
  /** Where the state that is restored ends: the last commit in it, or the base. */
  readonly reached: Lsn
  /** The last kept and the first left out of the transactions that changed rows or the schema, as far as there are any near. */
  readonly lastKept: TransactionEntry | undefined
  readonly firstLeftOut: TransactionEntry | undefined
  /** Of those: how many are left out, and kept since the base's position. */
  readonly leftOut: number
  readonly transactions: number
  readonly bytes: { readonly base: number; readonly segments: number }
  /** Where sequences stood; `sequencesBounded`: the stream tells of them from after the target too. */
  readonly sequences: readonly SequencePosition[]
  readonly sequencesBounded: boolean
  /** Of what is not restored, changes of the schema of which the stream does not tell. */
  readonly unseen: readonly string[]
  /** Extensions that are made after the base. */
  readonly madeExtensions: readonly string[]
  /** What this restore does not bring back, each in a line. */
  readonly notRestored: readonly string[]
  /** If not everything is asked for: what is (selected.ts). */
  readonly selected?: Selected
}

/** What there is to be read for a plan. */
export type PlannedReading = Pick<
  RestorePlan,
  'source' | 'timeline' | 'base' | 'earlier' | 'segments' | 'cut' | 'unneeded'
>

/** What segments take in the repository, with their parts. */
export const bytesOf = (segments: readonly StoredSegment[]): number =>
  segments.reduce((sum, segment) => sum + segment.size_bytes + segment.parts_bytes, 0)

export interface PlanOptions {
  /** The source's bases, in order, that may be taken: those of all tables, if not given. */
  readonly bases?: readonly BaseManifest[]
  readonly signal?: AbortSignal | undefined
}

/** Chooses timeline, base and segments; refuses a target that cannot be had, naming the nearest. */
export async function planRestore(
  repository: Repository,
  source: string,
  target: RecoveryTarget,
  options: PlanOptions = {},
): Promise<RestorePlan> {
  const timelines = await readTimelines(repository, source, options.signal)
  if (timelines.length === 0) {
    throw new WalbackError('no_repository', `the repository at ${repository.storage.url} holds no source ${source}`, {
      hint: 'check --source and --repo; `walback list` shows what is there',
    })
  }
  const bases = options.bases ?? (await readManifests(repository, source, options))
  const misses: Miss[] = []
  for (const timeline of timelines.toReversed()) {
    const own = bases.filter((base) => base.timeline === timeline.id)
    const runs = await search(repository, timeline, own, target, options.signal)
    for (const [place, found] of runs.toReversed().entries()) {
      // The latest state is that at the archive's end, and not what was there before something was lost.
      if (target.kind === 'latest' && place > 0) throw latestIsLost(found, segmentsMissing(runs.at(-1) as Found))
      if (target.kind === 'latest' && found.base && misses.length > 0)
        throw latestIsLost(found, noBaseYet(timelines.at(-1) as Timeline))
      if (found.base)
        return planFor(repository, { ...found, base: found.base, source, target, timeline }, options.signal)
      misses.push(found)
    }
  }
  throw refusal(target, misses, bases.length)
}

/** What a search found in a timeline, or, where segments are missing, in one of the runs between them. */
interface Found {
  /** Where the run begins. */
  readonly start: Lsn
  /** Where it ends, if another follows. */
  readonly cutOff?: Lsn
  readonly cut: Cut | Outside
  readonly window: Window | undefined
  readonly base: BaseManifest | undefined
  /** Heartbeats from where the search began, up to the first after the cut. */
  readonly samples: readonly SequenceSample[]
  readonly isBounded: boolean
  /** How many transactions that changed anything are kept since a base's position. */
  readonly kept: (after: Lsn) => number
  /** Of kept changes of the schema, those that a plan tells of. */
  readonly ddl: readonly DdlOfNote[]
  readonly unseen: UnseenChanges
}

/** Walks the trailers once, from the newest base that may do; holds a few entries and the heartbeats. */
async function search(
  repository: Repository,
  timeline: Timeline,
  bases: readonly BaseManifest[],
  target: RecoveryTarget,
  signal: AbortSignal | undefined,
): Promise<Found[]> {
  const from = searchFrom(target, bases)
  const runs: Found[] = []
  let run = new RunSearch(parseLsn(timeline.start), bases, target)
  const scanned = scanSegments(repository, timeline, {
    ...(from ? { from: parseLsn(from.lsn) } : {}),
    onHole: ({ to, isPruned = false }) => {
      runs.push({ ...run.result(), cutOff: run.end })
      run = new RunSearch(to, bases, target, isPruned)
    },
    signal,
  })
  for await (const segment of scanned) run.offer(segment)
  return [...runs, run.result()]
}

/** Finds a target, and the base that can be carried to it, in an unbroken run of segments. */
class RunSearch {
  end: Lsn
  private readonly start: Lsn
  private readonly isAfterPruned: boolean
  private readonly bases: readonly BaseManifest[]
  private readonly cutSearch: CutSearch
  private readonly unseen: UnseenChanges
  private readonly samples: SequenceSample[] = []
  private readonly ddl: DdlOfNote[] = []
  private readonly counts: { readonly lsn: Lsn; kept: number }[]
  private isBounded = false
  private last: TransactionEntry | undefined

  /** `isAfterPruned`: what was before it was removed by intent. */
  constructor(start: Lsn, bases: readonly BaseManifest[], target: RecoveryTarget, isAfterPruned = false) {
    this.isAfterPruned = isAfterPruned
    this.start = start
    this.end = start
    this.bases = bases.filter((base) => parseLsn(base.lsn) >= start)
    this.cutSearch = new CutSearch(target)
    this.unseen = new UnseenChanges(this.bases)
    this.counts = this.bases.map((base) => ({ lsn: parseLsn(base.lsn), kept: 0 }))
  }

  offer(segment: SegmentSummary): void {
    this.end = segment.end
    for (const entry of segment.trailer.transactions) this.offerTransaction(entry)
  }

  private offerTransaction(entry: TransactionEntry): void {
    const isKept = this.cutSearch.offer(entry)
    this.unseen.offer(entry)
    this.last = entry
    const position = parseLsn(entry.end)
    if (isKept && changesAnything(entry)) for (const count of this.counts) if (position > count.lsn) count.kept++
    if (isKept) this.ddl.push(...ddlOfNote(entry))
    if (entry.heartbeat === undefined || this.isBounded) return
    const read = parseLsn(entry.heartbeat.from)
    this.samples.push({ from: read, values: entry.heartbeat.sequences })
    this.isBounded = this.cutSearch.position !== undefined && read >= this.cutSearch.position
  }

  result(): Found {
    const { start, bases, end, samples, isBounded, ddl, unseen, counts } = this
    const cut = this.cutSearch.result(end)
    const base = cut.kind === 'cut' ? bases.findLast((candidate) => isReachable(candidate, cut, end)) : undefined
    const kept = (after: Lsn): number => counts.find((count) => count.lsn === after)?.kept ?? 0
    const window = windowOf(bases, end, this.last, this.isAfterPruned)
    return { start, cut, base, samples, isBounded, kept, ddl, unseen, window }
  }
}

const segmentsMissing = ({ start }: Found): string =>
  `segments before ${formatLsn(start)} are missing, and there is no base backup after them`

const noBaseYet = ({ id, start }: Timeline): string =>
  `timeline ${id}, which begins at ${start}, has no base backup that the stream has reached`

function latestIsLost({ window }: Found, why: string): WalbackError {
  const nearest = window === undefined ? '' : `\nnearest: --to-lsn ${formatLsn(window.to.lsn)}, before what is missing`
  return new WalbackError('gap', `the latest state cannot be restored: ${why}`, {
    hint: `bring the objects back from another copy, or take a base with \`walback backup --full\`${nearest}`,
  })
}

const ddlOfNote = ({ ddl = [], xid }: TransactionEntry): DdlOfNote[] =>
  ddl.filter(({ tag, unsure }) => unsure !== undefined || makesExtension(tag)).map((command) => ({ ...command, xid }))

/** From the first base that the archive has passed, to the last commit. */
function windowOf(
  bases: readonly BaseManifest[],
  end: Lsn,
  last: TransactionEntry | undefined,
  isAfterPruned: boolean,
): Window | undefined {
  const first = bases.find((base) => parseLsn(base.lsn) <= end)
  if (first === undefined) return undefined
  const from = { lsn: parseLsn(first.lsn), time: micros(BigInt(first.time)) }
  const time = last && timeOf(last) > from.time ? timeOf(last) : from.time
  return { from, to: { lsn: end, time }, isAfterPruned }
}

interface Choice extends Found {
  readonly source: string
  readonly target: RecoveryTarget
  readonly timeline: Timeline
  readonly base: BaseManifest
}

async function planFor(repository: Repository, choice: Choice, signal: AbortSignal | undefined): Promise<RestorePlan> {
  const { source, target, timeline, base, cut, samples, isBounded } = choice
  assert(cut.kind === 'cut', 'a plan has a cut')
  const baseLsn = parseLsn(base.lsn)
  const stored = await listSegments(repository, timeline, signal)
  const reach = { baseLsn, stored, timeline, repository, signal }
  const oldest = oldestSnapshot(earlierSnapshots(base))
  const earlier = oldest === undefined ? [] : await segmentsFor(oldest, baseLsn, reach)
  const segments = await segmentsFor(parseSnapshot(base.snapshot), cut.position, reach)
  const unseen = unseenLines(choice.unseen.since(base, choice.cutOff), target, cut)
  return {
    source,
    target,
    timeline,
    base,
    earlier,
    segments,
    cut: cut.position,
    reached: maxLsn(baseLsn, cut.lastEnd ?? baseLsn),
    lastKept: cut.lastKept,
    firstLeftOut: cut.firstLeftOut,
    leftOut: cut.leftOut,
    transactions: choice.kept(baseLsn),
    bytes: {
      base: base.stored_bytes,
      segments: bytesOf([...earlier, ...segments]),
    },
    sequences: sequencePositions(base.sequences, samples, baseLsn),
    sequencesBounded: isBounded,
    unseen,
    madeExtensions: madeExtensions(base, choice.ddl),
    notRestored: [...unseen, ...notRestored(base, timeline, choice.ddl)],
  }
}

/** The segments that hold transactions up to a position that the snapshot, which is the base's or an earlier one, may not see. */
async function segmentsFor(
  snapshot: Snapshot,
  end: Lsn,
  {
    baseLsn,
    stored,
    timeline,
    repository,
    signal,
  }: {
    readonly baseLsn: Lsn
    readonly stored: readonly StoredSegment[]
    readonly timeline: Timeline
    readonly repository: Repository
    readonly signal: AbortSignal | undefined
  },
): Promise<StoredSegment[]> {
  let first = Math.max(
    0,
    stored.findLastIndex((segment) => segment.start <= baseLsn),
  )
  let [horizon, next]: (Lsn | undefined)[] = []
  for (; first >= 0 && stored.length > 0; first--) {
    const summary = await readSegment(repository, stored[first] as StoredSegment, signal)
    // What was running when the base was taken may have committed in what is missing.
    if (next !== undefined && summary.end !== next) throw holeError({ from: summary.end, to: next })
    next = summary.start
    for (const entry of summary.trailer.transactions) horizon = horizonFor(snapshot, entry) ?? horizon
    if (horizon !== undefined) break
  }
  const start = horizon ?? parseLsn(timeline.start)
  const oldest = stored[0]?.start
  if (horizon === undefined && oldest !== undefined && oldest > start) throw holeError({ from: start, to: oldest })
  return stored.filter((segment, place) => {
    const next = stored[place + 1]?.start
    return segment.start < end && (next === undefined || next > start)
  })
}
