/** Runs transactions by several clients at once until it is told to stop, over errors that a busy database may give. */
import pg from 'pg'
import { sleep } from '../../src/base/abort.ts'
import { codeOf, messageOf } from '../../src/base/errors.ts'
import { Random } from './random.ts'

/** A transaction that committed, and a position and a time read after its commit: targets to recover to. */
export interface Sample {
  readonly xid: string
  readonly commitLsnAfter: string
  /** clock_timestamp(), in UTC. */
  readonly timeAfter: string
}

export interface LoadReport {
  /** Transactions done on purpose, by the name of their kind. */
  readonly done: Readonly<Record<string, number>>
  /** Transactions that the server ended (deadlocks, lock timeouts, duplicate keys), by SQLSTATE. */
  readonly failed: Readonly<Record<string, number>>
  readonly reconnects: number
  readonly samples: readonly Sample[]
}

export interface LoadOptions {
  readonly clients: number
  readonly seed?: number
  /** Stop after so many transactions per client, if the signal does not come first. */
  readonly transactions?: number
  /** Stops the load; each client first finishes the transaction that it is in. */
  readonly signal?: AbortSignal
}

export interface Kind {
  readonly name: string
  /** How often it is chosen, against the weights of the others. */
  readonly weight: number
  run(session: Session): Promise<void>
}

export type Row = Record<string, unknown>

/** One client's connection. */
export class Session {
  readonly random: Random
  /** Names what this client makes, as prepared transactions. */
  readonly label: string
  readonly #url: string
  readonly #client: pg.Client
  readonly #samples: Sample[]
  readonly #sampling: number
  #second: Session | undefined
  #lost = false

