import { WalbackError } from '../base/errors.ts'
import { type Lsn, parseLsn } from '../model/lsn.ts'
import { type Micros, micros } from '../model/time.ts'
import { type BaseHead, baseKind, inOrder } from '../repository/base.ts'
import type { BegunBase } from '../repository/base-progress.ts'
import type { Range } from '../repository/pruned.ts'
import { type BaseStanding, type GoodBase, standingOf } from './base-standing.ts'
import type { Inventory, TimelineStock } from './inventory.ts'
import { Keeping, keepPinsAndLeases } from './keeping.ts'
import { isEmptyPolicy, type RetentionPolicy, selectBases } from './policy.ts'
import { planRemoval, type Removal } from './removal.ts'

/** What becomes of a base, and why. */
export interface BaseVerdict {
  readonly base: BaseHead
  readonly isKept: boolean
  readonly reasons: readonly string[]
  readonly stored_bytes: number
}

export interface UnfinishedVerdict {
  readonly begun: BegunBase
  readonly isKept: boolean
  readonly reason: string
}

export interface Point {
  readonly lsn: Lsn
  readonly time: Micros
}

/** Every moment in it stays restorable. */
export interface KeptWindow {
  readonly timeline: string
  readonly from: Point
  readonly to: Point
}

/** One moment that stays restorable though what is around it does not. */
export interface KeptMoment extends Point {
  readonly timeline: string
  /** The base that opens it, or the pin. */
  readonly of: string
}

export interface PrunePlan {
  readonly source: string
  readonly bases: readonly BaseVerdict[]
  readonly unfinished: readonly UnfinishedVerdict[]
  readonly windows: readonly KeptWindow[]
  readonly moments: readonly KeptMoment[]
  readonly removal: Removal
  /** By timeline, what of its stream is needed. */
  readonly kept: ReadonlyMap<string, readonly Range[]>
  readonly warnings: readonly string[]
}

/** Bases that are here, and in some required repository not yet: by id, the URLs of those that lack them. */
export type LackingBases = ReadonlyMap<string, readonly string[]>

/**
 * Decides by what recovery points need, never by the order of names: pure. The newest base that can be restored, with
 * all that follows it, and the end of the current timeline always stay. A base that a required repository lacks stays too, and
 * counts for no rule: what it would take the place of goes only when it is in all of them. Fails as `refused` for an
 * empty policy, and where there is nothing that can be restored.
 */
export function planPrune(inventory: Inventory, policy: RetentionPolicy, lacking: LackingBases = new Map()): PrunePlan {
  if (isEmptyPolicy(policy)) throw emptyPolicy()
  const standings = inventory.bases.map((base) => standingOf(inventory, base))
  const sound = standings.flatMap((standing) => (standing.kind === 'good' ? [standing] : []))
  const good = sound.filter(({ base }) => baseKind(base) === 'full')
  if (good.length === 0) throw nothingRestorable(inventory)
  const counted = good.filter(({ base }) => !lacking.has(base.id))
  const newest = counted.at(-1)
  if (newest === undefined) throw nothingElsewhere(inventory, lacking)
  const keeping = new Keeping()
  keepByRules(inventory, policy, counted, keeping)
  keeping.keepBase(newest, 'newest that can be restored')
  keeping.keepStream(newest.stock, { from: newest.from, to: newest.run.end })
  keepCurrentEnd(inventory, counted, keeping)
  const some = sound.filter(({ base }) => baseKind(base) === 'partial' && !lacking.has(base.id))
  keepOfSome(inventory, policy, { good: counted, ofSome: some }, keeping)
  for (const base of sound) {
    const urls = lacking.get(base.base.id)
    if (urls === undefined) continue
    keeping.keepBase(base, `not in ${urls.join(', ')} yet, and counts for no rule before it is`)
    if (baseKind(base.base) === 'partial') continue
    // What is restored from it may have nothing else to go by, also on a timeline that is over.
    keeping.keepStream(base.stock, { from: base.from, to: base.run.end })
  }
  const unfinished = judgeUnfinished(inventory, counted, keeping)
  const warnings = keepPinsAndLeases(inventory, { good, counted, sound }, keeping)
  const bases = standings.map((standing) => verdictOf(inventory, standing, keeping))
  const kept = keeping.ranges()
  return {
    source: inventory.source,
    bases,
    unfinished,
    ...keeping.restorable(inventory, good),
    removal: planRemoval(inventory, {
      keptBases: new Set(bases.filter(({ isKept }) => isKept).map(({ base }) => base.id)),
      givenUp: unfinished.filter(({ isKept }) => !isKept).map(({ begun }) => begun.id),
      kept,
    }),
    kept,
    warnings: [
      ...warnings,
      ...standings.flatMap((one) => (one.kind === 'broken' && one.isKept ? [brokenWarning(one)] : [])),
    ],
  }
}

