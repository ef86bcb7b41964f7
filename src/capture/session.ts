import { waitFor } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { formatLsn, type Lsn } from '../model/lsn.ts'
import { type Conninfo, describeConninfo } from '../postgres/conninfo.ts'
import { ReplicationStream } from '../postgres/replication.ts'
import { explainSessionFailure } from '../postgres/replication-failure.ts'
import type { ServerHistory } from '../postgres/server-history.ts'
import { readSlot, readSourceFacts, type SourceFacts } from '../postgres/source.ts'
import { readWalsender } from '../postgres/walsender.ts'
import type { Repository } from '../repository/repository.ts'
import type { SegmentSummary } from '../repository/segment-format.ts'
import { SegmentWriter } from '../repository/segment-writer.ts'
import { readSoundHead } from '../repository/segments.ts'
import { currentTimeline, type Timeline } from '../repository/timeline.ts'
import { Capture, type RequiredRepository } from './capture.ts'
import { CatalogWatch } from './catalog-watch.ts'
import { checkContinuity, checkHistory } from './continuity.ts'
import { type Control, openControl } from './control.ts'
import { Heart, writeHeartbeat } from './heartbeat.ts'
import { IdentityWatch, type IdentityWatchOptions } from './identity-watch.ts'
import { watchLink } from './link-watch.ts'
import { checkOverlap } from './overlap.ts'
import { OwnObjects, type Tampering } from './own-objects.ts'
import { checkPrerequisites } from './prerequisites.ts'
import { SequenceWatch } from './sequences.ts'

export interface CaptureSessionOptions {
  readonly segmentBytes: number
  readonly segmentAge_ms: number
  readonly heartbeat_ms: number
  /** How long the store may leave a full queue waiting before the stream is let go; a minute if not given. */
  readonly storePatience_ms?: number | undefined
  /** How long the ordinary session may leave a question unanswered; a minute and a half if not given. */
  readonly controlPatience_ms?: number | undefined
  /** Ends the session in good order. */
  readonly stop: AbortSignal
  /** Other repositories that have to have what is confirmed: one that is away holds the slot. */
  readonly required?: readonly RequiredRepository[] | undefined
  readonly onSegment?: (segment: SegmentSummary) => void
  /** The catalogs cannot be read, so a change of the schema that the stream does not tell of will not be noticed. */
  readonly onBlind?: (error: unknown) => void
  /** Something of ours in the database was dropped or changed; said once for as long as it holds. */
  readonly onTampering?: (found: Tampering) => void
  readonly onStart?: (start: Lsn) => void
  /** Given: tables that lack a replica identity get REPLICA IDENTITY FULL. */
  readonly identities?: IdentityWatchOptions | undefined
}

export async function requireTimeline(repository: Repository, source: string): Promise<Timeline> {
  const timeline = await currentTimeline(repository, source)
  if (timeline) return timeline
  throw new WalbackError('no_repository', `the repository at ${repository.storage.url} holds no source ${source}`, {
    hint: 'set it up with `walback init`, or check --source and --repo',
  })
}

/**
 * Captures a source from where its archive ends, until `stop` fires or the server goes away. Heartbeats and samples of
 * sequences go through a second, ordinary connection, whose loss is also the surest sign of a server shutting down.
 */
export async function captureContinuously(
  conninfo: Conninfo,
  repository: Repository,
  source: string,
  options: CaptureSessionOptions,
): Promise<'stopped' | 'draining'> {
  await using control = await openControl(conninfo, { signal: options.stop, patience_ms: options.controlPatience_ms })
  const objects = new OwnObjects(await requireTimeline(repository, source), (found) => options.onTampering?.(found))
  const heart = new Heart(control.ask, new CatalogWatch(options.onBlind), objects)
  const identities = options.identities ? new IdentityWatch(control.ask, options.identities) : undefined
  // The first heartbeat waits for the stream, which may be refused.
  let timer: NodeJS.Timeout | undefined
  let identityTimer: NodeJS.Timeout | undefined
  try {
    const outcome = await captureOnce(conninfo, repository, source, control, {
      ...options,
      onStart: (start) => {
        options.onStart?.(start)
        heart.beat()
        timer = setInterval(() => heart.beat(), options.heartbeat_ms)
        if (identities) identityTimer = setInterval(() => identities.tick(), identityTick_ms)
      },
    })
    if (outcome !== 'draining') return 'stopped'
    if (control.givenUp) throw control.givenUp
    return 'draining'
  } finally {
    clearInterval(timer)
    clearInterval(identityTimer)
  }
}

const identityTick_ms = 500

/** One-shot: when it resolves, every transaction that committed before the call is durable in the repository. */
export async function captureUpToNow(
  conninfo: Conninfo,
  repository: Repository,
  source: string,
  options: CaptureSessionOptions,
): Promise<{ readonly reached: Lsn; readonly timeline: Timeline }> {
  await using control = await openControl(conninfo, { signal: options.stop, patience_ms: options.controlPatience_ms })
  const timeline = await requireTimeline(repository, source)
  let until: Lsn | undefined
  const outcome = await captureOnce(conninfo, repository, source, control, {
    ...options,
    before: async () => {
      // What commits before this message has an earlier place in the stream.
      until = await control.ask((client) =>
        writeHeartbeat(client, new SequenceWatch(), new CatalogWatch(options.onBlind)),
      )
      return until
    },
  })
  if (outcome !== 'reached' || until === undefined) {
    if (outcome === 'draining' && control.givenUp) throw control.givenUp
    throw new WalbackError(
      options.stop.aborted ? 'interrupted' : 'database',
      `capture ended before it had reached the present: ${outcome}`,
      {
        hint: 'what was stored is stored; run it again',
        retryable: true,
      },
    )
  }
  return { reached: until, timeline }
}

