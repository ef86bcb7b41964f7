import { throwIfAborted } from '../base/abort.ts'

/** The parts that an upload of unknown length is cut into. */

const MiB = 2 ** 20

/**
 * How large a part is, by its number from 1. A store takes 10,000 parts of at most 5 GiB and objects of 5 TiB: equal
 * small parts would end at 80 GiB, equal large ones would hold half a gigabyte for every object. So parts grow: 8 GB
 * in small ones, then 250 GiB in middling ones, and 5 TiB before the last.
 */
export const partBytes = (number: number): number => (number <= 1000 ? 8 * MiB : number <= 5000 ? 64 * MiB : 1000 * MiB)

export const maxParts = 10_000

/** Cuts a body into parts of `size(1)`, `size(2)`, … bytes; the last may be shorter. An empty body is one empty part. */
export async function* cutParts(
  body: Buffer | AsyncIterable<Buffer>,
  size: (number: number) => number,
): AsyncGenerator<Buffer> {
  let [number, held, held_bytes] = [1, [] as Buffer[], 0]
  for await (const chunk of Buffer.isBuffer(body) ? [body] : body) {
    for (let rest = chunk; rest.length > 0; ) {
      const taken = rest.subarray(0, size(number) - held_bytes)
      held.push(taken)
      held_bytes += taken.length
      rest = rest.subarray(taken.length)
      if (held_bytes < size(number)) continue
      yield Buffer.concat(held, held_bytes)
      number++
      held = []
      held_bytes = 0
    }
  }
  if (held_bytes > 0 || number === 1) yield Buffer.concat(held, held_bytes)
}

/** A body that ends as interrupted once the signal has fired. */
export async function* stopping(
  body: Buffer | AsyncIterable<Buffer>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  for await (const chunk of Buffer.isBuffer(body) ? [body] : body) {
    throwIfAborted(signal)
    yield chunk
  }
  throwIfAborted(signal)
}
