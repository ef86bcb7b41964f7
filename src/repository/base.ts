import { z } from 'zod'
import {
  databaseShape,
  extensionShape,
  largeObjectShape,
  notCarriedShape,
  relationSizesShape,
  roleShape,
  sequenceShape,
} from '../model/catalog.ts'
import { parseLsn } from '../model/lsn.ts'
import { selectionShape } from '../model/selection.ts'
import { parseSnapshot } from '../model/snapshot.ts'
import { inMemory, type ObjectSource, readAll } from '../storage/storage.ts'
import { basesPrefix, manifestKey } from './layout.ts'
import type { Repository } from './repository.ts'
import { damaged, sealedJson, sealedPieces } from './sealed-json.ts'
import { readMembers } from './sealed-members.ts'

const objectReference = z.object({ key: z.string(), size_bytes: z.number(), sha256: z.string() })
export type ObjectReference = z.infer<typeof objectReference>

export const pieceShape = objectReference.extend({ rows: z.number() })

const namedTable = z.object({ oid: z.number(), schema: z.string(), name: z.string() })
type NamedTable = z.infer<typeof namedTable> & { readonly types?: readonly string[] | undefined }

/** One list may be that of many tables. */
const names: z.ZodType<readonly string[]> = z.array(z.string())

const baseTable = namedTable.extend({
  /** Columns whose values are stored, in their order: all but generated ones. */
  columns: names,
  /** The columns' types on the source, as `oid.modifier`: rows of the stream must still have them. */
  types: names.optional(),
  /** Of a configuration table of an extension: which of its rows are to be restored, as `WHERE …`, or nothing for all. */
  extension: z.object({ condition: z.string() }).optional(),
  /** The partitioned table to load its rows through: a partition by the hash of an enum is another in another database. */
  via: z.object({ schema: z.string(), name: z.string() }).optional(),
  rows: z.number(),
  /** The order-free hash of the rows (codec/row-hash.ts). */
  hash: z.string(),
  pieces: z.array(pieceShape),
  /** `pg_current_snapshot()` that its rows were read under, if that is an earlier one than the base's. */
  snapshot: z.string().optional(),
})
export type BaseTable = z.infer<typeof baseTable>

const manifestShape = z.object({
  walback: z.literal('base'),
  /** 2: of some tables only. Whoever knows no such bases would take it for one of all, and so must not read it. */
  format: z.union([z.literal(1), z.literal(2)]),
  id: z.string(),
  source: z.string(),
  timeline: z.string(),
  started: z.string(),
  finished: z.string(),
  walbackVersion: z.string(),
  serverVersion: z.number(),
  systemIdentifier: z.string(),
  database: databaseShape,
  /**
   * `pg_current_snapshot()` of the base: the stream's transactions that it sees are in it. The rows of a table with an
   * earlier snapshot of its own lack those that this one does not see; the stream has them.
   */
  snapshot: z.string(),
  /** The insert position just after the snapshot: every transaction in the base has its commit record before it. */
  lsn: z.string(),
  /** The server's clock just after the snapshot, microseconds since 1970. */
  time: z.string(),
  schema: z.object({ tool: z.string(), preData: objectReference, postData: objectReference }),
  /** The stamp of the catalogs as the snapshot sees them; absent in bases of walback 0.1. */
  catalog: z.string().optional(),
  tables: z.array(baseTable),
  /** Ids of tables that the stream may name and whose rows are not here: partitioned ones, and what extensions fill. */
  tablesWithoutRows: z.array(z.number()).default([]),
  sequences: z.array(sequenceShape),
  /** Populated materialized views in the order in which they can be refreshed. */
  materializedViews: z.array(z.object({ schema: z.string(), name: z.string() })),
  largeObjects: z.object({
    objects: z.array(largeObjectShape),
    data: z.array(objectReference),
  }),
  roles: z.array(roleShape),
  /** What neither the stream nor a restore carries, or a target must have; undefined in bases of walback 0.1. */
  notCarried: notCarriedShape.optional(),
  /** What a target needs to have, and what relations filled on the source: undefined in older bases, or if not known. */
  extensions: z.array(extensionShape).optional(),
  sizes: relationSizesShape.optional(),
  /** Tables that were not published, so that the stream has none of their changes. */
  unpublished: z.array(z.object({ schema: z.string(), name: z.string() })).optional(),
  /** It is of some of the tables only, which were selected by this; of the others the schema alone is here. */
  selection: selectionShape.optional(),
  /** Those others. */
  leftOut: z.array(namedTable).optional(),
  /** It was made from another base and its segments, off the source (src/compact). */
  compacted: z
    .object({
      from: z.string(),
      /** The base that was taken from the source: what the stream does not carry is as it was there. */
      full: z.object({ id: z.string(), lsn: z.string(), time: z.string() }),
    })
    .optional(),
  raw_bytes: z.number(),
  stored_bytes: z.number(),
})
export type BaseManifest = z.infer<typeof manifestShape>

