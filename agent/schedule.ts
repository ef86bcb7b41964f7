import { type Recurring, whenDue } from './when-due.ts'

/** One thing that is done whenever it is due, beside the capture, until its owner is closed or the agent ends. */
export class Schedule {
  private readonly stop = new AbortController()
  private running: Promise<void> = Promise.resolve()

  constructor(signal: AbortSignal) {
    const end = (): void => this.stop.abort(signal.reason)
    signal.addEventListener('abort', end, { once: true })
    if (signal.aborted) end()
  }

  /** For whatever the work waits for. */
  get signal(): AbortSignal {
    return this.stop.signal
  }

  begin<T>(work: Omit<Recurring<T>, 'signal'>): void {
    this.running = whenDue({ ...work, signal: this.signal })
  }

  /** Ends what runs, and waits until it has. */
  async close(): Promise<void> {
    this.stop.abort()
    await this.running
  }
}
