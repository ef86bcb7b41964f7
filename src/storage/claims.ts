import { sleep, throwIfAborted } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'

/** What claims need of a store: reads and listings that show every write that was acknowledged before. */
export interface ClaimStore {
  put(key: string): Promise<void>
  delete(key: string): Promise<void>
  exists(key: string): Promise<boolean>
  /** Everything below a prefix, and when the store says it was written. */
  list(prefix: string): Promise<readonly { readonly key: string; readonly modified: Date }[]>
}

export interface ClaimTimes {
  /** A claim that is older than this was left by a writer that died. */
  readonly stale_ms: number
  /** How long after its claim a writer may still write. The rest, up to `stale_ms`, is for a request on its way. */
  readonly write_ms: number
  readonly firstWait_ms: number
  readonly longestWait_ms: number
}

export const claimTimes: ClaimTimes = { stale_ms: 60_000, write_ms: 25_000, firstWait_ms: 20, longestWait_ms: 500 }

/** All that is not the repository's: never listed. */
export const ownPrefix = '.walback/'
const claimsPrefix = (key: string): string => `${ownPrefix}claims/${key.replaceAll('/', '!')}/`

/**
 * Put-if-absent for a store without one: mutual exclusion by claim objects. Who wants to write a key puts a claim, then
 * lists the claims on it. Who sees nobody else's looks whether the key exists, writes, and takes the claim back; since
 * claims come before listings, of two writers one sees the other. Who sees a smaller claim than its own withdraws, the
 * smallest stays and waits. A claim of a writer that died goes stale by the store's clock, and is broken; a writer
 * therefore gives up long before (docs/decisions/0008 says what is left of a risk).
 */
export async function putUnderClaim(
  store: ClaimStore,
  key: string,
  token: string,
  write: (signal: AbortSignal) => Promise<void>,
  options: { readonly signal?: AbortSignal | undefined; readonly times?: ClaimTimes } = {},
): Promise<boolean> {
  const { signal, times = claimTimes } = options
  const deadline = performance.now() + 3 * times.stale_ms
  for (;;) {
    throwIfAborted(signal)
    if (await store.exists(key)) return false
    const claim = new Claim(store, key, token, times)
    if (await claim.contend(signal)) return claim.use(write, signal)
    if (performance.now() > deadline) {
      throw new WalbackError('storage', `other writers do not let go of ${key}`, {
        retryable: true,
        hint: 'let only one agent write for a source',
      })
    }
    await waitForOthers(store, key, times, signal)
  }
}

/** Until nobody claims the key, or until whoever does must be gone: those who come back would only keep the first waiting. */
async function waitForOthers(
  store: ClaimStore,
  key: string,
  times: ClaimTimes,
  signal: AbortSignal | undefined,
): Promise<void> {
  const deadline = performance.now() + times.stale_ms
  for (let wait_ms = times.firstWait_ms; performance.now() < deadline; wait_ms *= 2) {
    // Without a clock in common, chance keeps those who wait from coming back together.
    await sleep(Math.min(wait_ms, times.longestWait_ms) * (0.5 + Math.random()), signal)
    if ((await store.list(claimsPrefix(key))).length === 0) return
  }
}

class Claim {
  private readonly store: ClaimStore
  private readonly key: string
  private readonly own: string
  private readonly times: ClaimTimes
  private begun = 0

  constructor(store: ClaimStore, key: string, token: string, times: ClaimTimes) {
    this.store = store
    this.key = key
    this.own = `${claimsPrefix(key)}${token}`
    this.times = times
  }

  /** Puts the claim, and stays until it is the only one; false, and taken back, when another goes first. */
  async contend(signal: AbortSignal | undefined): Promise<boolean> {
    // Before the put is sent: the claim is never younger, by the store's clock, than it is counted here.
    this.begun = performance.now()
    await this.store.put(this.own)
    try {
      for (let wait_ms = this.times.firstWait_ms; this.canStillWrite; wait_ms *= 2) {
        const others = await this.others()
        if (others === undefined) return false
        if (others.length === 0) return true
        if (others.some((other) => other < this.own)) break
        await sleep(Math.min(wait_ms, this.times.longestWait_ms), signal)
      }
    } catch (error) {
      await this.withdraw()
      throw error
    }
    await this.withdraw()
    return false
  }

  /** Writes, if nobody has. A write whose outcome is not known keeps its claim, so that nobody overtakes it. */
  async use(write: (signal: AbortSignal) => Promise<void>, signal: AbortSignal | undefined): Promise<boolean> {
    const isThere = await this.store.exists(this.key)
    if (!isThere && this.canStillWrite) {
      const tooLate = AbortSignal.timeout(Math.ceil(this.begun + this.times.write_ms - performance.now()))
      try {
        await write(signal === undefined ? tooLate : AbortSignal.any([signal, tooLate]))
      } catch (error) {
        throwIfAborted(signal)
        throw tooLate.aborted ? this.tooSlow(error) : error
      }
      await this.withdraw()
      return true
    }
    await this.withdraw()
    if (isThere) return false
    throw this.tooSlow(undefined)
  }

  private get canStillWrite(): boolean {
    return performance.now() - this.begun < this.times.write_ms
  }

  /** Other writers' claims, without the stale ones, which are removed; undefined when our own was taken for stale. */
  private async others(): Promise<readonly string[] | undefined> {
    const claims = await this.store.list(claimsPrefix(this.key))
    const own = claims.find(({ key }) => key === this.own)
    if (own === undefined) return undefined
    const now_ms = own.modified.getTime() + performance.now() - this.begun
    const others: string[] = []
    for (const { key, modified } of claims) {
      if (key === this.own) continue
      if (now_ms - modified.getTime() > this.times.stale_ms) await this.store.delete(key)
      else others.push(key)
    }
    return others
  }

  /** What cannot be taken back goes stale. */
  private async withdraw(): Promise<void> {
    await this.store.delete(this.own).catch(() => undefined)
  }

  private tooSlow(cause: unknown): WalbackError {
    return new WalbackError('storage', `the store was too slow to write ${this.key} safely`, {
      cause,
      retryable: true,
      hint: 'a store without conditional puts has to answer within seconds',
    })
  }
}
