import type { Logger } from 'pino'
import type { UnseenChangePolicy } from '../src/config.ts'
import {
  askServerHistory,
  type Conninfo,
  captureContinuously,
  connect,
  formatLsn,
  formatTime,
  messageOf,
  type Repository,
  requireTimeline,
  setUp,
  supervise,
  type UnseenChange,
  WalbackError,
} from '../src/index.ts'
import { BaseKeeper } from './base-keeper.ts'
import { SchemaWatch } from './schema-watch.ts'

export interface AgentOptions {
  readonly conninfo: Conninfo
  readonly repository: Repository
  readonly source: string
  readonly stream: { readonly segmentBytes: number; readonly segmentAge_ms: number; readonly heartbeat_ms: number }
  /** Whether a change of the schema that is not in the stream makes it take a base; it does if not given. */
  readonly onUnseenChange?: UnseenChangePolicy
  readonly log: Logger
  /** Ends the agent: what has been received is made durable and confirmed first. */
  readonly signal: AbortSignal
}

/** The agent: captures until it is told to stop, and sees to it that the timeline has a base that it can carry on. */
export async function runAgent(options: AgentOptions): Promise<void> {
  const { conninfo, repository, source, log, signal } = options
  const { replicaIdentity } = await requireTimeline(repository, source)
  const policy = options.onUnseenChange ?? 'backup'
  let streamingSince: number | undefined
  const schema = new SchemaWatch({
    ...options,
    onUnseen: (change) => {
      log.error({ source, ...spanOf(change) }, unseenInWords(change, policy))
      bases.ensure()
    },
  })
  const bases = new BaseKeeper({
    ...options,
    isOutdated: () => policy === 'backup' && schema.unseen().length > 0,
    onBase: () => schema.restart(),
    rest_ms: basesApart_ms,
  })
  let isWatching = false
  try {
    await supervise({
      stop: signal,
      streamingSince: () => streamingSince,
      attempt: () => {
        streamingSince = undefined
        return captureContinuously(conninfo, repository, source, {
          ...options.stream,
          stop: signal,
          onStart: (start) => {
            streamingSince = performance.now()
            log.info({ source, start: formatLsn(start) }, 'capturing')
            bases.ensure()
            if (!isWatching) void schema.restart()
            isWatching = true
          },
          identities:
            replicaIdentity === 'full'
              ? {
                  onMended: (table) =>
                    log.warn(
                      { source, table },
                      'the table had no replica identity, and would have refused updates: it has FULL now',
                    ),
                  onLeft: (table, why) =>
                    log.error(
                      { source, table },
                      `the table has no replica identity, and refuses updates while it is published: ${why}`,
                    ),
                }
              : undefined,
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
      },
      onGap: async (error) => {
        if (error.facts['stale'] === true) throw leftBehind(error)
        log.error(
          { source, ...error.facts },
          `GAP: ${error.message}; beginning a new timeline, what is archived stays restorable`,
        )
        await beginAnew(options, error)
      },
    })
  } finally {
    await bases.close()
    await schema.close()
  }
  log.info({ source }, 'stopped')
}

/** An old primary must not be followed because it answers again: somebody decides, or the new one is reached. */
const leftBehind = ({ message, hint, facts, cause }: WalbackError): WalbackError =>
  new WalbackError('refused', message, { ...(hint ? { hint } : {}), facts, cause })

/** A new timeline, whose record names the old one's end and the reason. */
async function beginAnew(
  { conninfo, repository, source, log, signal }: AgentOptions,
  gap: WalbackError,
): Promise<void> {
  const client = await connect(conninfo, { application: 'walback agent', signal })
  try {
    const { replicaIdentity } = await requireTimeline(repository, source)
    const server = await askServerHistory(conninfo, signal)
    const { timeline } = await setUp(client, repository, { source, replicaIdentity, server, gap })
    log.warn({ source, timeline: timeline.id, start: timeline.start }, 'new timeline')
  } finally {
    await client.end().catch(() => undefined)
  }
}

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
      : 'CHANGE OF THE SCHEMA NOT FOLLOWED: what it did is not fully in the stream'
  const then = policy === 'backup' ? 'a base backup follows' : 'take one with `walback backup --full`'
  return `${what}; later targets lack it, or are refused, until the next base (${then})`
}
