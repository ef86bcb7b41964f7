import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import { readAll, type Storage, type StoredObject } from '../../src/storage/storage.ts'

/** A store under test, empty, and what undoes it. */
export interface Bench extends AsyncDisposable {
  readonly storage: Storage
  /** A second client of the same store, as another process would be. */
  another(): Storage
}

/** What every store promises (src/storage/storage.ts). Each implementation runs all of it. */
export function storageContract(name: string, open: () => Promise<Bench>): void {
  describe(`the contract of ${name}`, () => {
    let bench: Bench
    beforeEach(async () => {
      bench = await open()
    })
    afterEach(() => bench[Symbol.asyncDispose]())

    const put = (key: string, body: string): Promise<boolean> => bench.storage.put(key, Buffer.from(body))
    const get = async (key: string): Promise<string> => (await readAll(bench.storage.get(key))).toString()
    const list = async (prefix: string): Promise<string[]> =>
      (await listed(bench.storage, prefix)).map(({ key }) => key)

    describe('put', () => {
      test('stores a buffer, a stream, and nothing at all', async () => {
        expect(await put('a/buffer', 'one')).toBe(true)
        expect(await bench.storage.put('a/stream', chunks('t', 'w', '', 'o'))).toBe(true)
        expect(await put('empty', '')).toBe(true)
        expect(await bench.storage.put('empty-stream', chunks())).toBe(true)
        expect(await Promise.all(['a/buffer', 'a/stream', 'empty', 'empty-stream'].map(get))).toEqual([
          'one',
          'two',
          '',
          '',
        ])
      })

      test('stores many megabytes as they are', async () => {
        const part = Buffer.from(Array.from({ length: 1 << 20 }, (_, i) => (i * 31 + (i >> 8)) & 255))
        await bench.storage.put('large', repeated(part, 11))
        expect(await bench.storage.size('large')).toBe(11 << 20)
        expect((await readAll(bench.storage.get('large'))).equals(Buffer.concat(Array(11).fill(part)))).toBe(true)
        // Again, as an upload that must not replace anything.
        expect(await bench.storage.put('large', repeated(part, 12), { ifAbsent: true })).toBe(false)
        expect(await bench.storage.put('larger', repeated(part, 12), { ifAbsent: true })).toBe(true)
        expect([await bench.storage.size('large'), await bench.storage.size('larger')]).toEqual([11 << 20, 12 << 20])
      })

      test('replaces what was there', async () => {
        await put('key', 'a longer body')
        expect(await put('key', 'short')).toBe(true)
        expect(await get('key')).toBe('short')
      })

      test('with ifAbsent leaves an existing key alone, also an empty one', async () => {
        expect(await bench.storage.put('key', Buffer.from('first'), { ifAbsent: true })).toBe(true)
        expect(await bench.storage.put('key', Buffer.from('second'), { ifAbsent: true })).toBe(false)
        await put('empty', '')
        expect(await bench.storage.put('empty', Buffer.from('x'), { ifAbsent: true })).toBe(false)
        expect([await get('key'), await get('empty')]).toEqual(['first', ''])
      })

      test('with ifAbsent has one winner among twenty writers, and the winner is what is stored', async () => {
        const clients = [bench.storage, bench.another()]
        for (const key of ['race', 'fresh/folder/race']) {
          const outcomes = await Promise.all(
            Array.from({ length: 20 }, (_, n) => {
              const storage = clients[n % clients.length] as Storage
              return storage.put(key, chunks(`writer ${n} `, 'x'.repeat(n * 1000)), { ifAbsent: true })
            }),
          )
          const winners = outcomes.flatMap((won, n) => (won ? [n] : []))
          expect(winners).toHaveLength(1)
          expect(await get(key)).toBe(`writer ${winners[0]} ${'x'.repeat((winners[0] as number) * 1000)}`)
        }
        expect(await list('')).toEqual(['fresh/folder/race', 'race'])
      })

      test('without ifAbsent, raced, leaves the whole of one of them', async () => {
        const bodies = Array.from({ length: 8 }, (_, n) => `${n}`.repeat(50_000 + n))
        await Promise.all(bodies.map((body) => put('race', body)))
        expect(bodies).toContain(await get('race'))
      })

      test('keeps the key as it was when the body fails, and hands the failure on', async () => {
        await put('there', 'as it was')
        for (const key of ['there', 'absent']) {
          const failure = bench.storage.put(key, failing(new WalbackError('database', 'the server went away')))
          await expect(failure).rejects.toMatchObject({ code: 'database', message: 'the server went away' })
        }
        expect(await get('there')).toBe('as it was')
        expect(await list('')).toEqual(['there'])
      })

      test('does not pass off as its own what went wrong in the body', async () => {
        const failure = bench.storage.put('absent', failing(new TypeError('a bug in the body')))
        await expect(failure).rejects.toThrow(TypeError)
      })

      test('that is aborted leaves the key as it was', async () => {
        await put('there', 'as it was')
        for (const key of ['there', 'absent']) {
          const controller = new AbortController()
          const failure = bench.storage.put(key, abortedAfter(controller), { signal: controller.signal })
          await expect(failure).rejects.toMatchObject({ code: 'interrupted' })
        }
        expect(await get('there')).toBe('as it was')
        expect(await list('')).toEqual(['there'])
      })

      test('that begins aborted stores nothing', async () => {
        const failure = bench.storage.put('absent', Buffer.from('x'), { signal: AbortSignal.abort() })
        await expect(failure).rejects.toMatchObject({ code: 'interrupted' })
        expect(await bench.storage.size('absent')).toBeUndefined()
      })
    })

    describe('get', () => {
      test('gives ranges, fewer bytes at the end, and none behind it', async () => {
        await put('key', '0123456789')
        const range = async (start: number, end: number): Promise<string> =>
          (await readAll(bench.storage.get('key', { range: { start, end } }))).toString()
        expect(await range(0, 10)).toBe('0123456789')
        expect(await range(3, 5)).toBe('34')
        expect(await range(9, 10)).toBe('9')
        expect(await range(8, 100)).toBe('89')
        expect(await range(10, 12)).toBe('')
        expect(await range(4, 4)).toBe('')
      })

      test('of an absent key fails, and says that it is absent', async () => {
        for (const key of ['absent', 'no/such/folder']) {
          await expect(readAll(bench.storage.get(key))).rejects.toMatchObject({
            code: 'storage',
            retryable: false,
            facts: { absent: true },
          })
        }
      })

      test('may be left early, and stopped', async () => {
        await bench.storage.put('large', repeated(Buffer.alloc(1 << 20), 4))
        for await (const chunk of bench.storage.get('large')) {
          expect(chunk.length).toBeGreaterThan(0)
          break
        }
        const stopped = readAll(bench.storage.get('large', { signal: AbortSignal.abort() }))
        await expect(stopped).rejects.toMatchObject({ code: 'interrupted' })
      })

      test('sees what another client has put', async () => {
        await bench.another().put('key', Buffer.from('from elsewhere'))
        expect(await get('key')).toBe('from elsewhere')
      })
    })

    describe('size', () => {
      test('is the length in bytes, or undefined', async () => {
        await put('a/key', 'größe')
        expect(await bench.storage.size('a/key')).toBe(7)
        expect(await bench.storage.size('a/other')).toBeUndefined()
        expect(await bench.storage.size('b/c/d')).toBeUndefined()
      })

      test('of a prefix is undefined: a prefix is not an object', async () => {
        await put('a/key', 'x')
        expect(await bench.storage.size('a')).toBeUndefined()
      })
    })

    describe('list', () => {
      test('is empty before anything is there', async () => {
        expect(await list('')).toEqual([])
        expect(await list('sources/x/')).toEqual([])
      })

      test('yields every object once, in the order of whole keys, with its size', async () => {
        const keys = [
          'b',
          'a/c',
          'a.b',
          'a-b',
          'a/b/c',
          'a/b.c',
          'a',
          'a0',
          'A',
          'a_',
          'c/0000.wbp',
          'c/0000.wbs',
          'c/0000.x/y',
        ]
        // A store of folders cannot hold a key below another key.
        const possible = keys.filter((key) => key !== 'a')
        for (const key of [...possible].reverse()) await put(key, key)
        const found = await listed(bench.storage, '')
        expect(found.map(({ key }) => key)).toEqual([...possible].sort())
        expect(found.every(({ key, size_bytes }) => key.length === size_bytes)).toBe(true)
      })

      test('of a prefix, which may end inside a name', async () => {
        for (const key of ['s/app/1', 's/app/2/x', 's/app-old/1', 's/a', 's/ap', 's/b', 't/app/1']) await put(key, '')
        expect(await list('s/app/')).toEqual(['s/app/1', 's/app/2/x'])
        expect(await list('s/app')).toEqual(['s/app-old/1', 's/app/1', 's/app/2/x'])
        expect(await list('s/a')).toEqual(['s/a', 's/ap', 's/app-old/1', 's/app/1', 's/app/2/x'])
        expect(await list('s/app/2/x')).toEqual(['s/app/2/x'])
        expect(await list('s/x')).toEqual([])
        expect(await list('s/app/1/y')).toEqual([])
      })

      test('is not disturbed by objects that come and go meanwhile', async () => {
        for (let n = 0; n < 20; n++) await put(`k/${String(n).padStart(2, '0')}`, '')
        const seen: string[] = []
        for await (const { key } of bench.storage.list('k/')) {
          seen.push(key)
          if (seen.length === 5) await Promise.all([bench.storage.delete('k/19'), put('k/00a', '')])
        }
        expect(seen.slice(0, 19)).toEqual(Array.from({ length: 19 }, (_, n) => `k/${String(n).padStart(2, '0')}`))
      })
    })

    describe('delete', () => {
      test('removes an object and nothing else', async () => {
        await put('a/b', '1')
        await put('a/c', '2')
        await bench.storage.delete('a/b')
        expect(await list('')).toEqual(['a/c'])
        expect(await bench.storage.put('a/b', Buffer.from('3'), { ifAbsent: true })).toBe(true)
      })

      test('of an absent key succeeds', async () => {
        await put('a/b', '1')
        for (const key of ['absent', 'a/absent', 'no/such/folder']) await bench.storage.delete(key)
        expect(await list('')).toEqual(['a/b'])
      })
    })
  })
}

export async function listed(storage: Storage, prefix: string): Promise<StoredObject[]> {
  const found: StoredObject[] = []
  for await (const object of storage.list(prefix)) found.push(object)
  return found
}

export async function* chunks(...parts: string[]): AsyncGenerator<Buffer> {
  for (const part of parts) yield Buffer.from(part)
}

async function* repeated(part: Buffer, times: number): AsyncGenerator<Buffer> {
  for (let n = 0; n < times; n++) yield part
}

async function* failing(error: Error): AsyncGenerator<Buffer> {
  yield Buffer.from('half of ')
  throw error
}

async function* abortedAfter(controller: AbortController): AsyncGenerator<Buffer> {
  yield Buffer.from('half of ')
  controller.abort()
  yield Buffer.from('it')
}