const latestFormat = 2

/** Stands in a manifest's place when the base was given up: whoever was taking it can no longer complete it. */
const abandonedShape = z.object({ walback: z.literal('abandoned base'), format: z.literal(1), id: z.string() })

/** Completes a base: an object tree without a manifest is not a base. False if it has been given up, or completed, by another. */
export async function writeManifest(repository: Repository, manifest: BaseManifest): Promise<boolean> {
  const key = manifestKey(manifest.source, manifest.id)
  return await repository.storage.put(key, piecesOf(manifest), { ifAbsent: true })
}

async function* piecesOf(manifest: BaseManifest): AsyncGenerator<Buffer> {
  yield* sealedPieces(manifest)
}

/** Gives an unfinished base up; false if it was completed, or given up, before. */
export async function abandonBase(repository: Repository, source: string, base: string): Promise<boolean> {
  const mark: z.infer<typeof abandonedShape> = { walback: 'abandoned base', format: 1, id: base }
  return await repository.storage.put(manifestKey(source, base), sealedJson(mark), { ifAbsent: true })
}

/** The manifest; undefined for a base that was given up. */
export const readManifest = (
  { storage }: Repository,
  source: string,
  base: string,
  signal?: AbortSignal,
): Promise<BaseManifest | undefined> => readMade(storage, source, base, manifestShape, signal)

/** The same, with its bytes as they are stored. */
export async function readManifestBytes(
  { storage }: Repository,
  source: string,
  base: string,
  signal?: AbortSignal,
): Promise<{ readonly bytes: Buffer; readonly manifest: BaseManifest } | undefined> {
  const bytes = await readAll(storage.get(manifestKey(source, base), { signal }))
  const manifest = await readMade(inMemory(bytes), source, base, manifestShape, signal)
  return manifest && { bytes, manifest }
}

/** So much of a manifest as a shape asks for; undefined for a base that was given up. */
async function readMade<T extends Pick<BaseHead, 'source' | 'format' | 'selection'>>(
  from: ObjectSource,
  source: string,
  base: string,
  shape: z.ZodObject & z.ZodType<T>,
  signal: AbortSignal | undefined,
): Promise<T | undefined> {
  const key = manifestKey(source, base)
  const either = shape.extend({ walback: z.enum(['base', 'abandoned base']), id: z.string() })
  const { value, fault } = await readMembers(from, key, either, { latest: latestFormat, signal })
  const isMark = value.walback === 'abandoned base'
  if (fault !== undefined && !isMark) throw damaged(key, fault)
  const made = value as unknown as T
  if (value.id !== base || (!isMark && made.source !== source)) throw damaged(key, `it is the manifest of ${value.id}`)
  if (!isMark && (made.format === 2) !== (made.selection !== undefined))
    throw damaged(key, 'it does not say whether it is of all tables')
  return isMark ? undefined : made
}

/** All objects that a manifest names. */
export const referencesOf = ({
  schema,
  tables,
  largeObjects,
}: Pick<BaseManifest, 'schema' | 'tables' | 'largeObjects'>): ObjectReference[] => [
  schema.preData,
  schema.postData,
  ...tables.flatMap((table): ObjectReference[] => table.pieces),
  ...largeObjects.data,
]

/** What they take together. */
export const storedBytesOf = (of: Parameters<typeof referencesOf>[0]): number =>
  referencesOf(of).reduce((sum, { size_bytes }) => sum + size_bytes, 0)

/** Their keys. */
export const objectsOf = (manifest: BaseManifest): string[] => referencesOf(manifest).map(({ key }) => key)