/** Bases by the rules for bases, and the stream: of the window, or of all that follows the oldest of those bases. */
function keepByRules(inventory: Inventory, policy: RetentionPolicy, good: readonly GoodBase[], keeping: Keeping): void {
  const now = reference(inventory)
  const selected = selectBases(good.toReversed(), policy, now)
  for (const [base, reasons] of selected) for (const reason of reasons) keeping.keepBase(base, reason)
  if (policy.window_ms !== undefined && policy.window_ms > 0) {
    keepWindow(inventory, good, micros(now - BigInt(policy.window_ms) * 1000n), keeping)
    return
  }
  const oldest = good.find((base) => selected.has(base))
  if (oldest === undefined) return
  for (const { stock, run, bases } of runsOf(inventory, good)) {
    const first: GoodBase | undefined = bases.find((base) => good.indexOf(base) >= good.indexOf(oldest))
    if (first === undefined) continue
    if (first !== oldest && !selected.has(first)) keeping.keepBase(first, 'opens the stream after a gap')
    keeping.keepStream(stock, { from: first.from, to: run.end })
  }
}

/**
 * Bases of some tables, each selection by itself: the rules for bases count them apart from those of all tables, whose
 * place they cannot take, and they go with the oldest of those that a rule keeps. With a window, those in it stay as
 * well. No more of the stream is kept for one than it reads.
 */
function keepOfSome(
  inventory: Inventory,
  policy: RetentionPolicy,
  { good, ofSome }: { readonly good: readonly GoodBase[]; readonly ofSome: readonly GoodBase[] },
  keeping: Keeping,
): void {
  const now = reference(inventory)
  const oldest = good.find((base) => keeping.reasons(base).length > 0)
  const bases = ofSome.filter(({ base }) => oldest === undefined || inOrder(oldest.base, base) < 0)
  const { window_ms } = policy
  const isInWindow = ({ time }: GoodBase): boolean =>
    window_ms !== undefined && window_ms > 0 && time >= now - BigInt(window_ms) * 1000n
  const selections = new Map<string, GoodBase[]>()
  for (const one of bases) {
    const selection = JSON.stringify(one.base.selection)
    selections.set(selection, [...(selections.get(selection) ?? []), one])
  }
  for (const alike of selections.values()) {
    for (const [base, reasons] of selectBases(alike.toReversed(), policy, now))
      for (const reason of reasons) keeping.keepBase(base, reason)
    for (const base of alike.filter(isInWindow)) keeping.keepBase(base, 'window')
  }
}

/**
 * Until when back a policy counts: the archive's end, so that what stopped to grow does not age; but never what a
 * server's clock that runs ahead calls now.
 */
function reference({ now, timelines }: Inventory): Micros {
  const end = timelines.flatMap(({ runs }) => runs.at(-1)?.segments.at(-1)?.time ?? []).at(-1)
  return end !== undefined && end < now ? end : now
}

/** In each run that reaches into the window: the base that carries to its beginning, those after it, and the stream. */
function keepWindow(inventory: Inventory, good: readonly GoodBase[], since: Micros, keeping: Keeping): void {
  for (const { stock, run, bases } of runsOf(inventory, good)) {
    const last = run.segments.findLast((segment) => segment.last !== undefined)?.last?.time
    const newest = bases.at(-1)
    if (newest === undefined || (newest.time < since && (last === undefined || last < since))) continue
    const opening = bases.findLast(({ time }) => time <= since) ?? (bases[0] as GoodBase)
    keeping.keepBase(opening, 'opens the window')
    for (const base of bases.slice(bases.indexOf(opening) + 1)) keeping.keepBase(base, 'window')
    keeping.keepStream(stock, { from: opening.from, to: run.end })
  }
}

interface RunWithBases extends Pick<GoodBase, 'stock' | 'run'> {
  readonly bases: readonly GoodBase[]
}

const runsOf = ({ timelines }: Inventory, good: readonly GoodBase[]): RunWithBases[] =>
  timelines.flatMap((stock) =>
    stock.runs.map((run) => ({ stock, run, bases: good.filter((base) => base.run === run) })),
  )

/**
 * What capture and the next bases go on from. A snapshot of later reads no further back than one of before, since what
 * was running then only grows older; so the stream that the newest good base needs will do for all that come.
 */
