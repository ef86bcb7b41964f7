import { it } from 'vitest'
import { faultLoop } from '../faults/loop.ts'

/** WALBACK_SEED is the first round's seed, WALBACK_ROUNDS how many follow: one alone runs with its own seed and 1. */
const seed = Number(process.env.WALBACK_SEED ?? Date.now() % 1_000_000)
const rounds = Number(process.env.WALBACK_ROUNDS ?? 200)

it(`proves ${rounds} rounds in which anything goes wrong at any moment`, { timeout: rounds * 300_000 }, async () => {
  await faultLoop({ seed, rounds, targets: 3 })
})
