import { describe, expect, test } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import { verificationKey } from '../../src/repository/layout.ts'
import type { Repository } from '../../src/repository/repository.ts'
import { listVerifications, readVerification } from '../../src/repository/verification.ts'
import { parseSubset, whole } from '../../src/verify/subset.ts'
import { type VerifyReport, verifySource } from '../../src/verify/verify.ts'
import type { MemoryStorage } from '../repository/memory-storage.ts'
import { chainOf, extendChain } from './chain.ts'

const segmentKeys = ({ objects }: MemoryStorage): string[] =>
  [...objects.keys()].filter((key) => key.endsWith('.wbs')).sort()

function flip(storage: MemoryStorage, key: string): void {
  const bytes = Buffer.from(storage.objects.get(key) as Buffer)
  bytes[60] = (bytes[60] as number) ^ 1
  storage.objects.set(key, bytes)
}

/** A run that is interrupted after so many objects. */
async function interrupted(repository: Repository, after: number): Promise<void> {
  const abort = new AbortController()
  const run = verifySource(repository, 'app', {
    subset: whole,
    resume: true,
    jobs: 2,
    signal: abort.signal,
    onProgress: ({ objects }) => {
      if (objects >= after) abort.abort(new WalbackError('interrupted', 'interrupted'))
    },
  })
  await expect(run).rejects.toMatchObject({ exit: 130 })
}

const resumed = (repository: Repository): Promise<VerifyReport> =>
  verifySource(repository, 'app', { subset: whole, resume: true })

describe('an interrupted verification', () => {
  test('is carried on, and reads what it had not read', async () => {
    const { storage, repository } = await chainOf(40)
    const total = segmentKeys(storage).reduce((sum, key) => sum + (storage.objects.get(key)?.length ?? 0), 0)
    await interrupted(repository, 21)
    const [number = 0] = await listVerifications(repository, 'app')
    const record = await readVerification(repository, 'app', number)
    expect(record).toMatchObject({ outcome: 'interrupted', read: whole })
    await extendChain(repository, 1)
    const report = await resumed(repository)
    expect(report).toMatchObject({ isResumed: true, damaged: 0 })
    const added = storage.objects.get(segmentKeys(storage).at(-1) ?? '')?.length ?? 0
    expect(report.read_bytes).toBe(total - record.read_bytes + added)
    expect(record.read_bytes).toBeGreaterThan(0)
    // Nothing is left to be carried on.
    expect(await resumed(repository)).toMatchObject({ isResumed: false, read_bytes: total + added })
  })

  test('may be interrupted again, and does not forget what it found', async () => {
    const { storage, repository } = await chainOf(40)
    const [, , third = ''] = segmentKeys(storage)
    flip(storage, third)
    await interrupted(repository, 15)
    await interrupted(repository, 30)
    const report = await resumed(repository)
    expect(report.findings).toMatchObject([{ kind: 'segment-damaged', key: third }])
  })

  test('over another part is not taken for this one', async () => {
    const { repository } = await chainOf(20)
    await interrupted(repository, 10)
    const report = await verifySource(repository, 'app', { subset: parseSubset('1/2'), resume: true })
    expect(report.isResumed).toBe(false)
  })
})

describe('records of verifications', () => {
  test('keep what was damaged in mind until it is read sound, whichever part is read', async () => {
    const { storage, repository } = await chainOf(20)
    const key = segmentKeys(storage)[7] as string
    const sound = storage.objects.get(key) as Buffer
    flip(storage, key)
    const parts = ['1/4', '2/4', '3/4', '4/4'].map(parseSubset)
    const damaged: number[] = []
    for (const subset of [...parts, ...parts]) damaged.push((await verifySource(repository, 'app', { subset })).damaged)
    const first = damaged.indexOf(1)
    expect(damaged).toEqual(damaged.map((_, place) => (place < first ? 0 : 1)))
    storage.objects.set(key, sound)
    expect((await verifySource(repository, 'app', { subset: parts[0] })).damaged).toBe(0)
  })

  test('are not many', async () => {
    const { storage, repository } = await chainOf(2)
    for (let n = 0; n < 60; n++) await verifySource(repository, 'app')
    const numbers = await listVerifications(repository, 'app')
    expect([numbers.length, numbers.at(-1)]).toEqual([51, 60])
    // Two that end at once both have theirs.
    await Promise.all([verifySource(repository, 'app'), verifySource(repository, 'app')])
    expect((await listVerifications(repository, 'app')).at(-1)).toBe(62)
    flip(storage, verificationKey('app', 60))
    const { findings } = await verifySource(repository, 'app')
    expect(findings).toMatchObject([{ kind: 'verification-damaged', key: verificationKey('app', 60), lost: [] }])
  })

  test('are not written where the store takes nothing, and not needed', async () => {
    const { storage, repository } = await chainOf(3)
    storage.put = async () => {
      throw new WalbackError('storage', 'cannot write: the file system is mounted read-only')
    }
    const report = await verifySource(repository, 'app', { subset: whole })
    expect(report).toMatchObject({ damaged: 0, record: undefined, notRecorded: expect.stringContaining('read-only') })
  })
})
