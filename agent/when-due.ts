import { type Repository, readTimelines } from '../src/index.ts'
import { rest } from './rest.ts'

export interface Recurring<T> {
  /** The record that the last run left in the repository, whoever ran. */
  readonly last: () => Promise<T | undefined>
  readonly due_ms: (last: T | undefined) => Promise<number>
  readonly run: (last: T | undefined) => Promise<void>
  /** Told of what a run failed by; another is tried in ten minutes. */
  readonly onFailure: (error: unknown) => void
  readonly signal: AbortSignal
}

/** Runs something whenever it is due, until the signal fires. */
export async function whenDue<T>({ last, due_ms, run, onFailure, signal }: Recurring<T>): Promise<void> {
  while (!signal.aborted) {
    try {
      const record = await last()
      await rest(await due_ms(record), signal)
      if (!signal.aborted) await run(record)
    } catch (error) {
      if (signal.aborted) return
      onFailure(error)
      await rest(retry_ms, signal)
    }
  }
}

const retry_ms = 600_000

/**
 * When something is due again. Where it was never done the age of the first timeline counts. A clock that was set back
 * must not put it off for longer.
 */
export async function dueIn_ms(
  last: { readonly finished: string } | undefined,
  every_ms: number,
  { repository, source }: { readonly repository: Repository; readonly source: string },
  signal: AbortSignal,
): Promise<number> {
  const since = last?.finished ?? (await readTimelines(repository, source, signal))[0]?.created
  const age_ms = since === undefined ? 0 : Math.max(0, Date.now() - Date.parse(since))
  return Math.max(0, every_ms - age_ms)
}
