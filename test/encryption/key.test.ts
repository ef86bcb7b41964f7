import { randomBytes } from 'node:crypto'
import { generateIdentity, identityToRecipient } from 'age-encryption'
import { beforeAll, describe, expect, test } from 'vitest'
import type { Credential } from '../../src/repository/credential.ts'
import { addRecipient, dropRecipient, listKey, rotateKey } from '../../src/repository/key-changes.ts'
import { fingerprintOf } from '../../src/repository/key-record.ts'
import { makeRecipient } from '../../src/repository/recipients.ts'
import { Repository } from '../../src/repository/repository.ts'
import { type Access, makeGeneration, type RepositoryKey } from '../../src/repository/repository-key.ts'
import { sealedJson } from '../../src/repository/sealed-json.ts'
import { readAll } from '../../src/storage/storage.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'

const fileKey = (): Extract<Credential, { kind: 'file' }> => ({ kind: 'file', secret: randomBytes(32) })
const [owner, agent, other] = [fileKey(), fileKey(), fileKey()]
let identity: string
let alice: Credential

beforeAll(async () => {
  identity = await generateIdentity()
  alice = { kind: 'age', identities: [identity] }
})

/** A repository of an owner, an agent that may write, and Alice, who comes with age. */
async function made(): Promise<MemoryStorage> {
  const storage = new MemoryStorage()
  await Repository.createEncrypted(storage, [
    await makeRecipient(owner, 'owner', 'full'),
    await makeRecipient(agent, 'agent', 'write'),
    await makeRecipient({ kind: 'age', recipient: await identityToRecipient(identity) }, 'alice', 'full'),
  ])
  return storage
}

const open = (storage: MemoryStorage, credential: Credential, more: Partial<Access> = {}): Promise<Repository> =>
  Repository.open(storage, { credential, ...more })

async function opened(storage: MemoryStorage, credential: Credential = owner) {
  const repository = await open(storage, credential)
  return { repository, key: repository.key as RepositoryKey }
}

const code = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'done',
    (error: { code: string }) => error.code,
  )

/** A store's own key, wrapped for those whose recipients lie open in it. */
async function forged(storage: MemoryStorage, victim: MemoryStorage): Promise<void> {
  const { repository, key } = await opened(victim)
  const { recipients } = await listKey(repository.clear, key)
  const targets = recipients.map(({ name, kind, access, recipient }) => ({ name, kind, access, recipient }))
  await Repository.createEncrypted(storage, targets)
}

