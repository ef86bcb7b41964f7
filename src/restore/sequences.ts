import type pg from 'pg'
import type { Sequence } from '../model/catalog.ts'
import { qualified, quoteIdent, quoteLiteral } from '../model/identifier.ts'
import type { Lsn } from '../model/lsn.ts'
import type { SequenceValue } from '../model/stream-message.ts'
import { readSequences } from '../postgres/catalog.ts'

/**
 * Where sequences are set at the end of a restore. `nextval` is not in the stream, only samples are; so a sequence is
 * set to the furthest of: the base, every sample up to the first that was read at or after the target, and what its
 * columns hold; and then further by the 32 values that PostgreSQL itself skips after a crash (SEQ_LOG_VALS in
 * sequence.c). It may be ahead of where it stood at the target, never behind. (One that no column draws from, and that
 * was set back between the target and the next sample, has only the margin of the tail for what was drawn before that.)
 */
const logValues = 32n

/** Where a sequence of the source stood, as far as base and stream tell. */
export interface SequencePosition {
  /** Its id on the source. */
  readonly oid: number
  readonly last: bigint
  readonly called: boolean
  /** The last sample was behind an earlier one: what was handed out between them is not told. */
  readonly wasSetBack: boolean
}

/** What a heartbeat said of sequences, and where. */
export interface SequenceSample {
  /** Where the log ended before they were read. */
  readonly from: Lsn
  readonly values: readonly SequenceValue[]
}

/**
 * `told`: the samples from the base on, in order, up to the first that was read at or after the target. Sequences made
 * since the base are known by their samples alone.
 */
export function sequencePositions(
  sequences: readonly Sequence[],
  told: readonly SequenceSample[],
  base: Lsn,
): SequencePosition[] {
  const known = new Map(sequences.map((sequence) => [sequence.oid, sequence]))
  const positions = new Map<number, SequencePosition>()
  for (const { oid, last, called } of sequences)
    positions.set(oid, { oid, last: BigInt(last), called, wasSetBack: false })
  for (const { from, values } of told) {
    if (from < base) continue
    for (const { oid, last, called } of values) {
      const sample = { oid, last: BigInt(last), called, wasSetBack: false }
      const before = positions.get(oid)
      const sequence = known.get(oid)
      const ascends = sequence === undefined || BigInt(sequence.increment) > 0n
      const further = before === undefined || (ascends ? sample.last > before.last : sample.last < before.last)
      // A cycle starts over: its later sample is the nearer one. So it is with one whose direction is not known.
      if (further || sequence === undefined || sequence.cycles || (sample.last === before?.last && called))
        positions.set(oid, sample)
      else if (before !== undefined && sample.last !== before.last) positions.set(oid, { ...before, wasSetBack: true })
    }
  }
  return [...positions.values()]
}

/**
 * Sets the sequences of a restored database. Needs the rows to be there. `positionOf`: by the target's id; without one
 * it is where the target has it.
 */
export async function setSequences(
  client: pg.Client,
  positionOf: (target: number) => SequencePosition | undefined,
  isBounded: boolean,
): Promise<void> {
  for (const sequence of await readSequences(client)) {
    const increment = BigInt(sequence.increment)
    const known = positionOf(sequence.oid)
    let position = known?.last ?? BigInt(sequence.last)
    let isCalled = known?.called ?? sequence.called
    // Of what the columns hold it is known to have been handed out; a sequence without a sample may have gone further.
    const reach = reachOf(position, increment > 0n, sequence)
    for (const column of sequence.cycles ? [] : sequence.columns) {
      const edge = await furthestValue(client, column, increment > 0n, reach)
      if (edge === undefined || (increment > 0n ? edge < position : edge > position)) continue
      position = edge
      isCalled = true
    }
    // Of one that was made since the base and never sampled nothing is known but that.
    const isKnown = known !== undefined && isBounded && !known.wasSetBack
    isCalled ||= known === undefined && !sequence.cycles
    if (isCalled && !sequence.cycles) position += margin(position, increment, sequence, isKnown)
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

/**
 * How far a column's value can be the sequence's own. What is further than half of all that is left was put there by
 * hand (a row of id 2147483647, say); the sequence that went there would be used up.
 */
function reachOf(last: bigint, ascends: boolean, { minimum, maximum }: Sequence): bigint {
  const end = BigInt(ascends ? maximum : minimum)
  const half = (end - last) / 2n
  const least = ascends ? tailValues : -tailValues
  const further = ascends === half > least ? half : least
  return ascends === last + further > end ? end : last + further
}

async function furthestValue(
  client: pg.Client,
  { schema, table, column }: Sequence['columns'][number],
  ascends: boolean,
  reach: bigint,
): Promise<bigint | undefined> {
  const [edge, within] = ascends ? ['pg_catalog.max', '<='] : ['pg_catalog.min', '>=']
  const value = `${quoteIdent(column)}::pg_catalog.numeric`
  try {
    const { rows } = await client.query<{ edge: string | null }>(
      `SELECT ${edge}(${value})::pg_catalog.text AS edge FROM ${quoteIdent(schema)}.${quoteIdent(table)} WHERE ${value} OPERATOR(pg_catalog.${within}) ${reach}`,
    )
    const found = rows[0]?.edge
    return found && /^-?\d+$/.test(found) ? BigInt(found) : undefined
  } catch {
    // A column that is no number (an id built from text, say) says nothing of the sequence.
    return undefined
  }
}
