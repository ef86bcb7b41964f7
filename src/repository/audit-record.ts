import { createHash } from 'node:crypto'
import { z } from 'zod'
import { ahead } from '../base/ahead.ts'
import { messageOf, WalbackError } from '../base/errors.ts'
import { isAbsent, readAll, type Storage } from '../storage/storage.ts'
import { auditChainPrefix, auditKey, auditPrefix } from './layout.ts'
import type { Repository } from './repository.ts'
import { readJsonBytes, sealedJson } from './sealed-json.ts'

/** What is recorded. Names are stable: records are read by later versions. */
export const auditActions = [
  'restore',
  'restore-live',
  'restore-in-place',
  'rollback',
  'restore-sql',
  'undo',
  'prune',
  'compact',
  'pin',
  'unpin',
] as const

/**
 * A record of the audit: one when something begins that changes anything outside of the archive, or removes of it, and
 * one when it has ended, so that what was killed is seen to have begun. Each holds the hash of the one before it, so
 * that one that was changed or taken away is missed. A chain belongs to the repository that wrote it: what copies bring
 * keeps its own beside.
 */
const chained = {
  walback: z.literal('audit'),
  format: z.literal(1),
  source: z.string(),
  repository: z.string(),
  number: z.int(),
  /** SHA-256 of the record before, as it was given to the store; null for the first, or if that could not be read. */
  previous: z.string().nullable(),
}
const auditShape = z.discriminatedUnion('event', [
  z.object({
    ...chained,
    event: z.literal('begun'),
    /** By the clock of the machine that wrote it. */
    time: z.string(),
    /** Later versions may know more. */
    action: z.string(),
    by: z.object({
      user: z.string().nullable(),
      host: z.string(),
      pid: z.number(),
      /** The database's role, where one was used. */
      role: z.string().nullable(),
    }),
    walbackVersion: z.string(),
    /** What was asked for: in words, and for programs. */
    asked: z.string(),
    facts: z.record(z.string(), z.unknown()),
  }),
  z.object({
    ...chained,
    event: z.literal('ended'),
    time: z.string(),
    /** Of the record that says that it began, in the same chain. */
    begun: z.int(),
    outcome: z.enum(['done', 'failed', 'interrupted']),
    duration_ms: z.number(),
    /** What came of it, or the message of the error. */
    came: z.string(),
    facts: z.record(z.string(), z.unknown()),
  }),
])
export type AuditRecord = z.infer<typeof auditShape>
export type AuditBegun = Extract<AuditRecord, { event: 'begun' }>
export type AuditEnded = Extract<AuditRecord, { event: 'ended' }>
type Chained = keyof typeof chained
export type AuditEvent = Omit<AuditBegun, Chained> | Omit<AuditEnded, Chained>

/** Something that was done, or was begun and has not ended: it is at work, or was killed. */
export interface AuditedAction {
  readonly begun: AuditBegun
  readonly ended: AuditEnded | undefined
}

/** A place where a chain is not as it was written. */
export interface AuditBreak {
  readonly key: string
  readonly message: string
}

/** The newest record of a chain. */
export interface AuditHead {
  readonly repository: string
  readonly number: number
  readonly sha256: string
}

export interface AuditTrail {
  /** Newest first. */
  readonly actions: readonly AuditedAction[]
  readonly breaks: readonly AuditBreak[]
  readonly heads: readonly AuditHead[]
  /** Hashes of all records that could be read, by key. */
  readonly hashes: ReadonlyMap<string, string>
}

/** Puts a record at the end of the repository's own chain, and gives its number. */
export async function appendAudit(
  { storage, id }: Repository,
  source: string,
  event: AuditEvent,
  signal?: AbortSignal,
): Promise<number> {
  for (let attempt = 0; attempt < mostAttempts; attempt++) {
    const last = await lastNumber(storage, auditChainPrefix(source, id), signal)
    const previous = last === 0 ? null : await hashOf(storage, auditKey(source, id, last), signal)
    const number = last + 1
    const chained = { walback: 'audit', format: 1, source, repository: id, number, previous } as const
    const bytes = sealedJson({ ...chained, ...event })
    if (await storage.put(auditKey(source, id, number), bytes, { ifAbsent: true, signal })) return number
  }
  throw new WalbackError('locked', `others keep writing to the audit record of ${source} at the same time`, {
    retryable: true,
  })
}

const mostAttempts = 100

async function lastNumber(storage: Storage, prefix: string, signal: AbortSignal | undefined): Promise<number> {
  let last = 0
  for await (const { key } of storage.list(prefix, { signal })) last = numberOf(key) ?? last
  return last
}

const numberOf = (key: string): number | undefined => {
  const digits = /\/(\d{8})\.json$/.exec(key)?.[1]
  return digits === undefined ? undefined : Number(digits)
}

export const auditHash = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** Null where it does not open: then the next cannot be tied to it, and the chain is seen to be broken there. */
async function hashOf(storage: Storage, key: string, signal: AbortSignal | undefined): Promise<string | null> {
  try {
    return auditHash(await readAll(storage.get(key, { signal })))
  } catch (error) {
    if (error instanceof WalbackError && error.code === 'corrupt') return null
    throw error
  }
}

