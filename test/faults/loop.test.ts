import { it } from 'vitest'
import { faultLoop } from './loop.ts'

it('proves a sample of rounds in which anything goes wrong at any moment', { timeout: 300_000 }, async () => {
  await faultLoop({ seed: 1211, rounds: 2, targets: 1 })
})
