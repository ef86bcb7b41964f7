import { assert } from './assert.ts'

export interface AheadLimits<T> {
  /** How many are on their way at a time. */
  readonly most: number
  /** What one weighs, and what all that wait may weigh together; one alone may weigh more. */
  readonly weigh?: (item: T) => number
  readonly budget?: number
  /** Stops the work that is on its way. */
  readonly signal?: AbortSignal | undefined
}

/**
 * Does the work for items several at a time, and gives the results in the items' order. A failure is thrown when its
 * turn comes. When the caller leaves early, the signal that the work was given fires.
 */
export async function* ahead<T, R>(
  items: readonly T[],
  work: (item: T, signal: AbortSignal) => Promise<R>,
  limits: AheadLimits<T>,
): AsyncGenerator<R> {
  const { most, weigh = () => 0, budget = 0, signal } = limits
  assert(most > 0, 'some work may be on its way')
  const left = new AbortController()
  const stop = signal === undefined ? left.signal : AbortSignal.any([signal, left.signal])
  const waiting: { readonly result: Promise<R>; readonly weight: number }[] = []
  let [next, held] = [0, 0]
  try {
    while (next < items.length || waiting.length > 0) {
      while (next < items.length && waiting.length < most) {
        const item = items[next] as T
        const weight = weigh(item)
        if (waiting.length > 0 && held + weight > budget) break
        const result = work(item, stop)
        // Until its turn comes, a failure is no unhandled one.
        result.catch(() => undefined)
        waiting.push({ result, weight })
        held += weight
        next++
      }
      const first = waiting[0]
      assert(first !== undefined, 'something is on its way')
      yield await first.result
      waiting.shift()
      held -= first.weight
    }
  } finally {
    left.abort()
  }
}
