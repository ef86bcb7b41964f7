import { z } from 'zod'
import { type Lsn, parseLsn } from '../model/lsn.ts'
import { sequenceValue } from '../model/stream-message.ts'

/** The JSON parts of a segment. Positions are PostgreSQL's text, times microseconds since 1970 as text. */
const lsnText = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/)
const sha256 = z.string().regex(/^[0-9a-f]{64}$/)

export const segmentHeader = z.object({
  kind: z.enum(['segment', 'part']),
  source: z.string(),
  timeline: z.string(),
  /** Where this segment begins, which is where the one before it ends. */
  start: lsnText,
  /** SHA-256 of the segment before it; null for the first of a timeline. */
  previous: sha256.nullable(),
  systemIdentifier: z.string(),
  /** Server encoding of names and values. */
  encoding: z.string(),
  /** A 64-bit transaction id in use at the start: 32-bit ids in the stream are widened to be nearest to it. */
  xid: z.string(),
})
export type SegmentHeader = z.infer<typeof segmentHeader>

/** [inserts, updates, deletes, truncates] of one table in one transaction, preceded by its place in `tables`. */
const tableCounts = z.tuple([z.number(), z.number(), z.number(), z.number(), z.number()])

const transaction = z.object({
  xid: z.string(),
  /** Start and end of the commit record. */
  commit: lsnText,
  end: lsnText,
  time: z.string(),
  /** Bytes of the transaction in the uncompressed stream. */
  bytes: z.number(),
  /** The block, counted from 0 over the parts and then this object, in which the transaction begins. */
  block: z.number(),
  counts: z.array(tableCounts),
  /** Marks that the transaction set. */
  marks: z.array(z.string()).optional(),
  /**
   * Changes of the schema: how many, and the first of them. `unsure`: what it did to the rows of a table (`rows`), or
   * what it did at all, is not in the stream.
   */
  ddl: z
    .array(z.object({ tag: z.string(), object: z.string().nullable(), unsure: z.enum(['rows', 'all']).optional() }))
    .optional(),
  ddlCount: z.number().optional(),
  /** What a heartbeat in the transaction said (model/stream-message.ts). */
  heartbeat: z
    .object({
      from: lsnText,
      snapshot: z.string(),
      sequences: z.array(sequenceValue),
      catalog: z.string().optional(),
    })
    .optional(),
})
export type TransactionEntry = z.infer<typeof transaction>

/** A change of the schema, as the trailer has it. */
export type DdlEntry = NonNullable<TransactionEntry['ddl']>[number]

/** Whether a transaction changed rows or the schema: what only walback said (heartbeats, marks) changes nothing. */
export const changesAnything = ({ counts, ddlCount }: TransactionEntry): boolean =>
  counts.length > 0 || (ddlCount ?? 0) > 0

export const partTrailer = z.object({ kind: z.literal('part') })

export const segmentTrailer = z.object({
  kind: z.literal('segment'),
  /** The position that the archive has reached with this segment; always after `start`. */
  end: lsnText,
  /** Like the header's, for the segment after this one. */
  xid: z.string(),
  /** The server's clock when `end` was seen. */
  time: z.string(),
  /** The server's timeline, and where it began; absent in segments of walback 0.1. */
  server: z.object({ timeline: z.number(), since: lsnText }).optional(),
  /** Objects that come before this one's blocks: what was stored of a transaction before its commit was seen. */
  parts: z.array(z.object({ key: z.string(), size_bytes: z.number(), sha256 })),
  tables: z.array(z.object({ oid: z.number(), schema: z.string(), name: z.string() })),
  transactions: z.array(transaction),
})
export type SegmentTrailer = z.infer<typeof segmentTrailer>

/** A segment as the archive knows it without having read its blocks. */
export interface SegmentSummary {
  readonly key: string
  readonly sha256: string
  readonly size_bytes: number
  readonly start: Lsn
  readonly end: Lsn
  readonly trailer: SegmentTrailer
}

export const endOf = (trailer: SegmentTrailer): Lsn => parseLsn(trailer.end)
