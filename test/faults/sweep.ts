import { expect } from 'vitest'
import { Repository } from '../../src/repository/repository.ts'
import { FailingOnce, type SweepKind } from '../support/faults.ts'
import type { TestArchive } from '../support/walback.ts'

export const sweepKinds: readonly SweepKind[] = ['put before', 'put after', 'get', 'list', 'size']

/** Makes the store fail at its n-th call for every n, until a run ends before that; `after` is asked after each failure. */
export async function sweep(
  archive: TestArchive,
  kind: SweepKind,
  run: (repository: Repository) => Promise<unknown>,
  around: {
    readonly before?: (n: number) => Promise<void>
    readonly after: (n: number) => Promise<void>
    /** Kinds of failure that may be of no consequence. */
    readonly isSurvived?: (kind: SweepKind) => boolean
  },
): Promise<number> {
  for (let n = 0; ; n++) {
    await around.before?.(n)
    // The header is read well, as by an agent that has been at work for long.
    const storage = new FailingOnce(archive.repository.storage, kind, kind === 'get' || kind === 'size' ? n + 1 : n)
    const failed = await Repository.open(storage)
      .then(run)
      .then(
        () => false,
        (error: unknown) => {
          if (!storage.hasFailed) throw error
          return true
        },
      )
    if (!storage.hasFailed) return n
    // A failure that the work survives is none; one that it does not is said.
    if (!failed && !around.isSurvived?.(kind)) expect(kind).toBe('put after')
    await around.after(n)
    expect(n).toBeLessThan(100)
  }
}
