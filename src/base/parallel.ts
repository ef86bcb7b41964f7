/**
 * Runs `work` over the items with at most `limit` at a time. The first failure stops new items from starting, waits
 * for those under way, and is then thrown, so that nothing runs on behind the caller's back.
 */
export async function forEachParallel<T>(
  items: Iterable<T>,
  limit: number,
  work: (item: T, lane: number) => Promise<void>,
): Promise<void> {
  const iterator = items[Symbol.iterator]()
  let failure: { error: unknown } | undefined
  const lane = async (index: number): Promise<void> => {
    for (;;) {
      if (failure) return
      const next = iterator.next()
      if (next.done) return
      try {
        await work(next.value, index)
      } catch (error) {
        failure ??= { error }
      }
    }
  }
  await Promise.all(Array.from({ length: limit }, (_, index) => lane(index)))
  if (failure) throw failure.error
}
