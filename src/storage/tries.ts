import { sleep, throwIfAborted, unlessAborted } from '../base/abort.ts'

/** For a client that does not repeat requests itself. */
export interface Tries {
  readonly signal: AbortSignal | undefined
  /** Whether the same request may do better in a moment. */
  isPassing(error: unknown): boolean
  /** What to throw once no more is tried. */
  failure(error: unknown): Error
}

/** A request that is repeated a few times, with longer and longer waits, for as long as what it fails of may pass. */
export async function trying<T>(request: () => Promise<T>, { signal, isPassing, failure }: Tries): Promise<T> {
  for (let tries = 1; ; tries++) {
    throwIfAborted(signal)
    try {
      return await unlessAborted(request(), signal)
    } catch (error) {
      throwIfAborted(signal)
      if (!isPassing(error) || tries === maxTries) throw failure(error)
    }
    await sleep(Math.min(firstWait_ms * 2 ** (tries - 1), longestWait_ms), signal)
  }
}

export const maxTries = 5
export const firstWait_ms = 200
export const longestWait_ms = 10_000
