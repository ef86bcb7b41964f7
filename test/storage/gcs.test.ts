/**
 * The contract on Google Cloud Storage's JSON API, as far as a server of ours in memory has it; and on what
 * `WALBACK_GCS_URL=gs://bucket/prefix` names, with the credentials that Google's own tools find.
 */
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { GcsStorage } from '../../src/storage/gcs.ts'
import { parseGcsUrl } from '../../src/storage/gcs-url.ts'
import { openStorage } from '../../src/storage/open.ts'
import { readAll } from '../../src/storage/storage.ts'
import { listed, storageContract } from './contract.ts'
import { type GcsFault, type GcsServer, startGcsServer } from './gcs-server.ts'

const partBytes = 1 << 20
const fresh = (url: string): GcsStorage => new GcsStorage(parseGcsUrl(url, {}), { partBytes })

const given = process.env['WALBACK_GCS_URL'] ?? ''
describe.skipIf(given === '')('Google itself (skipped unless WALBACK_GCS_URL is set)', () => {
  storageContract('Google Cloud Storage', async () => {
    const url = `${given}/${randomBytes(6).toString('hex')}`
    const storage = fresh(url)
    return {
      storage,
      another: () => fresh(url),
      [Symbol.asyncDispose]: async () => {
        for (const { key } of await listed(storage, '')) await storage.delete(key)
      },
    }
  })
})

