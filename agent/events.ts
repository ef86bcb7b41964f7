import type { Logger } from 'pino'
import type { EventKind, Severity, WalbackEvent } from '../src/index.ts'

/** What an event says beyond its kind. */
export interface EventDetails {
  readonly severity: Severity
  readonly message: string
  readonly subject?: string | null
  readonly facts?: Readonly<Record<string, unknown>>
}

const rank: Readonly<Record<Severity, number>> = { info: 0, warning: 1, error: 2 }

/**
 * The one way by which the agent tells of what somebody may have to act on: into the log, and to whoever else listens.
 * What lasts is told when it begins, when it becomes worse and when it is over, and not in between.
 */
export class Events {
  private readonly source: string
  private readonly log: Logger
  private readonly listener: ((event: WalbackEvent) => void) | undefined
  private readonly lasting = new Map<string, Severity>()

  constructor(source: string, log: Logger, listener?: (event: WalbackEvent) => void) {
    this.source = source
    this.log = log
    this.listener = listener
  }

  /** Something that happened, and is over. */
  once(kind: EventKind, details: EventDetails): void {
    this.tell(kind, 'once', details)
  }

  /** Something that lasts; silent if it was told of already and has not become worse. */
  raise(kind: EventKind, details: EventDetails): void {
    const key = keyOf(kind, details.subject)
    const before = this.lasting.get(key)
    if (before !== undefined && rank[before] >= rank[details.severity]) return
    this.lasting.set(key, details.severity)
    this.tell(kind, 'raised', details)
  }

  /** It is over; silent if it was not told of. */
  clear(kind: EventKind, details: Omit<EventDetails, 'severity'>): void {
    if (this.lasting.delete(keyOf(kind, details.subject))) this.tell(kind, 'cleared', { severity: 'info', ...details })
  }

  private tell(kind: EventKind, state: WalbackEvent['state'], details: EventDetails): void {
    const { severity, message, subject = null, facts = {} } = details
    const level = severity === 'warning' ? 'warn' : severity
    const about = subject === null ? {} : { subject }
    this.log[level]({ source: this.source, event: kind, state, ...about, ...facts }, message)
    try {
      this.listener?.({ kind, state, severity, source: this.source, subject, message, facts })
    } catch (error) {
      // Who listens must not end what he listens to.
      this.log.error({ source: this.source, err: error }, 'a listener for events failed')
    }
  }
}

const keyOf = (kind: EventKind, subject: string | null | undefined): string => `${kind} ${subject ?? ''}`
