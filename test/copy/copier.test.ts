import pino from 'pino'
import { expect, it } from 'vitest'
import { copyRegularly } from '../../agent/copier.ts'
import { Events } from '../../agent/events.ts'
import { Lease } from '../../src/repository/lease.ts'
import { Repository } from '../../src/repository/repository.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { storeIsAway } from '../support/faults.ts'
import { richArchive } from './rich-archive.ts'

/** A store that is away until it is told to come back. */
class AwayStorage extends MemoryStorage {
  override readonly url = 'memory:far'
  isAway = true
  onAsked: () => void = () => undefined

  override async size(key: string): Promise<number | undefined> {
    this.onAsked()
    if (this.isAway) throw storeIsAway(key)
    return super.size(key)
  }
}

it('follows with each of the other repositories, and tells of one that is behind until it is not', async () => {
  const archive = await richArchive(2)
  const [near, far] = [new MemoryStorage(), new AwayStorage()]
  const stop = new AbortController()
  const told: string[] = []
  const log = pino({ level: 'silent' })
  const events = new Events('app', log, ({ kind, state, subject, message }) => {
    told.push(`${kind} ${state} ${subject}: ${message}`)
    if (state === 'cleared') stop.abort()
  })
  // Asked a second time, it has been told of as behind.
  let asked = 0
  far.onAsked = () => {
    if (++asked === 2) far.isAway = false
  }
  const options = { source: 'app', targets: [near, far], every_ms: 1, log, events, signal: stop.signal }
  await copyRegularly({ ...options, repository: archive.repository })
  expect(told).toEqual([
    expect.stringMatching(/^repository-behind raised memory:far: memory:far is behind: /),
    expect.stringMatching(/^repository-behind cleared memory:far: memory:far has what memory: has$/),
  ])
  const count = (storage: MemoryStorage): number =>
    [...storage.objects.keys()].filter((key) => /wb[srpt]$/.test(key)).length
  expect(count(far)).toBe(count(near))
  expect(count(far)).toBeGreaterThan(10)
})

it('waits without a word while the other repository is pruned, and tells of damage', async () => {
  const archive = await richArchive(2)
  const target = new MemoryStorage()
  const pruned = await Lease.take(await Repository.create(target), 'app', { purpose: 'prune' })
  const { key } = archive.segments[1] as { key: string }
  archive.storage.objects.set(key, Buffer.from('not this'))
  const stop = new AbortController()
  const told: unknown[] = []
  const log = pino({ level: 'silent' })
  const events = new Events('app', log, (event) => {
    told.push(event)
    stop.abort()
  })
  const copying = copyRegularly({
    repository: archive.repository,
    source: 'app',
    targets: [target],
    every_ms: 1,
    log,
    events,
    signal: stop.signal,
  })
  await pruned[Symbol.asyncDispose]()
  await copying
  expect(told).toMatchObject([{ kind: 'repository-behind', facts: { damage: [{ key }] } }])
})