/** A record with its bytes, as they were given to the store. */
export const readAuditRecord = (
  storage: Storage,
  key: string,
  signal?: AbortSignal,
): Promise<{ readonly bytes: Buffer; readonly value: AuditRecord }> =>
  readJsonBytes(storage, key, auditShape, { signal })

interface ReadRecord {
  readonly key: string
  readonly number: number
  readonly read: { readonly sha256: string; readonly record: AuditRecord } | { readonly damage: string }
}

/** Reads all chains that a repository holds of a source, and looks whether they are whole. */
export async function readAudit(repository: Repository, source: string, signal?: AbortSignal): Promise<AuditTrail> {
  const { storage } = repository
  const keys: string[] = []
  for await (const { key } of storage.list(auditPrefix(source), { signal })) keys.push(key)
  const chains = new Map<string, Chain>()
  const read = (key: string, stop: AbortSignal): Promise<ReadRecord> => readOne(storage, key, stop)
  for await (const one of ahead(keys, read, { most: readers, signal })) {
    const id = one.key.slice(auditPrefix(source).length).split('/')[0] ?? ''
    const chain = chains.get(id) ?? new Chain(source, id)
    chains.set(id, chain)
    chain.add(one)
  }
  const all = [...chains.values()]
  return {
    actions: newestFirst(all.map((chain) => [...chain.actions.values()])),
    breaks: all.flatMap((chain) => chain.breaks),
    heads: all.flatMap((chain) => chain.head ?? []),
    hashes: new Map(all.flatMap((chain) => [...chain.hashes])),
  }
}

/** Records on their way at a time. */
const readers = 8

async function readOne(storage: Storage, key: string, signal: AbortSignal): Promise<ReadRecord> {
  const number = numberOf(key) ?? 0
  try {
    const { bytes, value } = await readAuditRecord(storage, key, signal)
    return { key, number, read: { sha256: auditHash(bytes), record: value } }
  } catch (error) {
    const isDamage = error instanceof WalbackError && (error.code === 'corrupt' || error.code === 'failed')
    if (!isDamage && !isAbsent(error)) throw error
    return { key, number, read: { damage: messageOf(error) } }
  }
}

/** One repository's records, in the order of their numbers. */
class Chain {
  readonly actions = new Map<number, AuditedAction>()
  readonly breaks: AuditBreak[] = []
  readonly hashes = new Map<string, string>()
  head: AuditHead | undefined
  private readonly source: string
  private readonly repository: string
  private last = 0
  /** Undefined: the one before is missing, or cannot be read, which is told already. */
  private lastHash: string | null | undefined = null

  constructor(source: string, repository: string) {
    this.source = source
    this.repository = repository
  }

  add({ key, number, read }: ReadRecord): void {
    const damage = 'damage' in read ? read.damage : this.misfit(read.record, number)
    if (number > this.last + 1) {
      this.break(auditKey(this.source, this.repository, this.last + 1), missing(this.last + 1, number - 1))
      this.lastHash = undefined
    }
    this.last = number
    if ('damage' in read || damage !== undefined) {
      this.break(key, damage ?? '')
      this.lastHash = undefined
      return
    }
    const { record, sha256 } = read
    if (this.lastHash !== undefined && record.previous !== this.lastHash)
      this.break(key, `${key} names another record before it than the one that is there`)
    this.lastHash = sha256
    this.hashes.set(key, sha256)
    this.head = { repository: this.repository, number, sha256 }
    if (record.event === 'begun') this.actions.set(number, { begun: record, ended: undefined })
    else this.end(record)
  }

  private end(ended: AuditEnded): void {
    const action = this.actions.get(ended.begun)
    if (action !== undefined) this.actions.set(ended.begun, { ...action, ended })
  }

  private misfit({ source, repository, number }: AuditRecord, place: number): string | undefined {
    if (source === this.source && repository === this.repository && number === place) return undefined
    return `it is record ${number} of source ${source} in repository ${repository}`
  }

  private break(key: string, message: string): void {
    this.breaks.push({ key, message })
  }
}

const missing = (from: number, to: number): string =>
  from === to ? `record ${from} is missing` : `records ${from} to ${to} are missing`

/** Within a chain the numbers are the order, whatever the clocks say; between chains there is nothing but the clocks. */
function newestFirst(chains: readonly (readonly AuditedAction[])[]): AuditedAction[] {
  const left = chains.map((chain) => [...chain])
  const merged: AuditedAction[] = []
  for (;;) {
    const timeOf = (chain: readonly AuditedAction[]): string => chain.at(-1)?.begun.time ?? ''
    const next = left.reduce<AuditedAction[] | undefined>(
      (best, chain) => (chain.length > 0 && (best === undefined || timeOf(chain) > timeOf(best)) ? chain : best),
      undefined,
    )
    const action = next?.pop()
    if (action === undefined) return merged
    merged.push(action)
  }
}
