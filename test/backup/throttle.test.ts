import { expect, it } from 'vitest'
import { Throttle } from '../../src/base/throttle.ts'

it('holds all who share it to one rate, and saves nothing up in a pause', () => {
  let now = 0
  const throttle = new Throttle(1_000_000, () => now)
  expect(throttle.delay_ms(500_000)).toBe(500)
  expect(throttle.delay_ms(500_000)).toBe(1000)
  now = 1000
  expect(throttle.delay_ms(100_000)).toBe(100)
  now = 60_000
  expect(throttle.delay_ms(2_000_000)).toBe(2000)
})
