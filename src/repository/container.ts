import { createHash, type Hash, hash } from 'node:crypto'
import { z } from 'zod'
import { assert } from '../base/assert.ts'
import { WalbackError } from '../base/errors.ts'
import {
  type Block,
  type BlockHead,
  blockHeadBytes,
  decompressBlock,
  frameHeadBytes,
  frameMagic,
  maxBlockRawBytes,
  parseBlockHead,
  skippableFrame,
} from '../codec/block.ts'
import { compressFrameSync, decompressFrameSync } from '../codec/lz4.ts'
import { type ObjectSource, readAll, type Storage } from '../storage/storage.ts'
import { Taker } from '../storage/taker.ts'
import { newerFormat } from './sealed-json.ts'

/**
 * The container: the one file format of segments and of rows. Header, blocks, trailer, footer, each an LZ4 frame or a
 * skippable one. Specified by byte offset in docs/repository-format.md.
 */
const magic = Buffer.from('WALBACK\n', 'latin1')
export const containerVersion = 1
const footerContentBytes = 64
export const footerBytes = frameHeadBytes + footerContentBytes

/** Assembles a container: `header`, then `add` for every block, then `end`; each returns the bytes to write next. */
export class ContainerWriter {
  private readonly digest: Hash = createHash('sha256')
  private blocks = 0
  private raw = 0
  private written = 0
  private sum: string | undefined
  private content = 0

  header(header: object): Buffer {
    assert(this.written === 0, 'the header comes first')
    const content = Buffer.concat([
      magic,
      Buffer.from([containerVersion, 0, 0, 0]),
      Buffer.from(JSON.stringify(header)),
    ])
    return this.account(skippableFrame(frameMagic.header, content))
  }

  add(block: Block): Buffer {
    this.blocks++
    this.raw += block.rawBytes
    return this.account(block.bytes)
  }

  /** The trailer and the footer. Afterwards `sha256` and `size_bytes` name the object. */
  end(trailer: object): Buffer {
    const trailerOffset = this.written
    this.content = trailerOffset
    const packed = compressFrameSync(Buffer.from(JSON.stringify(trailer)), {
      contentChecksum: true,
      blockChecksums: true,
    })
    const bytes = this.account(skippableFrame(frameMagic.trailer, packed))
    const footer = Buffer.alloc(footerContentBytes)
    footer.writeBigUInt64LE(BigInt(trailerOffset), 0)
    footer.writeBigUInt64LE(BigInt(this.raw), 8)
    footer.writeUInt32LE(this.blocks, 16)
    const digest = this.digest.digest()
    digest.copy(footer, 24)
    magic.copy(footer, 56)
    this.sum = digest.toString('hex')
    this.written += footerBytes
    return Buffer.concat([bytes, skippableFrame(frameMagic.footer, footer)])
  }

  /** SHA-256 of everything before the footer: the object's name in trailers and manifests. */
  get sha256(): string {
    assert(this.sum !== undefined, 'the container has been ended')
    return this.sum
  }

  get size_bytes(): number {
    return this.written
  }

  /** Where the blocks end and the trailer begins. */
  get content_bytes(): number {
    assert(this.sum !== undefined, 'the container has been ended')
    return this.content
  }

  get rawBytes(): number {
    return this.raw
  }

  private account(bytes: Buffer): Buffer {
    this.digest.update(bytes)
    this.written += bytes.length
    return bytes
  }
}

export type ContainerPart =
  | { readonly kind: 'header'; readonly header: unknown }
  | { readonly kind: 'block'; readonly raw: Buffer; readonly items: number }
  | { readonly kind: 'end'; readonly trailer: unknown; readonly sha256: string; readonly size_bytes: number }

/** What an object is by its header. */
export type ContainerKind = 'rows' | 'large objects' | 'text' | 'segment' | 'part'

export interface ContainerReference {
  readonly key: string
  /**
   * What it must be, which is checked before anything of it is given: a sound object of another kind in its place would
   * be read as what it is not until its end shows its hash.
   */
  readonly kind?: ContainerKind | undefined
  /** What the object's SHA-256 must be, where a manifest or a later segment says so. */
  readonly sha256?: string | undefined
}

