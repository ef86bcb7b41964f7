import { formatLsn, parseLsn } from '../model/lsn.ts'
import { fullXid, isVisible, parseSnapshot } from '../model/snapshot.ts'
import type { RecoveryTarget } from '../model/target.ts'
import { formatTime, micros } from '../model/time.ts'
import type { BaseManifest } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import { changesAnything, type TransactionEntry } from '../repository/segment-format.ts'
import { readAhead } from '../repository/segments.ts'
import { bytesOf, type PlannedReading, planRestore, type RestorePlan } from '../restore/plan.ts'
import { type SequencePosition, type SequenceSample, sequencePositions } from '../restore/sequences.ts'

/** What a compaction will make. Made without touching anything. */
export interface CompactionPlan {
  readonly base: BaseManifest
  /** Undefined: nothing after the base can be taken in. */
  readonly end: CompactionEnd | undefined
  /** What it cannot go past, though the target lies after it. */
  readonly stop: Stop | undefined
}

/** The moment of the new base: that of a heartbeat, whose snapshot says which transactions a base taken then would hold. */
export interface CompactionEnd {
  /** The restore to that moment, whose rows are the new base's. */
  readonly plan: PlannedReading & Pick<RestorePlan, 'transactions' | 'bytes'>
  readonly snapshot: string
  /** Microseconds since 1970, by the server's clock. */
  readonly time: string
  readonly sequences: readonly SequencePosition[]
}

/** A change of the schema: what it makes of tables and rows only a server can tell. */
export interface Stop {
  /** The command, if the stream tells of it. */
  readonly command: { readonly tag: string; readonly object: string | null; readonly xid: string } | undefined
  /** The server's time of the commit, or of the heartbeat that found the catalogs changed. */
  readonly time: string
  readonly lsn: string
}

/**
 * Chooses where a compaction ends: at the last heartbeat up to the target before which the schema was not changed. The
 * catalogs' stamps say so, whether or not the stream tells of changes.
 */
export async function planCompaction(
  repository: Repository,
  source: string,
  target: RecoveryTarget,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<CompactionPlan> {
  const reach = await planRestore(repository, source, target, options)
  const { base, timeline, earlier } = reach
  const { last, transactions, samples, stop } = await search(repository, reach, options.signal)
  if (last?.heartbeat === undefined) return { base, end: undefined, stop }
  const cut = parseLsn(last.end)
  const segments = reach.segments.filter(({ start }) => start < cut)
  const bytes = { base: base.stored_bytes, segments: bytesOf([...earlier, ...segments]) }
  const plan = { source, timeline, base, earlier, segments, cut, transactions, bytes }
  const { snapshot } = last.heartbeat
  const sequences = sequencePositions(base.sequences, samples, parseLsn(base.lsn))
  return { base, end: { plan, snapshot, time: last.time, sequences }, stop }
}

interface Found {
  readonly last: TransactionEntry | undefined
  /** How many changed anything between the base and that heartbeat. */
  readonly transactions: number
  /** Of sequences, up to that heartbeat. */
  readonly samples: readonly SequenceSample[]
  readonly stop: Stop | undefined
}

async function search(
  repository: Repository,
  { base, segments, cut }: RestorePlan,
  signal: AbortSignal | undefined,
): Promise<Found> {
  const samples: SequenceSample[] = []
  let last: TransactionEntry | undefined
  let [changed, transactions, told] = [0, 0, 0]
  const found = (stop?: Stop): Found => ({ last, transactions, samples: samples.slice(0, told), stop })
  for await (const { summary, damage } of readAhead(repository, segments, signal)) {
    if (summary === undefined) throw damage
    for (const entry of summary.trailer.transactions) {
      if (parseLsn(entry.end) > cut) return found()
      const stop = stopAt(entry, base)
      if (stop !== undefined) return found(stop)
      if (changesAnything(entry) && parseLsn(entry.end) > parseLsn(base.lsn)) changed++
      const { heartbeat } = entry
      if (!isAfter(heartbeat, base)) continue
      samples.push({ from: parseLsn(heartbeat.from), values: heartbeat.sequences })
      // One without a stamp does not say whether the schema is the base's.
      if (heartbeat.catalog !== undefined) [last, transactions, told] = [entry, changed, samples.length]
    }
  }
  return found()
}

type Heartbeat = NonNullable<TransactionEntry['heartbeat']>

/** Whether a heartbeat looked at the catalogs after the base did. */
const isAfter = (heartbeat: Heartbeat | undefined, base: BaseManifest): heartbeat is Heartbeat =>
  heartbeat !== undefined && parseLsn(heartbeat.from) >= parseLsn(base.lsn)

function stopAt(entry: TransactionEntry, base: BaseManifest): Stop | undefined {
  const { ddl, heartbeat, xid, time, end } = entry
  const at = { time, lsn: formatLsn(parseLsn(end)) }
  const [command] = ddl ?? []
  if (command && !isVisible(fullXid(BigInt(xid)), parseSnapshot(base.snapshot)))
    return { command: { tag: command.tag, object: command.object, xid }, ...at }
  const isOther = isAfter(heartbeat, base) && heartbeat.catalog !== undefined && heartbeat.catalog !== base.catalog
  return isOther ? { command: undefined, ...at } : undefined
}

/** Why there is nothing to make of what was found. */
export function nothingInWords({ base, end, stop }: CompactionPlan): string {
  if (end !== undefined)
    return `nothing that the stream tells has changed between base ${base.id} and ${timeOf(end.time)}`
  if (base.catalog === undefined) return `base ${base.id} does not say what the catalogs were (walback 0.1 took it)`
  if (stop !== undefined) return `base ${base.id} is the last before a change of the schema`
  return `after base ${base.id} there is no heartbeat yet that says what the catalogs were`
}

/** Why it ends there, and what does not. */
export const stopInWords = (stop: Stop): string =>
  `it goes no further than ${changeInWords(stop)}: what that made of tables only a server can tell; \`walback backup --full\` takes a base after it`

/** The change of the schema that it stops at. */
export function changeInWords({ command, time, lsn }: Stop): string {
  if (command === undefined)
    return `a change of the schema of which the stream does not tell, found at ${timeOf(time)} (${lsn})`
  const object = command.object === null ? '' : ` of ${command.object}`
  return `${command.tag}${object} in tx:${command.xid} at ${timeOf(time)} (${lsn})`
}

const timeOf = (time: string): string => formatTime(micros(BigInt(time)))