describe('the key of a repository', () => {
  test('opens for each of its recipients, and for nobody else', async () => {
    const storage = await made()
    for (const credential of [owner, agent, alice]) expect(await code(open(storage, credential))).toBe('done')
    for (const credential of [
      other,
      { kind: 'passphrase', passphrase: 'x' } as const,
      { kind: 'age', identities: [await generateIdentity()] } as const,
    ])
      expect(await code(open(storage, credential))).toBe('wrong_key')
    expect(await code(Repository.open(storage))).toBe('wrong_key')
    expect((await opened(storage, agent)).key.mayRead).toBe(false)
  })

  test('is not asked for where nothing is encrypted, and then refused', async () => {
    const storage = new MemoryStorage()
    await Repository.create(storage)
    expect(await code(open(storage, owner))).toBe('wrong_key')
    expect(await code(Repository.open(storage, { fingerprint: 'x' }))).toBe('wrong_key')
    expect(await code(Repository.create(new MemoryStorage(), { credential: owner }))).toBe('wrong_key')
  })

  test('is rotated for all, again and again, and old objects stay readable', async () => {
    const storage = await made()
    for (const n of [1, 2, 3]) {
      const { repository, key } = await opened(storage)
      await repository.storage.put(`rows/${n}`, Buffer.from(`generation ${n}`))
      expect(key.newest.number).toBe(n)
      await rotateKey(repository.clear, key)
    }
    for (const credential of [owner, alice]) {
      const { repository } = await opened(storage, credential)
      for (const n of [1, 2, 3])
        expect((await readAll(repository.storage.get(`rows/${n}`))).toString()).toBe(`generation ${n}`)
    }
    expect((await opened(storage, agent)).key.newest.number).toBe(4)
  })

  test('that was rotated meanwhile is read by who had opened it before', async () => {
    const storage = await made()
    const early = await opened(storage)
    const late = await opened(storage)
    await rotateKey(late.repository.clear, late.key)
    await (await open(storage, owner)).storage.put('rows/new', Buffer.from('new'))
    expect((await readAll(early.repository.storage.get('rows/new'))).toString()).toBe('new')
  })

  test('is rotated once by two at the same time, and what the other left is collected', async () => {
    const storage = await made()
    const [a, b] = [await opened(storage), await opened(storage)]
    expect(
      (await Promise.all([a, b].map(({ repository, key }) => code(rotateKey(repository.clear, key))))).sort(),
    ).toEqual(['done', 'locked'])
    expect((await opened(storage)).key.newest.number).toBe(2)
    const again = await opened(storage)
    await rotateKey(again.repository.clear, again.key)
    const folders = new Set([...storage.objects.keys()].flatMap((key) => /^keys\/\d+-[0-9a-f]+/.exec(key)?.[0] ?? []))
    expect(folders.size).toBe(3)
  })

  test('survives a rotation, an addition and a removal that break off at any call of the store', async () => {
    for (const change of ['rotate', 'add', 'remove']) {
      for (let call = 0; ; call++) {
        const storage = await made()
        const { repository, key } = await opened(storage)
        await repository.storage.put('rows/1', Buffer.from('kept'))
        const fragile = breakingAt(storage, call)
        const work =
          change === 'rotate'
            ? rotateKey(fragile, key)
            : change === 'add'
              ? addRecipient(fragile, key, await makeRecipient(other, 'other', 'full'))
              : dropRecipient(fragile, key, 'alice')
        const outcome = await code(work)
        const after = await opened(storage)
        expect((await readAll(after.repository.storage.get('rows/1'))).toString()).toBe('kept')
        // And the same can be done again, to its end.
        if (change === 'rotate') await rotateKey(after.repository.clear, after.key)
        expect((await listKey(after.repository.clear, after.key)).recipients.every((one) => one.isGenuine)).toBe(true)
        if (outcome === 'done') break
        expect(call).toBeLessThan(60)
      }
    }
  })

  test('takes recipients in and lets them go, but not the last that reads', async () => {
    const storage = await made()
    const { repository, key } = await opened(storage)
    await addRecipient(repository.clear, key, await makeRecipient(other, 'other', 'full'))
    expect(await code(addRecipient(repository.clear, key, await makeRecipient(other, 'other', 'full')))).toBe('refused')
    expect(await code(open(storage, other))).toBe('done')
    await dropRecipient(repository.clear, key, 'other')
    expect(await code(open(storage, other))).toBe('wrong_key')
    await dropRecipient(repository.clear, key, 'alice')
    expect(await code(dropRecipient(repository.clear, key, 'owner'))).toBe('refused')
    expect(await code(dropRecipient(repository.clear, key, 'nobody'))).toBe('usage')
  })
})

