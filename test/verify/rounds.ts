import { expect } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import type { RecoveryTarget } from '../../src/model/target.ts'
import { Repository } from '../../src/repository/repository.ts'
import { whole } from '../../src/verify/subset.ts'
import { verifySource } from '../../src/verify/verify.ts'
import type { MemoryStorage } from '../repository/memory-storage.ts'
import { Random } from '../support/random.ts'
import { type Harm, harm } from './damage.ts'
import { type ReadBack, readBack } from './read-back.ts'

export interface Tally {
  readonly seed: number
  found: number
  readonly missed: string[]
  /** Reads of a damaged archive for a restore: what they came to. */
  refused: number
  exact: number
  /** The same state, from another base; the restores in test/verify/restore.test.ts show that this is so. */
  detours: number
  readonly wrong: string[]
  readonly byKind: Record<string, number>
}

/**
 * Damages a sound archive, which has been verified once, so many times, each time in one way. `verify` must find every
 * one; and what a restore reads must be exact, or be refused.
 */
export async function damageRounds(
  storage: MemoryStorage,
  targets: readonly RecoveryTarget[],
  { seed, rounds }: { readonly seed: number; readonly rounds: number },
): Promise<Tally> {
  const random = new Random(seed)
  const tally: Tally = { seed, found: 0, missed: [], refused: 0, exact: 0, detours: 0, wrong: [], byKind: {} }
  const repository = await Repository.open(storage)
  const expected = await Promise.all(targets.map((target) => readBack(repository, target)))
  for (let round = 0; round < rounds; ) {
    const done = await harm(storage, random)
    if (done === undefined) continue
    round++
    tally.byKind[done.kind] = (tally.byKind[done.kind] ?? 0) + 1
    const found = await isFound(storage)
    if (found) tally.found++
    else tally.missed.push(`${done.kind}: ${done.what}`)
    const place = random.int(0, targets.length - 1)
    const target = targets[place] as RecoveryTarget
    // That the newest segments are gone cannot be seen without what is remembered of them.
    if (!(target.kind === 'latest' && isOfTheEnd(done)))
      await restoreIsHonest(storage, target, expected[place] as ReadBack, done, tally)
    done.undo()
  }
  expect((await verifySource(repository, 'app', { subset: whole, isRecorded: false })).damaged).toBe(0)
  return tally
}

const isOfTheEnd = ({ kind, keys }: Harm): boolean =>
  kind === 'roll back' || (kind === 'delete' && keys.some((key) => key.endsWith('.wbs')))

async function isFound(storage: MemoryStorage): Promise<boolean> {
  try {
    const repository = await Repository.open(storage)
    return (await verifySource(repository, 'app', { subset: whole, isRecorded: false })).damaged > 0
  } catch (error) {
    // The repository itself: not there, or not what was written.
    if (error instanceof WalbackError && [10, 21].includes(error.exit)) return true
    throw error
  }
}

async function restoreIsHonest(
  storage: MemoryStorage,
  target: RecoveryTarget,
  expected: ReadBack,
  done: Harm,
  tally: Tally,
): Promise<void> {
  try {
    const read = await readBack(await Repository.open(storage), target)
    if (read.content === expected.content) tally.exact++
    else if (read.base !== expected.base && read.place === expected.place) tally.detours++
    else tally.wrong.push(`${target.kind} after ${done.kind}: ${done.what}`)
  } catch (error) {
    if (!(error instanceof WalbackError))
      throw new Error(`${target.kind} after ${done.kind}: ${done.what}`, { cause: error })
    if ([10, 20, 21].includes(error.exit)) tally.refused++
    else tally.wrong.push(`${target.kind} after ${done.kind}: ${done.what}: exit ${error.exit}: ${error.message}`)
  }
}
