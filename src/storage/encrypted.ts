import { createHash, randomBytes } from 'node:crypto'
import { assert } from '../base/assert.ts'
import { WalbackError } from '../base/errors.ts'
import {
  damaged,
  encodeHead,
  filler,
  frameAt,
  headBytes,
  openedSize,
  openPiece,
  parseHead,
  piecesFrom,
  type SealedHead,
  type SealedKind,
  type Section,
  sealPiece,
  spanOf,
  tagBytes,
} from './sealed-format.ts'
import { beginSession, derive, type Generation, joinSession, type KeyRing, type Session } from './sealed-keys.ts'
import {
  type GetOptions,
  type ObjectSource,
  type PutOptions,
  readAll,
  type Storage,
  type StoredObject,
} from './storage.ts'
import { Taker } from './taker.ts'

type Signal = AbortSignal | undefined

/**
 * A store whose objects are encrypted before they leave this process. Lengths, ranges and listings are those of the
 * objects as they were given. What does not open (altered, cut, moved within an object or to another key) is `corrupt`,
 * and no byte of it is given; what was sealed for others is `wrong_key`. Keys are not hidden, nor are lengths.
 */
export class EncryptedStorage implements Storage {
  readonly url: string
  private readonly inner: Storage
  private readonly ring: KeyRing
  private writing: { readonly generation: Generation; readonly session: Session } | undefined
  private readonly opened: OpenedSource

  constructor(inner: Storage, ring: KeyRing) {
    this.inner = inner
    this.url = inner.url
    this.ring = ring
    this.opened = new OpenedSource(inner, ring)
  }

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options: PutOptions = {}): Promise<boolean> {
    if (isClear(key)) return await this.inner.put(key, body, options)
    const { rows_bytes, ...rest } = options
    return await this.inner.put(key, this.sealed(key, body, rows_bytes), rest)
  }

  get(key: string, options?: GetOptions): AsyncGenerator<Buffer> {
    return this.opened.get(key, options)
  }

  size(key: string, options?: { readonly signal?: Signal }): Promise<number | undefined> {
    return this.opened.size(key, options)
  }

  async *list(prefix: string, options: { readonly signal?: Signal } = {}): AsyncGenerator<StoredObject> {
    for await (const { key, size_bytes } of this.inner.list(prefix, options)) {
      yield { key, size_bytes: isClear(key) ? size_bytes : openedSize(size_bytes) }
    }
  }

  delete(key: string): Promise<void> {
    return this.inner.delete(key)
  }

  private async *sealed(
    key: string,
    body: Buffer | AsyncIterable<Buffer>,
    rows_bytes: number | undefined,
  ): AsyncGenerator<Buffer> {
    const { generation, session } = this.writer()
    const kind = kindOf(key, rows_bytes)
    const head: SealedHead = {
      kind,
      generation: generation.number,
      rows_bytes: kind === 'both' ? (rows_bytes ?? 0) : 0,
      salt: randomBytes(32),
      ephemeral: kind === 'structure' ? Buffer.alloc(32) : session.ephemeral,
    }
    const bytes = encodeHead(head)
    yield bytes
    const keys = sectionKeys(bytes, key, head, () => session.secret, generation.structureSecret)
    const taker = new Taker(Buffer.isBuffer(body) ? once(body) : body)
    try {
      for (const piece of piecesFrom(head, 0)) {
        if (piece.section === 'filler') {
          yield filler()
          continue
        }
        const content = await taker.take(piece.end - piece.start)
        const isShort = content.length < piece.end - piece.start
        assert(!(piece.isLast && isShort), 'an object has all the rows that it was said to have')
        yield sealPiece(keys(piece.section), piece, piece.isLast || isShort, content)
        if (isShort) return
      }
    } finally {
      await taker.close()
    }
  }

  /** What to write with; another once the key has been rotated. */
  private writer(): NonNullable<EncryptedStorage['writing']> {
    const generation = this.ring.newest
    if (this.writing?.generation !== generation)
      this.writing = { generation, session: beginSession(generation.publicKey) }
    return this.writing
  }
}

/** Encrypted objects as they are read, wherever they lie. */
export class OpenedSource implements ObjectSource {
  private readonly inner: ObjectSource
  private readonly ring: Pick<KeyRing, 'find'>
  /** Of the writers whose objects were read; each process that writes begins one. */
  private readonly joined = new Map<string, Buffer>()