describe('a store that wants to read', () => {
  test('puts a key of its own in place of the first: a key file notices, and a pin', async () => {
    const storage = await made()
    const fingerprint = (await opened(storage)).key.fingerprint
    const theirs = new MemoryStorage()
    await forged(theirs, storage)
    expect(await code(open(theirs, owner))).toBe('wrong_key')
    expect(await code(open(theirs, agent))).toBe('wrong_key')
    expect(await code(open(theirs, alice, { fingerprint }))).toBe('wrong_key')
    // With age alone nothing tells: this is what the pin is for.
    expect(await code(open(theirs, alice))).toBe('done')
  })

  test('adds a generation of its own: everybody notices', async () => {
    const storage = await made()
    const fingerprint = (await opened(storage)).key.fingerprint
    const { repository, key } = await opened(storage)
    const { recipients } = await listKey(repository.clear, key)
    const targets = recipients.map(({ name, kind, access, recipient }) => ({ name, kind, access, recipient }))
    // It is vouched for by some first generation that the store has made up.
    const first = await makeGeneration(new MemoryStorage(), [])
    const second = await makeGeneration(storage, targets, first)
    const record = { ...second.record, previous: fingerprint }
    // Or it follows the true one in all that can be known without its secrets.
    const [trueFirst] = key.records
    if (trueFirst === undefined) throw new Error('no first generation')
    const third = await makeGeneration(storage, targets, { record: trueFirst, secrets: first.secrets })
    expect(third.record).toMatchObject({ generation: 2, previous: fingerprint })
    for (const one of [second.record, record, third.record]) {
      await storage.put('keys/00000002.json', sealedJson({ walback: 'key', format: 1, ...one }))
      for (const credential of [owner, agent, alice]) {
        expect(['wrong_key', 'corrupt']).toContain(await code(open(storage, credential)))
        expect(['wrong_key', 'corrupt']).toContain(await code(open(storage, credential, { fingerprint })))
      }
    }
  })

  test('exchanges the public key in a record, or anything else in it: everybody notices', async () => {
    const storage = await made()
    const { sha256: _, ...whole } = JSON.parse((storage.objects.get('walback.json') as Buffer).toString())
    const theirs = (await makeGeneration(new MemoryStorage(), [])).record
    for (const part of ['publicKey', 'structure', 'mac'] as const) {
      const encryption = { ...whole.encryption, [part]: theirs[part] }
      storage.objects.set('walback.json', sealedJson({ ...whole, encryption }))
      for (const credential of [owner, agent, alice]) expect(await code(open(storage, credential))).toBe('corrupt')
    }
  })

  test('adds a recipient of its own: no rotation wraps the key for it', async () => {
    const storage = await made()
    const { repository, key } = await opened(storage)
    const folder = key.records[0]?.recipients ?? ''
    const entry = JSON.parse((storage.objects.get(`${folder}alice.json`) as Buffer).toString())
    const recipient = await identityToRecipient(await generateIdentity())
    const { sha256: _, ...rest } = { ...entry, name: 'mallory', recipient }
    await storage.put(`${folder}mallory.json`, sealedJson(rest))
    await expect(rotateKey(repository.clear, key)).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining('mallory'),
    })
    expect((await listKey(repository.clear, key)).recipients.find(({ name }) => name === 'mallory')?.isGenuine).toBe(
      false,
    )
    await dropRecipient(repository.clear, key, 'mallory')
    await rotateKey(repository.clear, key)
  })

  test('takes the last generation away again: a pin notices', async () => {
    const storage = await made()
    const { repository, key } = await opened(storage)
    const fingerprint = fingerprintOf(await rotateKey(repository.clear, key))
    expect(await code(open(storage, owner, { fingerprint }))).toBe('done')
    storage.objects.delete('keys/00000002.json')
    expect(await code(open(storage, owner, { fingerprint }))).toBe('wrong_key')
  })
})

/** The store, until a call: that one and all later ones fail before they do anything. */
function breakingAt(storage: MemoryStorage, call: number): MemoryStorage {
  let left = call
  return new Proxy(storage, {
    get: (target, name) => {
      const value = Reflect.get(target, name)
      if (typeof value !== 'function' || !['put', 'delete'].includes(String(name)))
        return typeof value === 'function' ? value.bind(target) : value
      return async (...args: unknown[]) => {
        if (left-- <= 0) throw Object.assign(new Error('the store is gone'), { code: 'gone' })
        return value.apply(target, args)
      }
    },
  })
}
