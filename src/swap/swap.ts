import type pg from 'pg'
import { sleep, throwIfAborted, waitFor } from '../base/abort.ts'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { emit } from '../capture/heartbeat.ts'
import { releaseSlot } from '../capture/release-slot.ts'
import { captureContinuously, requireTimeline } from '../capture/session.ts'
import { setUp } from '../capture/setup.ts'
import type { Lsn } from '../model/lsn.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { askServerHistory } from '../postgres/server-history.ts'
import { readSlot } from '../postgres/source.ts'
import type { Repository } from '../repository/repository.ts'
import type { Timeline } from '../repository/timeline.ts'
import { onServer } from '../restore/destination.ts'
import { allowConnectionsSql, renameSql } from './names.ts'

export interface SwapOptions {
  /** The database in use, by its name and its server. */
  readonly conninfo: Conninfo
  readonly repository: Repository
  readonly source: string
  /** The database that takes its name. */
  readonly successor: string
  /** What the one in use is called from then on. */
  readonly keptAs: string
  /** Why: the new timeline's reason. */
  readonly reason: string
  readonly onStep?: ((step: string) => void) | undefined
  readonly patience_ms?: number | undefined
  readonly signal?: AbortSignal | undefined
}

export interface SwapReport {
  readonly kept: string
  /** For how long nobody could connect. */
  readonly closed_ms: number
  /** The mark at the end of the old database's stream: everything it ever had is restorable up to it. */
  readonly mark: string
  readonly mark_lsn: Lsn
  /** On which capture goes on. */
  readonly timeline: Timeline
  /** Whether an agent captures; else a base has to be taken by hand. */
  readonly hasAgent: boolean
}

/** Long enough for a segment to grow old, and to be stored. */
const capturePatience_ms = 60_000
const captureAttempts = 10

/**
 * Puts another database in the place of the one in use. Everything that was committed in the old one is in the archive
 * before: nobody can connect while the last of it is captured, and the two are renamed in one transaction. If anything
 * fails until then, the old one is opened again, and nothing has changed.
 */
export async function swapDatabases(options: SwapOptions): Promise<SwapReport> {
  const { conninfo, source } = options
  const timeline = await requireTimeline(options.repository, source)
  const destination = { conninfo, database: conninfo.database }
  return onServer(destination, async (admin) => {
    await requireSwappable(admin, options)
    await using capturing = await captureMeanwhile(admin, timeline, options)
    // Before it is closed: nobody, we neither, can connect then.
    const inside = await connect(conninfo, { application: 'walback restore' })
    const closed = performance.now()
    let [mark, mark_lsn] = ['', 0n as Lsn]
    try {
      options.onStep?.(`${conninfo.database} is closed to new connections`)
      await admin.query(allowConnectionsSql(conninfo.database, false))
      await endSessions(admin, conninfo.database, 'all but walback')
      mark = `before-swap-${options.keptAs}`
      mark_lsn = await emit(inside, { v: 1, kind: 'mark', name: mark })
      options.onStep?.('capturing the last of it')
      await captured(admin, timeline.slot, mark_lsn, options)
      await capturing?.[Symbol.asyncDispose]()
      await inside.end()
      throwIfAborted(options.signal)
      options.onStep?.('swapping')
      await rename(admin, options)
    } catch (error) {
      await inside.end().catch(() => undefined)
      throw await reopened(options, error)
    }
    const closed_ms = Math.round(performance.now() - closed)
    options.onStep?.('capture begins anew')
    const now = await captureSuccessor(timeline, options)
    return { kept: options.keptAs, closed_ms, mark, mark_lsn, timeline: now, hasAgent: capturing === undefined }
  })
}

