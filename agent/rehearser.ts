import type { Logger } from 'pino'
import type { RehearsalSettings } from '../src/config.ts'
import {
  type Assertion,
  findProof,
  messageOf,
  type ProofReport,
  planRestore,
  proveRestore,
  type RecoveryTarget,
  type Repository,
  randomTarget,
  readHoldings,
  WalbackError,
} from '../src/index.ts'
import type { Events } from './events.ts'
import { Schedule } from './schedule.ts'
import { dueIn_ms } from './when-due.ts'

export interface RehearserOptions {
  readonly repository: Repository
  readonly source: string
  readonly settings: RehearsalSettings
  readonly assertions: readonly Assertion[]
  readonly log: Logger
  readonly events: Events
  readonly signal: AbortSignal
}

/**
 * Restores the source on a throwaway server now and then, which proves that it can be done and measures how long it
 * takes. It goes behind everything else: one connection, little memory, a server that yields to other processes, and
 * nothing at all where the disk has no room for it.
 */
export class Rehearser {
  private readonly options: RehearserOptions
  private readonly schedule: Schedule

  constructor(options: RehearserOptions) {
    this.options = options
    this.schedule = new Schedule(options.signal)
  }

  begin(): void {
    const { repository, source, settings, log, events } = this.options
    const { signal } = this.schedule
    this.schedule.begin({
      last: () => findProof(repository, source, () => true, signal),
      due_ms: (last) => dueIn_ms(last, settings.every_ms, this.options, signal),
      run: () => this.rehearse(),
      onFailure: (error) => {
        const hint = error instanceof WalbackError ? error.hint : undefined
        log.warn({ source, err: error, hint }, 'restoring on a throwaway server failed; trying again in ten minutes')
        events.raise('rehearsal-failed', {
          severity: 'warning',
          message: `could not be restored on a throwaway server: ${messageOf(error)}`,
          facts: { hint: hint ?? null },
        })
      },
    })
  }

  /** Ends a restore that runs; its server and all that is on it go. */
  close(): Promise<void> {
    return this.schedule.close()
  }

  private async rehearse(): Promise<void> {
    const { repository, source, settings, assertions, log } = this.options
    const { signal } = this.schedule
    const plan = await planRestore(repository, source, await this.target(), { signal })
    log.info({ source, target: settings.target }, 'restoring on a throwaway server')
    const report = await proveRestore(repository, plan, {
      assertions,
      isRandom: settings.target === 'random',
      jobs: 1,
      memory_bytes: littleMemory_bytes,
      niceness: 19,
      onWarning: (warning) => log.warn({ source }, warning),
      signal,
    })
    this.tell(report)
  }

  private async target(): Promise<RecoveryTarget> {
    const { repository, source, settings } = this.options
    if (settings.target === 'latest') return { kind: 'latest' }
    return randomTarget(await readHoldings(repository, source, this.schedule.signal), Math.random)
  }

  private tell({ record, findings, notRecorded }: ProofReport): void {
    const { source, log, events } = this.options
    const { lsn, time, restore_ms, tables, rows } = record
    const facts = { lsn, time, restore_ms, tables, rows }
    events.clear('rehearsal-failed', { message: 'it was restored on a throwaway server', facts })
    if (notRecorded !== undefined) log.warn({ source }, `the result was not recorded: ${notRecorded}`)
    const [first] = findings
    if (first === undefined) {
      log.info({ source, ...facts }, 'proven restorable')
      events.clear('restore-unproven', { message: 'it was proven restorable', facts })
      return
    }
    for (const { kind, name, message } of findings.slice(0, mostLogged))
      log.error({ source, kind, name }, `NOT PROVEN RESTORABLE: ${message}`)
    events.raise('restore-unproven', {
      severity: 'error',
      message: `NOT PROVEN RESTORABLE: ${first.kind} ${first.name}: ${first.message}${findings.length > 1 ? ` (and ${findings.length - 1} more)` : ''}`,
      facts: { ...facts, findings: findings.slice(0, mostLogged) },
    })
  }
}

/** A fold that needs more goes in rounds. */
const littleMemory_bytes = 64 << 20
/** Findings that the log names one by one. */
const mostLogged = 20
