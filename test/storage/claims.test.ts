import { randomBytes } from 'node:crypto'
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { type ClaimStore, putUnderClaim } from '../../src/storage/claims.ts'
import { Random } from '../support/random.ts'

const times = { stale_ms: 60_000, write_ms: 25_000, firstWait_ms: 1, longestWait_ms: 4 }

/** A store in memory, each of whose requests takes effect at some moment between its being sent and its answer. */
class SlowStore implements ClaimStore {
  readonly objects = new Map<string, { readonly by: string; readonly modified: Date }>()
  private readonly pause: () => Promise<void>

  constructor(pause: () => Promise<void>) {
    this.pause = pause
  }

  put = (key: string): Promise<void> => this.at(() => void this.objects.set(key, { by: 'claim', modified: new Date() }))
  delete = (key: string): Promise<void> => this.at(() => void this.objects.delete(key))
  exists = (key: string): Promise<boolean> => this.at(() => this.objects.has(key))
  list = (prefix: string): Promise<{ key: string; modified: Date }[]> =>
    this.at(() => [...this.objects].flatMap(([key, { modified }]) => (key.startsWith(prefix) ? { key, modified } : [])))
  write = (key: string, by: string): Promise<void> =>
    this.at(() => void this.objects.set(key, { by, modified: new Date() }))

  private async at<T>(act: () => T): Promise<T> {
    await this.pause()
    const result = act()
    await this.pause()
    return result
  }
}

test('of writers whose requests are interleaved at random, one wins, and nothing is written over', async () => {
  for (let seed = 1; seed <= 150; seed++) {
    const random = new Random(seed)
    const pause = async (): Promise<void> => {
      for (let turns = random.int(0, 5); turns > 0; turns--) await turn()
    }
    const store = new SlowStore(pause)
    const writes: string[] = []
    const writers = Array.from({ length: 2 + (seed % 4) }, async (_, n) => {
      for (let turns = random.int(0, 29); turns > 0; turns--) await turn()
      const token = `${random.int(0, 1e9)}-${n}`
      const write = async (): Promise<void> => {
        writes.push(token)
        await store.write('a/key', token)
      }
      return (await putUnderClaim(store, 'a/key', token, write, { times })) ? [token] : []
    })
    const winners = (await Promise.all(writers)).flat()
    expect({ seed, winners }).toEqual({ seed, winners: [expect.any(String)] })
    expect(writes).toEqual(winners)
    expect([...store.objects.keys()]).toEqual(['a/key'])
    expect(store.objects.get('a/key')?.by).toBe(winners[0])
  }
})

test('a write of which nobody knows whether it happens keeps its claim', async () => {
  const store = new SlowStore(turn)
  const token = randomBytes(4).toString('hex')
  const write = async (): Promise<void> => {
    throw new Error('no answer')
  }
  await expect(putUnderClaim(store, 'key', token, write, { times })).rejects.toThrow('no answer')
  expect([...store.objects.keys()]).toEqual([`.walback/claims/key/${token}`])
})

test('keys do not share claims, also where one begins with the other', async () => {
  const store = new SlowStore(turn)
  const dies = async (): Promise<void> => {
    throw new Error('killed')
  }
  await expect(putUnderClaim(store, 'a/b', 'first', dies, { times })).rejects.toThrow('killed')
  expect(await putUnderClaim(store, 'a', 'second', () => store.write('a', 'second'), { times })).toBe(true)
})
