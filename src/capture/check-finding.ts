/** What `check` finds: its vocabulary. */

export const levels = ['error', 'warning', 'note'] as const
/**
 * `error`: capture or a base cannot work, or the application is harmed. `warning`: something would not be restored as it
 * is, or is at risk. `note`: worth knowing.
 */
export type Level = (typeof levels)[number]

/** Every kind of finding; the names are stable. */
export const findingCodes = [
  // The server and the role.
  'server-version',
  'server-minor',
  'standby',
  'wal-level',
  'role-replication',
  'role-create',
  'wal-senders',
  'replication-slots',
  'max-slot-wal-keep-size',
  'idle-slot-timeout',
  'prepared-transaction',
  'long-transaction',
  // The slot and the archive.
  'not-set-up',
  'slot-missing',
  'slot-lost',
  'slot-foreign',
  'slot-inactive',
  'slot-retention',
  'slot-no-failover',
  'catalog-xmin',
  'repository-missing',
  'repository-unreadable',
  'copy-unreadable',
  'other-database',
  'stream-broken',
  'no-base',
  'archive-behind',
  'canary',
  'ddl-unsure',
  'schema-unseen',
  'rows-unseen',
  // Publications and the tables in them.
  'publication-missing',
  'publication-operations',
  'publication-via-root',
  'publication-filter',
  'publication-columns',
  'publication-generated',
  'other-repository',
  'identity-missing',
  'identity-nothing',
  'table-not-owned',
  'table-not-published',
  'table-inserts-only',
  // How changes of the schema are followed.
  'ddl-not-followed',
  'event-trigger-missing',
  'event-trigger-disabled',
  'event-trigger-old',
  'event-triggers-off',
  // What is in the database.
  'table-unreadable',
  'rows-hidden',
  'owner-missing',
  'unlogged-table',
  'large-objects',
  'subscription',
  'tablespace',
  'collation-version',
  'invalid-index',
  'generated-by-function',
  'check-by-function',
  'reserved-name',
  'materialized-view',
  'foreign-table',
  'own-event-trigger',
  'security-label',
  'extension',
  'hash-of-enum',
  'role',
] as const
export type FindingCode = (typeof findingCodes)[number]

/** A step that mends a finding without taking anything from anybody. */
export interface Fix {
  readonly title: string
  readonly sql: string
}

export interface Finding {
  readonly code: FindingCode
  readonly level: Level
  /** The table, setting or other object that it is about; null where it is about the whole. */
  readonly object: string | null
  /** What is the matter and what follows from it. */
  readonly why: string
  /** SQL that mends it. */
  readonly sql: string | null
  /** What else is to be done, or known before the SQL is run. */
  readonly hint: string | null
  readonly fix: Fix | null
  /** A warning that was waived, and so is a note. */
  readonly waived: boolean
}

type Details = Partial<Pick<Finding, 'object' | 'sql' | 'hint' | 'fix'>>

export const finding = (code: FindingCode, level: Level, why: string, details: Details = {}): Finding => ({
  code,
  level,
  object: null,
  why,
  sql: null,
  hint: null,
  fix: null,
  waived: false,
  ...details,
})

/** The worst first, then by kind in the order above, then as found. */
export function sorted(findings: readonly Finding[]): Finding[] {
  const rank = ({ level, code }: Finding): number =>
    levels.indexOf(level) * findingCodes.length + findingCodes.indexOf(code)
  return [...findings].sort((a, b) => rank(a) - rank(b))
}

/** Warnings of the given kinds as notes. */
export const waive = (findings: readonly Finding[], codes: readonly FindingCode[]): Finding[] =>
  findings.map((one) =>
    one.level === 'warning' && codes.includes(one.code) ? { ...one, level: 'note', waived: true } : one,
  )
