import type pg from 'pg'
import { eventTriggers, type RunAs } from './ddl-capture-sql.ts'
import { publishableTablesSql, tablesWithoutIdentitySql } from './identity-sql.ts'
import { schemaComment, triggersSql, triggersStamp } from './setup-sql.ts'

/** Reads the state of a server, and of what walback has in a database; all of it in an empty search_path. */

/** What holds the log or vacuum back beside our slot. */
export interface ServerLoad {
  /** The server's clock, microseconds since 1970. */
  readonly now_us: bigint
  readonly walSenders: number
  /** Of the whole server: a slot waits for transactions of every database. */
  readonly prepared: readonly { readonly gid: string; readonly database: string; readonly age_s: number }[]
  /** Transactions that have written something, the oldest first; of other roles' only where this one may see them. */
  readonly writers: readonly { readonly pid: number; readonly database: string; readonly age_s: number }[]
  /** The parameter event_triggers (17 and later; on where there is none). */
  readonly eventTriggersOn: boolean
  /** Settings of roles and of the database that keep event triggers from firing or ours from speaking, as `role: name=value`. */
  readonly silencing: readonly string[]
  /** idle_replication_slot_timeout (18 and later), 0 where there is none. */
  readonly idleSlotTimeout_s: number
}

export async function readServerLoad(client: pg.Client): Promise<ServerLoad> {
  type Row = Omit<ServerLoad, 'now_us' | 'walSenders' | 'idleSlotTimeout_s'> &
    Record<'now' | 'senders' | 'idle', string>
  const { rows } = await client.query<Row>(`
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text AS now,
      (SELECT count(*)::text FROM pg_stat_replication) AS senders,
      (SELECT coalesce(json_agg(json_build_object('gid', gid, 'database', database,
          'age_s', floor(extract(epoch FROM clock_timestamp() - prepared))) ORDER BY prepared), '[]') FROM pg_prepared_xacts) AS prepared,
      (SELECT coalesce(json_agg(json_build_object('pid', pid, 'database', coalesce(datname, ''),
          'age_s', floor(extract(epoch FROM clock_timestamp() - xact_start))) ORDER BY xact_start), '[]')
        FROM pg_stat_activity WHERE backend_xid IS NOT NULL) AS writers,
      coalesce(current_setting('event_triggers', true), 'on') = 'on' AS "eventTriggersOn",
      ARRAY(SELECT concat_ws(' in ', coalesce(r.rolname, 'all roles'), d.datname) || ': ' || c
        FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c
          LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
        WHERE coalesce(d.datname, current_database()) = current_database()
          AND c ~* '^(event_triggers=(off|of|false|f|no|n|0)|walback\\.quiet=on)$' ORDER BY 1) AS silencing,
      coalesce((SELECT (setting::bigint * CASE unit WHEN 'min' THEN 60 WHEN 'ms' THEN 0.001 ELSE 1 END)::bigint::text
        FROM pg_settings WHERE name = 'idle_replication_slot_timeout'), '0') AS idle`)
  const row = rows[0] as Row
  const { prepared, writers, eventTriggersOn, silencing } = row
  return {
    now_us: BigInt(row.now),
    walSenders: Number(row.senders),
    prepared,
    writers,
    eventTriggersOn,
    silencing,
    idleSlotTimeout_s: Number(row.idle),
  }
}

/** What readSlot does not say of a slot. */
export interface SlotDetails {
  /** Transactions since the oldest whose catalog rows it keeps. */
  readonly catalogXminAge: number
  /** How much more log may be written before the slot may be lost; undefined where there is no limit. Negative past it. */
  readonly safe_bytes: number | undefined
  /** Since when nobody reads from it, microseconds since 1970 (17 and later). */
  readonly inactiveSince_us: bigint | undefined
  readonly invalidation: string | undefined
  /** Undefined before 17. */
  readonly failover: boolean | undefined
}

export async function readSlotDetails(client: pg.Client, name: string): Promise<SlotDetails> {
  const { rows } = await client.query<{
    age: string | null
    safe: string | null
    since: string | null
    why: string | null
    failover: string | null
  }>(
    `SELECT age(catalog_xmin)::text AS age, safe_wal_size::text AS safe, (extract(epoch FROM (j->>'inactive_since')::timestamptz) * 1000000)::bigint::text AS since,
       j->>'invalidation_reason' AS why, j->>'failover' AS failover
     FROM pg_replication_slots s CROSS JOIN to_jsonb(s) j WHERE slot_name = $1`,
    [name],
  )
  const row = rows[0]
  return {
    catalogXminAge: Number(row?.age ?? 0),
    safe_bytes: row?.safe ? Number(row.safe) : undefined,
    inactiveSince_us: row?.since ? BigInt(row.since) : undefined,
    invalidation: row?.why ?? undefined,
    failover: row?.failover ? row.failover === 'true' : undefined,
  }
}

export interface Publication {
  readonly name: string
  readonly all: boolean
  readonly insert: boolean
  readonly update: boolean
  readonly delete: boolean
  readonly truncate: boolean
  readonly viaRoot: boolean
  /** Whether stored generated columns are in it (18 and later; they are not before). */
  readonly generated: boolean
  readonly comment: string | null
}

