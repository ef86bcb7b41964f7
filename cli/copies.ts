import {
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
  readHead,
  type Storage,
  type Timeline,
} from '../src/index.ts'
import type { Context } from './context.ts'
import { bytes, printable } from './format.ts'

/** How far another of the configured repositories is behind the one that was looked at. */
export interface CopyState {
  readonly repository: string
  /** Where its archive ends; undefined if nothing of the source is there, or it could not be looked at. */
  readonly end: { readonly timeline: string; readonly lsn: Lsn } | undefined
  /** Of the log, on the timeline that is written; undefined if it is not on that. */
  readonly behind_bytes: bigint | undefined
  /** Why it could not be looked at. */
  readonly why: string | undefined
}

/** What has to have what is confirmed, beside the repository that is written to. */
export async function requiredCopies(context: Context, repository: Repository): Promise<RequiredCopy[]> {
  return (await requiredStores(context)).map((storage) => new RequiredCopy(repository, storage))
}

const requiredStores = async (context: Context): Promise<Storage[]> => (await openOthers(context)).required

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
    .map(({ url }) => openStorage(url, context.world.env))
    .filter(({ url }) => url !== repository.storage.url)
  if (others.length === 0) return []
  const end = await endOf(repository, source, context.signal)
  return await Promise.all(
    others.map(async (storage): Promise<CopyState> => {
      const state = { repository: storage.url, end: undefined, behind_bytes: undefined, why: undefined }
      try {
        const copy = await findTarget(repository, storage)
        const there = copy && (await endOf(copy, source, context.signal))
        const isSame = end !== undefined && there?.timeline === end.timeline
        return { ...state, end: there, behind_bytes: isSame ? positive(end.lsn - there.lsn) : undefined }
      } catch (error) {
        if (context.signal.aborted) throw error
        return { ...state, why: messageOf(error) }
      }
    }),
  )
}

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

export function copyInWords({ repository, end, behind_bytes, why }: CopyState): string {
  const where = printable(repository)
  if (why !== undefined) return `${where}: cannot be looked at: ${printable(why)}`
  if (end === undefined) return `${where}: holds nothing yet (the agent copies, or walback copy)`
  if (behind_bytes === undefined) return `${where}: behind, on timeline ${end.timeline}`
  return behind_bytes === 0n
    ? `${where}: has all of the stream`
    : `${where}: ${bytes(Number(behind_bytes))} of log behind`
}

export const copyJson = ({ repository, end, behind_bytes, why }: CopyState): Record<string, unknown> => ({
  repository,
  archive_end: end ? { timeline: end.timeline, lsn: formatLsn(end.lsn) } : null,
  behind_bytes: behind_bytes === undefined ? null : Number(behind_bytes),
  why: why ?? null,
})