  constructor(inner: ObjectSource, ring: Pick<KeyRing, 'find'>) {
    this.inner = inner
    this.ring = ring
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Buffer> {
    if (isClear(key)) yield* this.inner.get(key, options)
    else if (options.range === undefined) yield* this.whole(key, options.signal)
    else if (options.range.start < options.range.end) yield* this.part(key, options.range, options.signal)
  }

  async size(key: string, options: { readonly signal?: Signal } = {}): Promise<number | undefined> {
    const size_bytes = await this.inner.size(key, options)
    return size_bytes === undefined || isClear(key) ? size_bytes : openedSize(size_bytes)
  }

  private async *whole(key: string, signal: Signal): AsyncGenerator<Buffer> {
    const taker = new Taker(this.inner.get(key, { signal }))
    try {
      const head = await taker.take(headBytes)
      yield* this.opened(key, head, taker, { start: 0, end: Number.POSITIVE_INFINITY })
    } finally {
      await taker.close()
    }
  }

  /** A range: of the store, the frames that it touches, and beside them the head. */
  private async *part(key: string, range: Range, signal: Signal): AsyncGenerator<Buffer> {
    const first = frameAt(range.start)
    const span = spanOf(first, frameAt(range.end - 1))
    const isApart = first > 0
    const taker = new Taker(this.inner.get(key, { range: isApart ? span : { ...span, start: 0 }, signal }))
    try {
      const [head] = isApart
        ? await Promise.all([
            readAll(this.inner.get(key, { range: { start: 0, end: headBytes }, signal })),
            taker.begin(),
          ])
        : [await taker.take(headBytes)]
      if (yield* this.opened(key, head, taker, range)) return
    } finally {
      await taker.close()
    }
    // Nothing lies there: the object ends before, which its last frame has to say.
    const size_bytes = await this.size(key, { signal })
    if (size_bytes === undefined || frameAt(size_bytes) >= first) throw damaged(key, 'it is cut short')
    const end = this.part(key, { start: size_bytes, end: size_bytes + 1 }, signal)
    for await (const chunk of end) if (chunk.length > 0) throw damaged(key, 'it is cut short')
  }

  /**
   * The pieces that a range of the object is in, opened. `taker` stands after the head, or where the span of the first
   * frame begins. False if there was nothing at all.
   */
  private async *opened(key: string, headBytes: Buffer, taker: Taker, range: Range): AsyncGenerator<Buffer, boolean> {
    const head = parseHead(headBytes, key)
    const keys = await this.keysOf(headBytes, key, head)
    const first = frameAt(range.start)
    let hasSome = false
    for (const piece of piecesFrom(head, first)) {
      if (piece.section === 'filler') {
        const skipped = await taker.take(filler().length)
        if (first === 0 && !skipped.equals(filler())) throw damaged(key, 'its head is not followed by zeros')
        continue
      }
      if (piece.start >= range.end) return true
      const length = piece.end - piece.start + tagBytes
      const sealed = await taker.take(length)
      if (sealed.length === 0 && !hasSome && first > 0) return false
      hasSome = true
      const isShort = sealed.length < length
      if (sealed.length < tagBytes || (isShort && piece.isLast)) throw damaged(key, 'it is cut short')
      // Who reads all of it checks all of it, also a piece of no bytes.
      const isWanted = piece.end > range.start || isShort || range.end === Number.POSITIVE_INFINITY
      if (isWanted) {
        const content = openPiece(keys(piece.section), piece, piece.isLast || isShort, sealed)
        if (content === undefined) throw damaged(key, 'its bytes are not those that were encrypted')
        yield content.subarray(Math.max(0, range.start - piece.start), Math.max(0, range.end - piece.start))
      }
      if (isShort) return true
    }
    return hasSome
  }

  private async keysOf(bytes: Buffer, key: string, head: SealedHead): Promise<(section: Section) => Buffer> {
    const generation = await this.ring.find(head.generation)
    if (generation === undefined) throw damaged(key, 'it names a key that the repository does not have')
    return sectionKeys(bytes, key, head, () => this.join(key, head, generation), generation.structureSecret)
  }

  private join(key: string, head: SealedHead, generation: Generation): Buffer {
    const { privateKey, number } = generation
    if (privateKey === undefined) {
      throw new WalbackError('wrong_key', `the key that was given may write and not read: ${key} holds rows`, {
        hint: 'give a key that opens the repository: --key-file, or WALBACK_PASSPHRASE',
        facts: { readable_from: head.kind === 'both' ? head.rows_bytes : null },
      })
    }
    const name = `${number} ${head.ephemeral.toString('latin1')}`
    const known = this.joined.get(name)
    if (known !== undefined) return known
    const secret = joined(key, head, { ...generation, privateKey })
    if (this.joined.size >= maxJoined) this.joined.delete(this.joined.keys().next().value ?? '')
    this.joined.set(name, secret)
    return secret
  }
}

interface Range {
  readonly start: number
  readonly end: number
}

const maxJoined = 256

function joined(key: string, head: SealedHead, generation: Generation & { privateKey: Buffer }): Buffer {
  try {
    return joinSession(head.ephemeral, generation)
  } catch {
    // Some altered points are refused before any frame could tell.
    throw damaged(key, 'its head holds no usable point')
  }
}

/** Each section's key, made when it is first needed; both bind all of the head and the object's own name. */
function sectionKeys(
  head: Buffer,
  key: string,
  { salt }: SealedHead,
  session: () => Buffer,
  structureSecret: Buffer,
): (section: Section) => Buffer {
  const made = new Map<Section, Buffer>()
  return (section) => {
    const known = made.get(section)
    if (known !== undefined) return known
    const bound = createHash('sha256').update(head).update(key, 'utf8').digest()
    const info = Buffer.concat([Buffer.from(`walback ${section} 1`), bound])
    const own = derive(section === 'rows' ? session() : structureSecret, salt, info)
    made.set(section, own)
    return own
  }
}

/** What a stranger has to read to see that there is a key, and how it is wrapped. */
const isClear = (key: string): boolean => key === 'walback.json' || key.startsWith('keys/')

/** Containers hold rows and definitions; what is JSON names and counts. Whatever else there may be is for readers alone. */
const kindOf = (key: string, rows_bytes: number | undefined): SealedKind =>
  rows_bytes !== undefined ? 'both' : key.endsWith('.json') || key.startsWith('probes/') ? 'structure' : 'rows'

async function* once(body: Buffer): AsyncGenerator<Buffer> {
  yield body
}