/** What tells one base from another, without its tables, of which there may be tens of thousands. */
const headShape = manifestShape.pick({
  walback: true,
  format: true,
  id: true,
  source: true,
  timeline: true,
  started: true,
  finished: true,
  snapshot: true,
  lsn: true,
  time: true,
  catalog: true,
  selection: true,
  compacted: true,
  raw_bytes: true,
  stored_bytes: true,
})
export type BaseHead = z.infer<typeof headShape>

/** Lets the rest of a manifest go. */
export function headOf(manifest: BaseManifest): BaseHead {
  const names = Object.keys(headShape.shape) as (keyof BaseHead)[]
  return Object.fromEntries(names.flatMap((name) => (name in manifest ? [[name, manifest[name]]] : []))) as BaseHead
}

/** What a base reads and is made of, by names alone. */
export interface BaseNames extends BaseHead {
  /** The keys of all objects that it names. */
  readonly objects: readonly string[]
  /** Those that tables of it were read under, each once, if there are others than its own. */
  readonly snapshots: readonly string[]
}

export const earlierSnapshots = ({ tables }: Pick<BaseManifest, 'tables'>): string[] => [
  ...new Set(tables.flatMap(({ snapshot }) => snapshot ?? [])),
]

interface ReadOptions {
  /** Which are read: those of all tables, if not given. */
  readonly of?: 'full' | 'partial' | 'any'
  readonly signal?: AbortSignal | undefined
}

/**
 * The complete bases of a source, oldest first by the position they were taken at: neither names nor clocks decide.
 *
 * One of some tables does nothing of what bases are for but for those, so whoever does not ask for it does not see it.
 */
export const readManifests = (
  repository: Repository,
  source: string,
  options: ReadOptions = {},
): Promise<BaseManifest[]> =>
  readEach(repository, source, (id) => readManifest(repository, source, id, options.signal), options)

/** The same, without what it says of its tables and objects, of which there may be tens of thousands. */
export const readBaseNames = (
  repository: Repository,
  source: string,
  options: ReadOptions = {},
): Promise<BaseNames[]> => {
  const read = async (id: string): Promise<BaseNames | undefined> => {
    const manifest = await readManifest(repository, source, id, options.signal)
    return manifest && { ...headOf(manifest), objects: objectsOf(manifest), snapshots: earlierSnapshots(manifest) }
  }
  return readEach(repository, source, read, options)
}

/** The same of each of them, for what holds them for long, or needs no more: the rest is not even parsed. */
export const readBaseHeads = (repository: Repository, source: string, options: ReadOptions = {}): Promise<BaseHead[]> =>
  readEach(repository, source, (id) => readMade(repository.storage, source, id, headShape, options.signal), options)

async function readEach<T extends BaseHead>(
  repository: Repository,
  source: string,
  read: (id: string) => Promise<T | undefined>,
  { of = 'full', signal }: ReadOptions,
): Promise<T[]> {
  const bases: T[] = []
  for await (const { key } of repository.storage.list(basesPrefix(source), { signal })) {
    const id = /\/([^/]+)\/manifest\.json$/.exec(key)?.[1]
    const base = id === undefined ? undefined : await read(id)
    if (base && (of === 'any' || baseKind(base) === of)) bases.push(base)
  }
  return bases.sort(inOrder)
}

/** Of all tables, or of some. */
export const baseKind = ({ selection }: Pick<BaseHead, 'selection'>): 'full' | 'partial' =>
  selection === undefined ? 'full' : 'partial'

/** All tables that it knows, whether or not it has their rows. */
export const tablesOf = ({ tables, leftOut = [] }: Pick<BaseManifest, 'tables' | 'leftOut'>): NamedTable[] => [
  ...tables,
  ...leftOut,
]

/** By timelines, and where they were taken in them. */
export const inOrder = (a: BaseHead, b: BaseHead): number =>
  a.timeline.localeCompare(b.timeline) ||
  order(parseLsn(a.lsn), parseLsn(b.lsn)) ||
  order(parseSnapshot(a.snapshot).xmax, parseSnapshot(b.snapshot).xmax) ||
  order(BigInt(a.time), BigInt(b.time))

const order = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0)