function keepCurrentEnd({ timelines }: Inventory, good: readonly GoodBase[], keeping: Keeping): void {
  const stock = timelines.find(({ isCurrent }) => isCurrent)
  if (stock === undefined) return
  const newest = good.findLast((base) => base.stock === stock)
  keepToEnd(stock, newest?.from ?? stock.start, keeping)
}

/** Of the current timeline, with whatever lies at its end; it may grow meanwhile. */
const keepToEnd = (stock: TimelineStock, from: Lsn, keeping: Keeping): void =>
  keeping.keepStream(stock, { from, to: endless })

const endless = parseLsn('FFFFFFFF/FFFFFFFF')

/**
 * A base that is being taken, or that the next backup carries on, was begun after some good base was done; that one's
 * stream is enough for it, as above. Of whose machine's clock the times are is not known, hence an hour between the two.
 */
function judgeUnfinished(inventory: Inventory, good: readonly GoodBase[], keeping: Keeping): UnfinishedVerdict[] {
  const current = inventory.timelines.find(({ isCurrent }) => isCurrent)
  const complete = new Set(inventory.bases.map(({ id }) => id))
  const verdicts: UnfinishedVerdict[] = []
  for (const begun of inventory.begun) {
    if (begun.isEnded || complete.has(begun.id) || inventory.givenUp.has(begun.id)) continue
    const { timeline } = begun.beginning
    const started = Date.parse(begun.beginning.started)
    if (current === undefined || timeline !== current.timeline.id) {
      verdicts.push({ begun, isKept: false, reason: `unfinished, of timeline ${timeline}, which is over` })
      continue
    }
    const own = good.filter((base) => base.stock === current)
    const isOvertaken = own.some(({ base }) => Date.parse(base.started) > started)
    if (isOvertaken && Number(inventory.now / 1000n) - started > staleAfter_ms) {
      verdicts.push({ begun, isKept: false, reason: 'unfinished for more than a week, and a later base is complete' })
      continue
    }
    verdicts.push({
      begun,
      isKept: true,
      reason: 'unfinished: a backup is at work at it, or the next one of the same tables carries it on',
    })
    const before = own.findLast(({ base }) => Date.parse(base.finished) + clocksApart_ms <= started)
    keepToEnd(current, before?.from ?? current.start, keeping)
  }
  return verdicts
}

const staleAfter_ms = 7 * 86_400_000
const clocksApart_ms = 3_600_000

function verdictOf(inventory: Inventory, standing: BaseStanding, keeping: Keeping): BaseVerdict {
  const { base } = standing
  const stored_bytes = [...(inventory.baseObjects.get(base.id)?.values() ?? [])].reduce((sum, size) => sum + size, 0)
  const verdict = (isKept: boolean, ...reasons: string[]): BaseVerdict => ({ base, isKept, reasons, stored_bytes })
  switch (standing.kind) {
    case 'good': {
      const reasons = keeping.reasons(standing)
      return reasons.length > 0 ? verdict(true, ...reasons) : verdict(false, 'no rule keeps it')
    }
    case 'ahead':
      return verdict(true, 'the stream has not reached it yet')
    case 'broken':
      return standing.isKept || inventory.leases.some(({ reads }) => reads?.base === base.id)
        ? verdict(true, `cannot be restored (${standing.why}); left for you to look at`)
        : verdict(false, `cannot be restored: ${standing.why}`)
  }
}

const brokenWarning = ({ base, why }: Extract<BaseStanding, { kind: 'broken' }>): string =>
  `base ${base.id} cannot be restored: ${why}; it counts for no rule, and is left alone`

const emptyPolicy = (): WalbackError =>
  new WalbackError('refused', 'the retention policy is empty: it would keep nothing', {
    hint: 'give --window 14d, --keep-last 7, --keep-daily 14 or the like, or `retention:` in the configuration',
  })

const nothingRestorable = ({ source, bases }: Inventory): WalbackError =>
  new WalbackError('refused', `nothing of ${source} can be restored now, so nothing is removed`, {
    hint: bases.every((base) => baseKind(base) === 'partial')
      ? 'there is no base backup: take one with `walback backup --full`'
      : 'no base has a stream that reaches it: let the agent run, or bring lost objects back; `walback status` shows more',
  })

const nothingElsewhere = ({ source }: Inventory, lacking: LackingBases): WalbackError =>
  new WalbackError(
    'refused',
    `no base of ${source} that can be restored is in every required repository yet, so nothing is removed`,
    {
      hint: `${[...new Set([...lacking.values()].flat())].join(', ')}: the agent brings bases there, and so does \`walback copy\``,
    },
  )
