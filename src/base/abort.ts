import { setTimeout as delay } from 'node:timers/promises'
import { WalbackError } from './errors.ts'

/** Throws the error for an interrupted operation if the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (!signal?.aborted) return
  if (signal.reason instanceof WalbackError) throw signal.reason
  throw new WalbackError('interrupted', 'interrupted', { cause: signal.reason })
}

/** Waits for a duration in milliseconds; rejects as interrupted when the signal fires. */
export async function sleep(duration_ms: number, signal?: AbortSignal): Promise<void> {
  throwIfAborted(signal)
  try {
    await delay(duration_ms, undefined, signal === undefined ? undefined : { signal })
  } catch {
    throwIfAborted(signal)
  }
}

/** The answer, or at once the error for an interrupted operation when the signal fires; the work itself goes on unseen. */
export async function unlessAborted<T>(answer: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return answer
  let stop = (): void => undefined
  const stopped = new Promise<never>((_resolve, reject) => {
    stop = () => reject(new WalbackError('interrupted', 'interrupted', { cause: signal.reason }))
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([answer, stopped])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

/** Polls until `probe` gives a value; undefined when the time is up. The first probe is immediate. */
export async function waitFor<T>(
  probe: () => Promise<T | undefined>,
  options: { timeout_ms: number; interval_ms: number; signal?: AbortSignal | undefined },
): Promise<T | undefined> {
  const deadline = performance.now() + options.timeout_ms
  for (;;) {
    const value = await probe()
    if (value !== undefined) return value
    if (performance.now() >= deadline) return undefined
    await sleep(options.interval_ms, options.signal)
  }
}
