import { randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { S3Storage } from '../../src/storage/s3.ts'
import { parseS3Url } from '../../src/storage/s3-url.ts'
import { readAll } from '../../src/storage/storage.ts'
import { listed } from './contract.ts'
import { type Fault, S3Proxy, type Seen } from './s3-proxy.ts'

process.env['AWS_ACCESS_KEY_ID'] = 'test'
process.env['AWS_SECRET_ACCESS_KEY'] = 'not-to-be-shown'
process.env['AWS_SESSION_TOKEN'] = 'nor-this-session'

let proxy: S3Proxy
let url = ''
let storage: S3Storage
const partBytes = (): number => 5 << 20
const quickClaims = { stale_ms: 2000, write_ms: 900, firstWait_ms: 10, longestWait_ms: 100 }

beforeAll(async () => {
  proxy = await S3Proxy.start()
})
afterAll(() => proxy[Symbol.asyncDispose]())
beforeEach(() => {
  proxy.calm()
  url = proxy.newBucket()
  storage = open()
})

const open = (): S3Storage => new S3Storage(parseS3Url(url, {}), { partBytes, claimTimes: quickClaims })
const to = (method: string, key: string) => (seen: Seen) => seen.method === method && seen.key.endsWith(key)
const of = (method: string, key: string): Seen[] => proxy.seen.filter(to(method, key))

async function* inChunks(bytes: Buffer, most = 1 << 20): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += most) yield bytes.subarray(at, at + most)
}

describe('what fails in passing', () => {
  test.each<Fault>(['slow down', 'internal', 'reset', 'lost answer'])(
    '%s, twice, does not fail a call',
    async (fault) => {
      proxy.fail(fault, to('PUT', '/key'), 2)
      await storage.put('key', Buffer.from('body'))
      proxy.fail(fault, to('GET', '/key'), 2)
      expect((await readAll(storage.get('key'))).toString()).toBe('body')
      proxy.fail(fault, ({ query }) => query.has('list-type'), 2)
      expect(await listed(storage, '')).toEqual([{ key: 'key', size_bytes: 4 }])
      proxy.fail(fault, to('HEAD', '/key'), 2)
      expect(await storage.size('key')).toBe(4)
      proxy.fail(fault, to('DELETE', '/key'), 2)
      await storage.delete('key')
      expect(await storage.size('key')).toBeUndefined()
      expect(proxy.unused).toBe(0)
    },
  )

  test('is repeated a few times only, and is then retryable', async () => {
    proxy.fail('slow down', to('PUT', '/key'), 1000)
    await expect(storage.put('key', Buffer.from('x'))).rejects.toMatchObject({
      code: 'storage',
      retryable: true,
      message: expect.stringContaining('SlowDown'),
      hint: expect.stringContaining('fewer requests'),
    })
    expect(of('PUT', '/key')).toHaveLength(5)
  })

  test('a put-if-absent whose answer was lost knows its own object, and another’s', async () => {
    await storage.honoursIfAbsent()
    proxy.fail('lost answer', to('PUT', '/own'))
    expect(await storage.put('own', Buffer.from('mine'), { ifAbsent: true })).toBe(true)
    expect(of('PUT', '/own')).toHaveLength(2)
    await open().put('foreign', Buffer.from('theirs'))
    proxy.fail('reset', to('PUT', '/foreign'))
    expect(await storage.put('foreign', Buffer.from('mine'), { ifAbsent: true })).toBe(false)
    expect((await readAll(storage.get('foreign'))).toString()).toBe('theirs')
  })

  test('an upload whose last answer was lost knows its own object', async () => {
    const bytes = randomBytes(11 << 20)
    for (const ifAbsent of [false, true]) {
      await storage.honoursIfAbsent()
      proxy.fail('lost answer', ({ method, key }) => method === 'POST' && key.endsWith(`upload-${ifAbsent}`), 2)
      expect(await storage.put(`upload-${ifAbsent}`, inChunks(bytes), { ifAbsent })).toBe(true)
      expect(proxy.unused).toBe(0)
      expect((await readAll(storage.get(`upload-${ifAbsent}`))).equals(bytes)).toBe(true)
    }
  })

  test('409, two conditional writes at once, is lost to who is there, and else to be tried again', async () => {
    await storage.honoursIfAbsent()
    const conflict = { status: 409, code: 'ConditionalRequestConflict' }
    proxy.fail(conflict, to('PUT', '/key'), 5)
    await expect(storage.put('key', Buffer.from('x'), { ifAbsent: true })).rejects.toMatchObject({ retryable: true })
    proxy.calm()
    await open().put('key', Buffer.from('theirs'))
    proxy.fail(conflict, to('PUT', '/key'), 5)
    expect(await storage.put('key', Buffer.from('x'), { ifAbsent: true })).toBe(false)
  })
})

