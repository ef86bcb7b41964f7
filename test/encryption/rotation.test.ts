import { randomBytes } from 'node:crypto'
import { generateIdentity, identityToRecipient } from 'age-encryption'
import pino from 'pino'
import { describe, expect, test } from 'vitest'
import { Events } from '../../agent/events.ts'
import { watchKey } from '../../agent/key-watch.ts'
import { waitFor } from '../../src/base/abort.ts'
import { RequiredCopy } from '../../src/copy/required.ts'
import type { RepositoryKey, WalbackEvent } from '../../src/index.ts'
import { lsn } from '../../src/model/lsn.ts'
import { fullXid } from '../../src/model/snapshot.ts'
import { micros } from '../../src/model/time.ts'
import type { Credential } from '../../src/repository/credential.ts'
import { dropRecipient, rotateKey } from '../../src/repository/key-changes.ts'
import { makeRecord } from '../../src/repository/key-record.ts'
import { makeRecipient, type Recipient, readRecipients } from '../../src/repository/recipients.ts'
import { Repository } from '../../src/repository/repository.ts'
import { makeGeneration, writeLater } from '../../src/repository/repository-key.ts'
import { SegmentWriter } from '../../src/repository/segment-writer.ts'
import { readHead } from '../../src/repository/segments.ts'
import { beginTimeline } from '../../src/repository/timeline.ts'
import { readAll } from '../../src/storage/storage.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { timelineDetails } from '../repository/timeline-details.ts'

const fileKey = (): Extract<Credential, { kind: 'file' }> => ({ kind: 'file', secret: randomBytes(32) })
const [owner, agent, writer] = [fileKey(), fileKey(), fileKey()]
const log = pino({ level: 'silent' })

/** A repository of an owner, an agent that reads and writes, and one that only writes. */
async function made(): Promise<MemoryStorage> {
  const storage = new MemoryStorage()
  await Repository.createEncrypted(storage, [
    await makeRecipient(owner, 'owner', 'full'),
    await makeRecipient(agent, 'agent', 'full'),
    await makeRecipient(writer, 'writer', 'write'),
  ])
  return storage
}

async function opened(storage: MemoryStorage, credential: Credential) {
  const repository = await Repository.open(storage, { credential })
  return { repository, key: repository.key as RepositoryKey }
}

async function rotate(storage: MemoryStorage): Promise<void> {
  const { repository, key } = await opened(storage, owner)
  await rotateKey(repository.clear, key)
}

/** The generation that an object is sealed to, as its head says. */
const generationOf = (storage: MemoryStorage, key: string): number =>
  (storage.objects.get(key) as Buffer).readUInt32LE(12)

/** What a running agent tells while something is done, until there is so much of it. */
async function told(key: RepositoryKey, count: number, meanwhile: () => Promise<void>): Promise<WalbackEvent[]> {
  const heard: WalbackEvent[] = []
  const stop = new AbortController()
  const events = new Events('app', log, (event) => heard.push(event))
  const watching = watchKey({ key, source: 'app', every_ms: 5, log, events, signal: stop.signal })
  await meanwhile()
  await waitFor(async () => (heard.length >= count ? true : undefined), { timeout_ms: 30_000, interval_ms: 5 })
  stop.abort()
  await watching
  return heard
}

