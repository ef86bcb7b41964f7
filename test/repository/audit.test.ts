import { beforeEach, describe, expect, it } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import { copySource } from '../../src/copy/copy.ts'
import { type Audited, recorded } from '../../src/repository/audit.ts'
import { readAudit } from '../../src/repository/audit-record.ts'
import { auditKey } from '../../src/repository/layout.ts'
import { Repository } from '../../src/repository/repository.ts'
import { sealedJson } from '../../src/repository/sealed-json.ts'
import { verifySource } from '../../src/verify/verify.ts'
import { MadeArchive } from '../retention/made-archive.ts'
import { MemoryStorage } from './memory-storage.ts'

const compacting: Audited<number> = {
  action: 'compact',
  role: null,
  asked: 'all of it',
  facts: { jobs: 4 },
  came: (result) => ({ words: `${result} tables`, facts: { tables: result } }),
}

let storage: MemoryStorage
let repository: Repository
let notes: string[]
const source = 'app'

const note = { onNotRecorded: (why: string): void => void notes.push(why) }
const act = async (result = 3, at = repository): Promise<unknown> =>
  recorded(at, source, compacting, async () => result, note)
const keyOf = (number: number): string => auditKey(source, repository.id, number)
const breaks = async (): Promise<string[]> => (await readAudit(repository, source)).breaks.map(({ key }) => key)
const damages = async (): Promise<string[]> =>
  (await verifySource(repository, source)).findings.map(({ kind, key }) => `${kind} ${key}`)

beforeEach(async () => {
  const archive = await MadeArchive.begin()
  await archive.base()
  await archive.segment({ commits: 2, hours: 12, heartbeat: 0 })
  storage = archive.storage
  repository = await Repository.open(storage)
  notes = []
})