/**
 * Reads an object whole and checks all of it: hashes of blocks and of the object, counts, and that nothing follows.
 * Blocks are yielded before the end has been seen: a caller keeps nothing of an object whose `end` did not come.
 */
export async function* readContainer(
  source: ObjectSource,
  reference: ContainerReference,
  signal?: AbortSignal,
): AsyncGenerator<ContainerPart> {
  let trailer: unknown
  for await (const frame of readFrames(source, reference, signal)) {
    if (frame.kind === 'trailer') trailer = parseTrailer(frame.packed, reference.key)
    else if (frame.kind === 'end') yield { ...frame, trailer }
    else if (frame.kind === 'header') yield frame
    else {
      const raw = await decompressBlock(frame.head, frame.packed, reference.key)
      yield { kind: 'block', raw, items: frame.head.items }
    }
  }
}

/** What a container consists of, as it is stored. */
export type ContainerFrame =
  | { readonly kind: 'header'; readonly header: unknown }
  | { readonly kind: 'block'; readonly head: BlockHead; readonly packed: Buffer }
  | { readonly kind: 'trailer'; readonly packed: Buffer }
  | { readonly kind: 'end'; readonly sha256: string; readonly size_bytes: number }

/** The same, and unpacks nothing: that the bytes are those that were stored, the object's hash says. */
export async function* readFrames(
  source: ObjectSource,
  reference: ContainerReference,
  signal?: AbortSignal,
): AsyncGenerator<ContainerFrame> {
  const { key } = reference
  const damaged = (what: string): WalbackError => new WalbackError('corrupt', `${key} is damaged: ${what}`)
  const reader = new Taker(source.get(key, { signal }))
  try {
    yield* checkFrames(reader, reference, damaged)
  } catch (error) {
    throw missingIfAbsent(error, key)
  } finally {
    // A caller that leaves early, or damage, would leave the file open.
    await reader.close()
  }
}

/** Whoever reads an object was told of it by another one: that it is not there is damage, and not the store's failure. */
export function missingIfAbsent(error: unknown, key: string): unknown {
  if (!(error instanceof WalbackError) || error.facts['absent'] !== true) return error
  return new WalbackError('corrupt', `${key} is missing from the repository`, {
    cause: error,
    hint: 'bring it back from another copy; `walback verify` says what depends on it',
    facts: { key, absent: true },
  })
}

