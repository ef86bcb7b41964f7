import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { z } from 'zod'
import { sleep, throwIfAborted } from '../base/abort.ts'
import { messageOf, WalbackError } from '../base/errors.ts'
import { isAbsent } from '../storage/storage.ts'
import { leasesPrefix } from './layout.ts'
import type { Repository } from './repository.ts'
import { readJson, sealedJson } from './sealed-json.ts'

/**
 * Says who is at work in a repository: a restore or a compaction, so that nothing that it reads is removed; a prune, so
 * that there is one at a time; a copy that reads all of a source (`copy`), or adds to it (`receive`), which no prune does
 * beside it. A lease is renewed for as long as its holder lives. Whether it still does is judged by watching the
 * lease for a while, and never by comparing clocks, which differ between hosts. Whoever takes a lease away says so in a
 * mark of its own, which the holder finds at its next renewal, and ends.
 */
const leaseShape = z.object({
  walback: z.literal('lease'),
  format: z.literal(1),
  token: z.string().regex(/^[0-9a-f]{16}$/),
  purpose: z.enum(['restore', 'compact', 'prune', 'copy', 'receive']),
  holder: z.object({ host: z.string(), pid: z.number() }),
  /** By the holder's clock, for people. */
  started: z.string(),
  renewed: z.string(),
  renewals: z.number(),
  interval_ms: z.number().min(1).max(3_600_000),
  /** What a restore reads: a base, and the timeline's stream from one position to another. */
  reads: z
    .object({
      timeline: z.string(),
      base: z.string(),
      stream: z.object({ from: z.string(), to: z.string() }).nullable(),
    })
    .nullable(),
})
export type LeaseRecord = z.infer<typeof leaseShape>
export type LeaseReads = NonNullable<LeaseRecord['reads']>

const brokenShape = z.object({
  walback: z.literal('lease broken'),
  format: z.literal(1),
  token: z.string(),
  by: z.object({ host: z.string(), pid: z.number() }),
  time: z.string(),
})

const brokenPrefix = (source: string): string => `${leasesPrefix(source)}broken/`
const brokenKey = (source: string, token: string): string => `${brokenPrefix(source)}${token}.json`
/** There is one key for all prunes, so that put-if-absent lets one in; readers have a key each. */
const leaseKey = (source: string, { purpose, token }: Pick<LeaseRecord, 'purpose' | 'token'>): string =>
  `${leasesPrefix(source)}${purpose === 'prune' ? 'prune' : token}.json`

export interface LeaseOptions {
  readonly purpose: LeaseRecord['purpose']
  readonly reads?: LeaseReads
  readonly interval_ms?: number
}

/** A lease that this process holds, renewed until it is let go. */
export class Lease implements AsyncDisposable {
  private readonly repository: Repository
  private readonly source: string
  private record: LeaseRecord
  private readonly lost = new AbortController()
  private timer: NodeJS.Timeout | undefined
  private renewing: Promise<void> = Promise.resolve()
  private isReleased = false

  private constructor(repository: Repository, source: string, record: LeaseRecord) {
    this.repository = repository
    this.source = source
    this.record = record
  }

  /** Fails as `locked` when another prune holds the one that prunes share. */
  static async take(repository: Repository, source: string, options: LeaseOptions): Promise<Lease> {
    const now = new Date().toISOString()
    const record: LeaseRecord = {
      walback: 'lease',
      format: 1,
      token: randomBytes(8).toString('hex'),
      purpose: options.purpose,
      holder: { host: hostname(), pid: process.pid },
      started: now,
      renewed: now,
      renewals: 0,
      interval_ms: options.interval_ms ?? usualInterval_ms,
      reads: options.reads ?? null,
    }
    const key = leaseKey(source, record)
    if (!(await repository.storage.put(key, sealedJson(record), { ifAbsent: true }))) {
      const other = (await readLeases(repository, source)).find(({ purpose }) => purpose === options.purpose)
      throw new WalbackError(
        'locked',
        `another ${options.purpose} is at work${other === undefined ? '' : `: ${describeLease(other)}`}`,
        {
          hint: 'wait until it is done; if its process is gone, `walback prune --break-stale-leases` finds that out',
          ...(other === undefined ? {} : { facts: { holder: other.holder, started: other.started } }),
          retryable: true,
        },
      )
    }
    const lease = new Lease(repository, source, record)
    lease.schedule()
    return lease
  }

  /** Fires when somebody has broken the lease; its reason is the error to end with. */
  get signal(): AbortSignal {
    return this.lost.signal
  }

  get token(): string {
    return this.record.token
  }

