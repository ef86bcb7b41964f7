import { WalbackError } from '../base/errors.ts'
import { parseLsn } from '../model/lsn.ts'
import { fullXid, isVisible, parseSnapshot } from '../model/snapshot.ts'
import { formatTime, type Micros, micros } from '../model/time.ts'
import type { SlotState, SourceFacts } from '../postgres/source.ts'
import { type BaseHead, readBaseHeads } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import type { DdlEntry } from '../repository/segment-format.ts'
import { type Head, listSegments, readHead, readSegment, scanSegments, timeOf } from '../repository/segments.ts'
import { currentTimeline, readTimelines, type Timeline } from '../repository/timeline.ts'
import { type UnseenChange, UnseenChanges, unseenInWords } from '../repository/unseen-changes.ts'
import { type Finding, finding } from './check-finding.ts'
import { checkContinuity } from './continuity.ts'

/** What the repository holds of a source, as far as `check` asks. */
export interface Archive {
  readonly timeline: Timeline
  readonly head: Head
  /** The server's clock when the archive's end was seen; undefined where nothing is archived yet. */
  readonly time: Micros | undefined
  readonly lastBase: BaseHead | undefined
  /** Changes that the last base does not have, and of which the stream tells too little, or nothing. */
  readonly unsure: readonly (DdlEntry & { readonly xid: string; readonly time: Micros })[]
  readonly untold: readonly UnseenChange[]
}

/** The source that is meant: named, or else the one that was made from this database. */
export async function findSource(
  repository: Repository,
  named: string | undefined,
  { systemIdentifier, database }: SourceFacts,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  if (named !== undefined) return named
  for (const source of await repository.sources(signal)) {
    const timeline = (await readTimelines(repository, source, signal)).at(-1)
    if (timeline?.systemIdentifier === systemIdentifier && timeline.database.oid === database.oid) return source
  }
  return undefined
}

export async function readArchive(
  repository: Repository,
  source: string,
  signal: AbortSignal | undefined,
): Promise<Archive | undefined> {
  const timeline = await currentTimeline(repository, source)
  if (timeline === undefined) return undefined
  const head = await readHead(repository, timeline, signal)
  const last = (await listSegments(repository, timeline, signal)).at(-1)
  const time = last && timeOf((await readSegment(repository, last, signal)).trailer)
  const lastBase = (await readBaseHeads(repository, source, { signal })).findLast(
    (base) => base.timeline === timeline.id,
  )
  if (lastBase === undefined) return { timeline, head, time, lastBase, unsure: [], untold: [] }
  const unsure: (DdlEntry & { xid: string; time: Micros })[] = []
  const unseen = new UnseenChanges([lastBase])
  const snapshot = parseSnapshot(lastBase.snapshot)
  for await (const { trailer } of scanSegments(repository, timeline, { from: parseLsn(lastBase.lsn), signal })) {
    for (const entry of trailer.transactions) {
      unseen.offer(entry)
      if (isVisible(fullXid(BigInt(entry.xid)), snapshot)) continue
      for (const ddl of entry.ddl ?? []) {
        if (ddl.unsure !== undefined) unsure.push({ ...ddl, xid: entry.xid, time: timeOf(entry) })
      }
    }
  }
  const untold = unseen.since(lastBase).filter(({ kind }) => kind !== 'unsure')
  return { timeline, head, time, lastBase, unsure, untold }
}

const nextBase = 'run `walback backup --full`: restores to after that are exact again from the next base on'

const stale_us = 3_600_000_000n

/** Whether what is archived carries on to the database, and has what a restore needs. */
export function archiveFindings(
  archive: Archive,
  facts: SourceFacts,
  slot: SlotState | undefined,
  now_us: bigint,
): Finding[] {
  const { timeline, head, time, lastBase, unsure, untold } = archive
  const broken = continuityFinding(facts, slot, timeline, head)
  if (broken?.code === 'other-database') return [broken]
  const findings = broken ? [broken] : []
  if (lastBase === undefined) {
    findings.push(
      finding('no-base', 'warning', 'nothing can be restored: there is no base backup in this timeline', {
        object: `timeline ${timeline.id}`,
        hint: 'run `walback backup --full`',
      }),
    )
  }
  const end = time ?? micros(BigInt(Date.parse(timeline.created)) * 1000n)
  if (now_us - end > stale_us) {
    findings.push(
      finding('archive-behind', 'warning', `nothing has been archived since ${formatTime(end)}`, {
        object: `timeline ${timeline.id}`,
        hint: 'run `walback agent`, or `walback backup --incremental` from cron, and look at what it says',
      }),
    )
  }
  for (const { tag, object, xid, time, unsure: what } of unsure) {
    const which = what === 'rows' ? 'the values that it left are not in the stream' : 'what it did is not in the stream'
    findings.push(
      finding('ddl-unsure', 'warning', `${tag} in tx:${xid} (${formatTime(time)}): ${which}`, {
        object,
        hint: nextBase,
      }),
    )
  }
  for (const { kind, from, to } of untold) {
    const between = `between ${formatTime(from.time)} and ${formatTime(to.time)}`
    const code = kind === 'unpublished' ? 'rows-unseen' : 'schema-unseen'
    findings.push(
      finding(code, 'warning', unseenInWords(kind, ` ${between}`), {
        object: `timeline ${timeline.id}`,
        hint: nextBase,
      }),
    )
  }
  return findings
}

/** Slots that are missing, lost or not ours are told of as such. */
function continuityFinding(
  facts: SourceFacts,
  slot: SlotState | undefined,
  timeline: Timeline,
  head: Head,
): Finding | undefined {
  try {
    checkContinuity(facts, slot, timeline, head)
    return undefined
  } catch (error) {
    if (!(error instanceof WalbackError)) throw error
    const details = { object: `timeline ${timeline.id}`, hint: error.hint ?? null }
    if (error.code === 'refused') return finding('other-database', 'error', error.message, details)
    if (slot === undefined || slot.walStatus === 'lost' || error.code !== 'gap') return undefined
    return finding('stream-broken', 'error', error.message, details)
  }
}
