/** What a restore is doing, for whoever shows it. */
export interface RestoreProgress {
  readonly phase: 'schema' | 'rows' | 'replay' | 'indexes' | 'proof'
  readonly done: number
  readonly total: number | undefined
  readonly unit: 'bytes' | 'statements' | 'tables'
  /** Of a phase that moves rows: how many so far. */
  readonly rows?: number
}

export type OnProgress = (progress: RestoreProgress) => void

/** Counts one phase and reports every step of it. */
export class Phase {
  private done = 0
  private rows: number | undefined
  private readonly report: () => void

  constructor(
    phase: RestoreProgress['phase'],
    unit: RestoreProgress['unit'],
    total: number | undefined,
    onProgress: OnProgress | undefined,
  ) {
    this.report = () =>
      onProgress?.({ phase, done: this.done, total, unit, ...(this.rows === undefined ? {} : { rows: this.rows }) })
    this.report()
  }

  add(count: number, rows?: number): void {
    this.done += count
    if (rows !== undefined) this.rows = (this.rows ?? 0) + rows
    this.report()
  }
}
