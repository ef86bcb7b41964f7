/** The changes of one transaction, read out of the blocks that hold it. */

import { WalbackError } from '../base/errors.ts'
import { nearest } from '../base/nearest.ts'
import { decompressBlock } from '../codec/block.ts'
import { formatLsn } from '../model/lsn.ts'
import { parseBegin } from '../model/pgoutput.ts'
import { matchTables } from '../model/selection.ts'
import { type Change, ChangeReader } from '../repository/change-reader.ts'
import { type ContainerReference, readFrames } from '../repository/container.ts'
import { fetchObject, loadParts } from '../repository/load-segments.ts'
import type { Repository } from '../repository/repository.ts'
import type { ObjectSource } from '../storage/storage.ts'
import type { FoundTransaction } from './find-transaction.ts'

export type TransactionChange = Exclude<Change, { readonly kind: 'commit' }>

/**
 * Block by block, in the order in which they were made. Blocks before the transaction's first are passed over as they
 * are packed, those after its last are not read. Each block is checked by its own hash.
 */
export async function* readTransaction(
  repository: Repository,
  { timeline, segment, entry }: FoundTransaction,
  options: { readonly isWanted?: (oid: number) => boolean; readonly signal?: AbortSignal | undefined } = {},
): AsyncGenerator<Iterable<TransactionChange>> {
  const { signal } = options
  const reader = new TransactionReader(timeline.encoding, entry.commit, options.isWanted ?? (() => true))
  const blocks = new BlockRun(entry.block)
  for await (const { reference, source } of loadParts(repository, segment.trailer.parts, signal)) {
    for await (const block of blocks.of(source, { ...reference, kind: 'part' }, signal)) {
      yield reader.read(block)
      if (reader.isOver) return
    }
  }
  const source = await fetchObject(repository, segment, signal ?? new AbortController().signal)
  const { key, sha256 } = segment
  for await (const block of blocks.of(source, { key, sha256, kind: 'segment' }, signal)) {
    yield reader.read(block)
    if (reader.isOver) return
  }
  throw new WalbackError('corrupt', `${segment.key} does not hold transaction ${entry.xid}, which its trailer names`)
}

/** Which of a transaction's tables are meant, by their ids on the source; all, where no pattern is given. */
export function chosenRelations(
  { segment, entry }: FoundTransaction,
  patterns: readonly string[] | undefined,
): ReadonlySet<number> {
  const matches = patterns === undefined ? () => true : matchTables(patterns)
  return new Set(tablesIn({ segment, entry }).flatMap((table) => (matches(table) ? [table.oid] : [])))
}

const tablesIn = ({ segment, entry }: Pick<FoundTransaction, 'segment' | 'entry'>) =>
  entry.counts.flatMap(([place]) => segment.trailer.tables[place] ?? [])

/** A pattern that fits no table of the transactions is a mistake. */
export function refuseUnknownTables(found: readonly FoundTransaction[], patterns: readonly string[] = []): void {
  const tables = found.flatMap(tablesIn)
  for (const pattern of patterns) {
    if (tables.some(matchTables([pattern]))) continue
    const names = [...new Set(tables.map(({ schema, name }) => `${schema}.${name}`))]
    const meant = nearest(pattern, pattern.includes('.') ? names : tables.map(({ name }) => name))
    const xids = found.map(({ entry }) => entry.xid).join(', ')
    throw new WalbackError('usage', `transaction ${xids} has no rows of ${JSON.stringify(pattern)}`, {
      hint:
        meant === undefined ? `it has rows of ${names.slice(0, 8).join(', ') || 'no table'}` : `did you mean ${meant}?`,
    })
  }
}

/** Blocks are counted through the parts and then the segment. */
class BlockRun {
  private next = 0
  private readonly first: number

  constructor(first: number) {
    this.first = first
  }

  async *of(
    source: ObjectSource,
    reference: ContainerReference,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Buffer> {
    for await (const frame of readFrames(source, reference, signal)) {
      if (frame.kind !== 'block' || this.next++ < this.first) continue
      yield await decompressBlock(frame.head, frame.packed, reference.key)
    }
  }
}

/** Lets the changes of one transaction through. */
class TransactionReader extends ChangeReader {
  isOver = false
  private readonly position: string
  private readonly isAsked: (oid: number) => boolean
  private isInIt = false

  constructor(encoding: string, position: string, isAsked: (oid: number) => boolean) {
    super(encoding)
    this.position = position
    this.isAsked = isAsked
    this.startAnew({ mayBeginInside: true })
  }

  *read(block: Buffer): Generator<TransactionChange> {
    for (const change of this.changes(block)) if (change.kind !== 'commit') yield change
  }

  protected override begin(message: Buffer): void {
    this.isInIt = formatLsn(parseBegin(message).commitLsn) === this.position
  }

  protected override commit(): boolean {
    this.isOver ||= this.isInIt
    this.isInIt = false
    return false
  }

  protected override get wantsMessages(): boolean {
    return this.isInIt
  }

  protected override isWanted(oid: number): boolean {
    return this.isInIt && this.isAsked(oid)
  }
}