/** What would fail later is found before anything is closed. */
export async function requireSwappable(
  admin: pg.Client,
  { conninfo, successor, keptAs }: Pick<SwapOptions, 'conninfo' | 'keptAs'> & { readonly successor?: string },
): Promise<void> {
  const { rows } = await admin.query<{ name: string; mine: boolean }>(
    `SELECT datname AS name, pg_catalog.pg_has_role(datdba, 'USAGE') AS mine
     FROM pg_catalog.pg_database WHERE datname IN ($1, $2, $3)`,
    [conninfo.database, successor ?? conninfo.database, keptAs],
  )
  const found = (name: string) => rows.find((row) => row.name === name)
  for (const name of [conninfo.database, successor ?? conninfo.database])
    if (found(name) === undefined)
      throw new WalbackError('refused', `there is no database ${name}`, { hint: 'see `psql -l`' })
  if (found(keptAs) !== undefined)
    throw new WalbackError('refused', `there is a database ${keptAs} already`, { hint: 'try again in a second' })
  const right = await admin.query<{ makes: boolean; ends: boolean; prepared: string[] }>(
    `SELECT rolsuper OR rolcreatedb AS makes, rolsuper OR pg_catalog.pg_has_role(oid, 'pg_signal_backend', 'USAGE') AS ends,
       ARRAY(SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = $1) AS prepared
     FROM pg_catalog.pg_roles WHERE rolname = current_user`,
    [conninfo.database],
  )
  const { makes, ends, prepared } = right.rows[0] as { makes: boolean; ends: boolean; prepared: string[] }
  if (!rows.every(({ mine }) => mine) || !makes)
    throw new WalbackError('prerequisite', `this role may not rename ${conninfo.database}`, {
      hint: 'connect as a superuser, or as the owner of the database with CREATEDB',
    })
  if (!ends)
    throw new WalbackError('prerequisite', `this role may not end the sessions in ${conninfo.database}`, {
      hint: 'connect as a superuser, or GRANT pg_signal_backend to the role',
    })
  if (prepared.length > 0)
    throw new WalbackError('refused', `${conninfo.database} has prepared transactions: ${prepared.join(', ')}`, {
      hint: 'commit or roll them back, then try again',
    })
}

/**
 * Where no agent captures, this process does, until the old database's end is stored. An agent that waits before its
 * next attempt may take the slot first: then it is the one that captures.
 */
async function captureMeanwhile(
  admin: pg.Client,
  timeline: Timeline,
  options: SwapOptions,
): Promise<AsyncDisposable | undefined> {
  let failure: unknown
  for (let attempt = 0; attempt < captureAttempts; attempt++) {
    if ((await readSlot(admin, timeline.slot))?.active) return undefined
    options.onStep?.('no agent is capturing: what is not in the archive yet is captured now')
    try {
      return await beginCapture(options)
    } catch (error) {
      if (!(error instanceof WalbackError) || error.code !== 'locked') throw error
      failure = error
    }
    await sleep(200, options.signal)
  }
  throw failure
}

/** Captures in this process, from when the stream is open until it is disposed of. */
async function beginCapture({ conninfo, repository, source }: SwapOptions): Promise<AsyncDisposable> {
  const stop = new AbortController()
  let running: Promise<unknown> = Promise.resolve()
  await new Promise<void>((begun, failed) => {
    running = captureContinuously(conninfo, repository, source, {
      segmentBytes: 8 << 20,
      segmentAge_ms: 500,
      heartbeat_ms: 60_000,
      stop: stop.signal,
      onStart: () => begun(),
    })
    running.then(() => begun(), failed)
  })
  return {
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await running.catch(() => undefined)
    },
  }
}

/** Ends the sessions in a database, and waits until they are gone. */
async function endSessions(admin: pg.Client, database: string, which: 'all' | 'all but walback'): Promise<void> {
  const others = `datname = $1 AND pid <> pg_catalog.pg_backend_pid()${which === 'all' ? '' : ` AND application_name NOT LIKE 'walback%'`}`
  const areGone = async (): Promise<true | undefined> => {
    const { rows } = await admin.query<{ pid: number }>(
      `SELECT pid, pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE ${others} AND backend_type IN ('client backend', 'walsender')`,
      [database],
    )
    return rows.length === 0 ? true : undefined
  }
  const mayNot = (error: unknown): never => {
    if (codeOf(error) !== '42501') throw error
    throw new WalbackError(
      'prerequisite',
      `a session in ${database} may not be ended by this role: ${messageOf(error)}`,
      {
        cause: error,
        hint: 'end it as a superuser, or do this as one; nothing was changed',
      },
    )
  }
  if (await waitFor(() => areGone().catch(mayNot), { timeout_ms: 30_000, interval_ms: 50 })) return
  throw new WalbackError('database', `sessions in ${database} do not end`, {
    hint: 'pg_stat_activity shows them; nothing was changed',
  })
}

