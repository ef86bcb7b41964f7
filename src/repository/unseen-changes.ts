import { type Lsn, parseLsn } from '../model/lsn.ts'
import { type FullXid, fullXid, isVisible, parseSnapshot } from '../model/snapshot.ts'
import { type Micros, micros } from '../model/time.ts'
import type { BaseManifest } from './base.ts'
import type { TransactionEntry } from './segment-format.ts'

/** A change of which the stream tells nothing, or too little: a restore from an older base lacks it. */
export interface UnseenChange {
  /**
   * `untold`: the catalogs have changed, and no transaction says so. `unsure`: a transaction says that what it did is
   * not, or not fully, in the stream. `unpublished`: our publications were altered, so rows may be lost to the stream.
   */
  readonly kind: 'untold' | 'unsure' | 'unpublished'
  /** It happened after `from`, and by `to` it had: looks at the catalogs, or both the commit that is not followed. */
  readonly from: Place
  readonly to: Place
}

/** What it is, in words; `when`: with a space before it, as ` at 14:00`. */
export function unseenInWords(kind: UnseenChange['kind'], when = ''): string {
  switch (kind) {
    case 'untold':
      return `the schema was changed${when}, and the stream does not tell how`
    case 'unsure':
      return `a change of the schema${when} is not fully in the stream`
    case 'unpublished':
      return `a publication was altered${when}, and the stream may lack rows`
  }
}

export interface Place {
  readonly lsn: Lsn
  readonly time: Micros
}

type Base = Pick<BaseManifest, 'lsn' | 'time' | 'snapshot' | 'catalog'>

/** What a heartbeat or a base saw of the catalogs; the stamp is absent in a base of an older version. */
interface Look {
  readonly base: Base | undefined
  /** The log's end, read just before a heartbeat's snapshot or just after a base's. */
  readonly from: Place
  /** A position behind every commit that the snapshot sees. */
  readonly to: Place
  readonly snapshot: string
  readonly stamp: string | undefined
  /** How many of the told changes come before it in the stream, at least and at most. */
  readonly before: readonly [number, number]
}

/** A transaction that tells of changes of the schema. */
interface Told {
  readonly xid: FullXid
  readonly at: Place
  readonly unsure: 'rows' | 'all' | undefined
}

/**
 * Finds the changes of one timeline's schema that the stream does not explain, from its transactions, offered in the
 * order of the stream, and its bases. A change between two looks at the catalogs is explained if a transaction that
 * tells of a change of the schema is visible to the later look's snapshot and not to the earlier one's, none of those
 * says that what it did is not known, and nobody has touched the event triggers that tell. (So a change that is told
 * may hide one that is not, between the same looks: made with `event_triggers = off`, or of a kind that fires none.)
 */
export class UnseenChanges {
  private readonly bases: readonly Base[]
  private readonly looks: Look[] = []
  private readonly told: Told[] = []
  private sorted: readonly Look[] | undefined

  /** `bases`: of the same timeline. */
  constructor(bases: readonly Base[]) {
    this.bases = bases
  }

  offer({ xid, end, time, ddl, heartbeat }: TransactionEntry): void {
    const at = { lsn: parseLsn(end), time: micros(BigInt(time)) }
    if (ddl !== undefined) {
      const unsure = (['all', 'rows'] as const).find((what) => ddl.some((command) => command.unsure === what))
      this.told.push({ xid: fullXid(BigInt(xid)), at, unsure })
      this.sorted = undefined
    }
    if (heartbeat?.catalog === undefined) return
    const count = this.told.length
    const look: Look = {
      base: undefined,
      from: { lsn: parseLsn(heartbeat.from), time: at.time },
      to: at,
      snapshot: heartbeat.snapshot,
      stamp: heartbeat.catalog,
      before: [count, count],
    }
    // Of several that saw the same the first and the last will do, unless a base comes between them.
    const [first, last] = [this.looks.at(-2), this.looks.at(-1)]
    const isRun = first?.stamp === look.stamp && last?.stamp === look.stamp
    if (first && isRun && !this.hasBaseBetween(first, look)) this.looks.pop()
    this.looks.push(look)
    this.sorted = undefined
  }