export async function readPublications(client: pg.Client, names: readonly string[]): Promise<Publication[]> {
  const { rows } = await client.query<Publication>(
    `SELECT pubname AS name, puballtables AS all, pubinsert AS insert, pubupdate AS update, pubdelete AS delete,
       pubtruncate AS truncate, pubviaroot AS "viaRoot", coalesce(j->>'pubgencols' = 's', false) AS generated,
       obj_description(p.oid, 'pg_publication') AS comment
     FROM pg_publication p CROSS JOIN to_jsonb(p) j WHERE pubname = ANY ($1) ORDER BY array_position($1, pubname::text)`,
    [names],
  )
  return rows
}

export interface CheckedTable {
  /** Its name, quoted where SQL needs it. */
  readonly object: string
  readonly schema: string
  readonly name: string
  /** Whether this role may alter it. */
  readonly owned: boolean
  /** `d` the primary key, `i` an index, `f` FULL, `n` NOTHING. */
  readonly identity: string
  /** Its updates would fail once published; `mendable`: and FULL mends that. */
  readonly bare: boolean
  readonly mendable: boolean
  /** Whether our publications have its inserts, and its updates or deletes. */
  readonly inserts: boolean
  readonly changes: boolean
  /** Row filters and column lists that our publications put on it (15 and later). */
  readonly filtered: boolean
  readonly columns: boolean
  /** FULL, with a stored generated column, whose publication leaves those out (18 and later). */
  readonly generated: boolean
}

/** The user's permanent tables of which something may have to be said, seen from our publications. */
export async function readTablesToCheck(client: pg.Client, publications: readonly string[]): Promise<CheckedTable[]> {
  const { rows } = await client.query<CheckedTable>(
    `WITH bare AS (${tablesWithoutIdentitySql}), published AS (
      SELECT t.schemaname AS schema, t.tablename AS name, bool_or(p.pubinsert) AS inserts, bool_or(p.pubupdate OR p.pubdelete) AS changes,
        bool_or((p.pubupdate OR p.pubdelete) AND to_jsonb(p)->>'pubgencols' = 'n') AS no_generated
      FROM pg_publication_tables t JOIN pg_publication p ON p.pubname = t.pubname WHERE p.pubname = ANY ($1) GROUP BY 1, 2),
    narrowed AS (
      SELECT r.prrelid, bool_or(to_jsonb(r)->>'prqual' IS NOT NULL) AS filtered, bool_or(to_jsonb(r)->>'prattrs' IS NOT NULL) AS columns
      FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = ANY ($1) GROUP BY 1),
    judged AS (
      SELECT format('%I.%I', t.schema, t.name) AS object, t.schema, t.name, t.owned, c.relreplident AS identity, b.name IS NOT NULL AS bare, coalesce(b.full, false) AS mendable,
        coalesce(p.inserts, false) AS inserts, coalesce(p.changes, false) AS changes,
        coalesce(w.filtered, false) AS filtered, coalesce(w.columns, false) AS columns,
        coalesce(p.no_generated, false) AND c.relreplident = 'f'
          AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 's' AND NOT a.attisdropped) AS generated
      FROM (${publishableTablesSql}) t JOIN pg_namespace n ON n.nspname = t.schema
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
        LEFT JOIN bare b ON b.schema = t.schema AND b.name = t.name
        LEFT JOIN published p ON p.schema = t.schema AND p.name = t.name
        LEFT JOIN narrowed w ON w.prrelid = c.oid)
    SELECT * FROM judged WHERE bare OR NOT owned OR NOT inserts OR NOT changes OR filtered OR columns OR generated
    ORDER BY schema, name`,
    [publications],
  )
  return rows
}

/** How our event triggers stand. */
export interface TriggerState {
  /** Those that there are: `A` always, `O` not in a replica's session, `R` only there, `D` disabled. */
  readonly enabled: Readonly<Record<string, string>>
  /** Whether their functions are all there and of this version. */
  readonly current: boolean
  /** What they were told to do about tables without a key. */
  readonly identity: 'full' | 'skip' | undefined
  readonly runAs: RunAs
}

export async function readTriggerState(client: pg.Client): Promise<TriggerState> {
  const { rows } = await client.query<{
    enabled: Record<string, string>
    comment: string | null
    functions: string[]
    full: boolean | null
    owner: boolean | null
  }>(
    `SELECT coalesce((SELECT json_object_agg(evtname, evtenabled) FROM pg_event_trigger WHERE evtname = ANY ($1)), '{}') AS enabled,
       obj_description(to_regnamespace('walback'), 'pg_namespace') AS comment,
       ARRAY(SELECT proname::text FROM pg_proc WHERE pronamespace = to_regnamespace('walback')) AS functions,
       (SELECT prosrc LIKE '%set_full%' FROM pg_proc
        WHERE pronamespace = to_regnamespace('walback') AND proname = 'keep_identities') AS full,
       (SELECT prosecdef FROM pg_proc WHERE pronamespace = to_regnamespace('walback') AND proname = 'note_command') AS owner`,
    [eventTriggers],
  )
  const row = rows[0]
  const { enabled = {}, comment = null, functions = [], full = null, owner = null } = row ?? {}
  const identity = full === null ? undefined : full ? 'full' : 'skip'
  const choice = { identity: identity ?? 'full', runAs: owner === false ? 'user' : 'owner' } as const
  const current =
    identity !== undefined &&
    comment === schemaComment(triggersStamp(choice)) &&
    functionsOf(triggersSql(choice)).every((name) => functions.includes(name))
  return { enabled, current, identity, runAs: choice.runAs }
}

const functionsOf = (sql: string): string[] =>
  [...sql.matchAll(/^CREATE (?:OR REPLACE )?FUNCTION walback\.(\w+)/gm)].map(([, name]) => name ?? '')
