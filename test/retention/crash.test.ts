import { expect, it } from 'vitest'
import { breakStaleLeases } from '../../src/repository/lease.ts'
import { Repository } from '../../src/repository/repository.ts'
import { Prune } from '../../src/retention/prune.ts'
import { isDamage } from '../../src/verify/finding.ts'
import { verifySource } from '../../src/verify/verify.ts'
import { DyingProcess } from '../support/dying-process.ts'
import { MadeArchive } from './made-archive.ts'
import { expectKept, promisesOf } from './promises.ts'

/** Two timelines, bases in rounds, parts, an unfinished base that is stale, and what interrupted work has left. */
async function richArchive(): Promise<MadeArchive> {
  const archive = await MadeArchive.begin()
  for (let day = 0; day < 4; day++) {
    const snapshot = archive.currentSnapshot()
    await archive.segment({ commits: 2, hours: 12, heartbeat: 1, parts: day === 1 ? 2 : 0 })
    await archive.base({ earlier: day % 2 === 0 ? [] : [snapshot] })
    await archive.segment({ commits: 2, hours: 12, heartbeat: 0 })
    if (day === 1) await archive.unfinished()
    if (day === 2) await archive.breakTimeline()
  }
  await archive.litter()
  return archive
}

const damageIn = async (repository: Repository): Promise<string[]> =>
  (await verifySource(repository, 'app', { isRecorded: false })).findings.filter(isDamage).map(({ key }) => key)

const policy = { window_ms: 20 * 3_600_000, last: 2 }

it('that dies at any call to the store leaves an archive that keeps its promises, and the next one ends its work', async () => {
  const whole = await richArchive()
  const promised = await promisesOf(whole, policy)
  const finish = async (repository: Repository): Promise<void> => {
    await using prune = await Prune.begin(repository, 'app', policy, { now: whole.now, lease_ms: 1 })
    await prune.run()
  }
  const { storage: wanted, repository: undisturbed } = await whole.copy()
  await finish(undisturbed)
  const keys = [...wanted.objects.keys()].sort()
  const all = whole.storage.objects.size
  const damageBefore = await damageIn(whole.repository)
  expect(keys.length).toBeLessThan(whole.keys().length)
  for (const isCarriedOut of [false, true]) {
    for (let last = 0; last < 1000; last++) {
      const { storage, repository } = await whole.copy()
      // The header is read well: the process is at work.
      const dying = new DyingProcess(storage, last + 2, isCarriedOut)
      const outcome = await Repository.open(dying)
        .then(finish)
        .then(
          () => 'done',
          (error: unknown) => error,
        )
      const hasBegun = [...storage.objects.keys()].filter((key) => !key.includes('/leases/')).length !== all
      // What dies before it has removed anything has changed nothing.
      if (!hasBegun && outcome !== 'done') continue
      await expectKept(repository, whole.repository, promised)
      // What is removed on purpose is no damage, however far the removal came.
      const damage = await damageIn(repository)
      expect(
        damage.filter((key) => !damageBefore.includes(key)),
        `call ${last}`,
      ).toEqual([])
      if (outcome === 'done' && dying.calls <= last + 2) break
      await breakStaleLeases(repository, 'app')
      await finish(repository)
      const left = [...storage.objects.keys()].filter((key) => !key.includes('/leases/broken/')).sort()
      expect(left, `call ${last}`).toEqual(keys)
    }
  }
}, 300_000)
