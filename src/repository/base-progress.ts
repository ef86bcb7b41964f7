import { z } from 'zod'
import { selectionShape } from '../model/selection.ts'
import { pieceShape } from './base.ts'
import { basePrefix, baseProgressPrefix, basesPrefix, manifestKey } from './layout.ts'
import type { Repository } from './repository.ts'
import { readJson, sealedJson } from './sealed-json.ts'

/**
 * What is done of a base that is being taken, beside its objects: one that was interrupted is carried on from there.
 * Written after the objects that it names and before the manifest; without meaning, and removed, once there is one.
 */
const beginShape = z.object({
  walback: z.literal('base begun'),
  format: z.literal(1),
  base: z.string(),
  timeline: z.string(),
  systemIdentifier: z.string(),
  database: z.number(),
  /** When it was begun. */
  started: z.string(),
  /** It is of these tables only. */
  selection: selectionShape.optional(),
  /** It is made from another base, off the source; its maker holds this lease (repository/lease.ts). */
  compaction: z.object({ lease: z.string() }).optional(),
})
export type BaseBeginning = z.infer<typeof beginShape>

const storedTable = z.object({
  oid: z.number(),
  /** What the table looked like under its snapshot: its rows are of use as long as it looks the same. */
  stamp: z.string(),
  /** `pg_current_snapshot()` that its rows were read under. */
  snapshot: z.string(),
  rows: z.number(),
  hash: z.string(),
  raw_bytes: z.number(),
  pieces: z.array(pieceShape),
})
/** A table whose rows are stored whole. */
export type StoredTable = z.infer<typeof storedTable>

const tablesShape = z.object({
  walback: z.literal('base tables'),
  format: z.literal(1),
  tables: z.array(storedTable),
})

/** A base that was begun, and about which something is left to do. */
export interface BegunBase {
  readonly id: string
  readonly beginning: BaseBeginning
  /** It is complete, or was given up, and what is of no more use was not removed. */
  readonly isEnded: boolean
}

const beginKey = (source: string, base: string): string => `${baseProgressPrefix(source, base)}begun.json`

/** Says that a base is begun. False if there is one of this name. */
export const writeBeginning = (repository: Repository, source: string, beginning: BaseBeginning): Promise<boolean> =>
  repository.storage.put(beginKey(source, beginning.base), sealedJson(beginning), { ifAbsent: true })

/** Says that tables are stored. `name`: one that no other record of this base has. */
export async function writeStoredTables(
  repository: Repository,
  place: { readonly source: string; readonly base: string; readonly name: string },
  tables: readonly StoredTable[],
): Promise<void> {
  const record: z.infer<typeof tablesShape> = { walback: 'base tables', format: 1, tables: [...tables] }
  const key = `${baseProgressPrefix(place.source, place.base)}${place.name}.tables.json`
  await repository.storage.put(key, sealedJson(record), { ifAbsent: true })
}

/** All that is recorded as stored of a base; of a table that was stored twice both. */
export async function readStoredTables(
  repository: Repository,
  source: string,
  base: string,
  signal?: AbortSignal,
): Promise<StoredTable[]> {
  const tables: StoredTable[] = []
  for await (const { key } of repository.storage.list(baseProgressPrefix(source, base), { signal })) {
    if (!key.endsWith('.tables.json')) continue
    tables.push(...(await readJson(repository.storage, key, tablesShape)).tables)
  }
  return tables
}

/** Refuses a record of an unfinished base that is not as it was written. */
export async function checkProgress({ storage }: Repository, key: string, signal?: AbortSignal): Promise<void> {
  await readJson(storage, key, z.discriminatedUnion('walback', [beginShape, tablesShape]), { signal })
}

/** The bases that are being taken, or were until something came between, in the order of their names. */
export async function listBegun(repository: Repository, source: string, signal?: AbortSignal): Promise<BegunBase[]> {
  const [ended, begun] = [new Set<string>(), new Set<string>()]
  for await (const { key } of repository.storage.list(basesPrefix(source), { signal })) {
    const id = key.slice(basesPrefix(source).length).split('/')[0] ?? ''
    if (key === manifestKey(source, id)) ended.add(id)
    if (key === beginKey(source, id)) begun.add(id)
  }
  const found: BegunBase[] = []
  for (const id of [...begun].sort()) {
    const key = beginKey(source, id)
    // Another may have tidied up since.
    if ((await repository.storage.size(key, { signal })) === undefined) continue
    const beginning = await readJson(repository.storage, key, beginShape)
    found.push({ id, beginning, isEnded: ended.has(id) })
  }
  return found
}

/** Removes the objects of a base that are not to be kept, the record that it was begun last. */
export async function removeObjects(
  repository: Repository,
  source: string,
  base: string,
  isKept: (key: string) => boolean,
): Promise<number> {
  const keys: string[] = []
  for await (const { key } of repository.storage.list(basePrefix(source, base))) {
    if (key !== manifestKey(source, base) && !isKept(key)) keys.push(key)
  }
  const last = beginKey(source, base)
  keys.sort((a, b) => Number(a === last) - Number(b === last))
  for (const key of keys) await repository.storage.delete(key)
  return keys.length
}
