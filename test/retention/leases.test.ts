import { expect, it } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import { breakStaleLeases, Lease, readLeases } from '../../src/repository/lease.ts'
import { Repository } from '../../src/repository/repository.ts'
import { sealedJson } from '../../src/repository/sealed-json.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { underLease } from '../../src/restore/reading-lease.ts'
import { Prune } from '../../src/retention/prune.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { MadeArchive } from './made-archive.ts'

const latest = { kind: 'latest' } as const

async function threeBases(): Promise<MadeArchive> {
  const archive = await MadeArchive.begin()
  for (let n = 0; n < 3; n++) {
    await archive.segment({ commits: 2, hours: 12, heartbeat: 0 })
    await archive.base()
    await archive.segment({ commits: 2, hours: 12, heartbeat: 0 })
  }
  return archive
}

/** Credentials that may only read, or only add: what they may not do is refused for good. */
class Restricted extends MemoryStorage {
  refuses: 'put' | 'delete' | undefined

  override async put(...args: Parameters<MemoryStorage['put']>): Promise<boolean> {
    if (this.refuses === 'put') throw new WalbackError('storage', 'cannot write: 403 AccessDenied')
    return super.put(...args)
  }

  override async delete(key: string): Promise<void> {
    if (this.refuses === 'delete') throw new WalbackError('storage', 'cannot delete: 403 AccessDenied')
    return super.delete(key)
  }
}

async function restricted(archive: MadeArchive, refuses: 'put' | 'delete'): Promise<Repository> {
  const storage = new Restricted()
  for (const [key, bytes] of archive.storage.objects) storage.objects.set(key, bytes)
  storage.refuses = refuses
  return Repository.open(storage)
}

it('says what a restore reads for as long as it reads', async () => {
  const { repository } = await threeBases()
  const plan = await planRestore(repository, 'app', latest)
  await underLease(repository, plan, async ({ note }) => {
    expect(note).toBeUndefined()
    const [lease] = await readLeases(repository, 'app')
    expect(lease).toMatchObject({ purpose: 'restore', reads: { base: plan.base.id, timeline: '00000001' } })
  })
  expect(await readLeases(repository, 'app')).toEqual([])
})

it('is renewed, and so is not taken for one that was left behind', async () => {
  const { repository } = await threeBases()
  await using alive = await Lease.take(repository, 'app', { purpose: 'restore', interval_ms: 20 })
  // As of a process that was killed: it says that it renews every 100 ms, and does not.
  await using _ = await Lease.take(repository, 'app', { purpose: 'prune', interval_ms: 3_600_000 })
  const storage = repository.storage as MemoryStorage
  const key = [...storage.objects.keys()].find((one) => one.endsWith('leases/prune.json')) ?? ''
  const { sha256: _seal, ...record } = JSON.parse(String(storage.objects.get(key)))
  storage.objects.set(key, sealedJson({ ...record, interval_ms: 100 }))
  const broken = await breakStaleLeases(repository, 'app')
  expect(broken.map(({ purpose }) => purpose)).toEqual(['prune'])
  expect((await readLeases(repository, 'app')).map(({ token }) => token)).toEqual([alive.token])
})

it('that was broken ends the restore clearly, whatever else went wrong in it', async () => {
  const { repository } = await threeBases()
  const plan = await planRestore(repository, 'app', latest)
  const restore = underLease(
    repository,
    plan,
    async ({ signal }) => {
      const stopped = new Promise<void>((settle) => signal?.addEventListener('abort', () => settle(), { once: true }))
      await repository.storage.put(
        `sources/app/leases/broken/${(await readLeases(repository, 'app'))[0]?.token}.json`,
        Buffer.from('{}'),
      )
      await stopped
      throw new WalbackError('storage', 'cannot read: it is absent')
    },
    { interval_ms: 5 },
  )
  await expect(restore).rejects.toMatchObject({
    code: 'locked',
    exit: 11,
    message: expect.stringMatching(/was broken/),
  })
})

it('comes too late for what was pruned since the plan was made', async () => {
  const archive = await threeBases()
  const { repository } = archive
  const plan = await planRestore(repository, 'app', {
    kind: 'time',
    time: BigInt(archive.bases[0]?.time ?? 0) as never,
  })
  await using prune = await Prune.begin(repository, 'app', { last: 1 }, { now: archive.now })
  await prune.run()
  await expect(underLease(repository, plan, async () => 'restored')).rejects.toMatchObject({ code: 'refused' })
})

it('is done without where the credentials may only read', async () => {
  const repository = await restricted(await threeBases(), 'put')
  const plan = await planRestore(repository, 'app', latest)
  await underLease(repository, plan, async ({ note, signal }) => {
    expect(note).toMatch(/no lease could be written/)
    expect(signal).toBeUndefined()
  })
})

it('explains a store that lets nothing be deleted, and leaves everything restorable', async () => {
  const archive = await threeBases()
  const repository = await restricted(archive, 'delete')
  await using prune = await Prune.begin(repository, 'app', { last: 1 }, { now: archive.now })
  await expect(prune.run()).rejects.toMatchObject({
    code: 'storage',
    exit: 31,
    hint: expect.stringContaining('walback prune --external'),
  })
  for (const { id, time } of archive.bases)
    expect((await planRestore(repository, 'app', { kind: 'time', time: BigInt(time) as never })).base.id).toBe(id)
})
