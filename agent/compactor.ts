import type { Logger } from 'pino'
import type { CompactSettings } from '../src/config.ts'
import {
  type BaseHead,
  type CompactionOutcome,
  compactApart,
  messageOf,
  type OpeningPlace,
  type Repository,
  readBaseHeads,
  requireTimeline,
  WalbackError,
} from '../src/index.ts'
import type { Events } from './events.ts'
import { Schedule } from './schedule.ts'
import { dueIn_ms } from './when-due.ts'

/** When the agent compacts, and where the process that does it finds the repository. */
export interface Compacting {
  readonly settings: CompactSettings
  readonly place: OpeningPlace
  /** How far its process yields to others; `nice` 19, as far as it goes, suits all but tests. */
  readonly niceness?: number | undefined
}

export interface CompactorOptions extends Compacting {
  readonly repository: Repository
  readonly source: string
  readonly log: Logger
  readonly events: Events
  readonly signal: AbortSignal
  /** A base from the source is needed, for only that gets past a change of the schema. */
  readonly onStuck: () => void
}

/**
 * Makes a base out of the newest one and the stream whenever that is old enough, off the source, so that restores stay
 * short and retention can let the stream go. It is done in a process of its own that yields to all others: capture
 * neither shares memory with it nor waits for it.
 */
export class Compactor {
  private readonly options: CompactorOptions
  private readonly schedule: Schedule
  /** The newest base when it was found that one from the source has to follow. */
  private stuckAt: string | undefined
  /** When there was last nothing to gain, or nobody but the source could help (monotonic, ms). */
  private looked_ms = Number.NEGATIVE_INFINITY

  constructor(options: CompactorOptions) {
    this.options = options
    this.schedule = new Schedule(options.signal)
  }

  begin(): void {
    const { source, log, events } = this.options
    this.schedule.begin({
      last: () => this.newestBase(),
      due_ms: (last) => this.due_ms(last),
      run: (last) => this.compact(last),
      onFailure: (error) => {
        const hint = error instanceof WalbackError ? error.hint : undefined
        log.warn({ source, err: error, hint }, 'compacting failed; trying again in ten minutes')
        events.raise('compaction-failed', {
          severity: 'warning',
          message: `no base could be made off the source: ${messageOf(error)}`,
          facts: { hint: hint ?? null },
        })
      },
    })
  }

  /** Ends a compaction that runs, and has what it wrote removed. */
  close(): Promise<void> {
    return this.schedule.close()
  }

  /** Whether a base from the source is needed, by what was last found and as the policy has it. */
  get isStuck(): boolean {
    return this.stuckAt !== undefined
  }

  /** There is or may be another base. */
  async reconsider(): Promise<void> {
    if (this.stuckAt === undefined) return
    try {
      if ((await this.newestBase())?.id !== this.stuckAt) this.stuckAt = undefined
    } catch (error) {
      // A base that was taken is not a failed one because the store does not show it yet.
      this.options.log.warn({ source: this.options.source, err: error }, 'could not look for the newest base')
    }
  }

  private async newestBase(): Promise<BaseHead | undefined> {
    const { repository, source } = this.options
    const { signal } = this.schedule
    const timeline = await requireTimeline(repository, source)
    return (await readBaseHeads(repository, source, { signal })).findLast((base) => base.timeline === timeline.id)
  }

  private async due_ms(last: BaseHead | undefined): Promise<number> {
    const { every_ms } = this.options.settings
    const sinceLook_ms = performance.now() - this.looked_ms
    const since_ms = await dueIn_ms(last, every_ms, this.options, this.schedule.signal)
    return Math.max(since_ms, every_ms - sinceLook_ms)
  }

  private async compact(last: BaseHead | undefined): Promise<void> {
    const { source, settings, place, niceness = 19, log } = this.options
    if (last === undefined) {
      log.info({ source }, 'nothing to compact: this timeline has no base yet')
      this.looked_ms = performance.now()
      return
    }
    log.info({ source, base: last.id }, 'compacting')
    const { memory_bytes, maxRate, onSchemaChange } = settings
    const evenIfStopped = onSchemaChange === 'alert'
    const order = { place, source, memory_bytes, maxRate, evenIfStopped, niceness }
    const outcome = await compactApart(order, { signal: this.schedule.signal })
    this.looked_ms = performance.now()
    this.tell(outcome, last)
  }

  private tell(outcome: CompactionOutcome, newest: BaseHead): void {
    const { source, settings, log, events, onStuck } = this.options
    events.clear('compaction-failed', { message: 'the stream was looked through for a compaction' })
    if (outcome.kind === 'made') {
      const { base, transactions, peak_bytes } = outcome
      const { id, lsn, time, stored_bytes } = base
      const from = base.compacted?.from ?? null
      const facts = { base: id, from, lsn, time, transactions, stored_bytes, peak_bytes }
      events.once('compacted', { severity: 'info', message: 'a base was made off the source', facts })
    } else if (!outcome.isStuck) log.info({ source }, `nothing to compact: ${outcome.why}`)
    const isStopped = outcome.stoppedBy !== undefined || (outcome.kind === 'none' && outcome.isStuck)
    const by = outcome.stoppedBy ?? (outcome.kind === 'none' ? outcome.why : '')
    if (!isStopped) events.clear('compaction-stopped', { message: 'compaction goes on' })
    else if (settings.onSchemaChange === 'backup' && outcome.kind === 'none') {
      log.info({ source }, `not compacted, since only the source gets past this: ${by}; a base backup follows`)
      this.stuckAt = newest.id
      onStuck()
    } else
      events.raise('compaction-stopped', {
        severity: 'warning',
        message: `compaction goes no further than ${by}: take a base with \`walback backup --full\``,
      })
  }
}
