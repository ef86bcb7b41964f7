import { expect, it } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import { copySource } from '../../src/copy/copy.ts'
import { readHoldings } from '../../src/history/status.ts'
import { readLeases } from '../../src/repository/lease.ts'
import { Repository } from '../../src/repository/repository.ts'
import { Prune } from '../../src/retention/prune.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import type { MadeArchive } from '../retention/made-archive.ts'
import { planOf } from '../retention/promises.ts'
import { DyingProcess } from '../support/dying-process.ts'
import { richArchive } from './rich-archive.ts'

const keysOf = ({ objects }: MemoryStorage): string[] =>
  [...objects.keys()].filter((key) => !key.includes('/leases/') && key !== 'walback.json').sort()

/** What can be read of a copy that was interrupted is what the whole archive says, and there is no hole in it. */
async function expectSound(archive: MadeArchive, copy: Repository, what: string): Promise<void> {
  for (const { end: lsn } of archive.commits) {
    const found = await planOf(copy, { kind: 'lsn', lsn })
    const wanted = await planOf(archive.repository, { kind: 'lsn', lsn })
    // Bases come last, so an older one may serve meanwhile.
    if (found?.base === wanted?.base) expect(found, what).toEqual(wanted)
  }
  for (const { reason, isPruned } of (await readHoldings(copy, 'app').catch(() => undefined))?.gaps ?? [])
    expect({ what, isFine: isPruned || reason === 'the slot was lost', reason }).toMatchObject({ isFine: true })
}

it('that dies at any call to a store leaves a sound archive, and the next one ends its work', async () => {
  const archive = await richArchive(3)
  {
    await using prune = await Prune.begin(archive.repository, 'app', { last: 2 }, { now: archive.now })
    await prune.run()
  }
  const wanted = new MemoryStorage()
  await copySource(archive.repository, await Repository.create(wanted), 'app')
  for (const side of ['from', 'to'] as const) {
    for (const isCarriedOut of [false, true]) {
      for (let last = 0; ; last++) {
        const target = new MemoryStorage()
        const dying = new DyingProcess(side === 'from' ? archive.storage : target, last, isCarriedOut)
        const [from, to] = side === 'from' ? [dying, target] : [archive.storage, dying]
        const what = `${side}, call ${last}, ${isCarriedOut ? 'after' : 'before'}`
        let done = false
        try {
          await copySource(await Repository.open(from), await Repository.create(to), 'app', { lease_ms: 60_000 })
          done = true
        } catch (error) {
          expect(error, what).toBeInstanceOf(WalbackError)
        }
        const repository = await Repository.create(target)
        await expectSound(archive, repository, what)
        // A lease that is left is no hindrance to the next copy.
        const report = await copySource(archive.repository, repository, 'app')
        expect(report.damage, what).toEqual([])
        expect(keysOf(target), what).toEqual(keysOf(wanted))
        if (done && dying.calls <= last) break
      }
    }
  }
}, 300_000)

it('that is interrupted lets its leases go, and leaves nothing half done', async () => {
  const archive = await richArchive(2)
  const target = new MemoryStorage()
  const repository = await Repository.create(target)
  const abort = new AbortController()
  const onProgress = (): void => abort.abort(new WalbackError('interrupted', 'interrupted'))
  const copied = copySource(archive.repository, repository, 'app', { signal: abort.signal, onProgress })
  await expect(copied).rejects.toMatchObject({ exit: 130 })
  expect(keysOf(target)).toHaveLength(1)
  for (const { repository: either } of [archive, { repository }]) expect(await readLeases(either, 'app')).toEqual([])
})
