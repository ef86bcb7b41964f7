import type { Logger } from 'pino'
import type {
  BackupSettings,
  GuardSettings,
  RehearsalSettings,
  UnseenChangePolicy,
  VerifySettings,
} from '../src/config.ts'
import {
  type Assertion,
  askServerHistory,
  type Conninfo,
  captureContinuously,
  connect,
  formatLsn,
  formatTime,
  type IdentityWatchOptions,
  messageOf,
  probeStorage,
  type Repository,
  RequiredCopy,
  requireTimeline,
  type Storage,
  setUp,
  sleep,
  supervise,
  type Timeline,
  type UnseenChange,
  WalbackError,
  type WalbackEvent,
} from '../src/index.ts'
import { BaseKeeper } from './base-keeper.ts'
import { waitForCalm } from './calm.ts'
import { collectInTime } from './collector.ts'
import { type Compacting, Compactor } from './compactor.ts'
import { type CopierOptions, copyRegularly } from './copier.ts'
import { Events } from './events.ts'
import { watchKey } from './key-watch.ts'
import { outlastStore } from './outlast.ts'
import { type PrunerOptions, pruneRegularly } from './pruner.ts'
import { Rehearser } from './rehearser.ts'
import { SchemaWatch } from './schema-watch.ts'
import { SlotGuard } from './slot-guard.ts'
import { type StorePatience, StoreWatch } from './store-watch.ts'
import { Verifier } from './verifier.ts'

export interface AgentOptions {
  readonly conninfo: Conninfo
  readonly repository: Repository
  readonly source: string
  readonly stream: { readonly segmentBytes: number; readonly segmentAge_ms: number; readonly heartbeat_ms: number }
  /** How bases hold back; as the defaults have it if not given. */
  readonly backup?: Partial<BackupSettings>
  /** Whether a change of the schema that is not in the stream makes it take a base; it does if not given. */
  readonly onUnseenChange?: UnseenChangePolicy
  /** How much log the slot may keep, and what is done about it; it is not watched if not given. */
  readonly guard?: GuardSettings
  /** What the agent prunes by, and how often; it does not if not given. */
  readonly prune?: Pick<PrunerOptions, 'policy' | 'every_ms'> | undefined
  /** The repositories that follow this one, and how often. */
  readonly copies?: Pick<CopierOptions, 'targets' | 'every_ms'> | undefined
  /** Other repositories that have to have what is confirmed to the server; they are among the copies. */
  readonly required?: readonly Storage[] | undefined
  /** When the repository is verified; never if not given. */
  readonly verify?: VerifySettings | undefined
  /** When it is restored on a throwaway server, and what must hold there; never if not given. */
  readonly rehearsal?: RehearsalSettings | undefined
  readonly assertions?: readonly Assertion[] | undefined
  /** When a base is made out of the newest and the stream; never if not given. */
  readonly compact?: Compacting | undefined
  readonly log: Logger
  /** Hears of everything that somebody may have to act on; the log has it too. */
  readonly onEvent?: (event: WalbackEvent) => void
  readonly patience?: AgentPatience
  /** Ends the agent: what has been received is made durable and confirmed first. */
  readonly signal: AbortSignal
}

/** How often the slot, once that is dropped the calm, and the key are looked at, and how long the store may be in trouble. */
export interface AgentPatience {
  readonly key_ms?: number
  readonly guard_ms?: number
  readonly calm_ms?: number
  readonly store?: StorePatience
}

