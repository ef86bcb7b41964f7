import { expect, test } from 'vitest'
import { sleep } from '../../src/base/abort.ts'
import { compressBlock } from '../../src/codec/block.ts'
import { lsn } from '../../src/model/lsn.ts'
import { fullXid } from '../../src/model/snapshot.ts'
import { micros } from '../../src/model/time.ts'
import { readContainer } from '../../src/repository/container.ts'
import { loadParts, loadSegments } from '../../src/repository/load-segments.ts'
import { Repository } from '../../src/repository/repository.ts'
import { SegmentWriter } from '../../src/repository/segment-writer.ts'
import { listSegments } from '../../src/repository/segments.ts'
import { beginTimeline } from '../../src/repository/timeline.ts'
import type { GetOptions, ObjectSource } from '../../src/storage/storage.ts'
import { MemoryStorage } from './memory-storage.ts'
import { timelineDetails } from './timeline-details.ts'

/** A store some way off, which counts what is asked of it at a time. */
class FarStorage extends MemoryStorage {
  gets = 0
  busy = 0
  mostBusy = 0

  override async *get(key: string, options?: GetOptions): AsyncGenerator<Buffer> {
    this.gets++
    this.mostBusy = Math.max(this.mostBusy, ++this.busy)
    try {
      await sleep(5, options?.signal ?? undefined)
      yield* super.get(key, options)
    } finally {
      this.busy--
    }
  }
}

test('a chain is fetched several segments at a time, each in one request, and read in order', async () => {
  const storage = new FarStorage()
  const repository = await Repository.create(storage)
  const timeline = await beginTimeline(repository, timelineDetails)
  const writer = new SegmentWriter(repository, timeline, { end: lsn(0x100n), sha256: null, xid: fullXid(700n) })
  for (let n = 0; n < 100; n++) {
    if (n === 50)
      for (const part of ['a', 'b', 'c']) await writer.writePart([await compressBlock(Buffer.from(part), 1)])
    const blocks = [await compressBlock(Buffer.from(`segment ${n}`), 1)]
    const end = lsn(0x101n + BigInt(n))
    await writer.write({ blocks, transactions: [], tables: [], end, xid: fullXid(701n) }, micros(0n))
  }
  const stored = await listSegments(repository, timeline)
  Object.assign(storage, { gets: 0, mostBusy: 0 })

  const read: string[] = []
  const note = async (source: ObjectSource, reference: { key: string; sha256: string }): Promise<void> => {
    for await (const part of readContainer(source, reference)) if (part.kind === 'block') read.push(part.raw.toString())
  }
  for await (const { segment, source } of loadSegments(repository, stored)) {
    for await (const part of loadParts(repository, segment.trailer.parts)) await note(part.source, part.reference)
    await note(source, segment)
  }
  const segments = Array.from({ length: 100 }, (_, n) => `segment ${n}`)
  expect(read).toEqual([...segments.slice(0, 50), 'a', 'b', 'c', ...segments.slice(50)])
  expect(storage.gets).toBe(103)
  expect(storage.mostBusy).toBeGreaterThan(8)
  expect(storage.mostBusy).toBeLessThanOrEqual(64)
})
