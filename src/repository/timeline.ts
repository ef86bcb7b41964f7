import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { timelineKey, timelinePrefix } from './layout.ts'
import type { Repository } from './repository.ts'
import { readJsonBytes, sealedJson } from './sealed-json.ts'

const lsnText = z.string()

/** One unbroken stream of segments: one slot, one history. */
const timelineShape = z.object({
  walback: z.literal('timeline'),
  format: z.literal(1),
  /** `00000001` and on, in the order in which they were begun. */
  id: z.string(),
  source: z.string(),
  created: z.string(),
  systemIdentifier: z.string(),
  database: z.object({ name: z.string(), oid: z.number() }),
  slot: z.string(),
  publications: z.array(z.string()),
  /** What was done about tables without a key: given REPLICA IDENTITY FULL, or their updates and deletes left out. */
  replicaIdentity: z.enum(['full', 'skip']),
  /** Whether every table is published, later ones too; else those that there were when the timeline began. */
  allTables: z.boolean(),
  /** How changes of the schema are followed: event triggers write them into the stream, or they are not. */
  ddl: z.enum(['triggers', 'none']).default('none'),
  /** Tables whose inserts and truncations alone are in the stream. */
  insertsOnly: z.array(z.object({ schema: z.string(), name: z.string() })),
  encoding: z.string(),
  serverVersion: z.number(),
  /** Everything that commits after this position is in the stream. */
  start: lsnText,
  /** A 64-bit transaction id in use at the start. */
  xid: z.string(),
  /** The server's own timeline at the start, and where it began; absent in archives of walback 0.1. */
  server: z.object({ timeline: z.number(), since: lsnText }).optional(),
  /** The server's snapshot just after the slot was made: what was running then may have committed before `start`. */
  snapshot: z.string(),
  /** The timeline before, where it ended, and why what lies between is lost or belongs to another history. */
  parent: z.object({ timeline: z.string(), end: lsnText, reason: z.string() }).optional(),
})
export type Timeline = z.infer<typeof timelineShape>

/** One timeline's record, which must be the one that belongs under its key. */
export async function readTimeline(
  repository: Repository,
  source: string,
  id: string,
  signal?: AbortSignal,
): Promise<Timeline> {
  return (await readTimelineBytes(repository, { source, id }, signal)).timeline
}

/** The same, with its bytes as they are stored. */
export async function readTimelineBytes(
  { storage }: Repository,
  { source, id }: Pick<Timeline, 'source' | 'id'>,
  signal?: AbortSignal,
): Promise<{ readonly bytes: Buffer; readonly timeline: Timeline }> {
  const key = timelineKey(source, id)
  const { bytes, value: timeline } = await readJsonBytes(storage, key, timelineShape, { signal })
  if (timeline.id === id && timeline.source === source) return { bytes, timeline }
  throw new WalbackError(
    'corrupt',
    `${key} is damaged: it is the record of timeline ${timeline.id} of ${timeline.source}`,
  )
}

/** The timelines of a source. One whose record is gone is damage, and not the end of them. */
export async function readTimelines(repository: Repository, source: string, signal?: AbortSignal): Promise<Timeline[]> {
  const timelines: Timeline[] = []
  for (let next = 1; ; next++) {
    const id = timelineId(next)
    if ((await repository.storage.size(timelineKey(source, id), { signal })) === undefined) {
      await refuseHole(repository, source, next, signal)
      return timelines
    }
    timelines.push(await readTimeline(repository, source, id, signal))
  }
}

/** What lies under a timeline without a record, or after it, shows that there was one. */
async function refuseHole(
  { storage }: Repository,
  source: string,
  missing: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const key = timelineKey(source, timelineId(missing))
  const hasNext = (await storage.size(timelineKey(source, timelineId(missing + 1)), { signal })) !== undefined
  for await (const _ of storage.list(timelinePrefix(source, timelineId(missing)), { signal })) {
    // Somebody may have begun it just now.
    if ((await storage.size(key, { signal })) === undefined) throw recordIsMissing(key)
    return
  }
  if (hasNext && (await storage.size(key, { signal })) === undefined) throw recordIsMissing(key)
}

const recordIsMissing = (key: string): WalbackError =>
  new WalbackError('corrupt', `${key} is missing`, {
    hint: 'the record of a timeline was deleted; bring it back from another copy (`walback verify` tells what depends on it)',
    facts: { key },
  })

/** The timeline that is being written, or the last that was. */
export async function currentTimeline(repository: Repository, source: string): Promise<Timeline | undefined> {
  return (await readTimelines(repository, source)).at(-1)
}

/** Begins a timeline after those that are there; fails if somebody else has begun one at the same moment. */
export async function beginTimeline(
  repository: Repository,
  details: Omit<Timeline, 'walback' | 'format' | 'id' | 'created'>,
): Promise<Timeline> {
  const known = await readTimelines(repository, details.source)
  const id = timelineId(known.length + 1)
  const timeline: Timeline = { walback: 'timeline', format: 1, id, created: new Date().toISOString(), ...details }
  if (!(await repository.storage.put(timelineKey(details.source, id), sealedJson(timeline), { ifAbsent: true }))) {
    throw new WalbackError('locked', `another walback has begun timeline ${id} of ${details.source} just now`, {
      hint: 'let only one agent write for a source, then try again',
      retryable: true,
    })
  }
  return timeline
}

export const timelineId = (n: number): string => String(n).padStart(8, '0')
