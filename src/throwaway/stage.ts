/**
 * Where the past is brought back to be looked at, and that is gone afterwards: a server for this purpose alone, or a
 * temporary database on a server that is given.
 */
import { randomBytes } from 'node:crypto'
import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { messageOf } from '../base/errors.ts'
import { quoteIdent } from '../model/identifier.ts'
import { connect } from '../postgres/connect.ts'
import { type Conninfo, describeConninfo, resolveConninfo, withDatabase } from '../postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../postgres/embedded.ts'
import { removeLeftovers } from '../postgres/embedded-folder.ts'
import type { Repository } from '../repository/repository.ts'
import { connectForAdmin, dropLeftovers, holdName } from '../restore/destination.ts'
import type { RestorePlan } from '../restore/plan.ts'
import type { OnProgress } from '../restore/progress.ts'
import { type RestoreReport, restore } from '../restore/restore.ts'
import { requireDisk } from './disk.ts'
import { withKnownLocale } from './locale.ts'
import { makeReader } from './reader.ts'
import { requireExtensions, requireMajor } from './suitable.ts'

export interface StageOptions {
  /** A server to use instead of one of our own: its databases are left alone, and the temporary one is dropped. */
  readonly on?: Conninfo | undefined
  /** How far a server of our own steps back behind other processes, 0 to 19. */
  readonly niceness?: number
  /** What should be known, and ends nothing. */
  readonly onWarning?: (warning: string) => void
  readonly signal?: AbortSignal | undefined
}

export interface BringBackOptions {
  /** Connections that load and check tables side by side. */
  readonly jobs: number
  readonly memory_bytes?: number
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal | undefined
}

/** A source as it was at a target. */
export interface Past {
  /** For whoever restored: may do anything in the database, which nobody else needs. */
  readonly owner: Conninfo
  /** For SQL of the user's: on a server of our own a role that reads everything and may nothing else, made when it is asked for. */
  readonly reader: () => Promise<Conninfo>
  readonly plan: RestorePlan
  readonly report: RestoreReport
  /** What is not as it was at the source because of where it is now. */
  readonly notes: readonly string[]
}

export interface Stage extends AsyncDisposable {
  readonly kind: 'throwaway' | 'given'
  readonly major: number
  /** For messages; without a password. */
  readonly server: string
  /** Restores into a database that goes with the stage. */
  bringBack(repository: Repository, plan: RestorePlan, options: BringBackOptions): Promise<Past>
}

/** Opens a stage for plans; refuses what it cannot hold before anything is made. The caller owns it: `await using`. */
export async function openStage(plans: readonly RestorePlan[], options: StageOptions = {}): Promise<Stage> {
  throwIfAborted(options.signal)
  if (options.on !== undefined) return await GivenStage.open(options.on, options)
  for (const folder of await removeLeftovers())
    options.onWarning?.(`removed what a killed process had left behind: ${folder}`)
  await requireDisk(plans)
  return await ThrowawayStage.open(options)
}

/** For a server that is thrown away: nothing of it has to survive a crash, nor does anybody replicate from it. */
const throwawaySettings = {
  fsync: 'off',
  full_page_writes: 'off',
  synchronous_commit: 'off',
  wal_level: 'minimal',
  max_wal_senders: '0',
  max_replication_slots: '0',
  max_wal_size: '256MB',
  max_locks_per_transaction: '256',
}

class ThrowawayStage implements Stage {
  readonly kind = 'throwaway'
  readonly major: number
  readonly server: string
  private readonly embedded: EmbeddedServer
  private count = 0

  private constructor(embedded: EmbeddedServer) {
    this.embedded = embedded
    this.major = embedded.major
    this.server = `the throwaway server (PostgreSQL ${embedded.major})`
  }

  static async open({ niceness = 0, signal }: StageOptions): Promise<ThrowawayStage> {
    const settings = throwawaySettings
    return new ThrowawayStage(
      await startEmbedded({ settings, niceness, isPrivate: true, ...(signal === undefined ? {} : { signal }) }),
    )
  }

  async bringBack(repository: Repository, given: RestorePlan, options: BringBackOptions): Promise<Past> {
    requireMajor(given, this)
    const server = resolveConninfo(this.embedded.url(), {})
    const admin = await connect(server, { application })
    const notes: string[] = []
    let plan: RestorePlan
    try {
      await requireExtensions(admin, repository, given, this, options.signal)
      plan = await withKnownLocale(admin, given, (note) => notes.push(note))
    } finally {
      await admin.end()
    }
    const owner = withDatabase(server, `past_${++this.count}`)
    const report = await restore(
      repository,
      plan,
      { conninfo: server, database: owner.database },
      { ...options, roles: { create: true } },
    )
    let made: Promise<Conninfo> | undefined
    const reader = (): Promise<Conninfo> => (made ??= makeReader(owner))
    return { owner, reader, plan, report, notes }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.embedded[Symbol.asyncDispose]()
  }
}

const application = 'walback throwaway'
const temporaryPrefix = 'walback_throwaway_'

class GivenStage implements Stage {
  readonly kind = 'given'
  readonly major: number
  readonly server: string
  private readonly conninfo: Conninfo
  private readonly session: pg.Client
  private readonly onWarning: (warning: string) => void
  private readonly databases: string[] = []

  private constructor(
    conninfo: Conninfo,
    session: pg.Client,
    details: { readonly major: number; readonly onWarning?: ((warning: string) => void) | undefined },
  ) {
    this.conninfo = conninfo
    this.session = session
    this.major = details.major
    this.onWarning = details.onWarning ?? (() => undefined)
    this.server = describeConninfo(conninfo)
  }

  static async open(conninfo: Conninfo, { onWarning }: StageOptions): Promise<GivenStage> {
    const session = await connectForAdmin({ conninfo, database: temporaryPrefix })
    try {
      await dropLeftovers(session, temporaryPrefix)
      const { rows } = await session.query<{ v: string }>(`SELECT current_setting('server_version_num') AS v`)
      return new GivenStage(conninfo, session, { major: Math.floor(Number(rows[0]?.v) / 10_000), onWarning })
    } catch (error) {
      await session.end().catch(() => undefined)
      throw error
    }
  }

  async bringBack(repository: Repository, plan: RestorePlan, options: BringBackOptions): Promise<Past> {
    requireMajor(plan, this)
    await requireExtensions(this.session, repository, plan, this, options.signal)
    const database = `${temporaryPrefix}${randomBytes(6).toString('hex')}`
    await holdName(this.session, database)
    this.databases.push(database)
    const report = await restore(
      repository,
      plan,
      { conninfo: this.conninfo, database },
      // What belongs to the server, as roles do, is not changed for a database that is dropped.
      { ...options, roles: { noOwner: true, noPrivileges: true } },
    )
    const owner = withDatabase(this.conninfo, database)
    return { owner, reader: async () => owner, plan, report, notes: [] }
  }

  /** In a session of its own: the first may have been ended, or stand in the middle of something. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      const admin = await connectForAdmin({ conninfo: this.conninfo, database: temporaryPrefix })
      try {
        for (const name of this.databases) await admin.query(`DROP DATABASE IF EXISTS ${quoteIdent(name)} WITH (FORCE)`)
      } finally {
        await admin.end().catch(() => undefined)
      }
    } catch (error) {
      this.onWarning(`not dropped (${messageOf(error)}): ${this.databases.join(', ')}; the next such command drops it`)
    } finally {
      await this.session.end().catch(() => undefined)
    }
  }
}
