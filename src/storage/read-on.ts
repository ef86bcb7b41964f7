import { addAbortSignal, Readable } from 'node:stream'
import { sleep, throwIfAborted } from '../base/abort.ts'
import { messageOf, WalbackError } from '../base/errors.ts'

/** What one request for an object's bytes gave. */
export interface Piece {
  readonly body: AsyncIterable<Uint8Array>
  /** How many bytes must come. */
  readonly length_bytes: number
  /** Names this version of the object: what is read on has to be of the same. */
  readonly version: string | undefined
}

export interface Reading {
  readonly start: number
  readonly signal: AbortSignal | undefined
  /** Asks for the bytes from `at` on; undefined when none lie there. */
  open(at: number, version: string | undefined): Promise<Piece | undefined>
  /** Whether a body that broke off with this error may be asked for again. */
  isPassing(error: unknown): boolean
}

/**
 * The bytes of an object over a network. A body that breaks off, or ends before its length, is gone on with at the
 * byte where it stopped: a restore reads for hours, and no connection lasts that long for certain.
 */
export async function* readOn(reading: Reading): AsyncGenerator<Buffer> {
  const { signal } = reading
  let [at, version] = [reading.start, undefined as string | undefined]
  for (let [breaks, idle] = [0, 0]; ; breaks++) {
    throwIfAborted(signal)
    const piece = await reading.open(at, version)
    if (piece === undefined) return
    version ??= piece.version
    const [from, end] = [at, at + piece.length_bytes]
    let broken: unknown = new WalbackError('storage', `the store ended a body ${end} bytes long early`)
    try {
      for await (const chunk of stoppable(piece.body, signal)) {
        at += chunk.length
        yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
      }
      if (at >= end) return
    } catch (error) {
      throwIfAborted(signal)
      if (!reading.isPassing(error)) throw error
      broken = error
    }
    idle = at > from ? 0 : idle + 1
    if (idle >= maxIdleBreaks || breaks >= maxBreaks) {
      throw new WalbackError(
        'storage',
        `the connection broke off again and again at byte ${at}: ${messageOf(broken)}`,
        {
          cause: broken,
          retryable: true,
        },
      )
    }
    await sleep(Math.min(firstWait_ms * 2 ** idle, longestWait_ms), signal)
  }
}

/** Breaks in a row that brought not one byte, and breaks in all. */
const maxIdleBreaks = 6
const maxBreaks = 1000
const firstWait_ms = 100
const longestWait_ms = 5000

/** A body whose reader is woken when the signal fires, also while the store is silent. */
function stoppable(body: AsyncIterable<Uint8Array>, signal: AbortSignal | undefined): AsyncIterable<Uint8Array> {
  return body instanceof Readable && signal !== undefined ? addAbortSignal(AbortSignal.any([signal]), body) : body
}
