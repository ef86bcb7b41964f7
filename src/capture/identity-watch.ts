import type pg from 'pg'
import { codeOf, messageOf } from '../base/errors.ts'
import { allFireAlwaysSql } from '../postgres/ddl-capture-sql.ts'
import { tablesWithoutIdentitySql } from '../postgres/identity-sql.ts'
import { setIdentityFullSql } from '../postgres/setup-sql.ts'
import type { Ask } from './control.ts'

export interface IdentityWatchOptions {
  /** A table got its identity: by name. */
  readonly onMended?: ((table: string) => void) | undefined
  /** A table could not be given one, and refuses UPDATE and DELETE until somebody does; said once for each. */
  readonly onLeft?: ((table: string, why: string) => void) | undefined
}

/**
 * The net below the event triggers: a published table without a replica identity refuses the application's UPDATE. Some
 * come to be without an event that tells of them (EXPLAIN ANALYZE CREATE TABLE AS, event triggers that are off), lose
 * their key to a role that may not alter them, or are told REPLICA IDENTITY NOTHING. They get FULL within seconds.
 */
export class IdentityWatch {
  private readonly ask: Ask
  private readonly options: IdentityWatchOptions
  private readonly left = new Set<string>()
  private isLooking = false
  private nextLook_ms = 0

  constructor(ask: Ask, options: IdentityWatchOptions = {}) {
    this.ask = ask
    this.options = options
  }

  /** Looks, unless it did so a moment ago; to be called every second or so. A session that fails says so elsewhere. */
  tick(): void {
    const started = performance.now()
    if (this.isLooking || started < this.nextLook_ms) return
    this.isLooking = true
    this.ask((client) => this.look(client))
      .catch(() => undefined)
      .finally(() => {
        const now = performance.now()
        this.nextLook_ms = now + Math.max(rest_ms, restFactor * (now - started))
        this.isLooking = false
      })
  }

  private async look(client: pg.Client): Promise<void> {
    const { rows } = await client.query<{ schema: string; name: string; full: boolean }>(tablesWithoutIdentitySql)
    for (const table of rows.filter(({ full }) => full)) {
      const name = `${table.schema}.${table.name}`
      try {
        // One string, so one transaction. Whoever holds the table is not waited for: the next look comes soon. Event
        // triggers of the application need not see it; ours do, so that it is in the stream.
        await client.query(`SET LOCAL lock_timeout = '100ms'; ${quietSql}; ${setIdentityFullSql(table)}`)
        this.left.delete(name)
        this.options.onMended?.(name)
      } catch (error) {
        if (codeOf(error) === undefined) throw error
        if (codeOf(error) === lockNotAvailable || this.left.has(name)) continue
        this.left.add(name)
        this.options.onLeft?.(name, messageOf(error))
      }
    }
  }
}

const quietSql = `SELECT pg_catalog.set_config('session_replication_role', 'replica', true)
  WHERE (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
    AND ${allFireAlwaysSql}`
const rest_ms = 2000
/** It takes at most a two-hundredth of one of the server's cores. */
const restFactor = 200
const lockNotAvailable = '55P03'