  /**
   * What a restore from the base, which is one of those given, does not bring back; in the order of the stream. `end`:
   * where the stream that was offered ends, if a base lies after it to which nothing leads.
   */
  since(base: Base, end?: Lsn): UnseenChange[] {
    const snapshot = parseSnapshot(base.snapshot)
    const changes: UnseenChange[] = this.told
      .filter(({ xid, unsure }) => unsure !== undefined && !isVisible(xid, snapshot))
      .map(({ at }) => ({ kind: 'unsure', from: at, to: at }))
    const looks = this.inOrder()
    let earlier: Look | undefined
    for (const look of looks.slice(looks.findIndex((one) => one.base === base))) {
      if (look.stamp === undefined || (end !== undefined && look.from.lsn > end)) continue
      const kind = earlier && this.kindOf(earlier, look)
      if (earlier && kind) changes.push({ kind, from: earlier.from, to: look.to })
      earlier = look
    }
    return changes.sort((a, b) => (a.from.lsn < b.from.lsn ? -1 : 1))
  }

  /** What happened between two looks that nothing explains. Whatever makes or drops tables changes the lists as well. */
  private kindOf(earlier: Look, later: Look): UnseenChange['kind'] | undefined {
    const isAnother = (part: Part): boolean => isOther(earlier.stamp, later.stamp, part)
    if (isAnother('publications')) return 'unpublished'
    const kind = isAnother('definitions') ? 'untold' : isAnother('members') ? 'unpublished' : undefined
    return kind && (this.isExplained(earlier, later) ? undefined : kind)
  }

  private isExplained(earlier: Look, later: Look): boolean {
    if (partOf(earlier.stamp, 'triggers') !== partOf(later.stamp, 'triggers')) return false
    const [before, after] = [parseSnapshot(earlier.snapshot), parseSnapshot(later.snapshot)]
    const between = this.told
      .slice(Math.max(0, earlier.before[0] - stragglers), later.before[1])
      .filter(({ xid }) => isVisible(xid, after) && !isVisible(xid, before))
    return between.length > 0 && between.every(({ unsure }) => unsure !== 'all')
  }

  /** Heartbeats and bases in the order in which they looked: ids only grow. */
  private inOrder(): readonly Look[] {
    if (this.sorted) return this.sorted
    const keyed = [...this.looks, ...this.bases.map((base) => this.lookOf(base))].map((look) => ({
      look,
      xmax: parseSnapshot(look.snapshot).xmax,
    }))
    const order = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0)
    keyed.sort((a, b) => order(a.xmax, b.xmax) || order(a.look.from.lsn, b.look.from.lsn))
    this.sorted = keyed.map(({ look }) => look)
    return this.sorted
  }

  private lookOf(base: Base): Look {
    const at = { lsn: parseLsn(base.lsn), time: micros(BigInt(base.time)) }
    const [before, after] = [
      this.looks.findLast(({ from }) => from.lsn < at.lsn),
      this.looks.find(({ from }) => from.lsn >= at.lsn),
    ]
    const count: [number, number] = [before?.before[0] ?? 0, after?.before[1] ?? this.told.length]
    return { base, from: at, to: at, snapshot: base.snapshot, stamp: base.catalog, before: count }
  }

  private hasBaseBetween(earlier: Look, later: Look): boolean {
    return this.bases.some(({ lsn }) => earlier.from.lsn <= parseLsn(lsn) && parseLsn(lsn) <= later.to.lsn)
  }
}

/**
 * How far before a look, counted in told changes, there may be one whose commit is in the log and that the look could
 * not see yet. More of them would be commits that wait for a synchronous standby; their changes would pass for unseen.
 */
const stragglers = 1000

const stampParts = ['kind', 'definitions', 'triggers', 'publications', 'members'] as const
type Part = (typeof stampParts)[number]

/**
 * A stamp is `kind-definitions-triggers-publications-members`, the last two not in older ones; those of different kinds,
 * by different versions, say nothing of each other.
 */
function partOf(stamp: string | undefined, part: Part): string | undefined {
  return stamp?.split('-')[stampParts.indexOf(part)]
}

function isOther(a: string | undefined, b: string | undefined, part: Part): boolean {
  const [before, after] = [partOf(a, part), partOf(b, part)]
  return partOf(a, 'kind') === partOf(b, 'kind') && before !== undefined && after !== undefined && before !== after
}