  /** Looks now whether the lease is still ours; fails as `locked` if it was broken. */
  async check(): Promise<void> {
    const key = brokenKey(this.source, this.record.token)
    if ((await this.repository.storage.size(key)) !== undefined) this.lost.abort(await this.brokenError(key))
    throwIfAborted(this.lost.signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.isReleased = true
    clearTimeout(this.timer)
    await this.renewing
    // One that cannot be taken back goes stale.
    await this.repository.storage.delete(leaseKey(this.source, this.record)).catch(() => undefined)
  }

  private schedule(): void {
    if (this.isReleased || this.lost.signal.aborted) return
    this.timer = setTimeout(() => {
      this.renewing = this.renew().finally(() => this.schedule())
    }, this.record.interval_ms)
    this.timer.unref()
  }

  private async renew(): Promise<void> {
    try {
      await this.check()
      const record = { ...this.record, renewed: new Date().toISOString(), renewals: this.record.renewals + 1 }
      await this.repository.storage.put(leaseKey(this.source, record), sealedJson(record))
      this.record = record
    } catch {
      // Broken, and then the signal has fired; or the store is away, and the next renewal tries again.
    }
  }

  private async brokenError(key: string): Promise<WalbackError> {
    const by = await readJson(this.repository.storage, key, brokenShape).catch(() => undefined)
    const who = by === undefined ? 'somebody' : `process ${by.by.pid} on ${by.by.host}`
    return new WalbackError('locked', `the lease of this ${this.record.purpose} was broken by ${who}`, {
      hint: 'it had not been renewed for a while, and what it reads may be removed by now; run the command again',
      facts: { token: this.record.token, by: by?.by ?? null, time: by?.time ?? null },
    })
  }
}

/**
 * The lease of one that reads. A store that takes none, because the credentials may only read, is no reason not to read:
 * the note says so.
 */
export async function takeReadersLease(
  repository: Repository,
  source: string,
  options: LeaseOptions,
): Promise<{ readonly lease?: Lease; readonly note: string | undefined }> {
  try {
    return { lease: await Lease.take(repository, source, options), note: undefined }
  } catch (error) {
    if (!(error instanceof WalbackError) || error.code !== 'storage') throw error
    return {
      note: `no lease could be written, so a prune does not know of this ${options.purpose}: ${messageOf(error)}`,
    }
  }
}

/** The leases that are in force: those that were broken are not. */
export async function readLeases(repository: Repository, source: string, signal?: AbortSignal): Promise<LeaseRecord[]> {
  const keys: string[] = []
  for await (const { key } of repository.storage.list(leasesPrefix(source), { signal })) keys.push(key)
  const broken = new Set(keys.filter((key) => key.startsWith(brokenPrefix(source))))
  const leases: LeaseRecord[] = []
  for (const key of keys.filter((one) => !broken.has(one))) {
    const lease = await readLease(repository, key)
    if (lease !== undefined && !broken.has(brokenKey(source, lease.token))) leases.push(lease)
  }
  return leases
}

/** Undefined when it was let go meanwhile. */
async function readLease(repository: Repository, key: string): Promise<LeaseRecord | undefined> {
  try {
    return await readJson(repository.storage, key, leaseShape)
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
}

/**
 * Watches leases for some of their own intervals, and breaks those that nobody renews: first a mark that the holder, if
 * it lives after all, finds; then the lease goes. Gives those that were broken.
 */
export async function breakStaleLeases(
  repository: Repository,
  source: string,
  options: { readonly signal?: AbortSignal | undefined; readonly onWatch?: (wait_ms: number) => void } = {},
): Promise<LeaseRecord[]> {
  const before = await readLeases(repository, source, options.signal)
  if (before.length === 0) return []
  const wait_ms = watchedIntervals * Math.max(...before.map(({ interval_ms }) => interval_ms))
  options.onWatch?.(wait_ms)
  await sleep(wait_ms, options.signal)
  const after = new Map(
    (await readLeases(repository, source, options.signal)).map((lease) => [lease.token, lease.renewals]),
  )
  const stale = before.filter(({ token, renewals }) => after.get(token) === renewals)
  for (const lease of stale) await breakLease(repository, source, lease)
  return stale
}

async function breakLease(repository: Repository, source: string, lease: LeaseRecord): Promise<void> {
  const mark: z.infer<typeof brokenShape> = {
    walback: 'lease broken',
    format: 1,
    token: lease.token,
    by: { host: hostname(), pid: process.pid },
    time: new Date().toISOString(),
  }
  await repository.storage.put(brokenKey(source, lease.token), sealedJson(mark), { ifAbsent: true })
  await repository.storage.delete(leaseKey(source, lease))
}

/** `restore on db7 (process 4242), since 2026-11-23T14:00:00Z, renewed at …`. */
export const describeLease = ({ purpose, holder, started, renewed }: LeaseRecord): string =>
  `${purpose} on ${holder.host} (process ${holder.pid}) since ${toSecond(started)}, renewed ${toSecond(renewed)} by its clock`

const toSecond = (stamp: string): string => `${stamp.slice(0, 19)}Z`

const usualInterval_ms = 30_000
/** Of these a living holder misses one or two when its store is slow. */
const watchedIntervals = 4
