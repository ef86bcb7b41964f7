import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { decompressFrameSync } from 'lz4-napi'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compressBlock } from '../../src/codec/block.ts'
import { RowHash } from '../../src/codec/row-hash.ts'
import { lsn } from '../../src/model/lsn.ts'
import { fullXid } from '../../src/model/snapshot.ts'
import { micros } from '../../src/model/time.ts'
import { ContainerWriter } from '../../src/repository/container.ts'
import { Repository } from '../../src/repository/repository.ts'
import { SegmentBuilder } from '../../src/repository/segment-builder.ts'
import { SegmentWriter } from '../../src/repository/segment-writer.ts'
import { beginTimeline, type Timeline } from '../../src/repository/timeline.ts'
import { DirectoryStorage } from '../../src/storage/directory.ts'
import { begin, commit, insert, message, relation, truncate } from '../model/messages.ts'

/**
 * A reader of the format, written from docs/repository-format.md and from nothing else: plain offsets, node:crypto and
 * an LZ4 decoder. It must open what walback writes; if it does not, the document or the code is wrong.
 */
interface Opened {
  readonly header: Record<string, unknown>
  readonly blocks: readonly { readonly raw: Buffer; readonly items: number }[]
  readonly trailer: Record<string, unknown>
  readonly sha256: string
}

const closing = Buffer.from([0x57, 0x41, 0x4c, 0x42, 0x41, 0x43, 0x4b, 0x0a])

/** Section 3, "Reading": the whole. */
function openContainer(object: Buffer): Opened {
  const need = (condition: boolean, what: string): void => {
    if (!condition) throw new Error(`not as documented: ${what}`)
  }
  let at = 0
  const frame = (): { magic: number; content: Buffer; start: number } => {
    const [start, magic, length] = [at, object.readUInt32LE(at), object.readUInt32LE(at + 4)]
    need(at + 8 + length <= object.length, 'a frame within the object')
    at += 8 + length
    return { magic, content: object.subarray(start + 8, at), start }
  }
  const first = frame()
  need(first.magic === 0x184d2a50, 'the first frame is a header')
  need(first.content.subarray(0, 8).equals(closing), 'the opening text')
  need(first.content[8] === 1, 'version 1')
  need(first.content.readUIntBE(9, 3) === 0, 'reserved bytes')
  const header = JSON.parse(first.content.subarray(12).toString('utf8'))
  const blocks: { raw: Buffer; items: number }[] = []
  let next = frame()
  for (; next.magic === 0x184d2a51; next = frame()) {
    const head = next.content
    need(head.length === 48, 'a head of 48 bytes')
    const [rawLength, storedLength, items] = [head.readUInt32LE(0), head.readUInt32LE(4), head.readUInt32LE(8)]
    need(head.readUInt32LE(12) === 0, 'reserved bytes')
    const stored = object.subarray(at, at + storedLength)
    need(sha256(stored).equals(head.subarray(16, 48)), 'the SHA-256 of the stored bytes')
    const raw = decompressFrameSync(stored)
    need(raw.length === rawLength && rawLength > 0, 'the raw length')
    blocks.push({ raw, items })
    at += storedLength
  }
  need(next.magic === 0x184d2a52, 'a trailer after the blocks')
  const trailer = JSON.parse(decompressFrameSync(next.content).toString('utf8'))
  const last = frame()
  need(last.magic === 0x184d2a53 && last.content.length === 64, 'a footer of 64 bytes')
  need(at === object.length, 'nothing after the footer')
  const sum = blocks.reduce((total, { raw }) => total + raw.length, 0)
  need(last.content.readBigUInt64LE(0) === BigInt(next.start), 'the offset of the trailer')
  need(last.content.readBigUInt64LE(8) === BigInt(sum), 'the sum of raw lengths')
  need(last.content.readUInt32LE(16) === blocks.length, 'the number of blocks')
  need(last.content.readUInt32LE(20) === 0, 'reserved bytes')
  need(last.content.subarray(24, 56).equals(sha256(object.subarray(0, last.start))), 'the SHA-256 of the object')
  need(last.content.subarray(56).equals(closing), 'the closing text')
  return { header, blocks, trailer, sha256: last.content.subarray(24, 56).toString('hex') }
}

