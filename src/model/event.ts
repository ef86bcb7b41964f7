/**
 * What the agent has to tell somebody who is not reading its log: one vocabulary for the log, for mail and for webhooks.
 * Kinds are stable names. Where `check` finds the same thing, the kind is the code of its finding.
 */
export const eventKinds = [
  /** What the slot keeps of the server's log, or what holds it back. */
  'slot-retention',
  'catalog-xmin',
  'prepared-transaction',
  'long-transaction',
  /** A slot that policy wants dropped cannot be; and one that was, to save the server's disk. */
  'slot-release',
  'slot-released',
  /** The stream is broken; cleared when a base makes later targets restorable again. */
  'gap',
  'timeline-begun',
  /** Objects of the archive that were there are not, or are damaged. */
  'archive-damaged',
  'capture-interrupted',
  'store-failing',
  'base-failed',
  'schema-unseen',
  'rows-unseen',
  /** Retention has removed something, or could not; the latter is cleared by the next prune that is done. */
  'pruned',
  'prune-failed',
  /** A copy of the repository could not be brought up to it; cleared when one is. */
  'repository-behind',
  /** The key of the repository was rotated, and is followed; or is not, for the reason that is given. */
  'key-rotated',
  'key-not-followed',
  /** What a scheduled verification found, and that it could not be carried out; cleared by the next that is well. */
  'verify-damaged',
  'verify-failed',
  /** What a scheduled restore on a throwaway server found, and that it could not be carried out; likewise. */
  'restore-unproven',
  'rehearsal-failed',
  /**
   * A base was made off the source; it cannot go past a change of the schema, and none is taken from the source; it
   * could not be carried out. The last two are cleared by the next that is well.
   */
  'compacted',
  'compaction-stopped',
  'compaction-failed',
] as const
export type EventKind = (typeof eventKinds)[number]

export type Severity = 'info' | 'warning' | 'error'

export interface WalbackEvent {
  readonly kind: EventKind
  /**
   * `raised` lasts until the same kind with the same subject is `cleared`; told again while it lasts only when it has
   * become worse. `once` is an occurrence that nothing clears.
   */
  readonly state: 'raised' | 'cleared' | 'once'
  readonly severity: Severity
  readonly source: string
  /** What it is about, where a kind can concern several at once: a process, a prepared transaction. */
  readonly subject: string | null
  readonly message: string
  readonly facts: Readonly<Record<string, unknown>>
}
