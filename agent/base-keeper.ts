import type { Logger } from 'pino'
import type { BackupSettings } from '../src/config.ts'
import {
  type Conninfo,
  messageOf,
  publishing,
  type Repository,
  readBaseHeads,
  requireTimeline,
  sleep,
  type Timeline,
  takeBase,
  WalbackError,
} from '../src/index.ts'
import type { Events } from './events.ts'

export interface BaseKeeperOptions {
  readonly conninfo: Conninfo
  readonly repository: Repository
  readonly source: string
  readonly backup?: Partial<BackupSettings>
  readonly log: Logger
  readonly events: Events
  readonly signal: AbortSignal
  /** Whether the newest base of the timeline lacks something that a new one would have. */
  readonly isOutdated: () => boolean
  /** There is or may be a new base, by which that is to be decided from now on. */
  readonly onBase: () => Promise<void>
  /** How long after a base that was taken for being outdated the next such one may begin. */
  readonly rest_ms: number
}

/**
 * Takes a base in the background when the current timeline has none, or when it is outdated, one at a time; and tries
 * again later when it fails.
 */
export class BaseKeeper {
  private readonly options: BaseKeeperOptions
  private readonly stop = new AbortController()
  private running: Promise<void> | undefined
  private rested = Number.NEGATIVE_INFINITY
  private isAsked = false

  constructor(options: BaseKeeperOptions) {
    this.options = options
    options.signal.addEventListener('abort', () => this.stop.abort(), { once: true })
  }

  /** Looks whether a base is needed, and takes it. */
  ensure(): void {
    this.isAsked = true
    this.running ??= this.work().finally(() => {
      this.running = undefined
    })
  }

  async close(): Promise<void> {
    this.stop.abort()
    await this.running
  }

  private async work(): Promise<void> {
    const { source, log, events } = this.options
    while (this.isAsked && !this.stop.signal.aborted) {
      this.isAsked = false
      try {
        await this.takeIfNeeded()
      } catch (error) {
        if (this.stop.signal.aborted) return
        const hint = error instanceof WalbackError ? error.hint : undefined
        log.error({ source, err: error, hint }, 'the base backup failed; trying again in a minute')
        events.raise('base-failed', {
          severity: 'error',
          message: `no base backup: ${messageOf(error)}`,
          facts: { hint },
        })
        this.isAsked = true
        await sleep(60_000, this.stop.signal).catch(() => undefined)
      }
    }
  }

  private async takeIfNeeded(): Promise<void> {
    const { repository, source, log } = this.options
    const timeline = await requireTimeline(repository, source)
    const bases = await readBaseHeads(repository, source)
    const isFirst = !bases.some((base) => base.timeline === timeline.id)
    if (isFirst) {
      log.info({ source, timeline: timeline.id }, 'taking the first base backup of this timeline')
      await this.take(timeline)
      return
    }
    if (!this.options.isOutdated()) return
    const wait_ms = Math.round(this.rested - performance.now())
    if (wait_ms > 0) {
      log.warn({ source, wait_ms }, 'another base backup is needed, so soon after the last; it is put off')
      await sleep(wait_ms, this.stop.signal)
    }
    // Somebody may have taken one by hand.
    await this.options.onBase()
    if (!this.options.isOutdated()) return
    log.warn({ source }, 'taking a base backup: the schema is recorded anew, and new tables get their first rows')
    await this.take(timeline)
    this.rested = performance.now() + this.options.rest_ms
  }

  private async take(timeline: Timeline): Promise<void> {
    await this.takeBase(timeline)
    await this.options.onBase()
  }

  private async takeBase(timeline: Timeline): Promise<void> {
    const { conninfo, repository, source, log, events } = this.options
    const { signal } = this.stop
    const base = await takeBase(conninfo, repository, timeline, {
      jobs: 2,
      lockTimeout_ms: 10_000,
      ...this.options.backup,
      onProgress: (state) => {
        if (state.phase !== 'resuming') return
        const { base, tables, raw_bytes } = state
        log.info({ source, base, tables, raw_bytes }, 'carrying on with a base backup that was interrupted')
      },
      preparation: publishing(conninfo, timeline, {
        signal,
        onPublished: ({ added, left }) => {
          if (added.length > 0) log.info({ source, tables: added }, 'published tables that were made since')
          if (left.length > 0)
            log.error(
              { source, tables: left },
              'NOT CAPTURED: tables that are not published, and that this role cannot publish',
            )
        },
      }),
      signal,
    })
    log.info(
      {
        source,
        base: base.id,
        rows: base.rows,
        bytes: base.stored_bytes,
      },
      'base backup done',
    )
    events.clear('base-failed', { message: 'a base backup was taken', facts: { base: base.id } })
    events.clear('archive-damaged', { message: 'a base backup opens a new window', facts: { base: base.id } })
    events.clear('gap', { message: `what commits from now on can be restored again, on timeline ${timeline.id}` })
  }
}
