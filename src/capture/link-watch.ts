import { sleep } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import type { ReplicationStream } from '../postgres/replication.ts'
import type { WalsenderState } from '../postgres/walsender.ts'

export interface LinkWatch {
  readonly stream: Pick<ReplicationStream, 'heardAt_ms' | 'isPaused' | 'serverPatience_ms'>
  /** Asks over the other session what the stream's server process does; fails if that session is lost or silent. */
  readonly look: (limit_ms: number) => Promise<WalsenderState | undefined>
  readonly stop: AbortSignal
}

/**
 * A connection that a firewall or a failed machine has forgotten brings nothing and no error (PowerSync #700:
 * capture stood still, and all lights were green). So something must be heard of the server within twice its own
 * patience: the stream asks for a reply where it is silent, and a server that waits for us answers at once. One that is
 * at work on a large transaction does not; whether it is, it says over the other session. Nor does it help that bytes
 * come in if our own do not arrive: it also says when it last heard us.
 *
 * Returns when `stop` fires; throws, retryable, when the connection is dead.
 */
export async function watchLink({ stream, look, stop }: LinkWatch): Promise<void> {
  const limit_ms = silenceLimit_ms(stream.serverPatience_ms)
  // A server with patience ends a session that it does not hear; it reads what we send at half of that at the latest.
  const unheardLimit_ms = Math.max(limit_ms, stream.serverPatience_ms)
  const interval_ms = limit_ms / looksInLimit
  let begun_ms = performance.now()
  let heard: { readonly text: string | undefined; readonly since_ms: number; readonly waits: number } | undefined
  let absent = 0
  while (!stop.aborted) {
    const slept_ms = performance.now()
    await sleep(interval_ms, stop).catch(() => undefined)
    if (stop.aborted) return
    const state = await look(limit_ms)
    const now = performance.now()
    const isHeldUp = now - slept_ms > 2 * interval_ms
    const isAtWork = state !== undefined && !state.isWaiting
    // Of a server at work, and of a process that was itself asleep (SIGSTOP, a laptop's lid), silence proves nothing.
    if (isHeldUp || stream.isPaused || isAtWork) begun_ms = now
    if (isHeldUp || heard?.text !== state?.heard) heard = undefined
    // It reads what we send whenever it waits, so it is only then that not having heard us counts.
    heard = { text: state?.heard, since_ms: heard?.since_ms ?? now, waits: (heard?.waits ?? 0) + (isAtWork ? 0 : 1) }
    absent = state === undefined ? absent + 1 : 0
    if (absent >= looksInLimit) throw dead(`the server says that nobody reads from the slot, for ${seconds(limit_ms)}`)
    if (now - Math.max(begun_ms, stream.heardAt_ms) >= limit_ms)
      throw dead(`nothing has come from the server for ${seconds(limit_ms)}, though it was asked to answer`)
    if (state?.heard !== undefined && heard.waits >= looksInLimit && now - heard.since_ms >= unheardLimit_ms)
      throw dead(`the server has heard nothing from us for ${seconds(unheardLimit_ms)}`)
  }
}

/** Twice the server's patience, at most two minutes also where that is longer or without end. */
const silenceLimit_ms = (serverPatience_ms: number): number =>
  2 * (serverPatience_ms > 0 ? Math.min(serverPatience_ms, longestPatience_ms) : longestPatience_ms)

const longestPatience_ms = 60_000
const looksInLimit = 4

const seconds = (duration_ms: number): string => `${Math.round(duration_ms / 100) / 10} s`

const dead = (what: string): WalbackError =>
  new WalbackError('database', `the connection of the change stream is dead: ${what}`, {
    hint: 'a firewall or a gateway between walback and the server may drop idle or long connections; the next attempt goes on from where the archive ends',
    retryable: true,
  })