/** Section 3, "Reading": the trailer alone. */
function openTrailer(object: Buffer): unknown {
  const footer = object.subarray(object.length - 72)
  const offset = Number(footer.readBigUInt64LE(8))
  const frame = object.subarray(offset, object.length - 72)
  expect([frame.readUInt32LE(0), frame.readUInt32LE(4)]).toEqual([0x184d2a52, frame.length - 8])
  return JSON.parse(decompressFrameSync(frame.subarray(8)).toString('utf8'))
}

/** Section 5, "Content". */
function recordsOf(block: Buffer): { position: bigint; message: Buffer }[] {
  const records: { position: bigint; message: Buffer }[] = []
  for (let at = 0; at < block.length; ) {
    const length = block.readUInt32BE(at)
    records.push({ position: block.readBigUInt64BE(at + 4), message: block.subarray(at + 12, at + 4 + length) })
    at += 4 + length
  }
  return records
}

const sha256 = (bytes: Buffer): Buffer => createHash('sha256').update(bytes).digest()
const letter = (m: Buffer): string => String.fromCharCode(m[0] as number)

let folder = ''
let repository: Repository
let timeline: Timeline
const object = (key: string): Buffer => readFileSync(path.join(folder, key))

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'walback-format-'))
  repository = await Repository.create(new DirectoryStorage(folder))
  timeline = await beginTimeline(repository, {
    source: 'app',
    systemIdentifier: '7300000000000000001',
    database: { name: 'app', oid: 16384 },
    slot: 'walback_app',
    publications: ['walback_app'],
    replicaIdentity: 'full' as const,
    allTables: true,
    ddl: 'triggers' as const,
    insertsOnly: [],
    encoding: 'UTF8',
    serverVersion: 180004,
    start: '2A/FFFFFF00',
    xid: '4294967290',
    snapshot: '4294967290:4294967290:',
  })
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const columns = [{ name: 'id', key: true }, { name: 'v' }]

