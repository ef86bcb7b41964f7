import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatLsn, parseLsn } from '../../src/model/lsn.ts'
import { objectsOf, readManifests } from '../../src/repository/base.ts'
import { manifestKey, partStart, segmentStart } from '../../src/repository/layout.ts'
import { Lease } from '../../src/repository/lease.ts'
import { addPin } from '../../src/repository/pins.ts'
import type { RetentionPolicy } from '../../src/retention/policy.ts'
import { Prune } from '../../src/retention/prune.ts'
import { MadeArchive } from './made-archive.ts'
import { expectKept, type Promised, planOf, promisesOf, restorableBases } from './promises.ts'

type Step =
  | {
      readonly kind: 'segment'
      readonly commits: number
      readonly hours: number
      readonly heartbeat?: number
      readonly parts: number
    }
  | { readonly kind: 'base'; readonly rounds: number; readonly table: string | undefined }
  | { readonly kind: 'unfinished' | 'break' | 'litter'; readonly share?: undefined }
  | { readonly kind: 'lose'; readonly share: number }
  | { readonly kind: 'pin' | 'pin base' | 'lease'; readonly share: number }

const share = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 16,
    arbitrary: fc.record(
      {
        kind: fc.constant('segment' as const),
        commits: fc.integer({ min: 0, max: 3 }),
        hours: fc.integer({ min: 0, max: 40 }),
        heartbeat: fc.integer({ min: 0, max: 6 }),
        parts: fc.constantFrom(0, 0, 0, 1, 2),
      },
      { requiredKeys: ['kind', 'commits', 'hours', 'parts'] },
    ),
  },
  {
    weight: 7,
    arbitrary: fc.record({
      kind: fc.constant('base' as const),
      rounds: fc.constantFrom(0, 0, 1, 2, 4),
      table: fc.constantFrom(undefined, undefined, undefined, 't0', 't1'),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constantFrom('unfinished' as const, 'break' as const, 'litter' as const) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('lose' as const), share }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom('pin' as const, 'pin base' as const, 'lease' as const), share }),
  },
)

const few = fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined })
const span = fc.option(
  fc.integer({ min: 1, max: 240 }).map((hours) => hours * 3_600_000),
  { nil: undefined },
)
const policy: fc.Arbitrary<RetentionPolicy> = fc
  .record({ last: few, within_ms: span, daily: few, monthly: few, window_ms: span })
  .map((given) => (Object.values(given).every((value) => value === undefined) ? { ...given, last: 1 } : given))

/** Carries the steps out; gives what pins and leases promise besides. */
async function live(
  archive: MadeArchive,
  steps: readonly Step[],
): Promise<{ pinned: Promised[]; leased: string[]; leases: Lease[] }> {
  const pinned: Promised[] = []
  const leased: string[] = []
  const leases: Lease[] = []
  let snapshots: string[] = []
  for (const one of steps) {
    if (one.kind === 'segment') {
      snapshots.push(archive.currentSnapshot())
      await archive.segment(one)
    } else if (one.kind === 'base')
      await archive.base({ earlier: snapshots.slice(-one.rounds || snapshots.length), table: one.table })
    else if (one.kind === 'unfinished') await archive.unfinished()
    else if (one.kind === 'litter') await archive.litter()
    else if (one.kind === 'break') {
      snapshots = []
      await archive.breakTimeline()
    } else if (one.kind === 'lose') {
      // Not the last, with which a writer would go on.
      const lost = archive.segments.slice(0, -1)[Math.floor(one.share * (archive.segments.length - 1))]
      if (lost) archive.storage.objects.delete(lost.key)
    } else if (one.share !== undefined) await hold(archive, one, { pinned, leased, leases })
  }
  return { pinned, leased, leases }
}

async function hold(
  archive: MadeArchive,
  { kind, share: place }: Extract<Step, { kind: 'pin' | 'pin base' | 'lease' }>,
  { pinned, leased, leases }: { pinned: Promised[]; leased: string[]; leases: Lease[] },
): Promise<void> {
  const { repository } = archive
  if (kind === 'pin base') {
    const base = archive.bases[Math.floor(place * archive.bases.length)]
    if (base === undefined) return
    const { timeline, lsn, time, id, selection } = base
    await addPin(repository, 'app', { timeline, lsn, time, base: id, mark: null, note: null })
    const partial = selection === undefined ? {} : { partial: id }
    pinned.push({ why: `pinned ${id}`, target: { kind: 'lsn', lsn: parseLsn(lsn) }, ...partial })
    return
  }
  const commit = archive.commits[Math.floor(place * archive.commits.length)]
  if (commit === undefined) return
  const target = { kind: 'lsn', lsn: commit.end } as const
  const plan = await planOf(repository, target)
  if (plan === undefined || plan.timeline !== commit.timeline) return
  if (kind === 'pin') {
    const point = { timeline: commit.timeline, lsn: formatLsn(commit.end), time: commit.time.toString() }
    await addPin(repository, 'app', { ...point, base: null, mark: null, note: null })
    pinned.push({ why: 'pinned', target })
    return
  }
  const starts = plan.reads.map((key) => segmentStart(key) ?? parseLsn('0/0'))
  const stream = starts[0] === undefined ? null : { from: formatLsn(starts[0]), to: formatLsn(commit.end) }
  leases.push(
    await Lease.take(repository, 'app', {
      purpose: 'restore',
      reads: { timeline: plan.timeline, base: plan.base, stream },
    }),
  )
  leased.push(manifestKey('app', plan.base), ...plan.reads)
}

