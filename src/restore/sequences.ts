import type pg from 'pg'
import type { Sequence } from '../model/catalog.ts'
import { qualified, quoteIdent, quoteLiteral } from '../model/identifier.ts'
import type { Lsn } from '../model/lsn.ts'
import type { SequenceValue } from '../model/stream-message.ts'

/**
 * Where sequences are set at the end of a restore. `nextval` is not in the stream, only samples are; so a sequence is
 * set to the furthest of: the base, every sample up to the first that was read at or after the target, and what its
 * columns hold; and then further by the 32 values that PostgreSQL itself skips after a crash (SEQ_LOG_VALS in
 * sequence.c). It may be ahead of where it stood at the target, never behind.
 */
const logValues = 32n

export interface SequencePosition {
  readonly sequence: Sequence
  readonly last: bigint
  readonly called: boolean
  /** False when the stream told nothing after the target: values handed out in the last moments may be missing. */
  readonly isBounded: boolean
}

/** What a heartbeat said of sequences, and where. */
export interface SequenceSample {
  /** Where the log ended before they were read. */
  readonly from: Lsn
  readonly values: readonly SequenceValue[]
}

/** `told`: the samples from the base on, in order, up to the first that was read at or after the target. */
export function sequencePositions(
  sequences: readonly Sequence[],
  told: readonly SequenceSample[],
  base: Lsn,
  isBounded: boolean,
): SequencePosition[] {
  const samples = new Map<number, { last: bigint; called: boolean }[]>()
  for (const { from, values } of told) {
    if (from < base) continue
    for (const { oid, last, called } of values) {
      const list = samples.get(oid) ?? []
      list.push({ last: BigInt(last), called })
      samples.set(oid, list)
    }
  }
  return sequences.map((sequence) => {
    const ascends = BigInt(sequence.increment) > 0n
    let position = { last: BigInt(sequence.last), called: sequence.called }
    for (const sample of samples.get(sequence.oid) ?? []) {
      const further = ascends ? sample.last > position.last : sample.last < position.last
      // A cycle starts over: its later sample is the nearer one.
      if (further || sequence.cycles || (sample.last === position.last && sample.called)) position = sample
    }
    return { sequence, ...position, isBounded }
  })
}

/** Sets the sequences of a restored database. Needs the rows to be there. */
export async function setSequences(client: pg.Client, positions: readonly SequencePosition[]): Promise<void> {
  for (const { sequence, last, called, isBounded } of positions) {
    const increment = BigInt(sequence.increment)
    let position = last
    let isCalled = called
    for (const { schema, table, column } of sequence.columns) {
      const edge = await furthestValue(client, { schema, table, column }, increment > 0n)
      if (edge === undefined || edge < BigInt(sequence.minimum) || edge > BigInt(sequence.maximum)) continue
      if (!sequence.cycles && (increment > 0n ? edge >= position : edge <= position)) {
        position = edge
        isCalled = true
      }
    }
    if (isCalled && !sequence.cycles) position += margin(position, increment, sequence, isBounded)
    await client.query(
      `SELECT pg_catalog.setval(${quoteLiteral(qualified(sequence))}::pg_catalog.regclass, ${position}, ${isCalled})`,
    )
  }
}

/** At the archive's end nothing tells where a sequence went after its last sample: a wider margin stands in. */
const tailValues = 1000n

/** How far to go on, in the sequence's direction: never past its end, and never so far that a short one is used up. */
function margin(position: bigint, increment: bigint, { minimum, maximum }: Sequence, isBounded: boolean): bigint {
  const left =
    (increment > 0n ? BigInt(maximum) - position : position - BigInt(minimum)) /
    (increment > 0n ? increment : -increment)
  const steps = isBounded ? logValues : [tailValues, left / 2n].reduce((a, b) => (a < b ? a : b))
  return increment * (steps < left ? steps : left)
}

async function furthestValue(
  client: pg.Client,
  { schema, table, column }: { schema: string; table: string; column: string },
  ascends: boolean,
): Promise<bigint | undefined> {
  const edge = ascends ? 'pg_catalog.max' : 'pg_catalog.min'
  try {
    const { rows } = await client.query<{ edge: string | null }>(
      `SELECT ${edge}(${quoteIdent(column)}::pg_catalog.numeric)::pg_catalog.text AS edge FROM ${quoteIdent(schema)}.${quoteIdent(table)}`,
    )
    const value = rows[0]?.edge
    return value && /^-?\d+$/.test(value) ? BigInt(value) : undefined
  } catch {
    // A column that is no number (an id built from text, say) says nothing of the sequence.
    return undefined
  }
}
