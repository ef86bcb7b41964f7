import { beforeEach, describe, expect, test } from 'vitest'
import { compressBlock } from '../../src/codec/block.ts'
import { type Lsn, lsn } from '../../src/model/lsn.ts'
import { fullXid } from '../../src/model/snapshot.ts'
import { micros } from '../../src/model/time.ts'
import { checkSourceName, partKey, segmentKey, segmentStart, suggestSourceName } from '../../src/repository/layout.ts'
import { Repository } from '../../src/repository/repository.ts'
import type { SegmentContent } from '../../src/repository/segment-builder.ts'
import { SegmentWriter } from '../../src/repository/segment-writer.ts'
import { type Head, readHead, readSoundHead } from '../../src/repository/segments.ts'
import { beginTimeline, currentTimeline, readTimelines, type Timeline } from '../../src/repository/timeline.ts'
import { StallingStorage } from '../support/faults.ts'
import { readSegments } from '../support/segments.ts'
import { MemoryStorage } from './memory-storage.ts'
import { timelineDetails } from './timeline-details.ts'

const now = micros(0n)
const head = (end: bigint): Head => ({ end: lsn(end), sha256: null, xid: fullXid(700n) })
const content = (end: bigint): SegmentContent => ({
  blocks: [],
  transactions: [],
  tables: [],
  end: lsn(end),
  xid: fullXid(701n),
})

