import pino from 'pino'
import { describe, expect, test } from 'vitest'
import { Events } from '../../agent/events.ts'
import { Verifier } from '../../agent/verifier.ts'
import { waitFor } from '../../src/base/abort.ts'
import type { WalbackEvent } from '../../src/index.ts'
import { listVerifications, readVerification, type Verification } from '../../src/repository/verification.ts'
import { parseSubset, whole } from '../../src/verify/subset.ts'
import { chainOf } from '../verify/chain.ts'

const log = pino({ level: 'silent' })
type Chain = Awaited<ReturnType<typeof chainOf>>

/** Runs a verifier that is due all the time until so many records of ended runs are there; gives them and what it told. */
async function until(
  { repository }: Chain,
  count: number,
  subset = whole,
  told: WalbackEvent[] = [],
): Promise<Verification[]> {
  const stop = new AbortController()
  const events = new Events('app', log, (event) => told.push(event))
  const settings = { every_ms: 20, subset, maxRate: undefined }
  const verifier = new Verifier({ repository, source: 'app', settings, log, events, signal: stop.signal })
  verifier.begin()
  const records = await waitFor(
    async () => {
      const numbers = await listVerifications(repository, 'app')
      return numbers.length < count ? undefined : numbers
    },
    { timeout_ms: 60_000, interval_ms: 5 },
  )
  stop.abort()
  await verifier.close()
  return Promise.all((records ?? []).slice(0, count).map((number) => readVerification(repository, 'app', number)))
}

describe('the agent', () => {
  test('reads one part after the other', async () => {
    const chain = await chainOf(12)
    const records = await until(chain, 4, parseSubset('2/3'))
    expect(records.map(({ read }) => read?.part)).toEqual([2, 3, 1, 2])
    expect(records.every(({ outcome }) => outcome === 'sound')).toBe(true)
  })

  test('tells of damage once, and that it is over', async () => {
    const chain = await chainOf(5)
    const key = [...chain.storage.objects.keys()].find((one) => one.endsWith('.wbs')) as string
    const sound = chain.storage.objects.get(key) as Buffer
    chain.storage.objects.set(key, sound.subarray(1))
    const told: WalbackEvent[] = []
    const events = new Events('app', log, (event) => told.push(event))
    const stop = new AbortController()
    const settings = { every_ms: 20, subset: whole, maxRate: undefined }
    const verifier = new Verifier({
      repository: chain.repository,
      source: 'app',
      settings,
      log,
      events,
      signal: stop.signal,
    })
    verifier.begin()
    const heard = (count: number) =>
      waitFor(async () => (told.length >= count ? true : undefined), { timeout_ms: 60_000, interval_ms: 5 })
    await heard(1)
    chain.storage.objects.set(key, sound)
    await heard(2)
    stop.abort()
    await verifier.close()
    expect(told).toMatchObject([
      {
        kind: 'verify-damaged',
        state: 'raised',
        severity: 'error',
        facts: { damaged: 1, findings: [{ kind: 'segment-damaged', key }] },
      },
      { kind: 'verify-damaged', state: 'cleared' },
    ])
  })

  test('does not verify before it is due', async () => {
    const { repository } = await chainOf(2)
    const stop = new AbortController()
    const settings = { every_ms: 3_600_000, subset: whole, maxRate: undefined }
    const events = new Events('app', log)
    const verifier = new Verifier({ repository, source: 'app', settings, log, events, signal: stop.signal })
    verifier.begin()
    await new Promise((settle) => setImmediate(settle))
    await verifier.close()
    expect(await listVerifications(repository, 'app')).toEqual([])
  })
})