describe('the audit record', () => {
  it('has what began and what came of it, newest first', async () => {
    expect(await act(3)).toMatchObject({ result: 3, record: 1 })
    const failure = new WalbackError('database', 'the server is gone')
    const failing = recorded(repository, source, compacting, () => Promise.reject(failure), note)
    await expect(failing).rejects.toBe(failure)
    const stop = AbortSignal.abort()
    const late = recorded(repository, source, compacting, () => Promise.reject(new Error('stopped')), {
      ...note,
      get signal() {
        return storage.objects.has(keyOf(5)) ? stop : undefined
      },
    })
    await expect(late).rejects.toThrow('stopped')
    const { actions, breaks } = await readAudit(repository, source)
    expect(breaks).toEqual([])
    expect(actions.map(({ begun, ended }) => [begun.number, ended?.outcome, ended?.came])).toEqual([
      [5, 'interrupted', 'stopped'],
      [3, 'failed', 'the server is gone'],
      [1, 'done', '3 tables'],
    ])
    expect(actions[2]).toMatchObject({
      begun: { action: 'compact', asked: 'all of it', by: { pid: process.pid, role: null }, facts: { jobs: 4 } },
      ended: { facts: { tables: 3 } },
    })
    expect(actions[1]?.ended?.facts).toEqual({ code: 'database' })
  })

  it('has what is at work, or was killed, as begun', async () => {
    let go = (): void => undefined
    const work = recorded(
      repository,
      source,
      compacting,
      () => new Promise<number>((settle) => (go = () => settle(1))),
      note,
    )
    while (!storage.objects.has(keyOf(1))) await new Promise(setImmediate)
    expect(await readAudit(repository, source)).toMatchObject({ actions: [{ ended: undefined }], breaks: [] })
    await act(2)
    go()
    await work
    const { actions } = await readAudit(repository, source)
    expect(actions.map(({ begun, ended }) => [begun.number, ended?.number])).toEqual([
      [2, 3],
      [1, 4],
    ])
  })

  it('keeps one chain when several write at once', async () => {
    await Promise.all(Array.from({ length: 10 }, (_, index) => act(index)))
    const trail = await readAudit(repository, source)
    expect(trail).toMatchObject({ breaks: [], heads: [{ number: 20 }] })
    expect(trail.actions.every(({ ended }) => ended?.outcome === 'done')).toBe(true)
  })

  it('is no reason to fail where the store takes nothing', async () => {
    const put = storage.put.bind(storage)
    storage.put = async (key, ...rest) => {
      if (key.includes('/audit/')) throw new WalbackError('storage', 'read only')
      return put(key, ...rest)
    }
    expect(await act(7)).toEqual({ result: 7, record: undefined })
    expect(notes).toEqual(['this is not in the audit record: read only'])
  })

  it('shows a record that was changed, exchanged or taken away', async () => {
    for (let n = 0; n < 3; n++) await act(n)
    expect(await damages()).toEqual([])
    const whole = new Map(storage.objects)
    const restore = (): void => {
      for (const [key, bytes] of whole) storage.objects.set(key, bytes)
    }
    storage.objects.delete(keyOf(3))
    expect(await breaks()).toEqual([keyOf(3)])
    restore()
    storage.objects.delete(keyOf(1))
    expect(await breaks()).toEqual([keyOf(1)])
    restore()
    const bytes = Buffer.from(whole.get(keyOf(2)) as Buffer)
    bytes[20] = (bytes[20] as number) ^ 1
    storage.objects.set(keyOf(2), bytes)
    expect(await breaks()).toEqual([keyOf(2)])
    // Sealed again, so that only the one after it tells.
    const { sha256: _, ...content } = JSON.parse(String(whole.get(keyOf(2)))) as Record<string, unknown>
    storage.objects.set(keyOf(2), sealedJson({ ...content, came: '99 tables' }))
    expect(await breaks()).toEqual([keyOf(3)])
    expect(await damages()).toEqual([`audit-broken ${keyOf(3)}`])
    restore()
    storage.objects.set(keyOf(4), whole.get(keyOf(2)) as Buffer)
    expect(await breaks()).toEqual([keyOf(4)])
  })

  it('is compared with what an earlier verification found, since no chain tells of its own end', async () => {
    await act()
    await act()
    expect(await damages()).toEqual([])
    const newest = storage.objects.get(keyOf(4)) as Buffer
    storage.objects.delete(keyOf(4))
    expect(await breaks()).toEqual([])
    expect(await damages()).toEqual([`rolled-back ${keyOf(4)}`])
    storage.objects.set(keyOf(4), newest)
    expect(await damages()).toEqual([])
    const { sha256: _, ...content } = JSON.parse(String(newest)) as Record<string, unknown>
    storage.objects.set(keyOf(4), sealedJson({ ...content, came: '99 tables' }))
    expect(await damages()).toEqual([`rolled-back ${keyOf(4)}`])
  })

  it('goes along with a copy, which has a chain of its own beside', async () => {
    await act(1)
    const target = new MemoryStorage()
    await repository.makeCopy(target)
    const copy = await Repository.open(target)
    await act(2, copy)
    await copySource(repository, copy, source)
    await act(3)
    const { damage } = await copySource(repository, copy, source)
    expect(damage).toEqual([])
    const trail = await readAudit(copy, source)
    expect(trail.breaks).toEqual([])
    expect(trail.heads.map(({ number }) => number).sort()).toEqual([2, 4])
    expect(trail.actions.map(({ ended }) => ended?.came).sort()).toEqual(['1 tables', '2 tables', '3 tables'])
    expect((await verifySource(copy, source)).findings).toEqual([])
    // And nothing of it comes back, but what is the copy's own.
    expect((await copySource(copy, repository, source)).objects).toBe(2)
  })

  it('is not mixed with that of a repository that was duplicated by other means', async () => {
    await act(1)
    const twin = new MemoryStorage()
    for (const [key, bytes] of storage.objects) twin.objects.set(key, bytes)
    const other = await Repository.open(twin)
    await act(2)
    await act(3, other)
    await act(4)
    const { damage } = await copySource(repository, other, source)
    expect(damage.map(({ key }) => key)).toEqual([keyOf(5)])
    expect((await readAudit(other, source)).breaks).toEqual([])
  })
})
