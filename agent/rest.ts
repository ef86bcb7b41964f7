import { sleep } from '../src/index.ts'

/** Waits, for however long (a timer takes no more than 2^31 ms), by a monotonic clock; returns at once when the signal fires. */
export async function rest(duration_ms: number, signal: AbortSignal): Promise<void> {
  const until = performance.now() + duration_ms
  for (let left = duration_ms; left > 0 && !signal.aborted; left = until - performance.now())
    await sleep(Math.min(left, longestSleep_ms), signal).catch(() => undefined)
}

const longestSleep_ms = 3_600_000
