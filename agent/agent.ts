import type { Logger } from 'pino'
import type { BackupSettings, UnseenChangePolicy } from '../src/config.ts'
import {
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
} from '../src/index.ts'
import { BaseKeeper } from './base-keeper.ts'
import { SchemaWatch } from './schema-watch.ts'

export interface AgentOptions {
  readonly conninfo: Conninfo
  readonly repository: Repository
  readonly source: string
  readonly stream: { readonly segmentBytes: number; readonly segmentAge_ms: number; readonly heartbeat_ms: number }
  /** How bases hold back; as the defaults have it if not given. */
  readonly backup?: Partial<BackupSettings>
  /** Whether a change of the schema that is not in the stream makes it take a base; it does if not given. */
  readonly onUnseenChange?: UnseenChangePolicy
  readonly log: Logger
  /** Ends the agent: what has been received is made durable and confirmed first. */
  readonly signal: AbortSignal
}

/** The agent: captures until it is told to stop, and sees to it that the timeline has a base that it can carry on. */
export async function runAgent(options: AgentOptions): Promise<void> {
  const { conninfo, repository, source, log, signal } = options
  await requireTimeline(repository, source)
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
          onBlind: (error) =>
            log.error(
              { source },
              `the catalogs cannot be read, so changes of the schema that the stream does not tell of go unnoticed: ${messageOf(error)}`,
            ),
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
      onRetry: (reason, delay_ms) => log.warn({ source, delay_ms }, `capture interrupted: ${reason}`),
      onGap: async (error) => {
        log.error(
          { source, ...error.facts },
          `GAP: ${error.message}; beginning a new timeline, what is archived stays restorable`,
        )
        await beginAnew(options)
      },
    })
  } finally {
    await bases.close()
    await schema.close()
  }
  log.info({ source }, 'stopped')
}

/** A new timeline, whose record names the old one's end and the reason. */
async function beginAnew({ conninfo, repository, source, log, signal }: AgentOptions): Promise<void> {
  const client = await connect(conninfo, { application: 'walback agent', signal })
  try {
    const { replicaIdentity } = await requireTimeline(repository, source)
    const { timeline } = await setUp(client, repository, { source, replicaIdentity })
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
