import { randomBytes } from 'node:crypto'
import { WalbackError } from '../base/errors.ts'
import type { Block } from '../codec/block.ts'
import { formatLsn } from '../model/lsn.ts'
import type { Micros } from '../model/time.ts'
import type { Storage } from '../storage/storage.ts'
import { ContainerWriter, readTrailer } from './container.ts'
import { partKey, segmentKey } from './layout.ts'
import type { Repository } from './repository.ts'
import type { SegmentContent } from './segment-builder.ts'
import type { partTrailer, SegmentHeader, SegmentSummary, SegmentTrailer } from './segment-format.ts'
import type { Head, ServerTimeline } from './segments.ts'
import type { Timeline } from './timeline.ts'

/** Writes a timeline's segments, one after the other. A segment is part of the archive when its own object exists. */
export class SegmentWriter {
  private readonly repository: Repository
  readonly timeline: Timeline
  private current: Head
  private readonly server: ServerTimeline | undefined
  private readonly attempt = randomBytes(4).toString('hex')
  private parts: SegmentTrailer['parts'] = []

  /** `server`: where the stream comes from, which every segment notes. */
  constructor(
    repository: Repository,
    timeline: Timeline,
    head: Head,
    server: ServerTimeline | undefined = head.server,
  ) {
    this.repository = repository
    this.timeline = timeline
    this.current = head
    this.server = server
  }

  get head(): Head {
    return this.current
  }

  /** Stores blocks of a transaction whose commit has not been seen. Without the segment that names it, a part is nothing. */
  async writePart(blocks: readonly Block[], signal?: AbortSignal): Promise<void> {
    const { source, id } = this.timeline
    const key = partKey(source, id, this.current.end, this.attempt, this.parts.length)
    const container = assemble(this.header('part'), blocks, { kind: 'part' } satisfies typeof partTrailer._output)
    await this.put(key, container, signal)
    this.parts.push({ key, size_bytes: container.size_bytes, sha256: container.sha256 })
  }

  /** Stores the next segment; when it resolves, everything up to the segment's end is durable. */
  async write(content: SegmentContent, time: Micros, signal?: AbortSignal): Promise<SegmentSummary> {
    const trailer: SegmentTrailer = {
      kind: 'segment',
      end: formatLsn(content.end),
      xid: content.xid.toString(),
      time: time.toString(),
      ...(this.server ? { server: serverEntry(this.server) } : {}),
      parts: this.parts,
      tables: [...content.tables],
      transactions: [...content.transactions],
    }
    const container = assemble(this.header('segment'), content.blocks, trailer)
    const key = segmentKey(this.timeline.source, this.timeline.id, this.current.end)
    await this.put(key, container, signal)
    const start = this.current.end
    this.current = { end: content.end, sha256: container.sha256, xid: content.xid, server: this.server }
    this.parts = []
    return { key, sha256: container.sha256, size_bytes: container.size_bytes, start, end: content.end, trailer }
  }

  /** Forgets the parts of a transaction that will be sent again from its beginning. */
  forgetParts(): void {
    this.parts = []
  }

  private header(kind: 'segment' | 'part'): SegmentHeader {
    const { source, id, systemIdentifier, encoding } = this.timeline
    const { end, sha256, xid } = this.current
    return {
      kind,
      source,
      timeline: id,
      start: formatLsn(end),
      previous: sha256,
      systemIdentifier,
      encoding,
      xid: xid.toString(),
    }
  }

  /**
   * Put-if-absent is the fence between two writers: a key is where a segment starts, so only one can extend the chain.
   * A write that was acknowledged late finds its own object there, which its hash shows. An acknowledgement alone is not
   * believed: what the store then says that it holds must have the length that was given (docs/decisions/0007).
   */
  private async put(key: string, container: Assembled, signal: AbortSignal | undefined): Promise<void> {
    const { storage } = this.repository
    const { rows_bytes } = container
    const isMade = await storage.put(key, chunksOf(container.bytes), { ifAbsent: true, rows_bytes, signal })
    const held_bytes = await storage.size(key, { signal })
    if (isMade && held_bytes === container.size_bytes) return
    if (held_bytes === undefined) throw broken(storage.url, key, container.size_bytes, held_bytes)
    if (isMade || !(await isReadable(storage, key, signal))) {
      // It is nobody's segment, and in the way of the next attempt.
      await storage.delete(key)
      throw broken(storage.url, key, container.size_bytes, held_bytes)
    }
    const stored = await readTrailer(storage, key, { signal })
    if (stored?.sha256 === container.sha256) return
    throw new WalbackError('locked', `another walback has written ${key}`, {
      hint: 'let only one agent write for a source; this one goes on from what is stored when it is started again',
    })
  }
}

/** Whether an object ends as ours do. */
async function isReadable(storage: Storage, key: string, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    return (await readTrailer(storage, key, { signal })) !== undefined
  } catch (error) {
    if (error instanceof WalbackError && error.code === 'corrupt') return false
    throw error
  }
}

const broken = (url: string, key: string, given_bytes: number, held_bytes: number | undefined): WalbackError =>
  new WalbackError(
    'storage',
    held_bytes === undefined
      ? `the store acknowledged ${key}, and does not have it`
      : `the store acknowledged ${given_bytes} bytes of ${key}, and has ${held_bytes}`,
    {
      hint: `nothing is lost: the server still has the log, and it is tried again; but ${url} is not to be trusted`,
      facts: { key, given_bytes, held_bytes: held_bytes ?? null },
      retryable: true,
    },
  )

async function* chunksOf(bytes: readonly Buffer[]): AsyncGenerator<Buffer> {
  yield* bytes
}

interface Assembled {
  readonly bytes: Buffer[]
  readonly rows_bytes: number
  readonly sha256: string
  readonly size_bytes: number
}

function assemble(header: SegmentHeader, blocks: readonly Block[], trailer: object): Assembled {
  const container = new ContainerWriter()
  const bytes = [container.header(header)]
  for (const block of blocks) bytes.push(container.add(block))
  bytes.push(container.end(trailer))
  return { bytes, rows_bytes: container.content_bytes, sha256: container.sha256, size_bytes: container.size_bytes }
}

/** As a trailer and a timeline's record have it. */
export const serverEntry = ({ timeline, since }: ServerTimeline): { timeline: number; since: string } => ({
  timeline,
  since: formatLsn(since),
})
