import { describe, expect, it } from 'vitest'
import { RequiredCopy } from '../../src/copy/required.ts'
import { partStart } from '../../src/repository/layout.ts'
import { Repository } from '../../src/repository/repository.ts'
import { readHead } from '../../src/repository/segments.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { MadeArchive } from '../retention/made-archive.ts'
import { DyingProcess } from '../support/dying-process.ts'
import { richArchive } from './rich-archive.ts'

const { signal } = new AbortController()

const level = async ({ repository, timeline }: MadeArchive, copy: RequiredCopy): Promise<void> =>
  copy.level(timeline, await readHead(repository, timeline), signal)

const addLast = ({ timeline, segments }: MadeArchive, copy: RequiredCopy): Promise<void> =>
  copy.add(timeline, segments.at(-1) as never, signal)

/** All of the stream that is named, byte for byte, and nothing else. */
function expectStream({ storage: from, segments }: MadeArchive, { objects }: MemoryStorage): void {
  const named = segments.flatMap(({ key, trailer }) => [key, ...trailer.parts.map((part) => part.key)])
  expect([...objects.keys()].filter((key) => /wb[sp]$/.test(key)).sort()).toEqual(named.sort())
  for (const key of named) expect(objects.get(key)).toEqual(from.objects.get(key))
}

describe('a required repository', () => {
  it('is made and brought up to the archive, and then has each segment as it is stored', async () => {
    const archive = await richArchive()
    const far = new MemoryStorage()
    const copy = new RequiredCopy(archive.repository, far)
    await level(archive, copy)
    expectStream(archive, far)
    for (const parts of [0, 3]) {
      await archive.segment({ commits: 2, hours: 1, parts })
      await addLast(archive, copy)
      expectStream(archive, far)
    }
    // Also what is there already, as after a death between this and the confirmation.
    await addLast(archive, copy)
    await level(archive, copy)
    expectStream(archive, far)
    expect([...far.objects.keys()].some((key) => key.includes('/leases/'))).toBe(false)
  })

  it('that holds something else in the place of a segment, or more than the archive, is refused', async () => {
    const archive = await richArchive(2)
    const far = new MemoryStorage()
    const copy = new RequiredCopy(archive.repository, far)
    await level(archive, copy)
    const before = await readHead(archive.repository, archive.timeline)
    const { storage } = await archive.copy()
    await archive.segment({ commits: 1, hours: 1 })
    const { key } = archive.segments.at(-1) as { key: string }
    const other = Buffer.from(archive.storage.objects.get(key) as Buffer)
    other[other.length - 40] = (other[other.length - 40] as number) ^ 1
    far.objects.set(key, other)
    await expect(addLast(archive, copy)).rejects.toMatchObject({
      exit: 22,
      message: expect.stringMatching(/differently/),
    })
    await expect(level(archive, copy)).rejects.toMatchObject({ exit: 22 })
    // The first repository has lost its newest segment.
    far.objects.set(key, archive.storage.objects.get(key) as Buffer)
    const lost = new RequiredCopy(await Repository.open(storage), far)
    await expect(lost.level(archive.timeline, before, signal)).rejects.toMatchObject({
      exit: 22,
      message: expect.stringMatching(/holds more than/),
    })
  })

  it('does not wait for what is damaged before the end, which comes to it mended', async () => {
    const archive = await richArchive(2)
    const { key } = archive.segments[1] as { key: string }
    const whole = archive.storage.objects.get(key) as Buffer
    archive.storage.objects.set(key, Buffer.from('not this'))
    const far = new MemoryStorage()
    const copy = new RequiredCopy(archive.repository, far)
    await level(archive, copy)
    expect(far.objects.has(key)).toBe(false)
    archive.storage.objects.set(key, whole)
    await archive.segment({ commits: 1, hours: 1 })
    await level(archive, copy)
    expectStream(archive, far)
  })

  it('is told of a store that does not give back what it took', async () => {
    const archive = await MadeArchive.begin()
    const copy = new RequiredCopy(archive.repository, new MemoryStorage())
    await level(archive, copy)
    await archive.segment({ commits: 1, hours: 1, parts: 1 })
    const part = archive.keys().find((key) => partStart(key) !== undefined) as string
    archive.storage.objects.delete(part)
    await expect(addLast(archive, copy)).rejects.toMatchObject({
      code: 'storage',
      retryable: true,
      message: expect.stringMatching(/does not give back .*is missing/),
    })
  })

  it('has the segment before anything is confirmed, wherever the process dies', async () => {
    const begun = await richArchive(2)
    for (const isCarriedOut of [false, true]) {
      for (let last = 0; ; last++) {
        const archive = begun
        const far = new MemoryStorage()
        await level(archive, new RequiredCopy(archive.repository, far))
        const { size } = far.objects
        await archive.segment({ commits: 1, hours: 1, parts: 2 })
        const dying = new DyingProcess(far, last, isCarriedOut)
        const copy = new RequiredCopy(archive.repository, dying)
        const isDone = await addLast(archive, copy).then(
          () => true,
          () => false,
        )
        const { key, trailer } = archive.segments.at(-1) as (typeof archive.segments)[number]
        const parts = trailer.parts.filter((part) => far.objects.has(part.key)).length
        // The segment itself comes last.
        if (far.objects.has(key)) expect(parts).toBe(2)
        if (isDone) expect(far.objects.size).toBe(size + 3)
        await level(archive, new RequiredCopy(archive.repository, far))
        expectStream(archive, far)
        if (isDone && dying.calls <= last) break
      }
    }
  })
})
