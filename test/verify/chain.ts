import { lsn } from '../../src/model/lsn.ts'
import { fullXid } from '../../src/model/snapshot.ts'
import { micros } from '../../src/model/time.ts'
import { Repository } from '../../src/repository/repository.ts'
import { SegmentWriter } from '../../src/repository/segment-writer.ts'
import { readHead } from '../../src/repository/segments.ts'
import { beginTimeline, currentTimeline } from '../../src/repository/timeline.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { timelineDetails } from '../repository/timeline-details.ts'

/** An archive of empty segments, by the writer that capture uses: for what asks for many objects and no rows. */
export async function chainOf(segments: number): Promise<{ storage: MemoryStorage; repository: Repository }> {
  const storage = new MemoryStorage()
  const repository = await Repository.create(storage)
  await extendChain(repository, segments)
  return { storage, repository }
}

export async function extendChain(repository: Repository, segments: number): Promise<void> {
  const timeline = (await currentTimeline(repository, 'app')) ?? (await beginTimeline(repository, timelineDetails))
  const writer = new SegmentWriter(repository, timeline, await readHead(repository, timeline))
  for (let n = 0; n < segments; n++) {
    const end = lsn(writer.head.end + 0x100n)
    await writer.write({ blocks: [], transactions: [], tables: [], end, xid: fullXid(701n) }, micros(0n))
  }
}