/** Until the slot has confirmed what the archive holds up to `end`. */
async function captured(admin: pg.Client, slot: string, end: Lsn, options: SwapOptions): Promise<void> {
  const isThere = async (): Promise<true | undefined> => {
    const confirmed = (await readSlot(admin, slot))?.confirmedFlushLsn
    return confirmed !== undefined && confirmed >= end ? true : undefined
  }
  const patience = { timeout_ms: options.patience_ms ?? capturePatience_ms, interval_ms: 50, signal: options.signal }
  if (await waitFor(isThere, patience)) return
  throw new WalbackError('failed', `the archive did not reach the end of ${options.conninfo.database} in time`, {
    hint: 'the database is open again, and as it was; see with `walback status` whether the agent keeps up, then try again',
  })
}

/** Opens the old database again, in a session of its own, since the one before may be what was lost. */
async function reopened({ conninfo }: SwapOptions, error: unknown): Promise<unknown> {
  try {
    await openDatabase(conninfo)
    return error
  } catch (second) {
    return new WalbackError('failed', `${messageOf(error)}; and ${conninfo.database} is closed: ${messageOf(second)}`, {
      cause: error,
      hint: `nothing else was changed; open it with ${allowConnectionsSql(conninfo.database, true)}`,
    })
  }
}

/** Lets everybody connect. */
export async function openDatabase(conninfo: Conninfo): Promise<void> {
  const sql = allowConnectionsSql(conninfo.database, true)
  await onServer({ conninfo, database: conninfo.database }, (client) => client.query(sql))
}

/** Both names change at once, for whoever comes. */
async function rename(admin: pg.Client, { conninfo, successor, keptAs }: SwapOptions): Promise<void> {
  const { database } = conninfo
  for (let attempt = 1; ; attempt++) {
    await endSessions(admin, database, 'all')
    await endSessions(admin, successor, 'all')
    let isEnding = false
    try {
      await admin.query('BEGIN')
      await admin.query(renameSql(database, keptAs))
      await admin.query(renameSql(successor, database))
      await admin.query(allowConnectionsSql(keptAs, true))
      isEnding = true
      await admin.query('COMMIT')
      return
    } catch (error) {
      await admin.query('ROLLBACK').catch(() => undefined)
      // The answer may have been lost on its way, and not the commit.
      if (isEnding && (await isThere(conninfo, keptAs))) return
      // Somebody is in the successor, or a worker of the server was.
      if (codeOf(error) === '55006' && attempt < 5) await sleep(200)
      else
        throw new WalbackError('database', `the databases could not be renamed: ${messageOf(error)}`, {
          cause: error,
          hint: 'nothing was changed',
        })
    }
  }
}

const isThere = (conninfo: Conninfo, database: string): Promise<boolean> =>
  onServer({ conninfo, database }, async (client) => {
    const { rows } = await client.query('SELECT FROM pg_catalog.pg_database WHERE datname = $1', [database])
    return rows.length > 0
  })

/** The old slot goes, since it would keep log for nobody; the new database gets its own, and a new timeline. */
async function captureSuccessor(
  { slot, replicaIdentity }: Timeline,
  { conninfo, repository, source, reason, keptAs, signal }: SwapOptions,
): Promise<Timeline> {
  const whole = signal ?? new AbortController().signal
  try {
    const release = (admin: pg.Client) => releaseSlot(admin, slot, { courtesy_ms: 0, signal: whole })
    // In a session of its own: the one before may be what was lost.
    if (!(await onServer({ conninfo, database: conninfo.database }, release)))
      throw new WalbackError('database', `the replication slot ${slot} cannot be dropped`, {
        hint: 'who reads from it?',
      })
    const client = await connect(conninfo, { application: 'walback restore' })
    try {
      const server = await askServerHistory(conninfo, signal)
      const gap = new WalbackError('gap', reason)
      const options = { source, replicaIdentity, server, gap, isSuccessor: true }
      return (await setUp(client, repository, options)).timeline
    } finally {
      await client.end().catch(() => undefined)
    }
  } catch (error) {
    throw new WalbackError(
      'failed',
      `${conninfo.database} is the restored one now, and the old one is ${keptAs}, but capture could not begin anew: ${messageOf(error)}`,
      {
        cause: error,
        facts: { kept: keptAs, isSwapped: true },
        hint: 'mend what is named, then run `walback init --successor`: until then nothing of it is captured',
      },
    )
  }
}
