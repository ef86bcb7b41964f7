import { hostname, userInfo } from 'node:os'
import { throwIfAborted } from '../base/abort.ts'
import { messageOf, WalbackError } from '../base/errors.ts'
import { version } from '../base/version.ts'
import { type AuditEnded, type AuditEvent, appendAudit, type auditActions } from './audit-record.ts'
import type { Repository } from './repository.ts'

type Facts = Readonly<Record<string, unknown>>

/** Something that is to be seen in the audit record, before it is done. */
export interface Audited<T> {
  readonly action: (typeof auditActions)[number]
  /** The database's role that does it, where one does. */
  readonly role: string | null
  /** What is asked for, without secrets: in words, and for programs. */
  readonly asked: string
  readonly facts: Facts
  /** What came of it. */
  readonly came: (result: T) => { readonly words: string; readonly facts: Facts }
}

export interface AuditOptions {
  /** It is done all the same where it cannot be recorded: a restore must not fail because a store takes nothing. */
  readonly onNotRecorded: (why: string) => void
  readonly signal?: AbortSignal | undefined
}

/** Does something, and records before that it begins, and afterwards what came of it. */
export async function recorded<T>(
  repository: Repository,
  source: string,
  audited: Audited<T>,
  work: () => Promise<T>,
  options: AuditOptions,
): Promise<{ readonly result: T; readonly record: number | undefined }> {
  const trail = new Trail(repository, source, options)
  const begun_ms = performance.now()
  const record = await trail.begin(audited)
  const end = async (outcome: AuditEnded['outcome'], came: string, facts: Facts): Promise<void> => {
    if (record === undefined) return
    const duration_ms = Math.round(performance.now() - begun_ms)
    await trail.end({ event: 'ended', time: now(), begun: record, outcome, duration_ms, came, facts: { ...facts } })
  }
  let result: T
  try {
    result = await work()
  } catch (error) {
    const code = error instanceof WalbackError ? error.code : null
    const isInterrupted = code === 'interrupted' || options.signal?.aborted === true
    await end(isInterrupted ? 'interrupted' : 'failed', messageOf(error), { code })
    throw error
  }
  const { words, facts } = audited.came(result)
  await end('done', words, facts)
  return { result, record }
}

class Trail {
  private readonly repository: Repository
  private readonly source: string
  private readonly options: AuditOptions

  constructor(repository: Repository, source: string, options: AuditOptions) {
    this.repository = repository
    this.source = source
    this.options = options
  }

  async begin({ action, role, asked, facts }: Audited<never>): Promise<number | undefined> {
    const by = { user: userName(), host: hostname(), pid: process.pid, role }
    return await this.append(
      { event: 'begun', time: now(), action, by, walbackVersion: version, asked, facts: { ...facts } },
      this.options.signal,
    )
  }

  /** Also of what was interrupted, so not by its signal. */
  async end(event: Omit<AuditEnded, 'walback' | 'format' | 'source' | 'repository' | 'number' | 'previous'>) {
    await this.append(event, AbortSignal.timeout(patience_ms))
  }

  private async append(event: AuditEvent, signal: AbortSignal | undefined): Promise<number | undefined> {
    try {
      return await appendAudit(this.repository, this.source, event, signal)
    } catch (error) {
      if (event.event === 'begun') throwIfAborted(signal)
      const isExpected = error instanceof WalbackError || signal?.aborted
      if (!isExpected) throw error
      const what = event.event === 'begun' ? 'this is not' : 'that this has ended is not'
      this.options.onNotRecorded(`${what} in the audit record: ${messageOf(error)}`)
      return undefined
    }
  }
}

/** How long a store may take to keep that something has ended. */
const patience_ms = 30_000

const now = (): string => new Date().toISOString()

/** Null for an id without a name, as containers have. */
function userName(): string | null {
  try {
    return userInfo().username
  } catch {
    return null
  }
}
