import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Block, blockHeadBytes, decompressBlock, frameHeadBytes, parseBlockHead } from '../../src/codec/block.ts'
import { type Lsn, lsn, parseLsn } from '../../src/model/lsn.ts'
import { fullXid } from '../../src/model/snapshot.ts'
import { MessageReader, type RecordPart, readRecords, type StreamRecord } from '../../src/repository/record.ts'
import { SegmentBuilder, type SegmentContent } from '../../src/repository/segment-builder.ts'
import { begin, commit, insert, message, relation } from '../model/messages.ts'
import { plan, type Stream, streamOf } from './streams.ts'

/** A message as it arrives, in parts if it is long. */
function divided(message: Buffer, partBytes: number): { bytes: Buffer; part: RecordPart }[] {
  if (message.length <= partBytes) return [{ bytes: message, part: 'whole' }]
  const count = Math.ceil(message.length / partBytes)
  return Array.from({ length: count }, (_, place) => ({
    bytes: message.subarray(place * partBytes, (place + 1) * partBytes),
    part: place === 0 ? 'first' : place === count - 1 ? 'last' : 'middle',
  }))
}

/** What a caller does between messages: nothing, compress, cut if it may, store a part if it may. */
type Move = 'go on' | 'compress' | 'cut' | 'part'
const move = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Move>('go on') },
  { weight: 2, arbitrary: fc.constant<Move>('compress') },
  { weight: 2, arbitrary: fc.constant<Move>('cut') },
  { weight: 3, arbitrary: fc.constant<Move>('part') },
)

interface Segment {
  readonly parts: readonly Block[]
  readonly content: SegmentContent
}

interface Held {
  readonly segments: readonly Segment[]
  /** The most that was held at any moment. */
  readonly mostBytes: number
}

/** Sends the stream through a builder, moving as told, and cuts what is left at the end. */
async function build(
  stream: Stream,
  xid: bigint,
  { blockBytes, moves, partBytes }: Omit<Setting, 'plan'>,
): Promise<Held> {
  const builder = new SegmentBuilder({ xid: fullXid(xid), encoding: 'UTF8', blockBytes })
  const segments: Segment[] = []
  let parts: Block[] = []
  let mostBytes = 0
  const cut = async (): Promise<void> => {
    segments.push({ parts, content: await builder.cut() })
    parts = []
  }
  const arriving = stream.sent.flatMap(({ message: bytes }, n) =>
    divided(bytes, partBytes).map((one) => ({ ...one, n })),
  )
  for (const { bytes, part, n } of arriving) {
    const borrowed = Buffer.from(bytes)
    builder.append(lsn(BigInt(n + 1)), borrowed, part)
    // The builder has copied the bytes: what becomes of them is none of its business.
    borrowed.fill(0xee)
    mostBytes = Math.max(mostBytes, builder.doneBytes + builder.openBytes)
    const next = moves.length === 0 ? 'go on' : (moves[n % moves.length] as Move)
    if (next === 'compress') await builder.compress()
    else if (next === 'cut' && builder.hasCommit) await cut()
    else if (next === 'part' && !builder.hasCommit && builder.inTransaction) parts.push(...(await builder.takePart()))
  }
  if (builder.hasCommit) await cut()
  return { segments, mostBytes }
}

async function recordsOf({ bytes, items, rawBytes }: Block): Promise<StreamRecord[]> {
  const start = frameHeadBytes + blockHeadBytes
  const raw = await decompressBlock(
    parseBlockHead(bytes.subarray(frameHeadBytes, start)),
    bytes.subarray(start),
    'block',
  )
  const records = [...readRecords(raw)]
  expect([records.length, raw.length]).toEqual([items, rawBytes])
  return records
}

const isPutIn = (record: StreamRecord): boolean => record.lsn === 0n
const letter = ({ message: bytes, part }: StreamRecord): string =>
  part === 'middle' || part === 'last' ? '…' : String.fromCharCode(bytes[0] as number)

const setting = fc.record({
  plan,
  blockBytes: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.constant(1 << 20)),
  moves: fc.array(move, { maxLength: 40 }),
  partBytes: fc.constantFrom(20, 50, 1 << 20),
})
type Setting = typeof setting extends fc.Arbitrary<infer T> ? T : never

/** Runs a check over whole builds. */
function forAll(
  check: (segments: readonly { blocks: StreamRecord[][]; content: SegmentContent }[], stream: Stream) => void,
): Promise<void> {
  return fc.assert(
    fc.asyncProperty(setting, async ({ plan: planned, ...options }) => {
      const stream = streamOf(planned)
      const { segments } = await build(stream, planned.firstXid, options)
      const opened = await Promise.all(
        segments.map(async ({ parts, content }) => ({
          content,
          blocks: await Promise.all([...parts, ...content.blocks].map(recordsOf)),
        })),
      )
      check(opened, stream)
    }),
    { numRuns: 300 },
  )
}