describe('a body that breaks off', () => {
  test.each<Fault>(['cut body', 'short body'])(
    '(%s) is gone on with at its byte, of the same object',
    async (fault) => {
      const bytes = randomBytes(3 << 20)
      await storage.put('key', bytes)
      proxy.fail(fault, to('GET', '/key'), 4)
      expect((await readAll(storage.get('key'))).equals(bytes)).toBe(true)
      const asked = of('GET', '/key').map(({ headers }) => Number(/bytes=(\d+)-/.exec(headers.range ?? '')?.[1]))
      expect(asked).toHaveLength(5)
      expect(asked[0]).toBe(0)
      expect(asked.slice(1).every((start, n) => start > (asked[n] as number))).toBe(true)
      expect(of('GET', '/key').every(({ headers }, n) => (headers['if-match'] !== undefined) === n > 0)).toBe(true)

      proxy.fail(fault, to('GET', '/key'), 2)
      const part = await readAll(storage.get('key', { range: { start: 1000, end: 2_000_000 } }))
      expect(part.equals(bytes.subarray(1000, 2_000_000))).toBe(true)
    },
  )

  test('is not patched together from two objects', async () => {
    await storage.put('key', randomBytes(2 << 20))
    proxy.fail('cut body', to('GET', '/key'))
    const reading = (async () => {
      const reader = storage.get('key')[Symbol.asyncIterator]()
      await reader.next()
      await open().put('key', randomBytes(3 << 20))
      while (!(await reader.next()).done);
    })()
    await expect(reading).rejects.toMatchObject({ code: 'storage', retryable: true, message: /was replaced while/ })
  })

  test('and never gets further fails in the end', async () => {
    await storage.put('key', Buffer.from('x'))
    proxy.fail('cut body', to('GET', '/key'), 1000)
    await expect(readAll(storage.get('key'))).rejects.toMatchObject({ code: 'storage', retryable: true })
    expect(of('GET', '/key').length).toBeLessThan(10)
  })

  test('a silent store is left when the signal fires', async () => {
    await storage.put('key', randomBytes(1 << 20))
    proxy.latency_ms = 60_000
    const controller = new AbortController()
    const reading = readAll(storage.get('key', { signal: controller.signal }))
    setTimeout(() => controller.abort(), 50)
    await expect(reading).rejects.toMatchObject({ code: 'interrupted' })
  })
})

describe('an upload in parts', () => {
  const uploads = (): { begun: number; aborted: number } => ({
    begun: proxy.seen.filter(({ method, query }) => method === 'POST' && query.has('uploads')).length,
    aborted: proxy.seen.filter(({ method, query }) => method === 'DELETE' && query.has('uploadId')).length,
  })

  test('is abandoned when its body fails, when a part fails, and when it is stopped', async () => {
    const failing = async function* (): AsyncGenerator<Buffer> {
      yield* inChunks(randomBytes(11 << 20))
      throw new TypeError('the server went away')
    }
    await expect(storage.put('key', failing())).rejects.toThrow(TypeError)
    expect(uploads()).toEqual({ begun: 1, aborted: 1 })

    proxy.fail({ status: 403, code: 'AccessDenied' }, ({ query }) => query.get('partNumber') === '2')
    await expect(storage.put('key', inChunks(randomBytes(11 << 20)))).rejects.toMatchObject({ code: 'storage' })
    expect(uploads()).toEqual({ begun: 2, aborted: 2 })

    const controller = new AbortController()
    const stopped = async function* (): AsyncGenerator<Buffer> {
      yield* inChunks(randomBytes(11 << 20))
      controller.abort()
      yield Buffer.from('more')
    }
    const failure = storage.put('key', stopped(), { signal: controller.signal })
    await expect(failure).rejects.toMatchObject({ code: 'interrupted' })
    expect(uploads()).toEqual({ begun: 3, aborted: 3 })
    expect(await listed(storage, '')).toEqual([])
  })

  test('that finds its key taken is abandoned too', async () => {
    await storage.put('key', Buffer.from('first'))
    expect(await storage.put('key', inChunks(randomBytes(11 << 20)), { ifAbsent: true })).toBe(false)
    // The probe of the store is one more.
    expect(uploads()).toEqual({ begun: 2, aborted: 2 })
  })
})

describe('a listing', () => {
  test('goes on over all pages', async () => {
    proxy.pageKeys = 100
    const keys = Array.from({ length: 250 }, (_, n) => `many/${String(n).padStart(6, '0')}`)
    await Promise.all(keys.map((key) => storage.put(key, Buffer.alloc(0))))
    expect((await listed(storage, 'many/')).map(({ key }) => key)).toEqual(keys)
    expect(proxy.seen.filter(({ query }) => query.has('list-type'))).toHaveLength(3)
  })
})

