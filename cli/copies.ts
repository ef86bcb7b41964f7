import {
  type BaseHead,
  baseKind,
  basesRemoved,
  copySource,
  currentTimeline,
  damageError,
  type Finding,
  finding,
  findTarget,
  formatLsn,
  type Lsn,
  messageOf,
  openStorage,
  openTarget,
  Repository,
  RequiredCopy,
  readBaseHeads,
  readHead,
  type Storage,
  type Timeline,
} from '../src/index.ts'
import type { Context } from './context.ts'
import { bytes as inBytes, plural, printable } from './format.ts'

/** How far another of the configured repositories is behind the one that was looked at. */
export interface CopyState {
  readonly repository: string
  /** Whether what is confirmed to the server has to be there. */
  readonly isRequired: boolean
  /** Where its archive ends; undefined if nothing of the source is there, or it could not be looked at. */
  readonly end: { readonly timeline: string; readonly lsn: Lsn } | undefined
  /** Of the log, on the timeline that is written; undefined if it is not on that. */
  readonly behind_bytes: bigint | undefined
  /** Undefined if it could not be looked at, or holds nothing of the source. */
  readonly bases: CopiedBases | undefined
  /** Why it could not be looked at. */
  readonly why: string | undefined
}

export interface CopiedBases {
  readonly count: number
  /** Ids of those that the other has, and that have not come yet. */
  readonly missing: readonly string[]
  /** Whether the timeline that is written can be restored from there: it has a base of it. */
  readonly opensCurrent: boolean
}

/** What has to have what is confirmed, beside the repository that is written to. */
export async function requiredCopies(context: Context, repository: Repository): Promise<RequiredCopy[]> {
  return (await requiredStores(context)).map((storage) => new RequiredCopy(repository, storage))
}

export const requiredStores = async (context: Context): Promise<Storage[]> => (await openOthers(context)).required

/** The configured repositories but the first, and which of them are required. */
export async function openOthers(
  context: Context,
): Promise<{ readonly all: readonly Storage[]; readonly required: Storage[] }> {
  const [, ...others] = await context.requirePlaces()
  const opened = others.map(({ mode, url }) => ({ mode, storage: openStorage(url, context.world.env) }))
  const required = opened.filter(({ mode }) => mode === 'required').map(({ storage }) => storage)
  return { all: opened.map(({ storage }) => storage), required }
}

/** Copies what else there is, as a base that was just taken; the stream has come there with the capture. */
export async function bringUpRequired(context: Context, repository: Repository, source: string): Promise<void> {
  const { signal } = context
  for (const storage of await requiredStores(context)) {
    const { damage } = await copySource(repository, await openTarget(repository, storage, signal), source, { signal })
    if (damage.length > 0) throw damageError(repository, damage)
  }
}

/** Looks at each of the configured repositories but this one. One that is away is no reason to fail. */
export async function lookAtCopies(context: Context, repository: Repository, source: string): Promise<CopyState[]> {
  const places = await context.requirePlaces()
  const others = places
    .map(({ url, mode }) => ({ storage: openStorage(url, context.world.env), isRequired: mode === 'required' }))
    .filter(({ storage }) => storage.url !== repository.storage.url)
  if (others.length === 0) return []
  const { signal } = context
  const end = await endOf(repository, source, signal)
  const bases = await readBaseHeads(repository, source, { of: 'any', signal })
  return await Promise.all(
    others.map(async ({ storage, isRequired }): Promise<CopyState> => {
      const unknown = { end: undefined, behind_bytes: undefined, bases: undefined, why: undefined }
      const state = { repository: storage.url, isRequired, ...unknown }
      try {
        const copy = await findTarget(repository, storage)
        const there = copy && (await endOf(copy, source, signal))
        if (copy === undefined || there === undefined) return state
        const isSame = end !== undefined && there.timeline === end.timeline
        const behind_bytes = isSame ? positive(end.lsn - there.lsn) : undefined
        const held = await copiedBases(copy, source, { bases, timeline: end?.timeline, signal })
        return { ...state, end: there, behind_bytes, bases: held }
      } catch (error) {
        if (context.signal.aborted) throw error
        return { ...state, why: messageOf(error) }
      }
    }),
  )
}

async function copiedBases(
  copy: Repository,
  source: string,
  { bases, timeline, signal }: { bases: readonly BaseHead[]; timeline: string | undefined; signal: AbortSignal },
): Promise<CopiedBases> {
  const held = await readBaseHeads(copy, source, { of: 'any', signal })
  const [ids, removed] = [new Set(held.map(({ id }) => id)), await basesRemoved(copy, source, signal)]
  return {
    count: held.length,
    missing: bases.map(({ id }) => id).filter((id) => !ids.has(id) && !removed.has(id)),
    opensCurrent: held.some((base) => base.timeline === timeline && baseKind(base) === 'full'),
  }
}

/** A required repository that has the stream and no base to begin with: it would not do alone, as it is to. */
export const lacksOpening = (copies: readonly CopyState[]): boolean =>
  copies.some(({ isRequired, why, bases }) => isRequired && why === undefined && bases?.opensCurrent !== true)

/** Copies that cannot be followed with. Where the repository itself is the trouble, that is told by others. */
export async function copyFindings(context: Context, source: string): Promise<Finding[]> {
  const [first, ...others] = await context.requirePlaces()
  if (others.length === 0) return []
  const storage = openStorage(first.url, context.world.env)
  const repository = await Repository.find(storage, await context.access(storage)).catch(() => undefined)
  if (repository === undefined) return []
  const copies = await lookAtCopies(context, repository, source).catch((error: unknown) => {
    if (context.signal.aborted) throw error
    return []
  })
  return copies.flatMap(({ repository: object, why }) =>
    why === undefined ? [] : finding('copy-unreadable', 'warning', `the copy is not followed up: ${why}`, { object }),
  )
}

const positive = (value: bigint): bigint => (value > 0n ? value : 0n)

async function endOf(repository: Repository, source: string, signal: AbortSignal): Promise<CopyState['end']> {
  const timeline: Timeline | undefined = await currentTimeline(repository, source)
  return timeline && { timeline: timeline.id, lsn: (await readHead(repository, timeline, signal)).end }
}

export function copyInWords({ repository, end, behind_bytes, bases, why }: CopyState): string {
  const where = printable(repository)
  if (why !== undefined) return `${where}: cannot be looked at: ${printable(why)}`
  if (end === undefined) return `${where}: holds nothing yet (the agent copies, or walback copy)`
  if (behind_bytes === undefined) return `${where}: behind, on timeline ${end.timeline}`
  const stream = behind_bytes === 0n ? 'has all of the stream' : `${inBytes(Number(behind_bytes))} of log behind`
  return `${where}: ${stream}${bases === undefined ? '' : basesInWords(bases)}`
}

function basesInWords({ missing, opensCurrent }: CopiedBases): string {
  if (!opensCurrent) return ', and no base of it yet: it cannot be restored from there'
  if (missing.length === 0) return ', and all bases'
  return `; ${plural(missing.length, 'base')} not there yet: an older one serves`
}

export const copyJson = (state: CopyState): Record<string, unknown> => ({
  repository: state.repository,
  required: state.isRequired,
  archive_end: state.end ? { timeline: state.end.timeline, lsn: formatLsn(state.end.lsn) } : null,
  behind_bytes: state.behind_bytes === undefined ? null : Number(state.behind_bytes),
  bases: state.bases ? { count: state.bases.count, missing: state.bases.missing } : null,
  why: state.why ?? null,
})
