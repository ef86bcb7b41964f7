import { z } from 'zod'
import { proofsPrefix } from './layout.ts'
import { findRecord, listRecords, type RecordKind, readRecord, writeRecord } from './numbered-records.ts'
import type { Repository } from './repository.ts'

/**
 * What `verify --restore` came to: a restore that was carried out to its end on a server for this purpose, and what was
 * found there. It is written once and counts for no restore; `status` shows the last, and plans learn from it how long
 * a restore takes.
 */
const proofShape = z.object({
  walback: z.literal('proof'),
  format: z.literal(1),
  source: z.string(),
  started: z.string(),
  finished: z.string(),
  walbackVersion: z.string(),
  outcome: z.enum(['proven', 'failed']),
  /** As it was asked for: `latest`, a time, `tx:81240`, …; `random` says that nobody asked for just this one. */
  target: z.string(),
  random: z.boolean(),
  timeline: z.string(),
  base: z.string(),
  /** Where the restored state ends, and the time of the last transaction in it that changed anything, or of the base. */
  lsn: z.string(),
  time: z.string(),
  /** Where it was restored: on a throwaway server or on one that was given, and its major version. */
  server: z.object({ kind: z.enum(['throwaway', 'given']), major: z.number() }),
  /** How long the restore itself took, from nothing to a database that is proven: null if it did not come to that. */
  restore_ms: z.number().nullable(),
  /** How long all of it took. */
  duration_ms: z.number(),
  bytes: z.object({ base: z.number(), segments: z.number() }),
  tables: z.number(),
  rows: z.number(),
  /** Tables and rows that were read again, and are what the archive says. */
  proven: z.object({ tables: z.number(), rows: z.number() }),
  checked: z.object({ foreignKeys: z.number(), indexes: z.number(), assertions: z.number() }),
  /** What a restore to this target leaves out, and what was not right; of many, the first. */
  warnings: z.array(z.string()),
  findings: z.array(z.object({ kind: z.string(), name: z.string(), message: z.string() })),
})
export type ProofRecord = z.infer<typeof proofShape>

/** Findings and warnings that a record names. */
export const mostNamedInProof = 50

const proofs: RecordKind<ProofRecord> = { prefix: proofsPrefix, shape: proofShape }

/** The numbers of all records, oldest first. */
export const listProofs = (repository: Repository, source: string, signal?: AbortSignal): Promise<number[]> =>
  listRecords(repository, proofs, source, signal)

export const readProof = (
  repository: Repository,
  source: string,
  number: number,
  signal?: AbortSignal,
): Promise<ProofRecord> => readRecord(repository, proofs, source, number, signal)

/** The newest record that `isWanted` and is whole. */
export const findProof = (
  repository: Repository,
  source: string,
  isWanted: (record: ProofRecord) => boolean,
  signal?: AbortSignal,
): Promise<ProofRecord | undefined> => findRecord(repository, proofs, source, isWanted, signal)

/** Stores a record under the next number, which it gives. */
export const writeProof = (repository: Repository, record: ProofRecord, signal?: AbortSignal): Promise<number> =>
  writeRecord(repository, proofs, record, signal)
