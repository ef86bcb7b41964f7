import { messageOf, throwIfAborted, WalbackError } from '../../src/index.ts'

export interface Step {
  readonly name: string
  readonly duration_ms: number
}

/** The demo's steps as they are taken: their times, and the name of one that fails. */
export class Steps {
  readonly taken: Step[] = []
  private readonly signal: AbortSignal
  private readonly begin: (heading: string) => void

  /** `begin` hears of each step before it is taken. */
  constructor(signal: AbortSignal, begin: (heading: string) => void) {
    this.signal = signal
    this.begin = begin
  }

  async take<T>(name: string, heading: string, work: () => Promise<T>): Promise<T> {
    this.begin(heading)
    const started = performance.now()
    try {
      throwIfAborted(this.signal)
      return await work()
    } catch (error) {
      throw this.failure(name, error)
    } finally {
      this.taken.push({ name, duration_ms: Math.round(performance.now() - started) })
    }
  }

  /** What fails after an abort failed because of it: the user's interrupt, or a helper that broke down. */
  private failure(step: string, error: unknown): WalbackError {
    const cause = this.signal.aborted ? (this.signal.reason ?? error) : error
    const known = cause instanceof WalbackError ? cause : undefined
    if (known?.code === 'interrupted') return known
    return new WalbackError(known?.code ?? 'failed', `the demo failed at the step "${step}": ${messageOf(cause)}`, {
      cause,
      facts: { ...known?.facts, step },
      ...(known?.hint === undefined ? {} : { hint: known.hint }),
    })
  }
}
