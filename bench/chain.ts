/**
 * How fast a chain of small segments is read from a store that is some milliseconds away:
 * `npx tsx bench/chain.ts [segments] [latency in ms] [bytes in a segment]`.
 */
import { randomBytes } from 'node:crypto'
import { compressBlock } from '../src/codec/block.ts'
import { lsn, maxLsn, parseLsn } from '../src/model/lsn.ts'
import { fullXid } from '../src/model/snapshot.ts'
import { micros } from '../src/model/time.ts'
import { Repository } from '../src/repository/repository.ts'
import { SegmentWriter } from '../src/repository/segment-writer.ts'
import { listSegments, scanSegments } from '../src/repository/segments.ts'
import { beginTimeline } from '../src/repository/timeline.ts'
import type { RestorePlan } from '../src/restore/plan.ts'
import { readChanges } from '../src/restore/stream.ts'
import { openStorage } from '../src/storage/open.ts'
import { timelineDetails } from '../test/repository/timeline-details.ts'
import { S3Proxy } from '../test/storage/s3-proxy.ts'

process.env['AWS_ACCESS_KEY_ID'] = 'test'
process.env['AWS_SECRET_ACCESS_KEY'] = 'test'
process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true'
const [count = 2000, latency_ms = 20, bytes = 4096] = process.argv.slice(2).map(Number)

await using proxy = await S3Proxy.start()
const repository = await Repository.create(openStorage(proxy.newBucket()))
const timeline = await beginTimeline(repository, timelineDetails)
const writer = new SegmentWriter(repository, timeline, { end: parseLsn('0/100'), sha256: null, xid: fullXid(700n) })
for (let n = 1; n <= count; n++) {
  // A record that the reader passes over: its length, its position, and a message of no known kind.
  const record = Buffer.concat([Buffer.alloc(12), Buffer.from('Y'), randomBytes(Math.max(0, bytes - 13))])
  record.writeUInt32BE(record.length - 4, 0)
  const blocks = [await compressBlock(record, 0)]
  await writer.write(
    { blocks, transactions: [], tables: [], end: lsn(0x100n + BigInt(n)), xid: fullXid(701n) },
    micros(0n),
  )
}
const segments = await listSegments(repository, timeline)
const plan = {
  segments,
  timeline,
  base: { snapshot: '700:700:' },
  cut: maxLsn(lsn(0n), lsn(1n)),
} as unknown as RestorePlan

proxy.latency_ms = latency_ms
for (const [what, read] of [
  ['trailers', () => scanSegments(repository, timeline)],
  ['changes', () => readChanges(repository, plan)],
] as const) {
  proxy.seen.length = 0
  proxy.mostBusy = 0
  const begun = performance.now()
  let memory = 0
  for await (const part of read()) {
    if (Symbol.iterator in part) for (const _ of part);
    memory = Math.max(memory, process.memoryUsage().rss)
  }
  const seconds = (performance.now() - begun) / 1000
  const words = [
    `${what}: ${count} segments in ${seconds.toFixed(2)} s`,
    `${Math.round(count / seconds)} objects/s`,
    `${proxy.seen.length} requests, at most ${proxy.mostBusy} at a time`,
    `rss ${Math.round(memory / 2 ** 20)} MiB`,
  ]
  console.log(words.join(', '))
}