describe('an agent whose key is rotated while it runs', () => {
  test('writes to the new generation, and reads all', async () => {
    const storage = await made()
    const { repository, key } = await opened(storage, agent)
    await repository.storage.put('rows/1', Buffer.from('before'))
    expect(await told(key, 1, () => rotate(storage))).toMatchObject([
      { kind: 'key-rotated', state: 'once', facts: { generation: 2, fingerprint: key.fingerprint } },
    ])
    await repository.storage.put('rows/2', Buffer.from('after'))
    expect([generationOf(storage, 'rows/1'), generationOf(storage, 'rows/2')]).toEqual([1, 2])
    const other = await opened(storage, owner)
    for (const [name, text] of [
      ['rows/1', 'before'],
      ['rows/2', 'after'],
    ] as const)
      expect((await readAll(other.repository.storage.get(name))).toString()).toBe(text)
    expect(other.key.fingerprint).toBe(key.fingerprint)
  })

  test('goes on with its own when it only writes, also once it has read what others wrote, and says so once', async () => {
    const storage = await made()
    const { repository, key } = await opened(storage, writer)
    const before = key.fingerprint
    const events = await told(key, 1, async () => {
      await rotate(storage)
      const other = await opened(storage, owner)
      await other.repository.storage.put('sources/app/new.json', Buffer.from('{}'))
      expect((await readAll(repository.storage.get('sources/app/new.json'))).toString()).toBe('{}')
    })
    expect(events).toMatchObject([
      { kind: 'key-not-followed', state: 'raised', severity: 'warning', facts: { generation: 1, fingerprint: before } },
    ])
    await repository.storage.put('rows/1', Buffer.from('row'))
    expect(generationOf(storage, 'rows/1')).toBe(1)
    expect((await opened(storage, writer)).key.newest.number).toBe(2)
  })

  test('goes on with its own, and complains, when it is no recipient any more', async () => {
    const storage = await made()
    const { repository, key } = await opened(storage, agent)
    const events = await told(key, 1, async () => {
      const other = await opened(storage, owner)
      await dropRecipient(other.repository.clear, other.key, 'agent')
      await rotate(storage)
    })
    expect(events).toMatchObject([{ kind: 'key-not-followed', state: 'raised', severity: 'error' }])
    await repository.storage.put('rows/1', Buffer.from('row'))
    expect(generationOf(storage, 'rows/1')).toBe(1)
  })

  test('does not follow a generation that somebody made who had no more than a key that writes', async () => {
    const storage = await made()
    const thief = await opened(storage, writer)
    const { key } = await opened(storage, agent)
    const [record] = thief.key.records
    if (record === undefined) throw new Error('a repository has a key')
    const identity = await generateIdentity()
    // For who is a recipient lies open in the store, but how their credentials sign does not.
    const listed = (await readRecipients(storage, record)).map(
      ({ name, kind, access, recipient }): Recipient => ({ name, kind, access, recipient }),
    )
    const own = await makeRecipient({ kind: 'age', recipient: await identityToRecipient(identity) }, 'thief', 'full')
    const recipients = [...listed, own]
    // It vouches with what it has, in both places.
    const structure = thief.key.newest.structureSecret
    const secrets = { generation: 1, full: structure, structure }
    const forged = await makeGeneration(storage, recipients, { record, secrets })
    await writeLater(storage, makeRecord(forged.secrets, forged.record.recipients, { record, secrets }))
    const events = await told(key, 1, async () => undefined)
    expect(events).toMatchObject([
      {
        kind: 'key-not-followed',
        severity: 'error',
        message: expect.stringMatching(/^KEY NOT FOLLOWED: nothing that is known vouches/),
      },
    ])
    expect(key.newest.number).toBe(1)
  })
})

test('a required repository gets a generation of the key before what is sealed to it', async () => {
  const storage = await made()
  const { repository, key } = await opened(storage, agent)
  const { signal } = new AbortController()
  const far = new MemoryStorage()
  const copy = new RequiredCopy(repository, far)
  const timeline = await beginTimeline(repository, timelineDetails)
  await copy.level(timeline, await readHead(repository, timeline), signal)
  const segments = new SegmentWriter(repository, timeline, await readHead(repository, timeline))
  const add = async (): Promise<void> => {
    const content = { blocks: [], transactions: [], tables: [], end: lsn(segments.head.end + 0x100n) }
    const segment = await segments.write({ ...content, xid: fullXid(701n) }, micros(0n))
    await copy.add(timeline, segment, signal)
  }
  await add()
  await rotate(storage)
  await key.refresh()
  await add()
  const there = await opened(far, owner)
  expect((await readHead(there.repository, timeline)).end).toBe(segments.head.end)
  // A stream that is opened anew while nobody has noticed the rotation yet.
  await rotate(storage)
  await copy.level(timeline, segments.head, signal)
  expect((await opened(far, owner)).key.newest.number).toBe(3)
})