/** Keys of objects that nothing names: no manifest, no segment in a run, no record of an unfinished base. */
async function unnamed(archive: MadeArchive): Promise<string[]> {
  const keys = archive.keys()
  const named = new Set((await readManifests(archive.repository, 'app', { of: 'any' })).flatMap(objectsOf))
  const segments = new Set(archive.segments.map(({ key }) => key).filter((key) => keys.includes(key)))
  const parts = new Set(
    archive.segments
      .filter(({ key }) => segments.has(key))
      .flatMap(({ trailer }) => trailer.parts.map(({ key }) => key)),
  )
  return keys.filter((key) => {
    if (segmentStart(key) !== undefined) return !segments.has(key)
    // Of a segment that was lost the parts may yet be wanted.
    if (partStart(key) !== undefined) return !parts.has(key) && keys.some((one) => segmentStart(one) === partStart(key))
    if (!key.includes('/rows/') && !key.includes('/schema/')) return false
    const base = /\/bases\/([^/]+)\//.exec(key)?.[1]
    const isBegun = keys.includes(`sources/app/bases/${base}/progress/begun.json`)
    return !named.has(key) && !isBegun
  })
}

const runs = Number(process.env.WALBACK_ROUNDS ?? (process.env.WALBACK_LONG ? 1000 : 60))

describe('whatever the history and the policy', () => {
  it('every target that is promised can still be planned, and nothing is left that nobody needs', {
    timeout: 600_000,
  }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), policy, async (steps, rules) => {
        const archive = await MadeArchive.begin()
        const { pinned, leased, leases } = await live(archive, steps)
        const whole = await archive.copy()
        const promised = [...(await promisesOf(archive, rules)), ...pinned]
        try {
          await using prune = await Prune.begin(archive.repository, 'app', rules, { now: archive.now })
          await prune.run()
        } catch (error) {
          // Of some histories nothing is left that could be restored.
          expect(error).toMatchObject({ code: 'refused' })
          expect(await restorableBases(archive)).toEqual([])
          return
        } finally {
          for (const lease of leases) await lease[Symbol.asyncDispose]()
        }
        const keys = archive.keys()
        for (const key of leased) if (whole.storage.objects.has(key)) expect(keys).toContain(key)
        await expectKept(archive.repository, whole.repository, promised)
        expect(await unnamed(archive)).toEqual([])
      }),
      { numRuns: runs, ...(process.env.WALBACK_SEED ? { seed: Number(process.env.WALBACK_SEED) } : {}) },
    )
  })
  it('a base that another repository lacks is kept, and nothing that is promised depends on it', {
    timeout: 600_000,
  }, async () => {
    const few = fc.array(fc.boolean(), { minLength: 1, maxLength: 6 })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), policy, few, async (steps, rules, draws) => {
        const archive = await MadeArchive.begin()
        const { leases } = await live(
          archive,
          steps.filter(({ kind }) => kind !== 'pin' && kind !== 'pin base'),
        )
        const here = (await readManifests(archive.repository, 'app')).map(({ id }) => id)
        const lacked = here.filter((_, place) => draws[place % draws.length])
        const lacking = async () => new Map(lacked.map((id) => [id, ['memory:far']]))
        const without = async (): Promise<Map<string, Buffer>> => {
          const names = lacked.map((id) => manifestKey('app', id))
          const taken = names.flatMap((name) => {
            const bytes = archive.storage.objects.get(name)
            archive.storage.objects.delete(name)
            return bytes === undefined ? [] : ([[name, bytes]] as const)
          })
          return new Map(taken)
        }
        const taken = await without()
        const [alone, promised] = [await archive.copy(), await promisesOf(archive, rules)]
        const restorable = await restorableBases(archive)
        for (const [name, bytes] of taken) archive.storage.objects.set(name, bytes)
        const good = new Set((await restorableBases(archive)).map(({ id }) => id))
        try {
          await using prune = await Prune.begin(archive.repository, 'app', rules, { now: archive.now, lacking })
          await prune.run()
        } catch (error) {
          expect(error).toMatchObject({ code: 'refused' })
          expect(restorable).toEqual([])
          return
        } finally {
          for (const lease of leases) await lease[Symbol.asyncDispose]()
        }
        const left = (await restorableBases(archive)).map(({ id }) => id)
        expect(left).toEqual(expect.arrayContaining(lacked.filter((id) => good.has(id))))
        await without()
        await expectKept(archive.repository, alone.repository, promised)
      }),
      { numRuns: runs, ...(process.env.WALBACK_SEED ? { seed: Number(process.env.WALBACK_SEED) } : {}) },
    )
  })
})