/** The agent: captures until it is told to stop, and sees to it that the timeline has a base that it can carry on. */
export async function runAgent(given: AgentOptions): Promise<void> {
  using _collector = collectInTime()
  const events = new Events(given.source, given.log, given.onEvent)
  using storage = new StoreWatch(given.repository.storage, events, given.patience?.store)
  const repository = given.repository.over(storage)
  const watched = (given.required ?? []).map((one) => new StoreWatch(one, events, given.patience?.store, one.url))
  using _ = { [Symbol.dispose]: () => watched.forEach((one) => void one[Symbol.dispose]()) }
  const required = watched.map((one) => new RequiredCopy(repository, one))
  const { slot, replicaIdentity } = await outlastStore(() => requireTimeline(repository, given.source), given)
  const options = { ...given, repository, events }
  const { guard, log, source, signal } = options
  const watch = guard && new SlotGuard({ ...options, guard, slot, interval_ms: options.patience?.guard_ms })
  watch?.begin()
  const ended = new AbortController()
  const whileAtWork = AbortSignal.any([signal, ended.signal])
  const pruning =
    options.prune && pruneRegularly({ ...options, ...options.prune, required: watched, signal: whileAtWork })
  const copying = options.copies && copyRegularly({ ...options, ...options.copies, signal: whileAtWork })
  const { key } = repository
  const every_ms = options.patience?.key_ms ?? keyLooks_ms
  const watchingKey = key && watchKey({ key, source, every_ms, log, events, signal: whileAtWork })
  const mayRead = key?.mayRead !== false
  if ((options.verify || options.rehearsal || options.compact) && !mayRead)
    log.info(
      { source },
      'neither verified nor compacted here: the key of this agent writes and does not read; run `walback verify` and `walback compact` with one that reads',
    )
  const verifier = options.verify && mayRead ? new Verifier({ ...options, settings: options.verify }) : undefined
  verifier?.begin()
  const rehearser =
    options.rehearsal && mayRead
      ? new Rehearser({ ...options, settings: options.rehearsal, assertions: options.assertions ?? [] })
      : undefined
  rehearser?.begin()
  try {
    for (;;) {
      const release = watch?.release
      await captureUntil(release === undefined ? signal : AbortSignal.any([signal, release]), {
        ...options,
        compact: mayRead ? options.compact : undefined,
        required,
        replicaIdentity,
      })
      const reason = watch?.reason
      if (signal.aborted || guard === undefined || reason === undefined) break
      await outlastRelease({ ...options, guard, reason })
      watch?.rearm()
    }
  } finally {
    await Promise.all([verifier?.close(), rehearser?.close()])
    await watch?.close()
    ended.abort()
    await Promise.all([pruning, copying, watchingKey])
  }
  log.info({ source }, 'stopped')
}

type Running = Omit<AgentOptions, 'required'> & { readonly events: Events }
interface Capturing extends Running, Pick<Timeline, 'replicaIdentity'> {
  readonly required: readonly RequiredCopy[]
}

/** Captures, with what belongs to it, until `stop` fires. */
async function captureUntil(stop: AbortSignal, options: Capturing): Promise<void> {
  const { conninfo, repository, source, log, events } = options
  const policy = options.onUnseenChange ?? 'backup'
  let streamingSince: number | undefined
  const schema = new SchemaWatch({
    ...options,
    signal: stop,
    onUnseen: (change) => {
      events.once(change.kind === 'unpublished' ? 'rows-unseen' : 'schema-unseen', {
        severity: 'error',
        message: unseenInWords(change, policy),
        facts: { change: change.kind, ...spanOf(change) },
      })
      bases.ensure()
    },
    onHole: () => bases.ensure(),
  })
  const bases = new BaseKeeper({
    ...options,
    signal: stop,
    isOutdated: () =>
      schema.hasHole || (policy === 'backup' && schema.unseen().length > 0) || compactor?.isStuck === true,
    onBase: async () => void (await Promise.all([schema.restart(), compactor?.reconsider()])),
    rest_ms: basesApart_ms,
  })
  const compactor =
    options.compact && new Compactor({ ...options, ...options.compact, signal: stop, onStuck: () => bases.ensure() })
  compactor?.begin()
  let isWatching = false
  try {
    await supervise({
      stop,
      streamingSince: () => streamingSince,
      attempt: () => {
        streamingSince = undefined
        return captureContinuously(conninfo, repository, source, {
          ...options.stream,
          required: options.required,
          stop,
          onStart: (start) => {
            streamingSince = performance.now()
            log.info({ source, start: formatLsn(start) }, 'capturing')
            events.clear('capture-interrupted', { message: 'capture goes on', facts: { start: formatLsn(start) } })
            bases.ensure()
            if (!isWatching) void schema.restart()
            isWatching = true
          },
          identities: options.replicaIdentity === 'full' ? identitiesInWords(options) : undefined,
          onBlind: (error) =>
            log.error(
              { source },
              `the catalogs cannot be read, so changes of the schema that the stream does not tell of go unnoticed: ${messageOf(error)}`,
            ),
          onTampering: ({ message, hint }) => log.error({ source, hint }, message),
          onSegment: (segment) => {
            log.debug(
              {
                key: segment.key,
                end: formatLsn(segment.end),
                bytes: segment.size_bytes,
                transactions: segment.trailer.transactions.length,
              },
              'segment stored',
            )
            schema.stored(segment)
          },
        })
      },
      onRetry: (reason, delay_ms, error) => {
        // What does not pass by itself waits for somebody, who has to hear of it.
        if (error === undefined || error.retryable) log.warn({ source, delay_ms }, `capture interrupted: ${reason}`)
        else log.error({ source, delay_ms, hint: error.hint }, `NOT CAPTURING: ${reason}; trying again`)
        events.raise('capture-interrupted', { severity: 'warning', message: `capture does not run: ${reason}` })
      },
      onGap: async (error) => {
        if (error.facts['stale'] === true) throw leftBehind(error)
        events.raise('gap', {
          severity: 'error',
          message: `GAP: ${error.message}; beginning a new timeline, what is archived stays restorable`,
          facts: error.facts,
        })
        await beginAnew(options, error)
      },
    })
  } finally {
    await compactor?.close()
    await bases.close()
    await schema.close()
  }
}

