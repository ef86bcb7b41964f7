import type { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { recordKey } from './layout.ts'
import type { Repository } from './repository.ts'
import { readJson, sealedJson } from './sealed-json.ts'

/** Records of runs of one kind: written once, under a number, so that their order does not hang on clocks. */
export interface RecordKind<T extends { readonly source: string }> {
  /** Where a source's records are, with a slash at the end. */
  readonly prefix: (source: string) => string
  readonly shape: z.ZodType<T>
}

/** The numbers of all records, oldest first. */
export async function listRecords<T extends { readonly source: string }>(
  { storage }: Repository,
  { prefix }: RecordKind<T>,
  source: string,
  signal?: AbortSignal,
): Promise<number[]> {
  const numbers: number[] = []
  for await (const { key } of storage.list(prefix(source), { signal })) {
    const digits = /\/(\d{8})\.json$/.exec(key)?.[1]
    if (digits !== undefined) numbers.push(Number(digits))
  }
  return numbers
}

export async function readRecord<T extends { readonly source: string }>(
  { storage }: Repository,
  { prefix, shape }: RecordKind<T>,
  source: string,
  number: number,
  signal?: AbortSignal,
): Promise<T> {
  const key = recordKey(prefix(source), number)
  const record = await readJson(storage, key, shape, { signal })
  if (record.source === source) return record
  throw new WalbackError('corrupt', `${key} is damaged: it is a record of source ${record.source}`)
}

/** The newest record that `isWanted` and is whole; damaged ones are `verify`'s business, and passed over here. */
export async function findRecord<T extends { readonly source: string }>(
  repository: Repository,
  kind: RecordKind<T>,
  source: string,
  isWanted: (record: T) => boolean,
  signal?: AbortSignal,
): Promise<T | undefined> {
  for (const number of (await listRecords(repository, kind, source, signal)).toReversed()) {
    try {
      const record = await readRecord(repository, kind, source, number, signal)
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
export async function writeRecord<T extends { readonly source: string }>(
  repository: Repository,
  kind: RecordKind<T>,
  record: T,
  signal?: AbortSignal,
): Promise<number> {
  const { storage } = repository
  const known = await listRecords(repository, kind, record.source, signal)
  const prefix = kind.prefix(record.source)
  for (let number = (known.at(-1) ?? 0) + 1, attempt = 0; attempt < mostAttempts; number++, attempt++) {
    if (!(await storage.put(recordKey(prefix, number), sealedJson(record), { ifAbsent: true, signal }))) continue
    for (const old of known.slice(0, -mostKept)) await storage.delete(recordKey(prefix, old))
    return number
  }
  throw new WalbackError('locked', `others keep writing records below ${prefix} at the same time`, { retryable: true })
}

const mostKept = 50
const mostAttempts = 100