  private constructor(url: string, random: Random, label: string, samples: Sample[], sampling: number) {
    this.random = random
    this.label = label
    this.#url = url
    this.#samples = samples
    this.#sampling = sampling
    this.#client = new pg.Client({ connectionString: url, application_name: 'load' })
    this.#client.on('error', () => {
      this.#lost = true
    })
    this.#client.on('end', () => {
      this.#lost = true
    })
  }

  static async open(
    url: string,
    from: { random: Random; label: string; samples: Sample[]; sampling: number },
  ): Promise<Session> {
    const session = new Session(url, from.random, from.label, from.samples, from.sampling)
    await session.#client.connect()
    // A client with two sessions can wait for itself, which the deadlock detector does not see.
    await session.sql(`set lock_timeout = '2s'; set timezone = 'UTC'`)
    return session
  }

  get lost(): boolean {
    return this.#lost
  }

  async sql(text: string, values?: readonly unknown[]): Promise<Row[]> {
    const result = await this.#client.query<Row>(text, values === undefined ? undefined : [...values])
    return result.rows
  }

  /** A named statement, parsed once per connection. */
  async prepared(name: string, text: string, values: readonly unknown[]): Promise<void> {
    await this.#client.query({ name, text, values: [...values] })
  }

  /** Runs the body in a transaction, and now and then keeps a sample of it. */
  async transaction(body: () => Promise<void>, end: { with?: 'commit' | 'rollback' } = {}): Promise<void> {
    await this.sql('begin')
    await body()
    if (end.with === 'rollback') await this.sql('rollback')
    else await this.sampled(() => this.sql('commit'))
  }

  /** Runs the commit of the transaction that is open, and now and then keeps a sample of it. */
  async sampled(commit: () => Promise<unknown>): Promise<void> {
    const wanted = this.random.chance(this.#sampling)
    const [open] = wanted ? await this.sql('select pg_current_xact_id_if_assigned()::text as xid') : []
    await commit()
    if (typeof open?.xid === 'string') await this.sample(open.xid)
  }

  /** Keeps a sample of a transaction that has committed. */
  async sample(xid: string): Promise<void> {
    const [row] = await this.sql('select pg_current_wal_insert_lsn()::text as lsn, clock_timestamp()::text as time')
    this.#samples.push({ xid, commitLsnAfter: String(row?.lsn), timeAfter: String(row?.time) })
  }

  /** A second connection of the same client. */
  async second(): Promise<Session> {
    if (this.#second?.lost) this.#second = undefined
    const from = {
      random: this.random,
      label: `${this.label}-second`,
      samples: this.#samples,
      sampling: this.#sampling,
    }
    this.#second ??= await Session.open(this.#url, from)
    return this.#second
  }

  /** Leaves whatever transaction is open, here and on the second connection. */
  async reset(): Promise<void> {
    await this.sql('rollback')
    await this.#second?.sql('rollback')
  }

  async close(): Promise<void> {
    await this.#second?.close()
    await this.#client.end().catch(() => {})
  }
}

/**
 * What a load may meet without being wrong: serialization failure, deadlock, lock timeout, duplicate key, foreign key,
 * and a statement cancelled.
 */
const expected = new Set(['40001', '40P01', '55P03', '23505', '23503', '57014'])

/** SQLSTATE classes and codes of a server that goes away, and what Node and `pg` say then. */
const lostCode = /^(08...|57P0[1-4]|ECONN(REFUSED|RESET)|EPIPE|ENOENT)$/
const lostMessage = /^(Connection terminated|Client has encountered a connection error|Client was closed)/

const isLost = (error: unknown): boolean => lostCode.test(codeOf(error) ?? '') || lostMessage.test(messageOf(error))

const reconnectEvery_ms = 100

/** Runs kinds of transaction, chosen by their weights. An unforeseen error is thrown once every client has stopped. */
export async function runLoad(
  url: string,
  kinds: readonly Kind[],
  options: LoadOptions & { sampling: number; opened?: (session: Session) => Promise<void> },
): Promise<LoadReport> {
  const done: Record<string, number> = {}
  const failed: Record<string, number> = {}
  const samples: Sample[] = []
  const stop = new AbortController()
  const over = (): boolean => stop.signal.aborted || options.signal?.aborted === true
  let reconnects = -options.clients

  const client = async (index: number): Promise<void> => {
    const random = new Random((options.seed ?? 1) * 7919 + index)
    const label = `load-${options.seed ?? 1}-${index}`
    let session: Session | undefined
    let left = options.transactions ?? Number.POSITIVE_INFINITY
    try {
      while (!over() && left > 0) {
        const kind = choose(kinds, random)
        try {
          if (session === undefined) {
            session = await Session.open(url, { random, label, samples, sampling: options.sampling })
            reconnects++
            await options.opened?.(session)
          }
          await kind.run(session)
          done[kind.name] = (done[kind.name] ?? 0) + 1
          left--
        } catch (error) {
          if (isLost(error) || session?.lost) {
            await session?.close()
            session = undefined
            await sleep(reconnectEvery_ms)
            continue
          }
          const code = codeOf(error) ?? ''
          if (!expected.has(code)) throw new Error(`${kind.name}: ${messageOf(error)}`, { cause: error })
          failed[code] = (failed[code] ?? 0) + 1
          left--
          // A connection that breaks here shows itself at the next transaction.
          await session?.reset().catch(() => {})
        }
      }
    } catch (error) {
      stop.abort()
      throw error
    } finally {
      await session?.close()
    }
  }

  const results = await Promise.allSettled(Array.from({ length: options.clients }, (_, index) => client(index)))
  for (const result of results) if (result.status === 'rejected') throw result.reason
  return { done, failed, reconnects: Math.max(0, reconnects), samples }
}

function choose(kinds: readonly Kind[], random: Random): Kind {
  let rest = random.next() * kinds.reduce((sum, kind) => sum + kind.weight, 0)
  for (const kind of kinds) {
    rest -= kind.weight
    if (rest < 0) return kind
  }
  throw new Error('no kind of transaction to choose from')
}