describe('segments of a timeline', () => {
  let storage: MemoryStorage
  let repository: Repository
  let timeline: Timeline
  beforeEach(async () => {
    storage = new MemoryStorage()
    repository = await Repository.create(storage)
    timeline = await beginTimeline(repository, timelineDetails)
  })

  const write = async (...ends: bigint[]): Promise<SegmentWriter> => {
    const writer = new SegmentWriter(repository, timeline, await readHead(repository, timeline))
    for (const end of ends) await writer.write(content(end), now)
    return writer
  }
  const starts = async (from?: Lsn): Promise<bigint[]> =>
    (await readSegments(repository, timeline, from === undefined ? {} : { from })).map(({ start }) => start)

  test('join, each naming the one before, and a later writer goes on from them', async () => {
    const { head: reached } = await write(0x200n, 0x300n)
    expect(await readHead(repository, timeline)).toEqual({ ...reached, xid: 701n })
    await write(0x1_0000_0000n, 0x1_0000_0010n)
    const segments = await readSegments(repository, timeline)
    expect(segments.map(({ start, end }) => [start, end])).toEqual([
      [0x100n, 0x200n],
      [0x200n, 0x300n],
      [0x300n, 0x1_0000_0000n],
      [0x1_0000_0000n, 0x1_0000_0010n],
    ])
  })

  test('are read from a position on, beginning with the one that holds it', async () => {
    await write(0x200n, 0x300n, 0x400n)
    expect(await starts()).toEqual([0x100n, 0x200n, 0x300n])
    expect(await starts(lsn(0x200n))).toEqual([0x200n, 0x300n])
    expect(await starts(lsn(0x2ffn))).toEqual([0x200n, 0x300n])
    expect(await starts(lsn(0x50n))).toEqual([0x100n, 0x200n, 0x300n])
  })

  test('before any is there reach to the start of the timeline', async () => {
    expect(await readHead(repository, timeline)).toEqual(head(0x100n))
    expect(await readSegments(repository, timeline)).toEqual([])
  })

  test.each([
    ['the first', 0x100n, '0/100', '0/200'],
    ['one between others', 0x200n, '0/200', '0/300'],
  ])('of which %s is missing are a gap that is named', async (_, missing, from, to) => {
    await write(0x200n, 0x300n, 0x400n)
    await storage.delete(segmentKey('app', timeline.id, lsn(missing)))
    await expect(readSegments(repository, timeline)).rejects.toMatchObject({ code: 'corrupt', facts: { from, to } })
  })

  test('are extended by one of two writers, and the other is told', async () => {
    const [one, other] = [await write(), await write()]
    await one.write(content(0x200n), now)
    await expect(other.write(content(0x250n), now)).rejects.toMatchObject({ code: 'locked' })
    expect(await starts()).toEqual([0x100n])
  })

  test('may be written again by a writer whose store acknowledged too late', async () => {
    const [one, again] = [await write(), await write()]
    const first = await one.write(content(0x200n), now)
    expect((await again.write(content(0x200n), now)).sha256).toBe(first.sha256)
    expect(again.head).toEqual(one.head)
  })

  test('are not believed to be stored until the store says that it has all of them', async () => {
    for (const mode of ['cut short', 'lose'] as const) {
      const lying = new StallingStorage(storage)
      lying.mode = mode
      const before = await readHead(repository, timeline)
      const writer = new SegmentWriter(await Repository.open(lying), timeline, before)
      const end = lsn(before.end + 0x100n)
      await expect(writer.write(content(end), now)).rejects.toMatchObject({ code: 'storage', retryable: true })
      expect(writer.head).toEqual(before)
      // What is left does not stand in the way.
      lying.mode = 'well'
      await writer.write(content(end), now)
      expect((await readHead(repository, timeline)).end).toBe(end)
    }
  })

  test('whose last is damaged are a sound archive before it', async () => {
    const reached = await write(0x200n, 0x300n)
    const key = segmentKey('app', timeline.id, lsn(0x200n))
    storage.objects.set(key, storage.objects.get(key)?.subarray(0, 100) as Buffer)
    expect(reached.head.end).toBe(0x300n)
    const { head: sound, damaged } = await readSoundHead(repository, timeline)
    expect([sound.end, damaged.map((one) => one.key)]).toEqual([0x200n, [key]])
    // It is nobody's, so the writer that comes to it puts its own in its place.
    const writer = new SegmentWriter(repository, timeline, sound)
    await expect(writer.write(content(0x300n), now)).rejects.toMatchObject({ code: 'storage', retryable: true })
    await writer.write(content(0x300n), now)
    expect((await readHead(repository, timeline)).end).toBe(0x300n)
  })

  test('of which a part is gone are missing', async () => {
    const writer = await write(0x200n)
    await writer.writePart([await compressBlock(Buffer.from('one'), 1)])
    const { trailer } = await writer.write(content(0x300n), now)
    await writer.write(content(0x400n), now)
    await storage.delete(trailer.parts[0]?.key as string)
    const facts = { from: '0/200', to: '0/300' }
    await expect(readSegments(repository, timeline)).rejects.toMatchObject({ code: 'corrupt', facts })
    await storage.delete(segmentKey('app', timeline.id, lsn(0x300n)))
    await expect(readSegments(repository, timeline)).rejects.toMatchObject({ code: 'corrupt', facts })
  })

  test('do not show the parts that no segment names', async () => {
    const interrupted = await write()
    await interrupted.writePart([await compressBlock(Buffer.from('left over'), 1)])
    const { parts } = (await (await write()).write(content(0x200n), now)).trailer
    expect(parts).toEqual([])
    const writer = await write()
    await writer.writePart([await compressBlock(Buffer.from('one'), 1)])
    await writer.writePart([await compressBlock(Buffer.from('two'), 1)])
    const { trailer } = await writer.write(content(0x300n), now)
    expect(trailer.parts.map(({ key }) => storage.objects.get(key)?.length)).toEqual(
      trailer.parts.map(({ size_bytes }) => size_bytes),
    )
    expect(await starts()).toEqual([0x100n, 0x200n])
  })

  test('whose trailer has another form are refused', async () => {
    await write(0x200n)
    const part = await write()
    await part.writePart([await compressBlock(Buffer.from('x'), 1)])
    const stray = [...storage.objects.entries()].find(([key]) => key.endsWith('.wbp'))
    await storage.put(segmentKey('app', timeline.id, lsn(0x200n)), stray?.[1] as Buffer)
    await expect(readHead(repository, timeline)).rejects.toMatchObject({ code: 'corrupt' })
  })
})

