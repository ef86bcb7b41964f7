import type { Logger } from 'pino'
import {
  type Conninfo,
  captureContinuously,
  connect,
  formatLsn,
  type Repository,
  readManifests,
  requireTimeline,
  setUp,
  sleep,
  supervise,
  takeBase,
  WalbackError,
} from '../src/index.ts'

export interface AgentOptions {
  readonly conninfo: Conninfo
  readonly repository: Repository
  readonly source: string
  readonly stream: { readonly segmentBytes: number; readonly segmentAge_ms: number; readonly heartbeat_ms: number }
  readonly log: Logger
  /** Ends the agent: what has been received is made durable and confirmed first. */
  readonly signal: AbortSignal
}

/** The agent: captures until it is told to stop, and sees to it that the timeline has a base. */
export async function runAgent(options: AgentOptions): Promise<void> {
  const { conninfo, repository, source, log, signal } = options
  await requireTimeline(repository, source)
  let streamingSince: number | undefined
  const bases = new BaseKeeper(options)
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
          },
          onSegment: (segment) =>
            log.debug(
              {
                key: segment.key,
                end: formatLsn(segment.end),
                bytes: segment.size_bytes,
                transactions: segment.trailer.transactions.length,
              },
              'segment stored',
            ),
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

/** Takes a base in the background when the current timeline has none, and tries again later when it fails. */
class BaseKeeper {
  private readonly options: AgentOptions
  private readonly stop = new AbortController()
  private running: Promise<void> | undefined

  constructor(options: AgentOptions) {
    this.options = options
    options.signal.addEventListener('abort', () => this.stop.abort(), { once: true })
  }

  ensure(): void {
    this.running ??= this.work().finally(() => {
      this.running = undefined
    })
  }

  async close(): Promise<void> {
    this.stop.abort()
    await this.running
  }

  private async work(): Promise<void> {
    const { conninfo, repository, source, log } = this.options
    while (!this.stop.signal.aborted) {
      try {
        const timeline = await requireTimeline(repository, source)
        const manifests = await readManifests(repository, source)
        if (manifests.some((manifest) => manifest.timeline === timeline.id)) return
        log.info({ source, timeline: timeline.id }, 'taking the first base backup of this timeline')
        const base = await takeBase(conninfo, repository, timeline, {
          jobs: 2,
          lockTimeout_ms: 10_000,
          signal: this.stop.signal,
        })
        log.info(
          {
            source,
            base: base.id,
            rows: base.tables.reduce((sum, table) => sum + table.rows, 0),
            bytes: base.stored_bytes,
          },
          'base backup done',
        )
      } catch (error) {
        if (this.stop.signal.aborted) return
        const hint = error instanceof WalbackError ? error.hint : undefined
        log.error({ source, err: error, hint }, 'the base backup failed; trying again in a minute')
        await sleep(60_000, this.stop.signal).catch(() => undefined)
      }
    }
  }
}