interface OnceOptions extends CaptureSessionOptions {
  /** Runs once the slot is known to be in order, before the stream is opened; gives the position to stop at. */
  readonly before?: () => Promise<Lsn>
}

async function captureOnce(
  conninfo: Conninfo,
  repository: Repository,
  source: string,
  control: Control,
  options: OnceOptions,
): Promise<'reached' | 'stopped' | 'draining'> {
  const timeline = await requireTimeline(repository, source)
  const facts = await control.ask(readSourceFacts)
  checkPrerequisites(facts, { slotExists: true })
  const { head, damaged } = await findContinuation({ control, repository, timeline, facts, signal: options.stop })
  // Opening the stream confirms the archive's end.
  await Promise.all((options.required ?? []).map((copy) => copy.level(timeline, head, options.stop)))
  const before = options.before
  const until = await before?.()
  let history: ServerHistory | undefined
  await using stream = await ReplicationStream.open(conninfo, {
    slot: timeline.slot,
    publications: timeline.publications,
    start: head.end,
    application: `walback ${source}`,
    onServer: (server) => {
      checkHistory(server, timeline, head)
      history = server
    },
    signal: options.stop,
  })
  // Again, now that the slot is ours and nobody else can move it; nothing has been confirmed yet but the archive's end.
  const held = await control.ask((client) => readSlot(client, timeline.slot))
  // Whoever had the slot until now may have stored more, or mended what was damaged, since the archive's end was read.
  if (damaged.length > 0 || (held?.confirmedFlushLsn ?? head.end) > head.end) {
    const now = (await readSoundHead(repository, timeline, options.stop)).head
    if (now.end !== head.end) throw overtaken(source, now.end)
  }
  checkContinuity(facts, held, timeline, head)
  if (!held?.active) {
    // The server may have ended the stream already, which is read in a moment.
    const look = async (): Promise<boolean> =>
      stream.hasEnded || (await control.ask((client) => readSlot(client, timeline.slot)))?.active === true
    const patience = { timeout_ms: 2000, interval_ms: 50, signal: options.stop }
    if (!(await waitFor(async () => (await look()) || undefined, patience))) throw twoServers(conninfo)
  }
  // The server still has the log of what is damaged at the archive's end: it comes again, under the same keys.
  for (const { key } of damaged) await repository.storage.delete(key)
  options.onStart?.(head.end)
  const capture = new Capture(stream, new SegmentWriter(repository, timeline, head, history), {
    encoding: timeline.encoding,
    segmentBytes: options.segmentBytes,
    segmentAge_ms: options.segmentAge_ms,
    storePatience_ms: options.storePatience_ms,
    until,
    stop: options.stop,
    draining: control.draining,
    required: options.required,
    ...(options.onSegment ? { onSegment: options.onSegment } : {}),
  })
  const over = new AbortController()
  watchLink({
    stream,
    look: (limit_ms) => control.ask((client) => readWalsender(client, timeline.slot), limit_ms),
    stop: over.signal,
  }).catch((error: unknown) => {
    // A control session that is lost ends capture by itself.
    if (!control.draining.aborted) stream.fail(explainSessionFailure(error))
  })
  try {
    return await capture.run()
  } finally {
    over.abort()
  }
}

interface Continuing {
  readonly control: Control
  readonly repository: Repository
  readonly timeline: Timeline
  readonly facts: SourceFacts
  readonly signal: AbortSignal
}

/** Where the archive ends, from which the slot goes on. A gap is believed if it is there while nothing moves. */
async function findContinuation(continuing: Continuing): ReturnType<typeof readSoundHead> {
  const { control, repository, timeline, facts, signal } = continuing
  const look = async () => {
    // The slot before the archive's end: an agent that is at work moves both, the archive first.
    const slot = await control.ask((client) => readSlot(client, timeline.slot))
    return { slot, ...(await readSoundHead(repository, timeline, signal)) }
  }
  const check = async ({ slot, head }: Awaited<ReturnType<typeof look>>): Promise<void> => {
    checkContinuity(facts, slot, timeline, head)
    await control.ask((client) => checkOverlap(client, slot, timeline, head))
  }
  const seen = await look()
  try {
    await check(seen)
    return seen
  } catch (error) {
    if (!(error instanceof WalbackError) || error.code !== 'gap') throw error
  }
  const again = await look()
  const hasMoved = again.head.end !== seen.head.end || again.slot?.confirmedFlushLsn !== seen.slot?.confirmedFlushLsn
  if (hasMoved) throw overtaken(timeline.source, again.head.end)
  await check(again)
  return again
}

/** No gap, although the slot stands past what was taken for the archive's end. */
const overtaken = (source: string, end: Lsn): WalbackError =>
  new WalbackError('locked', `another walback has captured ${source} meanwhile, up to ${formatLsn(end)}`, {
    hint: 'run it again: it goes on from there',
    retryable: true,
  })

/** Each connection takes the first host that answers; in a failover that may be another one a moment later. */
const twoServers = (conninfo: Conninfo): WalbackError =>
  new WalbackError('database', `the two connections to ${describeConninfo(conninfo)} have reached different servers`, {
    hint: 'name the hosts of the cluster with target_session_attrs=read-write, so that only its primary is taken',
    retryable: true,
  })