describe('timelines', () => {
  test('are numbered as they are begun, one at a time', async () => {
    const repository = await Repository.create(new MemoryStorage())
    expect(await currentTimeline(repository, 'app')).toBeUndefined()
    await beginTimeline(repository, timelineDetails)
    const parent = { timeline: '00000001', end: '0/300', reason: 'the slot was lost' }
    await beginTimeline(repository, { ...timelineDetails, start: '0/900', parent })
    expect((await readTimelines(repository, 'app')).map(({ id }) => id)).toEqual(['00000001', '00000002'])
    expect(await currentTimeline(repository, 'app')).toMatchObject({ id: '00000002', parent })
    const racing = await Promise.allSettled([
      beginTimeline(repository, timelineDetails),
      beginTimeline(repository, timelineDetails),
    ])
    expect(racing.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(await readTimelines(repository, 'app')).toHaveLength(3)
  })
})

test('timelines whose record is gone, or another one, are damage and not the end of them', async () => {
  const storage = new MemoryStorage()
  const repository = await Repository.create(storage)
  for (let n = 0; n < 3; n++) await beginTimeline(repository, timelineDetails)
  const key = (n: number): string => `sources/app/timelines/0000000${n}/timeline.json`
  const [second, third] = [storage.objects.get(key(2)) as Buffer, storage.objects.get(key(3)) as Buffer]
  storage.objects.set(key(2), third)
  await expect(readTimelines(repository, 'app')).rejects.toMatchObject({ code: 'corrupt' })
  await storage.delete(key(2))
  await expect(readTimelines(repository, 'app')).rejects.toMatchObject({ code: 'corrupt', facts: { key: key(2) } })
  storage.objects.set(key(2), second)
  await storage.delete(key(3))
  expect(await readTimelines(repository, 'app')).toHaveLength(2)
  await storage.put(segmentKey('app', '00000003', lsn(0x100n)), Buffer.from('x'))
  await expect(readTimelines(repository, 'app')).rejects.toMatchObject({ code: 'corrupt', facts: { key: key(3) } })
})

describe('a repository', () => {
  test('is made once, and opened as it is', async () => {
    const storage = new MemoryStorage()
    await expect(Repository.open(storage)).rejects.toMatchObject({ code: 'no_repository', exit: 10 })
    const made = await Promise.all(Array.from({ length: 5 }, () => Repository.create(storage)))
    expect(new Set(made.map(({ id }) => id)).size).toBe(1)
    expect((await Repository.open(storage)).id).toBe(made[0]?.id)
  })

  test.each([
    ['a later format', '{"walback":"repository","format":3,"id":"x","created":"y"}', 'failed'],
    ['something else', '{"walback":"base"}', 'corrupt'],
    ['half of it', '{"walback":"repo', 'corrupt'],
    ['nothing', '', 'corrupt'],
  ])('with %s in its header is refused', async (_, text, code) => {
    const storage = new MemoryStorage()
    await storage.put('walback.json', Buffer.from(text))
    await expect(Repository.open(storage)).rejects.toMatchObject({ code })
    await expect(Repository.create(storage)).rejects.toMatchObject({ code })
  })

  test('of before headers had seals is opened, and one whose seal was turned into something else is not', async () => {
    const storage = new MemoryStorage()
    const id = '84c0fc0f-4a53-4bd0-9d6f-0d1f0c2f3a55'
    const older = `{"walback":"repository","format":1,"id":"${id}","created":"2026-11-23T14:00:00.000Z"}\n`
    await storage.put('walback.json', Buffer.from(older))
    expect((await Repository.open(storage)).id).toBe(id)
    const sealed = new MemoryStorage()
    await Repository.create(sealed)
    const bytes = sealed.objects.get('walback.json') as Buffer
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const other = Buffer.from(bytes)
      other[bit >> 3] = (other[bit >> 3] as number) ^ (1 << (bit & 7))
      sealed.objects.set('walback.json', other)
      await expect(Repository.open(sealed)).rejects.toMatchObject({ code: 'corrupt' })
    }
  })

  test('knows its sources', async () => {
    const repository = await Repository.create(new MemoryStorage())
    expect(await repository.sources()).toEqual([])
    for (const source of ['b', 'a', 'a-b']) await beginTimeline(repository, { ...timelineDetails, source })
    expect(await repository.sources()).toEqual(['a-b', 'a', 'b'])
  })
})

describe('keys', () => {
  test('of segments give back where they start, and those of other objects nothing', () => {
    const start = lsn(0x16b374d848n)
    expect(segmentKey('app', '00000001', start)).toBe(
      'sources/app/timelines/00000001/segments/00000016/00000016B374D848.wbs',
    )
    expect(segmentStart(segmentKey('app', '00000001', start))).toBe(start)
    expect(segmentStart(partKey('app', '00000001', start, '0a1b2c3d', 7))).toBeUndefined()
    expect(segmentStart('sources/app/timelines/00000001/timeline.json')).toBeUndefined()
  })

  test('hold names of sources, and no others', () => {
    for (const name of ['app', 'A.b_c-9', 'x'.repeat(63)]) expect(checkSourceName(name)).toBe(name)
    for (const name of ['', '.', '..', '../x', 'a/b', '-a', 'a b', 'größe', 'x'.repeat(64)]) {
      expect(() => checkSourceName(name)).toThrow(expect.objectContaining({ code: 'usage' }))
      expect(checkSourceName(suggestSourceName(name))).toBeTruthy()
    }
  })
})