describe('without conditional writes', () => {
  beforeEach(() => {
    proxy.conditional = 'ignored'
  })

  test('is found out once', async () => {
    for (const key of ['a', 'b']) await storage.put(key, Buffer.from(key), { ifAbsent: true })
    expect(of('PUT', '/.walback/probe')).toHaveLength(2)
    expect(await storage.honoursIfAbsent()).toBe(false)
    // Neither the probe nor the claims are anybody's objects.
    expect((await listed(storage, '')).map(({ key }) => key)).toEqual(['a', 'b'])
  })

  test('a probe that failed is no answer', async () => {
    proxy.fail({ status: 403, code: 'AccessDenied' }, to('PUT', '/.walback/probe'))
    await expect(storage.put('key', Buffer.from('x'), { ifAbsent: true })).rejects.toMatchObject({ code: 'storage' })
    proxy.conditional = 'honoured'
    expect(await storage.honoursIfAbsent()).toBe(true)
  })

  test('a writer that died leaves a claim, which is broken after its time', async () => {
    await storage.honoursIfAbsent()
    // Its write is not answered, so nobody knows whether it will be carried out, and the claim stays.
    proxy.fail({ status: 403, code: 'AccessDenied' }, to('PUT', '/prefix/key'))
    await expect(storage.put('key', Buffer.from('dead'), { ifAbsent: true })).rejects.toMatchObject({ code: 'storage' })
    const begun = performance.now()
    expect(await open().put('key', Buffer.from('alive'), { ifAbsent: true })).toBe(true)
    expect(performance.now() - begun).toBeGreaterThan(quickClaims.write_ms)
    expect((await readAll(storage.get('key'))).toString()).toBe('alive')
  })

  test('a writer that is too slow gives up before its claim may be broken', async () => {
    await storage.honoursIfAbsent()
    proxy.latency_ms = 250
    await expect(storage.put('key', Buffer.from('slow'), { ifAbsent: true })).rejects.toMatchObject({
      code: 'storage',
      retryable: true,
      message: /too slow/,
    })
  })
})

describe('what a person has to mend', () => {
  const refusals = [
    { status: 403, code: 'AccessDenied', hint: 's3:PutObject' },
    { status: 403, code: 'InvalidAccessKeyId', hint: 'AWS_ACCESS_KEY_ID' },
    { status: 403, code: 'SignatureDoesNotMatch', hint: 'AWS_SECRET_ACCESS_KEY' },
    { status: 400, code: 'ExpiredToken', hint: 'renew it' },
    { status: 403, code: 'RequestTimeTooSkewed', hint: 'clock' },
    {
      status: 301,
      code: 'PermanentRedirect',
      hint: 'region=eu-north-1',
      headers: { 'x-amz-bucket-region': 'eu-north-1' },
    },
  ]
  test.each(refusals)('$code comes with what to do', async ({ hint, ...fault }) => {
    proxy.fail(fault, () => true, 1000)
    const expected = { code: 'storage', retryable: false, hint: expect.stringContaining(hint) }
    await expect(storage.put('key', Buffer.from('x'))).rejects.toMatchObject(expected)
    await expect(readAll(storage.get('key'))).rejects.toMatchObject(expected)
    await expect(listed(storage, '')).rejects.toMatchObject(expected)
    // HEAD is asked again as GET, since its answer has no reason.
    await expect(storage.size('key')).rejects.toMatchObject(expected)
    await expect(storage.delete('key')).rejects.toMatchObject(expected)
  })

  test('a bucket that is not there is told from an object that is not', async () => {
    const nowhere = new S3Storage(parseS3Url(url.replace(/bucket-\d+/, 'nowhere'), {}))
    const expected = { code: 'storage', facts: { absent: false }, hint: expect.stringContaining('makes no buckets') }
    await expect(nowhere.size('key')).rejects.toMatchObject(expected)
    await expect(readAll(nowhere.get('key'))).rejects.toMatchObject(expected)
    await expect(nowhere.put('key', Buffer.from('x'))).rejects.toMatchObject(expected)
  })

  test('a store that is not there', async () => {
    const gone = new S3Storage(parseS3Url('s3://bucket/x?endpoint=http://127.0.0.1:9', {}))
    await expect(gone.size('key')).rejects.toMatchObject({
      code: 'storage',
      retryable: true,
      message: expect.stringContaining('ECONNREFUSED'),
      hint: expect.stringContaining('endpoint'),
    })
  })

  test('no secret and no signature is in an error, however it is shown', async () => {
    proxy.fail({ status: 403, code: 'AccessDenied' }, () => true, 1000)
    const error = await storage.put('key', Buffer.from('x')).catch((caught: unknown) => caught)
    const shown = inspect(error, { depth: 20, showHidden: true })
    expect(shown).toContain('AccessDenied')
    expect(shown).not.toMatch(/not-to-be-shown|nor-this-session|Signature=|AWS4-HMAC/)
  })
})
