import type { Logger } from 'pino'
import { sleep, WalbackError } from '../src/index.ts'

/**
 * Asks the store until it answers: at boot the network may not be there yet. What does not pass by itself, as a
 * repository that is missing or a key that is refused, is thrown.
 */
export async function outlastStore<T>(
  ask: () => Promise<T>,
  { log, signal }: { readonly log: Logger; readonly signal: AbortSignal },
): Promise<T> {
  for (let delay_ms = firstDelay_ms; ; delay_ms = Math.min(2 * delay_ms, longestDelay_ms)) {
    try {
      return await ask()
    } catch (error) {
      const isPassing = error instanceof WalbackError && error.code === 'storage' && error.retryable
      if (!isPassing || signal.aborted) throw error
      log.error({ delay_ms, hint: error.hint }, `NOT CAPTURING: ${error.message}; trying again`)
      await sleep(delay_ms, signal)
    }
  }
}

const firstDelay_ms = 500
const longestDelay_ms = 30_000
