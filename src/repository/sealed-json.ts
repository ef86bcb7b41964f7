import { createHash } from 'node:crypto'
import { z } from 'zod'
import { messageOf, WalbackError } from '../base/errors.ts'
import { readAll, type Storage } from '../storage/storage.ts'

/**
 * The bytes of an object of JSON, closed with the hash of all that is before it: what steers a restore (a snapshot, the
 * position of a sequence) is text in which a flipped bit makes another valid text.
 */
export const sealedJson = (value: object): Buffer => Buffer.concat([...sealedPieces(value)])

/** The same, piece by piece, for what may be tens of megabytes: arrays among its members are written by and by. */
export function* sealedPieces(value: object): Generator<Buffer> {
  const digest = createHash('sha256')
  let text = ''
  let length = 0
  for (const part of textsOf(value)) {
    text += part
    length += part.length
    if (length < pieceChars) continue
    const piece = Buffer.from(text)
    digest.update(piece)
    yield piece
    text = ''
    length = 0
  }
  digest.update(text)
  yield Buffer.from(`${text},"sha256":"${digest.digest('hex')}"}\n`)
}

const pieceChars = 1 << 18

/** What `JSON.stringify` gives of an object that has members, without its last brace. */
function* textsOf(value: object): Generator<string> {
  let before = '{'
  for (const [name, member] of Object.entries(value)) {
    if (member === undefined) continue
    yield `${before}${JSON.stringify(name)}:`
    before = ','
    if (Array.isArray(member)) yield* elementsOf(member)
    else yield JSON.stringify(member)
  }
}

function* elementsOf(array: readonly unknown[]): Generator<string> {
  let before = '['
  for (const element of array) {
    yield before + JSON.stringify(element)
    before = ','
  }
  yield array.length === 0 ? '[]' : ']'
}

/** `,"sha256":"…"}` and a newline: what `sealedJson` ends in. */
const sealText = /^,"sha256":"([0-9a-f]{64})"\}\n$/
const sealBytes = 78

/** Looks whether what passes by is as it was sealed. */
export class SealCheck {
  private readonly digest = createHash('sha256')
  /** As much of the end as a seal would take. */
  private last: Buffer = Buffer.alloc(0)

  push(chunk: Buffer): void {
    const all = this.last.length === 0 ? chunk : Buffer.concat([this.last, chunk])
    const cut = Math.max(0, all.length - sealBytes)
    this.digest.update(all.subarray(0, cut))
    this.last = Buffer.from(all.subarray(cut))
  }

  verdict(): 'sealed' | 'broken' | 'missing' {
    const found = sealText.exec(this.last.toString('latin1'))
    if (found === null) return 'missing'
    return this.digest.digest('hex') === found[1] ? 'sealed' : 'broken'
  }
}

export interface ReadJsonOptions {
  /** Whether an object without a seal is taken all the same. */
  readonly mayLackSeal?: (text: string) => boolean
  /** The latest format that is known; 1 if not given. */
  readonly latest?: number
  readonly signal?: AbortSignal | undefined
}

/**
 * Reads an object of JSON and checks its seal and its shape; anything else there is damage. What is whole, or has no
 * seal, and says that it has a later format is for a later walback.
 */
export const readJson = async <T>(
  storage: Storage,
  key: string,
  shape: z.ZodType<T>,
  options: ReadJsonOptions = {},
): Promise<T> => (await readJsonBytes(storage, key, shape, options)).value

/** The same, with its bytes as they were given to the store. */
export async function readJsonBytes<T>(
  storage: Storage,
  key: string,
  shape: z.ZodType<T>,
  options: ReadJsonOptions = {},
): Promise<{ readonly bytes: Buffer; readonly value: T }> {
  const bytes = await readAll(storage.get(key, { signal: options.signal }))
  const seal = new SealCheck()
  seal.push(bytes)
  const verdict = seal.verdict()
  if (verdict === 'broken') throw damaged(key, 'its hash is another')
  const text = bytes.toString('utf8')
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw damaged(key, messageOf(error), error)
  }
  const latest = options.latest ?? 1
  refuseNewer(key, z.object({ format: z.int() }).safeParse(json).data?.format, latest)
  if (verdict === 'missing' && options.mayLackSeal?.(text) !== true) throw damaged(key, 'its seal is missing')
  const parsed = shape.safeParse(json)
  if (!parsed.success) throw damaged(key, z.prettifyError(parsed.error))
  return { bytes, value: parsed.data }
}

/** What a reader says of an object that is not as it was written. */
export const damaged = (key: string, what: string, cause?: unknown): WalbackError =>
  new WalbackError('corrupt', `${key} is damaged: ${what}`, { cause })

export function refuseNewer(key: string, format: unknown, latest: number): void {
  if (typeof format === 'number' && Number.isInteger(format) && format > latest) throw newerFormat(key, format, latest)
}

/** What a walback says of an object that a later one wrote. */
export const newerFormat = (key: string, found: number, known: number): WalbackError =>
  new WalbackError('failed', `${key} has format ${found}, and this walback reads ${known}`, {
    hint: 'use the walback that wrote it, or a newer one',
    facts: { key, format: found, known },
  })
