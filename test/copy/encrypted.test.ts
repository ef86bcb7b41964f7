import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { copySource } from '../../src/copy/copy.ts'
import { RequiredCopy } from '../../src/copy/required.ts'
import { findTarget, openTarget } from '../../src/copy/target.ts'
import { formatLsn } from '../../src/model/lsn.ts'
import type { Credential } from '../../src/repository/credential.ts'
import { addRecipient, dropRecipient, rotateKey } from '../../src/repository/key-changes.ts'
import { makeRecipient } from '../../src/repository/recipients.ts'
import { Repository } from '../../src/repository/repository.ts'
import type { RepositoryKey } from '../../src/repository/repository-key.ts'
import { readHead } from '../../src/repository/segments.ts'
import { isDamage } from '../../src/verify/finding.ts'
import { verifySource } from '../../src/verify/verify.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import type { MadeArchive } from '../retention/made-archive.ts'
import { planOf } from '../retention/promises.ts'
import { DyingProcess } from '../support/dying-process.ts'
import { richArchive } from './rich-archive.ts'

const fileKey = (): Extract<Credential, { kind: 'file' }> => ({ kind: 'file', secret: randomBytes(32) })
const [owner, agent, late] = [fileKey(), fileKey(), fileKey()]

/** Where the trailer of a segment begins, as its footer says. */
const rowsOf = (segment: Buffer): number => Number(segment.readBigUInt64LE(segment.length - 64))

async function add(repository: Repository, key: string, bytes: Buffer): Promise<void> {
  await repository.storage.put(key, bytes, key.endsWith('.wbs') ? { rows_bytes: rowsOf(bytes) } : {})
}

interface Sealed {
  readonly archive: MadeArchive
  readonly storage: MemoryStorage
  open(credential: Credential): Promise<Repository>
}

/** An archive as an encrypted repository holds it, of an owner and an agent that may write and not read. */
async function sealed(days = 2): Promise<Sealed> {
  const archive = await richArchive(days)
  const storage = new MemoryStorage()
  await Repository.createEncrypted(storage, [
    await makeRecipient(owner, 'owner', 'full'),
    await makeRecipient(agent, 'agent', 'write'),
  ])
  const open = (credential: Credential): Promise<Repository> => Repository.open(storage, { credential })
  const repository = await open(owner)
  for (const [key, bytes] of archive.storage.objects) if (key !== 'walback.json') await add(repository, key, bytes)
  return { archive, storage, open }
}

async function expectCopied({ archive, storage }: Sealed, target: MemoryStorage): Promise<void> {
  const copy = await Repository.open(target, { credential: owner })
  for (const { end: lsn } of archive.commits)
    expect(await planOf(copy, { kind: 'lsn', lsn }), formatLsn(lsn)).toEqual(
      await planOf(archive.repository, { kind: 'lsn', lsn }),
    )
  // Every container as it was sealed, and nothing in the clear.
  let containers = 0
  for (const [key, bytes] of target.objects) {
    if (key.startsWith('sources/')) expect(bytes.toString('latin1', 0, 8), key).toBe('WBSEALED')
    if (!/\.wb.$/.test(key)) continue
    containers++
    expect(bytes.equals(storage.objects.get(key) as Buffer), key).toBe(true)
  }
  expect(containers).toBeGreaterThan(8)
  const { findings } = await verifySource(copy, 'app', { isRecorded: false })
  expect(findings.filter(isDamage)).toEqual([])
}