const identitiesInWords = ({ source, log }: Running): IdentityWatchOptions => ({
  onMended: (table) =>
    log.warn({ source, table }, 'the table had no replica identity, and would have refused updates: it has FULL now'),
  onLeft: (table, why) =>
    log.error(
      { source, table },
      `the table has no replica identity, and refuses updates while it is published: ${why}`,
    ),
})

/** The slot was dropped: what follows is in a gap, until it is calm and there are a new slot and a new timeline. */
async function outlastRelease(options: Running & { readonly guard: GuardSettings; reason: string }): Promise<void> {
  const { events, guard, reason, signal, log, source } = options
  events.raise('gap', {
    severity: 'error',
    message: `GAP: ${reason}; a new timeline begins when it is calm`,
  })
  while (!signal.aborted) {
    try {
      await waitForCalm({ ...options, limit_bytes: guard.maxSlotWal_bytes, interval_ms: options.patience?.calm_ms })
      await beginAnew(options, new WalbackError('gap', reason))
      return
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof WalbackError) || !error.retryable) throw error
      log.warn({ source }, `no new timeline yet: ${error.message}`)
      await sleep(again_ms, signal).catch(() => undefined)
    }
  }
}

/** An old primary must not be followed because it answers again: somebody decides, or the new one is reached. */
const leftBehind = ({ message, hint, facts, cause }: WalbackError): WalbackError =>
  new WalbackError('refused', message, { ...(hint ? { hint } : {}), facts, cause })

/** A new timeline, whose record names the old one's end and the reason. */
async function beginAnew({ conninfo, repository, source, events, signal }: Running, gap: WalbackError): Promise<void> {
  // A slot for a store that takes nothing would only keep log.
  await probeStorage(repository.storage, signal)
  const client = await connect(conninfo, { application: 'walback agent', signal })
  try {
    const { replicaIdentity } = await requireTimeline(repository, source)
    const server = await askServerHistory(conninfo, signal)
    const { timeline } = await setUp(client, repository, { source, replicaIdentity, server, gap })
    events.once('timeline-begun', {
      severity: 'warning',
      message: 'new timeline',
      facts: { timeline: timeline.id, start: timeline.start, parent: timeline.parent ?? null },
    })
  } finally {
    await client.end().catch(() => undefined)
  }
}

const again_ms = 5000

/** How long after a rotation what is stored may still be sealed to the generation before. */
const keyLooks_ms = 60_000

/** Bases that are taken because of unseen changes: at most one in this time. */
const basesApart_ms = 600_000

const spanOf = ({ kind, from, to }: UnseenChange): Record<string, unknown> => ({
  kind,
  from: formatLsn(from.lsn),
  from_time: formatTime(from.time),
  to: formatLsn(to.lsn),
  to_time: formatTime(to.time),
})

function unseenInWords({ kind }: UnseenChange, policy: UnseenChangePolicy): string {
  const what =
    kind === 'untold'
      ? 'UNSEEN CHANGE OF THE SCHEMA: the catalogs have changed, and the stream does not tell how'
      : kind === 'unsure'
        ? 'CHANGE OF THE SCHEMA NOT FOLLOWED: what it did is not fully in the stream'
        : 'PUBLICATION ALTERED: what it left out is not in the stream'
  const then = policy === 'backup' ? 'a base backup follows' : 'take one with `walback backup --full`'
  return `${what}; later targets lack it, or are refused, until the next base (${then})`
}
