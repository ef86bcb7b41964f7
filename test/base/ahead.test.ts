import { expect, test } from 'vitest'
import { ahead } from '../../src/base/ahead.ts'

/** Work that is done when the test says so. */
function held() {
  const going = new Map<number, { done: () => void; fail: (error: Error) => void; signal: AbortSignal }>()
  const begun: number[] = []
  const work = (item: number, signal: AbortSignal): Promise<number> => {
    begun.push(item)
    return new Promise((resolve, reject) => {
      going.set(item, { done: () => resolve(item * 10), fail: reject, signal })
    })
  }
  return { work, begun, of: (item: number) => going.get(item) ?? expect.fail(`${item} was not begun`) }
}

async function all<T>(results: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const result of results) found.push(result)
  return found
}

test('results come in the order of the items, whichever is done first', async () => {
  const { work, begun, of } = held()
  const results = all(ahead([1, 2, 3, 4], work, { most: 3 }))
  await Promise.resolve()
  expect(begun).toEqual([1, 2, 3])
  of(3).done()
  of(2).done()
  of(1).done()
  await expect.poll(() => begun).toEqual([1, 2, 3, 4])
  of(4).done()
  expect(await results).toEqual([10, 20, 30, 40])
})

test('no more begins than the budget holds; what alone exceeds it goes by itself', async () => {
  const { work, begun, of } = held()
  const results = ahead([5, 6, 100, 1, 2], work, { most: 10, weigh: (item) => item, budget: 12 })
  const first = results.next()
  expect(begun).toEqual([5, 6])
  of(5).done()
  expect((await first).value).toBe(50)
  // What is being looked at counts until the next is asked for.
  const second = results.next()
  of(6).done()
  await second
  expect(begun).toEqual([5, 6])
  const third = results.next()
  await expect.poll(() => begun).toEqual([5, 6, 100])
  of(100).done()
  await third
  const fourth = results.next()
  await expect.poll(() => begun).toEqual([5, 6, 100, 1, 2])
  of(1).done()
  await fourth
  await results.return(undefined)
})

test('a failure is thrown in its turn, after the results before it', async () => {
  const { work, of } = held()
  const results = ahead([1, 2, 3], work, { most: 3 })
  const first = results.next()
  of(2).fail(new Error('the second'))
  of(3).done()
  of(1).done()
  expect((await first).value).toBe(10)
  await expect(results.next()).rejects.toThrow('the second')
  expect(of(3).signal.aborted).toBe(true)
})

test('work is told when the caller leaves, or is stopped', async () => {
  for (const leave of [true, false]) {
    const { work, of } = held()
    const stop = new AbortController()
    const results = ahead([1, 2], work, { most: 2, signal: stop.signal })
    const first = results.next()
    of(1).done()
    await first
    expect(of(2).signal.aborted).toBe(false)
    if (leave) await results.return(undefined)
    else stop.abort()
    expect(of(2).signal.aborted).toBe(true)
  }
})
