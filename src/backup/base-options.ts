/** What a base backup is told, and what it tells. */

import type pg from 'pg'
import type { QualifiedName } from '../model/catalog.ts'
import type { Selection } from '../model/selection.ts'
import type { BaseHead } from '../repository/base.ts'

export interface BaseBackupOptions {
  /** Connections that copy rows side by side. */
  readonly jobs: number
  /** Whose rows are stored; those of all tables, if not given. */
  readonly selection?: Selection | undefined
  readonly lockTimeout_ms: number
  /** How old a snapshot may be for another table to be begun under it; `defaultLimits` says what if not given. */
  readonly maxSnapshotAge_ms?: number | undefined
  /** How long others may wait for a lock that a copy holds before the copy is given up, to be done again. */
  readonly yieldAfter_ms?: number | undefined
  /** Bytes of rows a second, over all connections; no limit if not given. */
  readonly maxRate?: number | undefined
  /** Publishes tables before the snapshot; says, as that sees it, whether all is done, or it has to be done again. */
  readonly preparation?: {
    readonly run: () => Promise<void>
    readonly check: (
      leader: pg.Client,
    ) => Promise<{ readonly isDone: boolean; readonly unpublished: readonly QualifiedName[] }>
  }
  readonly onProgress?: (progress: BaseProgress) => void
  readonly signal?: AbortSignal | undefined
}

/** What there is to say of a base without the list of its tables. */
export interface TakenBase extends BaseHead {
  /** How many it has rows of, and how many those are together; and how many a selection left out. */
  readonly tables: number
  readonly rows: number
  readonly leftOut: number
}

export type BaseProgress =
  /** An interrupted base is carried on, of which so many tables are stored. */
  | { readonly phase: 'resuming'; readonly base: string; readonly tables: number; readonly raw_bytes: number }
  | { readonly phase: 'waiting'; readonly transactions: number }
  | {
      readonly phase: 'rows'
      readonly tables: number
      /** Of those, how many are stored. */
      readonly stored: number
      readonly raw_bytes: number
      readonly rows: number
    }

/**
 * A snapshot holds back vacuum in the whole cluster for as long as it is held, a little more with every minute; a new
 * one costs a look at the catalogs, a dump of the schema, and, in a restore, the replay of a stretch of the stream. In
 * a quarter of an hour a busy table gathers some percent of dead rows, and the catalogs are read four times an hour.
 */
export const defaultLimits = { maxSnapshotAge_ms: 900_000, yieldAfter_ms: 1000 } as const
