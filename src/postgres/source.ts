import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { type Lsn, parseLsn } from '../model/lsn.ts'

/** What a source is and what it allows; read in a few catalog queries that change nothing. */
export interface SourceFacts {
  readonly version: number
  readonly versionText: string
  readonly systemIdentifier: string
  readonly database: { readonly name: string; readonly oid: number }
  readonly encoding: string
  readonly walLevel: string
  readonly inRecovery: boolean
  /** The server's own timeline; undefined in recovery. */
  readonly timeline: number | undefined
  readonly slots: { readonly used: number; readonly max: number }
  readonly maxWalSenders: number
  readonly maxSlotWalKeepSize_mb: number
  readonly role: {
    readonly name: string
    readonly superuser: boolean
    readonly replication: boolean
    readonly createInDatabase: boolean
    /** May make event triggers: a superuser, or who a managed service puts in such a one's place. */
    readonly eventTriggers: boolean
  }
}

export async function readSourceFacts(client: pg.Client): Promise<SourceFacts> {
  const { rows } = await client.query<
    Record<string, string> & {
      replication: boolean
      superuser: boolean
      creates: boolean
      triggers: boolean
      recovery: boolean
    }
  >(`
    SELECT current_setting('server_version_num') AS version, current_setting('server_version') AS version_text,
      (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier,
      d.datname AS database, d.oid::text AS database_oid, pg_catalog.pg_encoding_to_char(d.encoding) AS encoding,
      current_setting('wal_level') AS wal_level, pg_catalog.pg_is_in_recovery() AS recovery,
      CASE WHEN NOT pg_catalog.pg_is_in_recovery()
        THEN pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) END AS timeline,
      (SELECT count(*)::text FROM pg_catalog.pg_replication_slots) AS slots,
      current_setting('max_replication_slots') AS max_slots, current_setting('max_wal_senders') AS max_wal_senders,
      (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size') AS max_slot_wal,
      current_user AS role, r.rolsuper AS superuser,
      -- Managed services give the right by membership in a role of theirs.
      r.rolsuper OR r.rolreplication OR EXISTS (SELECT FROM pg_catalog.pg_roles m
        WHERE m.rolname IN ('rds_replication', 'rds_superuser') AND pg_catalog.pg_has_role(r.oid, m.oid, 'member')) AS replication,
      pg_catalog.has_database_privilege(d.oid, 'CREATE') AS creates,
      r.rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_roles m
        WHERE m.rolname = 'rds_superuser' AND pg_catalog.pg_has_role(r.oid, m.oid, 'member')) AS triggers
    FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
    WHERE d.datname = current_database() AND r.rolname = current_user`)
  const row = rows[0]
  if (row === undefined)
    throw new WalbackError('database', 'the server does not say what it is', { hint: 'is this PostgreSQL?' })
  return {
    version: Number(row.version),
    versionText: row.version_text ?? '',
    systemIdentifier: row.system_identifier ?? '',
    database: { name: row.database ?? '', oid: Number(row.database_oid) },
    encoding: row.encoding ?? '',
    walLevel: row.wal_level ?? '',
    inRecovery: row.recovery,
    // The first eight digits of the name of a file of its log.
    timeline: row.timeline ? Number.parseInt(row.timeline, 16) : undefined,
    slots: { used: Number(row.slots), max: Number(row.max_slots) },
    maxWalSenders: Number(row.max_wal_senders),
    maxSlotWalKeepSize_mb: Number(row.max_slot_wal),
    role: {
      name: row.role ?? '',
      superuser: row.superuser,
      replication: row.replication,
      createInDatabase: row.creates,
      eventTriggers: row.triggers,
    },
  }
}

/** What `max_slot_wal_keep_size` lets a slot keep; undefined where it is -1, for no limit. */
export const slotLimit_bytes = ({ maxSlotWalKeepSize_mb }: SourceFacts): number | undefined =>
  maxSlotWalKeepSize_mb < 0 ? undefined : maxSlotWalKeepSize_mb * 1024 * 1024

/** The oldest server that has what capture needs (pgoutput's `messages` option). */
export const oldestServerVersion = 140000

export interface SlotState {
  readonly name: string
  readonly plugin: string
  readonly database: string
  readonly active: boolean
  readonly activePid: number | undefined
  readonly restartLsn: Lsn | undefined
  readonly confirmedFlushLsn: Lsn | undefined
  /** `reserved`, `extended`, `unreserved` or `lost`. */
  readonly walStatus: string
  /** Bytes of log that the server keeps for the slot. */
  readonly retained_bytes: number
}

export async function readSlot(client: pg.Client, name: string): Promise<SlotState | undefined> {
  const { rows } = await client.query<Record<string, string | null> & { active: boolean; active_pid: number | null }>(
    `SELECT slot_name AS name, plugin, database, active, active_pid, restart_lsn::text AS restart,
       confirmed_flush_lsn::text AS confirmed, wal_status,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN 0
         ELSE pg_catalog.pg_current_wal_lsn() - restart_lsn END::bigint::text AS retained
     FROM pg_catalog.pg_replication_slots WHERE slot_name = $1`,
    [name],
  )
  const row = rows[0]
  if (row === undefined) return undefined
  return {
    name,
    plugin: row.plugin ?? '',
    database: row.database ?? '',
    active: row.active,
    activePid: row.active_pid ?? undefined,
    restartLsn: row.restart ? parseLsn(row.restart) : undefined,
    confirmedFlushLsn: row.confirmed ? parseLsn(row.confirmed) : undefined,
    walStatus: row.wal_status ?? '',
    retained_bytes: Number(row.retained ?? 0),
  }
}

/** Where the server's log ends now, written to disk or not. */
export async function currentInsertLsn(client: pg.Client): Promise<Lsn> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_catalog.pg_current_wal_insert_lsn()::text AS lsn')
  return parseLsn(rows[0]?.lsn ?? '')
}
