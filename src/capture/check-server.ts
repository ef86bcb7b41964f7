import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import type { ServerLoad } from '../postgres/check-server-sql.ts'
import { oldestServerVersion, type SlotState, type SourceFacts } from '../postgres/source.ts'
import { type Finding, finding } from './check-finding.ts'

/** What there is of walback in the database already. */
export interface Present {
  readonly slot: SlotState | undefined
  readonly publication: boolean
}

/** Nothing else that could be said of a server that is too old is of use. */
export function tooOld({ version, versionText }: SourceFacts): Finding | undefined {
  if (version >= oldestServerVersion) return undefined
  const why = `PostgreSQL ${versionText} is too old: 14 or newer is needed`
  return finding('server-version', 'error', why, { hint: 'upgrade the server' })
}

/** Whether the server, the role and what else runs there let capture work. */
export const serverFindings = (facts: SourceFacts, load: ServerLoad, present: Present): Finding[] => [
  ...versionFindings(facts),
  ...settingFindings(facts, load),
  ...roleFindings(facts, present),
  ...slotRoomFindings(facts, load, present),
  ...waitFindings(load),
]

const newestTested = 18

/**
 * Minor versions that decode wrongly. Up to those of February 2025, a change of a publication or a type was not seen by
 * transactions that were running beside it, whose rows were then lost; the fix of May 2025 made decoding fail with
 * `invalid memory alloc request size` where many transactions run beside much DDL (bugs #18938 and #18942), until
 * August 2025.
 */
const mended: Readonly<Record<number, { readonly loses: number; readonly fails: number }>> = {
  14: { loses: 18, fails: 19 },
  15: { loses: 13, fails: 14 },
  16: { loses: 9, fails: 10 },
  17: { loses: 5, fails: 6 },
}

function versionFindings({ version, versionText }: SourceFacts): Finding[] {
  const [major, minor] = [Math.floor(version / 10_000), version % 10_000]
  if (major > newestTested) {
    const why = `PostgreSQL ${versionText} is newer than walback knows (${newestTested})`
    return [finding('server-version', 'warning', why, { hint: 'look for a newer walback' })]
  }
  const known = mended[major]
  if (known === undefined || minor >= known.fails) return []
  const why =
    minor < known.loses
      ? `PostgreSQL ${versionText} may leave rows of running transactions out of the stream when a publication or a type is altered`
      : `PostgreSQL ${versionText} may fail to decode its log for ever ("invalid memory alloc request size"), which ends the stream`
  return [finding('server-minor', 'warning', why, { hint: `update to ${major}.${known.fails} or newer` })]
}

function settingFindings({ inRecovery, walLevel, maxSlotWalKeepSize_mb }: SourceFacts, load: ServerLoad): Finding[] {
  const findings: Finding[] = []
  if (inRecovery) {
    findings.push(
      finding('standby', 'error', 'the server is a standby, which cannot say which transactions it has not seen', {
        hint: 'give --db the primary',
      }),
    )
  }
  if (walLevel !== 'logical') {
    findings.push(
      finding('wal-level', 'error', `it is ${walLevel}, and logical replication needs logical`, {
        object: 'wal_level',
        sql: `ALTER SYSTEM SET wal_level = 'logical'`,
        hint: 'then restart the server (on RDS set rds.logical_replication = 1 instead)',
      }),
    )
  }
  if (maxSlotWalKeepSize_mb < 0) {
    findings.push(
      finding(
        'max-slot-wal-keep-size',
        'warning',
        'without a limit, the log fills the disk if capture stops for long',
        {
          object: 'max_slot_wal_keep_size',
          sql: `ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'; SELECT pg_reload_conf()`,
          hint: 'choose what the disk can spare; past it the stream breaks and leaves a gap, but the server lives',
        },
      ),
    )
  }
  if (load.idleSlotTimeout_s > 0) {
    const why = `the server ends a slot that nobody has read for ${load.idleSlotTimeout_s} s, which leaves a gap`
    findings.push(
      finding('idle-slot-timeout', 'warning', why, {
        object: 'idle_replication_slot_timeout',
        sql: 'ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()',
        hint: 'max_slot_wal_keep_size bounds the disk as well, and by what matters',
      }),
    )
  }
  return findings
}

function roleFindings({ role, database }: SourceFacts, present: Present): Finding[] {
  const findings: Finding[] = []
  const object = quoteIdent(role.name)
  if (!role.replication) {
    findings.push(
      finding('role-replication', 'error', 'the role may not replicate', {
        object,
        sql: `ALTER ROLE ${object} REPLICATION`,
        hint: `as a superuser (on RDS: GRANT rds_replication TO ${object})`,
      }),
    )
  }
  if (!role.createInDatabase && !present.publication) {
    const why = `the role may not create a publication in database ${database.name}`
    findings.push(
      finding('role-create', 'error', why, {
        object,
        sql: `GRANT CREATE ON DATABASE ${quoteIdent(database.name)} TO ${object}`,
      }),
    )
  }
  return findings
}

function slotRoomFindings({ slots, maxWalSenders }: SourceFacts, load: ServerLoad, present: Present): Finding[] {
  const findings: Finding[] = []
  const [more, restart] = ['then restart the server', 'then restart the server, or drop a slot that nobody needs']
  if (present.slot === undefined && slots.used >= slots.max) {
    findings.push(
      finding('replication-slots', 'error', `all ${slots.max} replication slots are in use`, {
        object: 'max_replication_slots',
        sql: `ALTER SYSTEM SET max_replication_slots = ${slots.max + 5}`,
        hint: restart,
      }),
    )
  }
  if (present.slot?.active !== true && load.walSenders >= maxWalSenders) {
    const why = maxWalSenders < 1 ? 'it is 0' : `all ${maxWalSenders} connections for replication are in use`
    findings.push(
      finding('wal-senders', 'error', why, {
        object: 'max_wal_senders',
        sql: `ALTER SYSTEM SET max_wal_senders = ${Math.max(10, maxWalSenders + 5)}`,
        hint: more,
      }),
    )
  }
  return findings
}

const long_s = 3600

/** Until the oldest transaction that wrote something ends, the log since its beginning is kept, and no slot can be made. */
export function waitFindings({ prepared, writers }: ServerLoad): Finding[] {
  const findings = prepared.map(({ gid, database, age_s }) =>
    finding(
      'prepared-transaction',
      age_s < long_s ? 'note' : 'warning',
      `prepared ${hours(age_s)} ago in database ${database}: it is in no backup until it is committed, and the log is kept until it ends`,
      { object: quoteLiteral(gid), sql: `COMMIT PREPARED ${quoteLiteral(gid)}`, hint: 'or ROLLBACK PREPARED' },
    ),
  )
  const long = writers.filter(({ age_s }) => age_s >= long_s)
  return [
    ...findings,
    ...long.map(({ pid, database, age_s }) =>
      finding(
        'long-transaction',
        'warning',
        `open for ${hours(age_s)} in database ${database || '?'}: the log is kept since it began`,
        { object: `pid ${pid}`, sql: `SELECT pg_terminate_backend(${pid})`, hint: 'that undoes what it has done' },
      ),
    ),
  ]
}

const hours = (age_s: number): string =>
  age_s < 120 ? `${age_s} s` : age_s < 7200 ? `${Math.floor(age_s / 60)} min` : `${Math.floor(age_s / 3600)} h`
