import type pg from 'pg'
import { sleep } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import type { Lsn } from '../model/lsn.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { ReplicationStream } from '../postgres/replication.ts'
import { explainSessionFailure } from '../postgres/replication-failure.ts'
import { readSlot, readSourceFacts } from '../postgres/source.ts'
import type { Repository } from '../repository/repository.ts'
import type { SegmentSummary } from '../repository/segment-format.ts'
import { readSoundHead, SegmentWriter } from '../repository/segments.ts'
import { currentTimeline, type Timeline } from '../repository/timeline.ts'
import { Capture } from './capture.ts'
import { CatalogWatch } from './catalog-watch.ts'
import { checkContinuity } from './continuity.ts'
import { Heart, writeHeartbeat } from './heartbeat.ts'
import { IdentityWatch, type IdentityWatchOptions } from './identity-watch.ts'
import { checkPrerequisites } from './prerequisites.ts'
import { SequenceWatch } from './sequences.ts'

export interface CaptureSessionOptions {
  readonly segmentBytes: number
  readonly segmentAge_ms: number
  readonly heartbeat_ms: number
  /** How long the store may leave a full queue waiting before the stream is let go; a minute if not given. */
  readonly storePatience_ms?: number | undefined
  /** Ends the session in good order. */
  readonly stop: AbortSignal
  readonly onSegment?: (segment: SegmentSummary) => void
  /** The catalogs cannot be read, so a change of the schema that the stream does not tell of will not be noticed. */
  readonly onBlind?: (error: unknown) => void
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
  await using control = await openControl(conninfo, options.stop)
  const heart = new Heart(control.client, new CatalogWatch(options.onBlind))
  const identities = options.identities ? new IdentityWatch(control.client, options.identities) : undefined
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
    return outcome === 'draining' ? 'draining' : 'stopped'
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
  await using control = await openControl(conninfo, options.stop)
  const timeline = await requireTimeline(repository, source)
  let until: Lsn | undefined
  const outcome = await captureOnce(conninfo, repository, source, control, {
    ...options,
    before: async () => {
      // What commits before this message has an earlier place in the stream.
      until = await writeHeartbeat(control.client, new SequenceWatch(), new CatalogWatch(options.onBlind))
      return until
    },
  })
  if (outcome !== 'reached' || until === undefined) {
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
  const { facts, slot } = await control.ask(async (client) => ({
    facts: await readSourceFacts(client),
    slot: await readSlot(client, timeline.slot),
  }))
  checkPrerequisites(facts, { slotExists: true })
  // The slot before the archive's end: an agent that is at work moves both, the archive first.
  const { head, damaged } = await readSoundHead(repository, timeline, options.stop)
  checkContinuity(facts, slot, timeline, head)
  const before = options.before
  const until = before && (await control.ask(before))
  await using stream = await ReplicationStream.open(conninfo, {
    slot: timeline.slot,
    publications: timeline.publications,
    start: head.end,
    application: `walback ${source}`,
    signal: options.stop,
  })
  // Again, now that the slot is ours and nobody else can move it; nothing has been confirmed yet but the archive's end.
  checkContinuity(facts, await control.ask((client) => readSlot(client, timeline.slot)), timeline, head)
  // The server still has the log of what is damaged at the archive's end: it comes again, under the same keys.
  for (const { key } of damaged) await repository.storage.delete(key)
  options.onStart?.(head.end)
  const capture = new Capture(stream, new SegmentWriter(repository, timeline, head), {
    encoding: timeline.encoding,
    segmentBytes: options.segmentBytes,
    segmentAge_ms: options.segmentAge_ms,
    storePatience_ms: options.storePatience_ms,
    until,
    stop: options.stop,
    draining: control.draining,
    ...(options.onSegment ? { onSegment: options.onSegment } : {}),
  })
  // Awaited here: the stream is closed when this function is left.
  return await capture.run()
}

/** The ordinary session beside the stream. */
interface Control extends AsyncDisposable {
  readonly client: pg.Client
  /** Fires when the session is lost, for whatever reason: no heartbeat would be written any more. */
  readonly draining: AbortSignal
  /** Asks the server something; a session that is lost meanwhile is an error that may be tried again. */
  ask<T>(question: (client: pg.Client) => Promise<T>): Promise<T>
}

async function openControl(conninfo: Conninfo, signal: AbortSignal): Promise<Control> {
  const client = await connect(conninfo, { application: 'walback control', settings: controlSettings, signal })
  const draining = new AbortController()
  client.on('error', () => draining.abort())
  client.on('end', () => draining.abort())
  return {
    client,
    draining: draining.signal,
    ask: async (question) => {
      try {
        return await question(client)
      } catch (error) {
        throw explainSessionFailure(error)
      }
    },
    [Symbol.asyncDispose]: async () => {
      // A server that does not answer does not keep us either.
      const over = new AbortController()
      await Promise.race([client.end(), sleep(goodbye_ms, over.signal)]).catch(() => undefined)
      over.abort()
    },
  }
}

/**
 * Whatever the role's defaults: the session is idle between heartbeats, and a heartbeat may wait for the disk. Reading the
 * catalogs takes one core at most, and a compiler would take longer than the reading.
 */
const controlSettings = {
  idle_session_timeout: '0',
  statement_timeout: '0',
  search_path: '',
  jit: 'off',
  max_parallel_workers_per_gather: '0',
}
const goodbye_ms = 2000