describe('by the document, a stranger reads', () => {
  test('the repository and its timeline', () => {
    expect(JSON.parse(object('walback.json').toString())).toMatchObject({ walback: 'repository', format: 1 })
    const key = 'sources/app/timelines/00000001/timeline.json'
    expect(JSON.parse(object(key).toString())).toMatchObject({
      walback: 'timeline',
      format: 1,
      id: '00000001',
      start: '2A/FFFFFF00',
    })
  })

  test('rows, and their hash', async () => {
    const lines = ['1\tann\n', '2\t\\N\n', '3\ttab\\there\n', '\n'.repeat(2)]
    const container = new ContainerWriter()
    const hash = new RowHash()
    const parts = [container.header({ kind: 'rows', schema: 'public', name: 't', columns: ['id', 'v'] })]
    for (const text of lines)
      parts.push(container.add(await compressBlock(Buffer.from(text), hash.addLines(Buffer.from(text)))))
    parts.push(container.end({ kind: 'rows', rows: hash.rows, hash: hash.digest() }))
    const bytes = Buffer.concat(parts)
    const opened = openContainer(bytes)
    expect(opened.header).toEqual({ kind: 'rows', schema: 'public', name: 't', columns: ['id', 'v'] })
    expect(Buffer.concat(opened.blocks.map(({ raw }) => raw)).toString()).toBe(lines.join(''))
    expect(opened.blocks.map(({ items }) => items)).toEqual([1, 1, 1, 2])
    expect(opened.trailer).toEqual({ kind: 'rows', rows: 5, hash: hash.digest() })
    expect(openTrailer(bytes)).toEqual(opened.trailer)
    expect([opened.sha256, bytes.length]).toEqual([container.sha256, container.size_bytes])
  })

  test('a container without blocks', () => {
    const container = new ContainerWriter()
    const bytes = Buffer.concat([container.header({ kind: 'text', name: 'größe' }), container.end({ kind: 'text' })])
    expect(openContainer(bytes)).toMatchObject({
      header: { kind: 'text', name: 'größe' },
      blocks: [],
      trailer: { kind: 'text' },
    })
  })

  test('segments, one of them with parts, over the end of an epoch and of a 4 GiB group', async () => {
    const start = 0x2affffff00n
    const writer = new SegmentWriter(repository, timeline, { end: lsn(start), sha256: null, xid: fullXid(4294967290n) })
    const builder = new SegmentBuilder({
      xid: fullXid(4294967290n),
      encoding: 'UTF8',
      blockBytes: 256,
    })
    const sent: Buffer[] = []
    let at = start
    const send = (m: Buffer): void => {
      sent.push(m)
      builder.append(lsn(++at), m)
    }
    const mark = Buffer.from(JSON.stringify({ v: 1, kind: 'mark', name: 'before' }))
    const table = relation(16385, 'public', 't', columns)
    for (const m of [
      begin(start + 64n, 0n, 4294967294),
      table,
      insert(16385, ['1', 'a']),
      message(true, start, 'walback', mark),
    ])
      send(m)
    send(commit(start + 64n, start + 96n, 5n))
    const one = await writer.write(await builder.cut(), micros(1_795_442_400_000_000n))

    send(begin(start + 4096n, 0n, 3))
    for (let n = 0; n < 40; n++) {
      send(insert(16385, [`${n}`, 'x'.repeat(20)]))
      if (n % 15 === 14) await writer.writePart(await builder.takePart())
    }
    send(truncate([16385]))
    send(commit(start + 4096n, start + 8192n, 6n))
    const two = await writer.write(await builder.cut(), micros(1_795_442_460_000_000n))

    expect([one.key, two.key]).toEqual([
      'sources/app/timelines/00000001/segments/0000002A/0000002AFFFFFF00.wbs',
      'sources/app/timelines/00000001/segments/0000002A/0000002AFFFFFF60.wbs',
    ])
    expect(two.trailer.end).toBe('2B/1F00')

    const [first, second] = [openContainer(object(one.key)), openContainer(object(two.key))]
    expect(first.header).toMatchObject({ kind: 'segment', start: '2A/FFFFFF00', previous: null, xid: '4294967290' })
    expect(second.header).toMatchObject({ kind: 'segment', start: '2A/FFFFFF60', previous: first.sha256 })
    expect(first.trailer).toMatchObject({ kind: 'segment', end: '2A/FFFFFF60', time: '1795442400000000', parts: [] })
    expect(first.trailer.tables).toEqual([{ oid: 16385, schema: 'public', name: 't' }])
    expect(first.trailer.transactions).toMatchObject([
      {
        xid: '4294967294',
        commit: '2A/FFFFFF40',
        end: '2A/FFFFFF60',
        time: '946684800000005',
        block: 0,
        counts: [[0, 1, 0, 0, 0]],
        marks: ['before'],
      },
    ])
    expect(second.trailer.transactions).toMatchObject([
      { xid: '4294967299', end: '2B/1F00', block: 0, counts: [[0, 40, 0, 0, 1]] },
    ])

    const parts = second.trailer.parts as { key: string; size_bytes: number; sha256: string }[]
    expect(parts).toHaveLength(2)
    const blocks = [...first.blocks]
    for (const { key, size_bytes, sha256: named } of parts) {
      expect(key).toMatch(/\/0000002A\/0000002AFFFFFF60\.[0-9a-f]{8}\.00000\d\.wbp$/)
      const opened = openContainer(object(key))
      expect([opened.sha256, object(key).length]).toEqual([named, size_bytes])
      expect([opened.header.kind, opened.trailer]).toEqual(['part', { kind: 'part' }])
      blocks.push(...opened.blocks)
    }
    blocks.push(...second.blocks)
    const messages = blocks.flatMap(({ raw, items }) => {
      const records = recordsOf(raw)
      expect(records).toHaveLength(items)
      const rows = records.findIndex(({ message: m }) => 'IUDT'.includes(letter(m)))
      const declared = records.findIndex(({ message: m }) => letter(m) === 'R')
      if (rows >= 0) expect(declared >= 0 && declared < rows).toBe(true)
      return records.filter(({ position }) => position !== 0n).map(({ message: m }) => m)
    })
    expect(messages.map((m) => m.toString('hex'))).toEqual(sent.map((m) => m.toString('hex')))
  })
})

const lz4 = spawnSync('lz4', ['--version'], { encoding: 'utf8' })

describe.skipIf(lz4.status !== 0)('`lz4 -d` (skipped where there is no lz4 on the PATH)', () => {
  test('gives the content of all blocks, and passes over the rest', async () => {
    const container = new ContainerWriter()
    const texts = ['1\tann\n'.repeat(1000), '2\tbob\n', 'x'.repeat(300_000)]
    const parts = [container.header({ kind: 'rows' })]
    for (const text of texts) parts.push(container.add(await compressBlock(Buffer.from(text), 1)))
    parts.push(container.end({ kind: 'rows', rows: 1001, hash: '' }))
    const opened = spawnSync('lz4', ['-d', '-c'], { input: Buffer.concat(parts), maxBuffer: 1 << 24 })
    expect(opened.status).toBe(0)
    expect(opened.stdout.toString()).toBe(texts.join(''))
  })
})
