/** What a policy promises, told apart from the planner that keeps it, and whether an archive still holds it. */
import { expect } from 'vitest'
import { formatLsn, parseLsn } from '../../src/model/lsn.ts'
import type { RecoveryTarget } from '../../src/model/target.ts'
import { micros } from '../../src/model/time.ts'
import { type BaseManifest, inOrder, readManifests } from '../../src/repository/base.ts'
import { manifestKey } from '../../src/repository/layout.ts'
import type { Repository } from '../../src/repository/repository.ts'
import { planRestore } from '../../src/restore/plan.ts'
import type { RetentionPolicy } from '../../src/retention/policy.ts'
import type { MadeArchive } from './made-archive.ts'

export interface Promised {
  readonly why: string
  readonly target: RecoveryTarget
  /** By which base of some tables, if not by one of all. */
  readonly partial?: string
}

/** A plan in short: the base, and the objects of the stream that it reads; undefined where it is refused. */
export async function planOf(
  repository: Repository,
  target: RecoveryTarget,
  partial?: string,
): Promise<{ readonly base: string; readonly reads: readonly string[]; readonly timeline: string } | undefined> {
  try {
    const only = async (id: string) =>
      (await readManifests(repository, 'app', { of: 'partial' })).filter((base) => base.id === id)
    const bases = partial === undefined ? undefined : await only(partial)
    const options = bases === undefined ? {} : { bases }
    const { base, earlier, segments, timeline } = await planRestore(repository, 'app', target, options)
    return { base: base.id, reads: [...earlier, ...segments].map(({ key }) => key), timeline: timeline.id }
  } catch {
    return undefined
  }
}

const timesOf = (base: BaseManifest): RecoveryTarget[] => [
  { kind: 'lsn', lsn: parseLsn(base.lsn) },
  { kind: 'time', time: micros(BigInt(base.time)) },
]

/** Bases that could be restored from if there were no others. */
export async function restorableBases(archive: MadeArchive): Promise<BaseManifest[]> {
  const found: BaseManifest[] = []
  const bases = await readManifests(archive.repository, 'app')
  for (const base of bases) {
    const { storage, repository } = await archive.copy()
    for (const { id } of bases) if (id !== base.id) storage.objects.delete(manifestKey('app', id))
    const alone = await planOf(repository, { kind: 'lsn', lsn: parseLsn(base.lsn) })
    if (alone?.base === base.id) found.push(base)
  }
  return found
}

/** Bases of some tables that can be restored. */
async function restorablePartials({ repository }: MadeArchive): Promise<BaseManifest[]> {
  const found: BaseManifest[] = []
  for (const base of await readManifests(repository, 'app', { of: 'partial' }))
    if (await planOf(repository, { kind: 'lsn', lsn: parseLsn(base.lsn) }, base.id)) found.push(base)
  return found
}

/** Of each selection's bases, from the oldest of all tables on that is kept, those that the rules or the window keep. */
async function promisedPartials(
  archive: MadeArchive,
  policy: RetentionPolicy,
  { now, oldest }: { readonly now: bigint; readonly oldest: BaseManifest | undefined },
): Promise<Promised[]> {
  const all = (await restorablePartials(archive)).filter((base) => oldest !== undefined && inOrder(oldest, base) < 0)
  const promised: Promised[] = []
  for (const table of new Set(all.map(({ selection }) => selection?.tables[0]))) {
    const alike = all.filter(({ selection }) => selection?.tables[0] === table)
    const kept = ruleBases(alike, policy, now)
    for (const base of alike) {
      const isYoung = policy.window_ms !== undefined && now - BigInt(base.time) <= BigInt(policy.window_ms) * 1000n
      if (!kept.has(base.id) && !isYoung) continue
      for (const target of timesOf(base))
        promised.push({ why: `base ${base.id} of ${table}`, target, partial: base.id })
    }
  }
  return promised
}

/** A second, slower reading of the rules: newest first, one for each period that has one. */
function ruleBases(bases: readonly BaseManifest[], policy: RetentionPolicy, now: bigint): Set<string> {
  const kept = new Set<string>()
  const newest = bases.toReversed()
  for (const base of newest.slice(0, policy.last ?? 0)) kept.add(base.id)
  for (const base of newest)
    if (policy.within_ms && now - BigInt(base.time) <= BigInt(policy.within_ms) * 1000n) kept.add(base.id)
  const days = [...new Set(newest.map((base) => dayOf(base)))].slice(0, policy.daily ?? 0)
  for (const day of days) kept.add(newest.find((base) => dayOf(base) === day)?.id ?? '')
  const months = [...new Set(newest.map((base) => dayOf(base).slice(0, 7)))].slice(0, policy.monthly ?? 0)
  for (const month of months) kept.add(newest.find((base) => dayOf(base).startsWith(month))?.id ?? '')
  return kept
}

const dayOf = (base: BaseManifest): string => new Date(Number(BigInt(base.time) / 1000n)).toISOString().slice(0, 10)

/** Every target that must be restorable after a prune; those that were not before it are none. */
export async function promisesOf(archive: MadeArchive, policy: RetentionPolicy): Promise<Promised[]> {
  const { commits } = archive
  const bases = await restorableBases(archive)
  const end = archive.segments.at(-1)?.trailer.time
  const now = end === undefined ? archive.now : BigInt(end)
  const kept = ruleBases(bases, policy, now)
  const promised: Promised[] = [{ why: 'latest', target: { kind: 'latest' } }]
  for (const base of bases) {
    if (!kept.has(base.id) && base !== bases.at(-1)) continue
    for (const target of timesOf(base)) promised.push({ why: `base ${base.id}`, target })
  }
  const oldest = bases.find(({ id }) => kept.has(id))
  const since = policy.window_ms ? now - BigInt(policy.window_ms) * 1000n : BigInt(oldest?.time ?? archive.now)
  for (const { time, end: lsn } of commits) {
    if (time < since) continue
    promised.push({ why: 'window, by position', target: { kind: 'lsn', lsn } })
    promised.push({ why: 'window, by time', target: { kind: 'time', time } })
  }
  return [...promised, ...(await promisedPartials(archive, policy, { now, oldest: oldest ?? bases.at(-1) }))]
}

export const targetInWords = ({ why, target }: Promised): string =>
  `${why}: ${JSON.stringify(target, (_, value) => (typeof value === 'bigint' ? formatLsn(value as never) : value))}`

/** Every promise that the whole archive could keep is kept, by a plan that reads from the base what it would read there. */
export async function expectKept(
  repository: Repository,
  whole: Repository,
  promised: readonly Promised[],
): Promise<Set<string>> {
  const read = new Set<string>()
  for (const promise of promised) {
    const before = await planOf(whole, promise.target, promise.partial)
    if (before === undefined) continue
    const after = await planOf(repository, promise.target, promise.partial)
    expect(after, targetInWords(promise)).toBeDefined()
    expect(after?.timeline, targetInWords(promise)).toBe(before.timeline)
    if (after?.base === before.base) expect(after.reads, targetInWords(promise)).toEqual(before.reads)
    for (const key of after?.reads ?? []) read.add(key)
  }
  return read
}