describe('whatever is cut and stored in parts', () => {
  test('reading back gives the messages that were sent, in order, with their positions', () =>
    forAll((segments, { sent }) => {
      const back = segments.flatMap(({ blocks }) => blocks.flat()).filter((record) => !isPutIn(record))
      const begun = back.filter(({ part }) => part === 'whole' || part === 'first')
      expect(begun.map((record) => record.lsn)).toEqual(sent.map((_, n) => BigInt(n + 1)))
      const joined: string[] = []
      for (const { message: bytes, part } of back) {
        const before = part === 'middle' || part === 'last' ? (joined.pop() as string) : ''
        joined.push(before + bytes.toString('hex'))
      }
      expect(joined).toEqual(sent.map(({ message: bytes }) => bytes.toString('hex')))
    }))

  test('every block can be read alone, under the relations that were in force', () =>
    forAll((segments, { sent }) => {
      for (const records of segments.flatMap(({ blocks }) => blocks)) {
        const declared = new Map<number, string>()
        for (const record of records) {
          if (letter(record) === 'R') declared.set(record.message.readUInt32BE(1), record.message.toString('hex'))
          // The rest of a divided row is read with its beginning.
          if (isPutIn(record) || letter(record) === '…') continue
          for (const [oid, bytes] of sent[Number(record.lsn) - 1]?.relies ?? []) {
            expect(declared.get(oid)).toBe(bytes.toString('hex'))
          }
        }
      }
    }))

  test('nothing but relation messages is put in', () =>
    forAll((segments) => {
      for (const records of segments.flatMap(({ blocks }) => blocks)) {
        const putIn = records.filter(isPutIn)
        expect(putIn.every((record) => letter(record) === 'R')).toBe(true)
      }
    }))

  test('a segment holds whole transactions and ends at a commit', () =>
    forAll((segments, { transactions }) => {
      let next = 0
      for (const { blocks, content } of segments) {
        const inOrder = blocks.flat().filter((record) => 'BC'.includes(letter(record)))
        expect(inOrder.map(letter).join('')).toBe('BC'.repeat(content.transactions.length))
        next += content.transactions.length
        expect(content.end).toBe(transactions[next - 1]?.end)
        expect(parseLsn(content.transactions.at(-1)?.end ?? '')).toBe(content.end)
      }
      expect(next).toBe(transactions.length)
    }))

  test('the trailer says what is true of each transaction', () =>
    forAll((segments, { transactions }) => {
      const entries = segments.flatMap(({ content }) =>
        content.transactions.map(({ xid, commit: at, end, bytes, counts, marks }) => ({
          xid: BigInt(xid),
          commit: parseLsn(at),
          end: parseLsn(end),
          bytes,
          counts: new Map(counts.map(([place, ...numbers]) => [content.tables[place]?.oid as number, numbers])),
          marks: marks ?? [],
        })),
      )
      expect(entries).toEqual(
        transactions.map(({ xid, commit: at, end, bytes, counts, marks }) => ({
          xid,
          commit: at,
          end,
          bytes,
          counts,
          marks,
        })),
      )
      for (const { content } of segments) {
        expect(content.tables.map(({ name }) => name)).toEqual(content.tables.map(({ oid }) => `t${oid}`))
        expect(new Set(content.tables.map(({ oid }) => oid)).size).toBe(content.tables.length)
      }
    }))

  test('the trailer names the block in which each transaction begins', () =>
    forAll((segments) => {
      for (const { blocks, content } of segments) {
        const truth = blocks.flatMap((records, place) =>
          records.filter((record) => letter(record) === 'B').map(() => place),
        )
        expect(content.transactions.map(({ block }) => block)).toEqual(truth)
      }
    }))
})

