import { z } from 'zod'
import { verificationsPrefix } from './layout.ts'
import { findRecord, listRecords, type RecordKind, readRecord, writeRecord } from './numbered-records.ts'
import type { Repository } from './repository.ts'

/**
 * What a run of `verify` has found, kept in the repository: `status` shows it on any machine, an interrupted run is
 * carried on from it, and the next one compares what it finds with what was there. It is written once and counts for
 * no restore.
 */
const verificationShape = z.object({
  walback: z.literal('verification'),
  format: z.literal(1),
  source: z.string(),
  started: z.string(),
  finished: z.string(),
  walbackVersion: z.string(),
  outcome: z.enum(['sound', 'damaged', 'interrupted']),
  /** Which share of the objects was read whole; null: none, only what names them. */
  read: z.object({ part: z.number(), of: z.number() }).nullable(),
  objects: z.number(),
  read_bytes: z.number(),
  duration_ms: z.number(),
  /** How many findings there were, and the first of them. */
  damaged: z.number(),
  findings: z.array(z.object({ kind: z.string(), key: z.string(), message: z.string() })),
  /** Up to where each timeline's chain was sound then, and which bases there were. */
  timelines: z.array(z.object({ id: z.string(), end: z.string(), sha256: z.string() })),
  bases: z.array(z.string()),
  /** The newest record of each chain of the audit record. */
  audit: z.array(z.object({ repository: z.string(), number: z.number(), sha256: z.string() })).optional(),
  /** Of an interrupted run: up to where objects were read, by timeline as a position and by base as a key. */
  resume: z.object({ segments: z.record(z.string(), z.string()), bases: z.record(z.string(), z.string()) }).optional(),
})
export type Verification = z.infer<typeof verificationShape>

/** Findings that a record names; of more only the number is kept. */
export const mostNamed = 100

const verifications: RecordKind<Verification> = { prefix: verificationsPrefix, shape: verificationShape }

/** The numbers of all records, oldest first. */
export const listVerifications = (repository: Repository, source: string, signal?: AbortSignal): Promise<number[]> =>
  listRecords(repository, verifications, source, signal)

export const readVerification = (
  repository: Repository,
  source: string,
  number: number,
  signal?: AbortSignal,
): Promise<Verification> => readRecord(repository, verifications, source, number, signal)

/** The newest record that `isWanted` and is whole. */
export const findVerification = (
  repository: Repository,
  source: string,
  isWanted: (record: Verification) => boolean,
  signal?: AbortSignal,
): Promise<Verification | undefined> => findRecord(repository, verifications, source, isWanted, signal)

/** Stores a record under the next number, which it gives. */
export const writeVerification = (
  repository: Repository,
  record: Verification,
  signal?: AbortSignal,
): Promise<number> => writeRecord(repository, verifications, record, signal)