async function* checkFrames(
  reader: Taker,
  { key, kind: meant, sha256: wanted }: ContainerReference,
  damaged: (what: string) => WalbackError,
): AsyncGenerator<ContainerFrame> {
  const digest = createHash('sha256')
  const next = async (bytes: number): Promise<Buffer> => {
    const taken = await reader.take(bytes)
    if (taken.length < bytes) throw damaged('it is cut short')
    return taken
  }
  const take = async (bytes: number): Promise<Buffer> => {
    const taken = await next(bytes)
    digest.update(taken)
    return taken
  }
  let [blocks, raw, trailerOffset] = [0, 0n, undefined as number | undefined]
  for (let first = true; ; first = false) {
    // The footer is the one frame outside the hash, so its head is looked at before anything is hashed.
    const head = await next(frameHeadBytes)
    const [kind, length] = [head.readUInt32LE(0), head.readUInt32LE(4)]
    if (kind === frameMagic.footer && !first) {
      if (length !== footerContentBytes) throw damaged('its footer has an impossible length')
      const footer = await next(footerContentBytes)
      const sha256 = digest.digest('hex')
      if (!(await reader.atEnd())) throw damaged('bytes follow its end')
      if (footer.subarray(24, 56).toString('hex') !== sha256) throw damaged('its bytes do not match its own hash')
      if (!isFooter(footer) || Number(footer.readBigUInt64LE(0)) !== trailerOffset) {
        throw damaged('its footer does not describe it')
      }
      if (footer.readUInt32LE(16) !== blocks || footer.readBigUInt64LE(8) !== raw) throw damaged('blocks are missing')
      if (wanted !== undefined && wanted !== sha256) {
        throw damaged(`it is another object than the one that was stored (its hash is ${sha256.slice(0, 12)}…)`)
      }
      yield { kind: 'end', sha256, size_bytes: reader.position }
      return
    }
    digest.update(head)
    if (kind === frameMagic.header && first) {
      const content = await take(length)
      if (isOtherVersion(content) && !(await isAsStored(reader, digest)))
        throw damaged('its bytes do not match its own hash')
      const header = parseHeader(content, key)
      const found = z.object({ kind: z.string() }).safeParse(header).data?.kind
      if (meant !== undefined && found !== meant) throw damaged(`it should be ${meant}, and its header says ${found}`)
      yield { kind: 'header', header }
    } else if (kind === frameMagic.trailer && !first && trailerOffset === undefined) {
      trailerOffset = reader.position - frameHeadBytes
      yield { kind: 'trailer', packed: await take(length) }
    } else if (kind === frameMagic.block && !first && trailerOffset === undefined && length === blockHeadBytes) {
      const blockHead = parseBlockHead(await take(length))
      if (blockHead.rawBytes > maxBlockRawBytes) throw damaged('a block has an impossible length')
      blocks++
      raw += BigInt(blockHead.rawBytes)
      yield { kind: 'block', head: blockHead, packed: await take(blockHead.storedBytes) }
    } else throw damaged(first ? 'it does not begin as a walback object' : 'an unknown frame follows')
  }
}

export interface ContainerSummary {
  readonly trailer: unknown
  readonly sha256: string
  readonly size_bytes: number
  readonly rawBytes: number
}

/** Reads an object's trailer from its end, in one or two small reads, without the blocks; undefined if it is absent. */
export async function readTrailer(
  storage: Storage,
  key: string,
  options: { readonly size_bytes?: number; readonly signal?: AbortSignal | undefined } = {},
): Promise<ContainerSummary | undefined> {
  const size_bytes = options.size_bytes ?? (await storage.size(key, options))
  return size_bytes === undefined ? undefined : readTrailerOf(storage, key, size_bytes, options.signal)
}

/** The same of an object whose size is known. */
export async function readTrailerOf(
  source: ObjectSource,
  key: string,
  size: number,
  signal?: AbortSignal,
): Promise<ContainerSummary> {
  const from = Math.max(0, size - tailReadBytes)
  try {
    return await readTrailerFrom(source, key, { from, size }, signal)
  } catch (error) {
    // Who may write and not read is told where the rows end, which is where the trailer begins.
    const readable = error instanceof WalbackError && error.code === 'wrong_key' && error.facts['readable_from']
    if (typeof readable !== 'number' || readable <= from) throw error
    return await readTrailerFrom(source, key, { from: readable, size }, signal)
  }
}

async function readTrailerFrom(
  source: ObjectSource,
  key: string,
  { from: tailStart, size }: { readonly from: number; readonly size: number },
  signal: AbortSignal | undefined,
): Promise<ContainerSummary> {
  const damaged = (what: string): WalbackError => new WalbackError('corrupt', `${key} is damaged: ${what}`)
  if (size - tailStart < footerBytes) throw damaged('it is cut short')
  const read = (start: number, end: number): Promise<Buffer> =>
    readAll(source.get(key, { range: { start, end }, signal }))
  const tail = await read(tailStart, size)
  if (tail.length !== size - tailStart) throw damaged('it is cut short')
  const footer = tail.subarray(tail.length - footerBytes)
  const isWhole = footer.readUInt32LE(0) === frameMagic.footer && footer.readUInt32LE(4) === footerContentBytes
  if (!isWhole || !isFooter(footer.subarray(frameHeadBytes))) {
    throw damaged('its footer is missing')
  }
  const offset = Number(footer.readBigUInt64LE(frameHeadBytes))
  const end = size - footerBytes
  if (offset + frameHeadBytes > end) throw damaged('its footer points outside of it')
  const frame = offset >= tailStart ? tail.subarray(offset - tailStart, end - tailStart) : await read(offset, end)
  if (frame.readUInt32LE(0) !== frameMagic.trailer || frame.readUInt32LE(4) !== frame.length - frameHeadBytes) {
    throw damaged('its trailer is not where its footer says')
  }
  return {
    trailer: parseTrailer(frame.subarray(frameHeadBytes), key),
    sha256: footer.subarray(frameHeadBytes + 24, frameHeadBytes + 56).toString('hex'),
    size_bytes: size,
    rawBytes: Number(footer.readBigUInt64LE(frameHeadBytes + 8)),
  }
}