describe('the builder holds no more than it must', () => {
  const table = relation(1, 'public', 't', [{ name: 'v', key: true }])
  const [blockBytes, partBytes, row] = [4096, 20_000, 200]

  test('of one transaction of 20 MB, when parts are stored as they come', async () => {
    const builder = new SegmentBuilder({ xid: fullXid(3n), encoding: 'UTF8', blockBytes })
    builder.append(lsn(1n), begin(1n, 0n, 3))
    builder.append(lsn(1n), table)
    let [most, stored] = [0, 0]
    for (let n = 0; n < 100_000; n++) {
      builder.append(lsn(2n), insert(1, [`${n} `.repeat(30).slice(0, row)]))
      if (n % 10 === 9) await builder.compress()
      most = Math.max(most, builder.openBytes + builder.doneBytes)
      if (builder.openBytes >= partBytes) stored += (await builder.takePart()).length
    }
    builder.append(lsn(9n), commit(9n, 10n, 0n))
    expect(stored).toBeGreaterThan(1000)
    expect(most).toBeLessThan(partBytes + 3 * blockBytes)
    expect(await builder.cut()).toMatchObject({ end: 10n, transactions: [{ counts: [[0, 100_000, 0, 0, 0]] }] })
    expect([builder.openBytes, builder.doneBytes]).toEqual([0, 0])
  })

  test('of many transactions: blocks do not grow beyond their size by more than one of them', async () => {
    const builder = new SegmentBuilder({ xid: fullXid(3n), encoding: 'UTF8', blockBytes })
    for (let n = 0; n < 500; n++) {
      builder.append(lsn(1n), begin(1n, 0n, 3 + n))
      if (n === 0) builder.append(lsn(1n), table)
      builder.append(lsn(1n), insert(1, ['x'.repeat(row)]))
      builder.append(lsn(1n), commit(BigInt(n), BigInt(n + 1), 0n))
    }
    const { blocks } = await builder.cut()
    expect(Math.max(...blocks.map(({ rawBytes }) => rawBytes))).toBeLessThan(2 * blockBytes)
  })

  test('of messages outside of transactions: they fill blocks as rows do', async () => {
    const builder = new SegmentBuilder({ xid: fullXid(3n), encoding: 'UTF8', blockBytes })
    for (let n = 0; n < 1000; n++) {
      builder.append(lsn(1n), message(false, 1n, 'noise', Buffer.alloc(1000)))
      await builder.compress()
    }
    // Zeros compress to almost nothing.
    expect(builder.doneBytes).toBeLessThan(100_000)
    builder.append(lsn(1n), begin(1n, 0n, 3))
    builder.append(lsn(1n), commit(1n, 2n, 0n))
    const { blocks } = await builder.cut()
    expect(Math.max(...blocks.map(({ rawBytes }) => rawBytes))).toBeLessThan(2 * blockBytes)
  })

  test('of a single row that is larger than a block', async () => {
    const builder = new SegmentBuilder({ xid: fullXid(3n), encoding: 'UTF8', blockBytes })
    const large = insert(1, ['y'.repeat(10 * blockBytes)])
    for (const m of [begin(1n, 0n, 3), table, large, large, commit(1n, 2n, 0n)]) builder.append(lsn(1n) as Lsn, m)
    const { blocks } = await builder.cut()
    const records = (await Promise.all(blocks.map(recordsOf))).flat()
    expect(records.filter((record) => letter(record) === 'I')).toHaveLength(2)
  })
})

describe('a builder whose caller errs says so', () => {
  const fresh = (): SegmentBuilder => new SegmentBuilder({ xid: fullXid(3n), encoding: 'UTF8' })

  test('cut without a commit, a row without its relation', async () => {
    await expect(fresh().cut()).rejects.toThrow('a bug in walback')
    const builder = fresh()
    builder.append(lsn(1n), begin(1n, 0n, 3))
    expect(() => builder.append(lsn(1n), insert(7, []))).toThrow('a bug in walback')
  })
})

test('a reader puts divided rows together over blocks, past relations in between, and sees what is missing', () => {
  const record = (bits: number, text: string): Buffer => {
    const head = Buffer.alloc(12)
    head.writeUInt32BE(bits + 8 + text.length, 0)
    return Buffer.concat([head, Buffer.from(text)])
  }
  const [goesOn, began] = [0x80000000, 0x40000000]
  const reader = new MessageReader()
  const read = (...records: Buffer[]): string[] => [...reader.messages(Buffer.concat(records))].map(String)
  expect(read(record(0, 'one'), record(goesOn, 'tw'))).toEqual(['one'])
  expect(reader.isInside).toBe(true)
  expect(read(record(0, 'relation'), record(goesOn + began, '-'))).toEqual(['relation'])
  expect(read(record(began, 'o'), record(0, 'three'))).toEqual(['tw-o', 'three'])
  expect(reader.isInside).toBe(false)
  expect(() => read(record(began, 'o'))).toThrow('without its beginning or end')
  expect(read(record(goesOn, 'tw'))).toEqual([])
  expect(() => read(record(goesOn, 'tw'))).toThrow('without its beginning or end')
})
