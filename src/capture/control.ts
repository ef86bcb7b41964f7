import type pg from 'pg'
import { sleep } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { explainSessionFailure } from '../postgres/replication-failure.ts'

/**
 * Asks the server something over the ordinary session. Questions wait for each other; one that is not answered in its
 * time, counted from when its turn comes, ends the session: a server that lives says at least that it gave up. A session
 * that is lost meanwhile is an error that may be tried again.
 */
export type Ask = <T>(question: (client: pg.Client) => Promise<T>, limit_ms?: number) => Promise<T>

/** The ordinary session beside the stream. */
export interface Control extends AsyncDisposable {
  readonly ask: Ask
  /** Fires when the session is lost, for whatever reason: no heartbeat would be written any more. */
  readonly draining: AbortSignal
  /** Why, if it was we who gave it up. */
  readonly givenUp: WalbackError | undefined
}

export async function openControl(
  conninfo: Conninfo,
  options: { readonly signal: AbortSignal; readonly patience_ms?: number | undefined },
): Promise<Control> {
  const patience_ms = options.patience_ms ?? controlPatience_ms
  const client = await connect(conninfo, {
    application: 'walback control',
    settings: { ...controlSettings, statement_timeout: String(Math.round((patience_ms * 2) / 3)) },
    signal: options.signal,
  })
  const draining = new AbortController()
  client.on('error', () => draining.abort())
  client.on('end', () => draining.abort())
  let givenUp: WalbackError | undefined
  let turn: Promise<unknown> = Promise.resolve()
  const giveUp = (limit_ms: number): WalbackError => {
    givenUp ??= new WalbackError('database', `the server has not answered for ${limit_ms / 1000} s`, {
      hint: 'is the network between walback and the server in order, and the server not overloaded? the next attempt makes new connections',
      retryable: true,
    })
    draining.abort()
    // `end` would wait for the answer that does not come.
    socketOf(client).destroy()
    return givenUp
  }
  const ask: Ask = (question, limit_ms = patience_ms) => {
    const answer = turn.then(() => inTime(question(client), limit_ms, giveUp))
    turn = answer.catch(() => undefined)
    return answer.catch((error: unknown) => {
      throw givenUp ?? explainSessionFailure(error)
    })
  }
  return {
    ask,
    draining: draining.signal,
    get givenUp() {
      return givenUp
    },
    [Symbol.asyncDispose]: async () => {
      // A server that does not answer does not keep us either.
      const over = new AbortController()
      await Promise.race([client.end(), sleep(goodbye_ms, over.signal)]).catch(() => undefined)
      over.abort()
      socketOf(client).destroy()
    },
  }
}

async function inTime<T>(work: Promise<T>, limit_ms: number, giveUp: (limit_ms: number) => WalbackError): Promise<T> {
  const over = new AbortController()
  // After the race nobody waits for the loser.
  work.catch(() => undefined)
  try {
    const late = sleep(limit_ms, over.signal).then(() => Promise.reject(giveUp(limit_ms)))
    late.catch(() => undefined)
    return await Promise.race([work, late])
  } finally {
    over.abort()
  }
}

/** The types of `pg` leave its connection out. */
const socketOf = (client: pg.Client): { destroy(): void } =>
  (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream

/**
 * Whatever the role's defaults: the session is idle between heartbeats, and a heartbeat may wait for the disk. Reading the
 * catalogs takes one core at most, and a compiler would take longer than the reading.
 */
const controlSettings = {
  idle_session_timeout: '0',
  search_path: '',
  jit: 'off',
  max_parallel_workers_per_gather: '0',
}
const goodbye_ms = 2000
/** Far more than a heartbeat on a busy server takes; the server itself gives a statement up at two thirds of it. */
const controlPatience_ms = 90_000