describe('a copy of an encrypted repository', () => {
  it.each([
    ['reads', owner],
    ['only writes', agent],
  ])('is made with a key that %s, has the same key, and holds the same sealed objects', async (_, credential) => {
    const near = await sealed()
    const far = new MemoryStorage()
    const from = await near.open(credential)
    expect(await findTarget(from, far)).toBeUndefined()
    const report = await copySource(from, await openTarget(from, far), 'app')
    expect(report).toMatchObject({ bases: 2, segments: 4, damage: [] })
    await expectCopied(near, far)
    await Repository.open(far, { credential: agent })
    const again = await openTarget(from, far)
    expect(again.id).not.toBe(from.id)
    expect(await copySource(from, again, 'app')).toMatchObject({ objects: 0 })
  })

  it('names what is damaged, and does not copy it', async () => {
    const near = await sealed()
    const from = await near.open(owner)
    for (const key of [...near.storage.objects.keys()].filter((one) => /wb[sprt]$/.test(one))) {
      const whole = near.storage.objects.get(key) as Buffer
      // A part is named by its segment, and what interrupted work has left is named by nothing.
      const isNamed = key.endsWith('.wbs') || (await namedBy(near.archive)).has(key)
      for (const at of [90, whole.length >> 1, whole.length - 1]) {
        const bytes = Buffer.from(whole)
        bytes[at] = (bytes[at] as number) ^ 1
        near.storage.objects.set(key, bytes)
        const far = new MemoryStorage()
        const { damage } = await copySource(from, await openTarget(from, far), 'app')
        expect(
          damage.map((one) => one.key),
          `${key} at ${at}`,
        ).toEqual(isNamed ? [key] : [])
        expect(far.objects.has(key)).toBe(false)
      }
      near.storage.objects.set(key, whole)
    }
  })

  it('gets recipients and generations of the key that came later', async () => {
    const near = await sealed()
    const far = new MemoryStorage()
    const before = await near.open(owner)
    await copySource(before, await openTarget(before, far), 'app')
    await addRecipient(before.clear, before.key as RepositoryKey, await makeRecipient(late, 'late', 'full'))
    await rotateKey(before.clear, (await near.open(owner)).key as RepositoryKey)
    const from = await near.open(owner)
    const [key, bytes] = [...near.archive.storage.objects].findLast(([one]) => one.endsWith('.wbs')) as [string, Buffer]
    // What is written from now on is sealed anew.
    near.storage.objects.delete(key)
    far.objects.delete(key)
    await add(from, key, bytes)
    await copySource(from, await openTarget(from, far), 'app')
    await expectCopied(near, far)
    expect((await Repository.open(far, { credential: late })).key?.newest.number).toBe(2)
    // A name that was taken anew is the new one's there too.
    const now = from.key as RepositoryKey
    await dropRecipient(from.clear, now, 'late')
    const other = fileKey()
    await addRecipient(from.clear, now, await makeRecipient(other, 'late', 'full'))
    await openTarget(from, far)
    await Repository.open(far, { credential: other })
    await expect(Repository.open(far, { credential: late })).rejects.toMatchObject({ exit: 12 })
  })

  it('is refused where the target has no key, another, or one that was rotated there', async () => {
    const near = await sealed()
    const from = await near.open(owner)
    const clear = new MemoryStorage()
    await Repository.create(clear)
    const other = new MemoryStorage()
    await Repository.createEncrypted(other, [await makeRecipient(owner, 'owner', 'full')])
    const rotated = new MemoryStorage()
    await openTarget(from, rotated)
    await rotateKey(rotated, (await Repository.open(rotated, { credential: owner })).key as RepositoryKey)
    for (const [target, message] of [
      [clear, /is not encrypted, and memory: is/],
      [other, /another key/],
      [rotated, /was rotated otherwise/],
    ] as const) {
      const before = [...target.objects.keys()]
      for (const open of [openTarget, findTarget])
        await expect(open(from, target)).rejects.toMatchObject({ exit: 22, message: expect.stringMatching(message) })
      expect([...target.objects.keys()]).toEqual(before)
    }
    await expect(openTarget(near.archive.repository, other)).rejects.toMatchObject({
      exit: 22,
      message: expect.stringMatching(/is encrypted, and memory: is not/),
    })
  })

  it('is kept level by an agent whose key only writes', async () => {
    const near = await sealed()
    const { archive } = near
    const [from, full, far] = [await near.open(agent), await near.open(owner), new MemoryStorage()]
    const copy = new RequiredCopy(from, far)
    const { signal } = new AbortController()
    await copy.level(archive.timeline, await readHead(from, archive.timeline), signal)
    const before = new Set(archive.storage.objects.keys())
    await archive.segment({ commits: 1, hours: 1, parts: 2 })
    for (const [key, bytes] of archive.storage.objects) if (!before.has(key)) await add(full, key, bytes)
    await copy.add(archive.timeline, archive.segments.at(-1) as never, signal)
    await copy.level(archive.timeline, await readHead(from, archive.timeline), signal)
    const stream = [...far.objects.keys()].filter((key) => /wb[sp]$/.test(key)).sort()
    expect(stream).toEqual(
      archive.segments.flatMap(({ key, trailer }) => [key, ...trailer.parts.map((part) => part.key)]).sort(),
    )
    for (const key of stream) expect(far.objects.get(key)).toEqual(near.storage.objects.get(key))
  })

  it('that dies while it makes the target leaves one that the next goes on with', async () => {
    const near = await sealed(1)
    const from = await near.open(owner)
    for (const isCarriedOut of [false, true]) {
      for (let last = 0; ; last++) {
        const far = new MemoryStorage()
        const dying = new DyingProcess(far, last, isCarriedOut)
        const isDone = await openTarget(from, dying).then(
          () => true,
          () => false,
        )
        // Where there is a repository, it opens.
        if (far.objects.has('walback.json')) await Repository.open(far, { credential: agent })
        await openTarget(from, far)
        await Repository.open(far, { credential: owner })
        expect([...far.objects.keys()].sort()).toEqual(
          [...near.storage.objects.keys()].filter((key) => !key.startsWith('sources/')).sort(),
        )
        if (isDone && dying.calls <= last) break
      }
    }
  })
})

async function namedBy({ segments, bases }: MadeArchive): Promise<Set<string>> {
  const parts = segments.flatMap(({ trailer }) => trailer.parts.map(({ key }) => key))
  const objects = bases.flatMap(({ schema, tables }) => [
    schema.preData.key,
    schema.postData.key,
    ...tables.flatMap(({ pieces }) => pieces.map(({ key }) => key)),
  ])
  return new Set([...parts, ...objects])
}