const tailReadBytes = 64 * 1024

/** An object's header, in one small read; what follows it is not looked at. */
export async function readHeader(source: ObjectSource, key: string, signal?: AbortSignal): Promise<unknown> {
  const damaged = (what: string): WalbackError => new WalbackError('corrupt', `${key} is damaged: ${what}`)
  const read = async (end: number): Promise<Buffer> => readAll(source.get(key, { range: { start: 0, end }, signal }))
  let head = await read(headReadBytes)
  if (head.length < frameHeadBytes || head.readUInt32LE(0) !== frameMagic.header)
    throw damaged('it does not begin as a walback object')
  const end = frameHeadBytes + head.readUInt32LE(4)
  if (end > mostHeaderBytes) throw damaged('its header has an impossible length')
  if (end > head.length) head = await read(end)
  if (end > head.length) throw damaged('it is cut short')
  return parseHeader(head.subarray(frameHeadBytes, end), key)
}

const headReadBytes = 4096
/** A table has at most 1,600 columns, each with a name of at most 63 bytes that JSON may write with escapes. */
const mostHeaderBytes = 1 << 20

/** Whether the parts of a footer that are always the same are there. */
const isFooter = (content: Buffer): boolean => content.readUInt32LE(20) === 0 && content.subarray(56).equals(magic)

const isWalback = (content: Buffer): boolean => content.subarray(0, magic.length).equals(magic)

const isOtherVersion = (content: Buffer): boolean => isWalback(content) && content[magic.length] !== containerVersion

/**
 * Whether the rest of an object of another version fits the hash that ends it, so that a bit that turned over in the
 * version does not send anybody to look for a later walback. What ends otherwise may be a later format's.
 */
async function isAsStored(reader: Taker, digest: Hash): Promise<boolean> {
  let last: Buffer = Buffer.alloc(0)
  for (;;) {
    const taken = await reader.take(tailReadBytes)
    const all = Buffer.concat([last, taken])
    const passed = Math.max(0, all.length - footerBytes)
    digest.update(all.subarray(0, passed))
    last = all.subarray(passed)
    if (taken.length < tailReadBytes) break
  }
  if (last.length < footerBytes || !last.subarray(frameHeadBytes + 56).equals(magic)) return true
  return last.subarray(frameHeadBytes + 24, frameHeadBytes + 56).equals(digest.digest())
}

function parseHeader(content: Buffer, key: string): unknown {
  if (!isWalback(content)) throw new WalbackError('corrupt', `${key} is not a walback object`)
  const version = content[magic.length]
  if (version !== containerVersion) {
    throw newerFormat(key, version ?? 0, containerVersion)
  }
  return parseJson(content.subarray(magic.length + 4), key)
}

function parseTrailer(packed: Buffer, key: string): unknown {
  try {
    return parseJson(decompressFrameSync(packed), key)
  } catch (error) {
    if (error instanceof WalbackError) throw error
    throw new WalbackError('corrupt', `${key} is damaged: its trailer does not unpack`, { cause: error })
  }
}

function parseJson(bytes: Buffer, key: string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch (error) {
    throw new WalbackError('corrupt', `${key} is damaged: not JSON where JSON belongs`, { cause: error })
  }
}

/** SHA-256 of bytes, in hexadecimal. */
export const sha256Hex = (bytes: Buffer): string => hash('sha256', bytes, 'hex')
