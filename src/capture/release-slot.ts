import type pg from 'pg'
import { sleep } from '../base/abort.ts'
import { codeOf } from '../base/errors.ts'
import { dropSlotSql } from '../postgres/setup-sql.ts'
import { readSlot } from '../postgres/source.ts'
import { mib, type SlotReading } from './slot-pressure.ts'

/**
 * Drops a slot that may be in use, so that the server can let go of its log: who reads from it is asked to end, by
 * `pg_terminate_backend`, once `courtesy_ms` have passed. False if it could not be dropped before `signal` fired, or
 * within a minute.
 */
export async function releaseSlot(
  client: pg.Client,
  name: string,
  options: { readonly courtesy_ms: number; readonly signal: AbortSignal },
): Promise<boolean> {
  const begun = performance.now()
  while (!options.signal.aborted && performance.now() - begun < patience_ms) {
    const slot = await readSlot(client, name)
    if (slot === undefined) return true
    if (!slot.active) {
      try {
        await client.query(dropSlotSql(name))
        return true
      } catch (error) {
        // Somebody took it, or was faster to drop it: the next look tells.
        if (!['55006', '42704'].includes(codeOf(error) ?? '')) throw error
      }
    } else if (performance.now() - begun >= options.courtesy_ms && !(await endReader(client, slot.activePid)))
      return false
    await sleep(look_ms, options.signal).catch(() => undefined)
  }
  return false
}

/** False where this role may not end it: it is another role's. */
async function endReader(client: pg.Client, pid: number | undefined): Promise<boolean> {
  try {
    await client.query('SELECT pg_catalog.pg_terminate_backend($1)', [pid])
    return true
  } catch (error) {
    if (codeOf(error) === '42501') return false
    throw error
  }
}

/** What a slot that is made now would be in for. */
export interface CalmReading {
  readonly load: SlotReading['load']
  /** How fast the server writes log. */
  readonly log_bytes_s: number | undefined
}

/**
 * Why a new slot would soon keep much log again, each reason in words; nothing when it is calm. A new slot keeps the log
 * from the beginning of the oldest transaction that writes, and making it waits for all of them.
 */
export function unrest({ load, log_bytes_s }: CalmReading, limit_bytes: number): string[] {
  const old = (one: { readonly age_s: number }): boolean => one.age_s >= longForCalm_s
  const reasons: string[] = []
  const prepared = load.prepared.filter(old)
  if (prepared.length > 0) reasons.push(`the prepared transaction ${JSON.stringify(prepared[0]?.gid)} is still open`)
  const writers = load.writers.filter(old)
  if (writers.length > 0) reasons.push(`the transaction of process ${writers[0]?.pid} is still open`)
  if (log_bytes_s === undefined) reasons.push('how fast the server writes log is not known yet')
  else if (log_bytes_s * foresight_s > limit_bytes / 2)
    reasons.push(`the server writes ${mib(log_bytes_s)} of log a second`)
  return reasons
}

const patience_ms = 60_000
const look_ms = 200
const longForCalm_s = 60
/** For so long the store may fail again at once, and the new slot would still be within half of its limit. */
const foresight_s = 600
