import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { type Lsn, parseLsn, zeroLsn } from '../model/lsn.ts'
import { connect } from './connect.ts'
import type { Conninfo } from './conninfo.ts'

/**
 * Which history a server's log is of. A promotion (of a standby, or at the end of a recovery from a backup) begins a new
 * timeline of the server, whose history names those before it and where each was left.
 */
export interface ServerHistory {
  readonly systemIdentifier: string
  /** The server's timeline now, from 1 on; two servers may have given the same number to different histories. */
  readonly timeline: number
  /** Where it began: 0/0 for the first. */
  readonly since: Lsn
  /** The timelines before it, oldest first; nothing of one after its `end` is in this server's history. */
  readonly before: readonly { readonly timeline: number; readonly end: Lsn }[]
}

/** Asks on a replication connection, before it streams. */
export async function readServerHistory(client: pg.Client): Promise<ServerHistory> {
  const { rows } = await client.query<{ systemid: string; timeline: number | string }>('IDENTIFY_SYSTEM')
  const timeline = Number(rows[0]?.timeline)
  const systemIdentifier = rows[0]?.systemid ?? ''
  if (timeline === 1) return { systemIdentifier, timeline, since: zeroLsn, before: [] }
  const history = await client.query<{ content: Buffer | string }>(`TIMELINE_HISTORY ${timeline}`)
  const before = parseHistory(String(history.rows[0]?.content ?? ''))
  const since = before.at(-1)?.end
  if (since === undefined) {
    throw new WalbackError('database', `the server does not say where its timeline ${timeline} began`, {
      hint: 'its history file (pg_wal/*.history) is missing or empty: see the server log',
    })
  }
  return { systemIdentifier, timeline, since, before }
}

/** The same over a connection of its own. */
export async function askServerHistory(conninfo: Conninfo, signal?: AbortSignal): Promise<ServerHistory> {
  const client = await connect(conninfo, { application: 'walback', replication: true, ...(signal ? { signal } : {}) })
  try {
    return await readServerHistory(client)
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** Lines of a history file: a timeline, where it was left, and the reason in words (PostgreSQL: timeline.c). */
function parseHistory(text: string): ServerHistory['before'] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*(\d+)\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)/.exec(line)
    return match ? [{ timeline: Number(match[1]), end: parseLsn(match[2] ?? '') }] : []
  })
}