describe("Google Cloud Storage's protocol", () => {
  let server: GcsServer
  beforeAll(async () => {
    server = await startGcsServer()
  })
  beforeEach(() => {
    server.objects.clear()
    server.requests.length = 0
    server.fault = () => undefined
  })
  afterAll(() => server[Symbol.asyncDispose]())

  const open = (bucket = 'walback'): GcsStorage => fresh(`gs://${bucket}/some/prefix?endpoint=${server.url}`)
  /** The fault at the first such request. */
  const faultAt = (wanted: string, ...faults: GcsFault[]): void => {
    server.fault = (kind) => (kind === wanted ? faults.shift() : undefined)
  }
  const large = Buffer.from(Array.from({ length: 3_500_000 }, (_, i) => (i * 31 + (i >> 8)) & 255))

  storageContract('a server of its protocol', async () => ({
    storage: open(),
    another: () => open(),
    [Symbol.asyncDispose]: async () => undefined,
  }))

  test('names objects below the prefix, and lists page after page', async () => {
    const storage = open()
    const keys = Array.from({ length: 30 }, (_, n) => `k/${String(n).padStart(2, '0')}`)
    await Promise.all(keys.map((key) => storage.put(key, Buffer.from(key))))
    expect([...server.objects.keys()].every((name) => name.startsWith('some/prefix/k/'))).toBe(true)
    server.requests.length = 0
    expect((await listed(storage, 'k/')).map(({ key }) => key)).toEqual(keys)
    expect(server.requests.filter((kind) => kind === 'list').length).toBe(5)
  })

  test.each([
    ['put', Buffer.from('small'), ['cut']],
    ['put', Buffer.from('small'), ['cut after']],
    ['put', Buffer.from('small'), [503, 429]],
    ['begin', large, [503]],
    ['part', large, [503]],
    ['part', large, [undefined, 'cut']],
    ['part', large, [undefined, 'cut after']],
    ['part', large, [undefined, undefined, undefined, 'cut after']],
  ] as const)('goes on where a %s fails in passing (%#), and its answer is true', async (kind, body, faults) => {
    const storage = open()
    faultAt(kind, ...faults)
    expect(await storage.put('key', body, { ifAbsent: true })).toBe(true)
    expect((await readAll(storage.get('key'))).equals(body)).toBe(true)
    expect(await storage.put('key', body, { ifAbsent: true })).toBe(false)
  })

  test('goes on with a read at the byte where it broke off, and of the same object', async () => {
    const storage = open()
    await storage.put('key', large)
    faultAt('read', 'cut', 'half', 503, 'half')
    const range = { start: 1000, end: large.length - 7 }
    expect((await readAll(storage.get('key', { range }))).equals(large.subarray(range.start, range.end))).toBe(true)

    server.fault = (kind) => {
      if (kind !== 'read') return undefined
      server.fault = () => undefined
      return 'half'
    }
    const reading = storage.get('key')
    await reading.next()
    await storage.put('key', Buffer.from('another'))
    await expect(readAll(reading)).rejects.toMatchObject({
      retryable: true,
      message: expect.stringContaining('replaced'),
    })
  })

  test('stores nothing that arrives otherwise than it was sent', async () => {
    const storage = open()
    faultAt('put', 'corrupt')
    await expect(storage.put('small', Buffer.alloc(1000))).rejects.toMatchObject({ code: 'storage' })
    faultAt('part', undefined, 'corrupt')
    await expect(storage.put('large', large)).rejects.toMatchObject({ code: 'storage' })
    expect(await listed(storage, '')).toEqual([])
  })

  test('hands on what a large body fails with, and stores nothing of it', async () => {
    async function* failing(): AsyncGenerator<Buffer> {
      yield large
      throw new TypeError('a bug in the body')
    }
    const controller = new AbortController()
    async function* aborting(): AsyncGenerator<Buffer> {
      yield large
      controller.abort()
      yield large
    }
    await expect(open().put('key', failing())).rejects.toThrow(TypeError)
    const aborted = open().put('key', aborting(), { signal: controller.signal })
    await expect(aborted).rejects.toMatchObject({ code: 'interrupted' })
    expect(await listed(open(), '')).toEqual([])
  })

  test('says what is refused, and whether it may pass', async () => {
    const storage = open()
    faultAt('look', 403)
    await expect(storage.size('key')).rejects.toMatchObject({
      code: 'storage',
      retryable: false,
      hint: expect.stringContaining('storage.objects'),
    })
    const gone = await startGcsServer()
    const away = fresh(`gs://walback/x?endpoint=${gone.url}`)
    await gone[Symbol.asyncDispose]()
    await expect(away.size('key')).rejects.toMatchObject({ code: 'storage', retryable: true })
  })

  test('says that a bucket is not there, and an object in it', async () => {
    const nowhere = open('no-such-bucket')
    const expected = { code: 'storage', facts: { absent: false }, hint: expect.stringContaining('makes no buckets') }
    await expect(nowhere.size('key')).rejects.toMatchObject(expected)
    await expect(readAll(nowhere.get('key'))).rejects.toMatchObject(expected)
    await expect(nowhere.put('key', Buffer.from('x'))).rejects.toMatchObject(expected)
    await expect(readAll(open().get('key'))).rejects.toMatchObject({ facts: { absent: true } })
  })
})

describe('a Google Cloud Storage URL', () => {
  test('names bucket, prefix and endpoint', () => {
    expect(parseGcsUrl('gs://backups/app//one/', {})).toEqual({
      bucket: 'backups',
      prefix: 'app/one/',
      endpoint: undefined,
      url: 'gs://backups/app/one',
    })
    expect(parseGcsUrl('gs://b.example.com', { STORAGE_EMULATOR_HOST: 'http://localhost:1/' }).endpoint).toBe(
      'http://localhost:1',
    )
  })

  test.each([
    'gs://UP_/x y',
    'gs://key:s3cret@bucket/x',
    'gs://bucket/x?region=eu',
    'gs://bucket/a%20b',
    'gs://bucket?endpoint=localhost',
    'gs:///x',
  ])('%s is refused, without its secrets', (url) => {
    expect(() => openStorage(url)).toThrow(expect.objectContaining({ code: 'usage', hint: expect.any(String) }))
    expect(() => openStorage(url)).not.toThrow(/s3cret/)
  })
})
