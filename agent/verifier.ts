import type { Logger } from 'pino'
import type { VerifySettings } from '../src/config.ts'
import {
  findVerification,
  formatLsn,
  isDamage,
  messageOf,
  nextSubset,
  type ReadSubset,
  type Repository,
  type Verification,
  type VerifyReport,
  verifySource,
} from '../src/index.ts'
import type { Events } from './events.ts'
import { Schedule } from './schedule.ts'
import { dueIn_ms } from './when-due.ts'

export interface VerifierOptions {
  readonly repository: Repository
  readonly source: string
  readonly settings: VerifySettings
  readonly log: Logger
  readonly events: Events
  readonly signal: AbortSignal
}

/**
 * Verifies the repository now and then, another part of it each time, beside the capture and out of its way: one object
 * after the other. When it is due is told by the last record in the repository, whoever verified, so that an agent that
 * is often restarted comes to it too; from then on a monotonic clock counts.
 */
export class Verifier {
  private readonly options: VerifierOptions
  private readonly schedule: Schedule

  constructor(options: VerifierOptions) {
    this.options = options
    this.schedule = new Schedule(options.signal)
  }

  begin(): void {
    const { source, log, events } = this.options
    this.schedule.begin({
      last: () => this.last(),
      due_ms: (last) => this.due_ms(last),
      run: (last) => this.verify(last),
      onFailure: (error) => {
        const message = `the repository could not be verified: ${messageOf(error)}`
        log.warn({ source, err: error }, 'verifying failed; trying again in ten minutes')
        events.raise('verify-failed', { severity: 'warning', message })
      },
    })
  }

  /** Ends a verification that runs; the next one carries it on. */
  close(): Promise<void> {
    return this.schedule.close()
  }

  /** The newest record that a run left, interrupted or not. */
  private last(): Promise<Verification | undefined> {
    const { repository, source } = this.options
    return findVerification(repository, source, () => true, this.schedule.signal)
  }

  private async due_ms(last: Verification | undefined): Promise<number> {
    const { settings } = this.options
    return last?.outcome === 'interrupted' ? 0 : dueIn_ms(last, settings.every_ms, this.options, this.schedule.signal)
  }

  private async verify(last: Verification | undefined): Promise<void> {
    const { repository, source, settings, log } = this.options
    const subset = this.subset(last)
    log.info({ source, part: subset.part, of: subset.of }, 'verifying the repository')
    const report = await verifySource(repository, source, {
      subset,
      resume: true,
      jobs: 1,
      maxRate: settings.maxRate,
      signal: this.schedule.signal,
    })
    this.tell(report)
  }

  /** The part after the one that was read last, of as many. An interrupted one is read to its end. */
  private subset(last: Verification | undefined): ReadSubset {
    const { subset } = this.options.settings
    if (last?.read == null || last.read.of !== subset.of) return subset
    return last.outcome === 'interrupted' ? last.read : nextSubset(last.read)
  }

  private tell({ findings, damaged, objects, read_bytes, duration_ms, notRecorded }: VerifyReport): void {
    const { source, log, events } = this.options
    const facts = { objects, read_bytes, duration_ms }
    events.clear('verify-failed', { message: 'the repository was verified', facts })
    if (notRecorded !== undefined) log.warn({ source }, `the result was not recorded: ${notRecorded}`)
    if (damaged === 0) {
      log.info({ source, ...facts }, 'the repository is sound')
      events.clear('verify-damaged', { message: 'the repository was found sound', facts })
      return
    }
    const damage = findings.filter(isDamage)
    for (const { kind, key, message, hint } of damage.slice(0, mostLogged))
      log.error({ source, kind, key, hint }, `DAMAGED: ${message}`)
    events.raise('verify-damaged', {
      severity: 'error',
      message: `REPOSITORY DAMAGED: ${damage[0]?.message}${damaged > 1 ? ` (and ${damaged - 1} more)` : ''}; \`walback verify\` says what it costs`,
      facts: {
        ...facts,
        damaged,
        findings: damage.slice(0, mostLogged).map(({ kind, key, lost }) => ({
          kind,
          key,
          lost: lost?.map(({ timeline, from, to }) => ({
            timeline,
            from: formatLsn(from.lsn),
            to: to ? formatLsn(to.lsn) : null,
          })),
        })),
      },
    })
  }
}

/** Findings that the log names one by one. */
const mostLogged = 20
