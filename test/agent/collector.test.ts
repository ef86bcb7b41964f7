import { expect, it } from 'vitest'
import { CollectionRule, collectInTime } from '../../agent/collector.ts'
import { waitFor } from '../../src/base/abort.ts'

const mib = 1 << 20
const inUse = (heapUsed: number, external: number) => ({ heapUsed: heapUsed * mib, external: external * mib })

it('collects what has come since, and not again and again what is in use', () => {
  const rule = new CollectionRule()
  expect(rule.isDue(inUse(40, 40))).toBe(false)
  expect(rule.isDue(inUse(40, 80))).toBe(true)
  // It freed nothing: all of it is in use.
  rule.collected(inUse(40, 80))
  expect(rule.isDue(inUse(45, 90))).toBe(false)
  expect(rule.isDue(inUse(45, 140))).toBe(true)
  rule.collected(inUse(30, 10))
  expect(rule.isDue(inUse(30, 60))).toBe(false)
  expect(rule.isDue(inUse(30, 70))).toBe(true)
})

it('lets go of buffers that nobody has any more', async () => {
  using _ = collectInTime()
  const finalised = new FinalizationRegistry<string>(() => (gone = true))
  let gone = false
  const hold = (): void => {
    const large = Buffer.alloc(160 * mib, 1)
    finalised.register(large, 'large')
  }
  hold()
  expect(await waitFor(async () => gone || undefined, { timeout_ms: 30_000, interval_ms: 50 })).toBe(true)
})
