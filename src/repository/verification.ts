import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { verificationKey, verificationsPrefix } from './layout.ts'
import type { Repository } from './repository.ts'
import { readJson, sealedJson } from './sealed-json.ts'

/**
 * What a run of `verify` has found, kept in the repository: `status` shows it on any machine, an interrupted run is
 * carried on from it, and the next one compares what it finds with what was there. It is written once and counts for
 * no restore.
 */
const verificationShape = z.object({
  walback: z.literal('verification'),
  format: z.literal(1),
  source: z.string(),
  started: z.string(),
  finished: z.string(),
  walbackVersion: z.string(),
  outcome: z.enum(['sound', 'damaged', 'interrupted']),
  /** Which share of the objects was read whole; null: none, only what names them. */
  read: z.object({ part: z.number(), of: z.number() }).nullable(),
  objects: z.number(),
  read_bytes: z.number(),
  duration_ms: z.number(),
  /** How many findings there were, and the first of them. */
  damaged: z.number(),
  findings: z.array(z.object({ kind: z.string(), key: z.string(), message: z.string() })),
  /** Up to where each timeline's chain was sound then, and which bases there were. */
  timelines: z.array(z.object({ id: z.string(), end: z.string(), sha256: z.string() })),
  bases: z.array(z.string()),
  /** Of an interrupted run: up to where objects were read, by timeline as a position and by base as a key. */
  resume: z.object({ segments: z.record(z.string(), z.string()), bases: z.record(z.string(), z.string()) }).optional(),
})
export type Verification = z.infer<typeof verificationShape>

/** Findings that a record names; of more only the number is kept. */
export const mostNamed = 100

/** The numbers of all records, oldest first. */
export async function listVerifications(
  { storage }: Repository,
  source: string,
  signal?: AbortSignal,
): Promise<number[]> {
  const numbers: number[] = []
  for await (const { key } of storage.list(verificationsPrefix(source), { signal })) {
    const digits = /\/(\d{8})\.json$/.exec(key)?.[1]
    if (digits !== undefined) numbers.push(Number(digits))
  }
  return numbers
}

export async function readVerification(
  { storage }: Repository,
  source: string,
  number: number,
  signal?: AbortSignal,
): Promise<Verification> {
  const key = verificationKey(source, number)
  const record = await readJson(storage, key, verificationShape, { signal })
  if (record.source === source) return record
  throw new WalbackError('corrupt', `${key} is damaged: it is a record of source ${record.source}`)
}

/** The newest record that `isWanted` and is whole; damaged ones are `verify`'s business, and passed over here. */
export async function findVerification(
  repository: Repository,
  source: string,
  isWanted: (record: Verification) => boolean,
  signal?: AbortSignal,
): Promise<Verification | undefined> {
  for (const number of (await listVerifications(repository, source, signal)).toReversed()) {
    try {
      const record = await readVerification(repository, source, number, signal)
      if (isWanted(record)) return record
    } catch (error) {
      const isPassable =
        error instanceof WalbackError && (error.code === 'corrupt' || error.code === 'failed' || error.facts['absent'])
      if (!isPassable) throw error
    }
  }
  return undefined
}

/** Stores a record under the next number, and removes the oldest where there are many; gives the number. */
export async function writeVerification(
  repository: Repository,
  record: Verification,
  signal?: AbortSignal,
): Promise<number> {
  const { storage } = repository
  const known = await listVerifications(repository, record.source, signal)
  for (let number = (known.at(-1) ?? 0) + 1, attempt = 0; attempt < mostAttempts; number++, attempt++) {
    const key = verificationKey(record.source, number)
    if (!(await storage.put(key, sealedJson(record), { ifAbsent: true, signal }))) continue
    for (const old of known.slice(0, -mostKept)) await storage.delete(verificationKey(record.source, old))
    return number
  }
  throw new WalbackError('locked', 'others keep writing records of verifications at the same time', { retryable: true })
}

const mostKept = 50
const mostAttempts = 100
