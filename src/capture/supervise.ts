import { sleep } from '../base/abort.ts'
import { type ErrorCode, WalbackError } from '../base/errors.ts'
import { explainSessionFailure } from '../postgres/replication-failure.ts'

export interface Supervision {
  /** One attempt; resolves when the server went away in good order or the stop was asked for. */
  readonly attempt: () => Promise<'stopped' | 'draining'>
  /** What to do about a gap before the next attempt; absent: the gap ends supervision. */
  readonly onGap?: ((error: WalbackError) => Promise<void>) | undefined
  /** `error`: what has to pass before the next attempt can do better, if that is known. */
  readonly onRetry: (reason: string, delay_ms: number, error?: WalbackError) => void
  /** When the attempt under way began to stream (monotonic, ms), or undefined while none has. */
  readonly streamingSince: () => number | undefined
  readonly stop: AbortSignal
}

/**
 * Keeps capture going over everything that passes: a server that restarts, a network that breaks, a store that fails.
 * Waits longer after each failure in a row, up to half a minute. What cannot pass by itself is thrown.
 */
export async function supervise(options: Supervision): Promise<void> {
  let failures = 0
  let hasStreamed = false
  while (!options.stop.aborted) {
    let reason = 'the session or the server has ended'
    let failure: WalbackError | undefined
    try {
      if ((await options.attempt()) === 'stopped') return
      hasStreamed ||= options.streamingSince() !== undefined
    } catch (error) {
      if (options.stop.aborted) return
      if (!(error instanceof WalbackError)) throw error
      hasStreamed ||= options.streamingSince() !== undefined
      failure = error.code === 'gap' && options.onGap ? await obstacle(options.onGap, error) : error
      if (failure && !isPassing(failure, hasStreamed, failures)) throw failure
      reason = (failure ?? error).message
    }
    const since = options.streamingSince()
    failures = since !== undefined && performance.now() - since > steady_ms ? 1 : failures + 1
    const delay_ms = Math.min(longestDelay_ms, firstDelay_ms * 2 ** Math.min(failures - 1, 10))
    options.onRetry(reason, delay_ms, failure)
    await sleep(delay_ms, options.stop).catch(() => undefined)
  }
}

/** What kept a gap from being dealt with, if anything did. */
async function obstacle(
  onGap: (error: WalbackError) => Promise<void>,
  gap: WalbackError,
): Promise<WalbackError | undefined> {
  try {
    await onGap(gap)
    return undefined
  } catch (failure) {
    // It speaks to the server too, and may fail as capture does.
    return explainSessionFailure(failure)
  }
}

/**
 * A slot that is taken at the start is somebody else's; later, or for a moment, it is our own that the server still
 * holds. What has worked before may be mended by whoever changed it, while the slot holds what is missing: a store that
 * was made unwritable, a password, a right, a name, a standby that is not promoted yet.
 */
function isPassing(error: WalbackError, hasStreamed: boolean, failures: number): boolean {
  if (error.code === 'locked') return hasStreamed || failures < lockedAttempts
  return error.retryable || (hasStreamed && mendable.has(error.code))
}

const mendable: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['storage', 'database', 'prerequisite', 'refused'])
const firstDelay_ms = 500
const longestDelay_ms = 30_000
/** A stream that lasted so long was sound: the next failure starts counting anew. */
const steady_ms = 60_000
const lockedAttempts = 4
