import { expect, it } from 'vitest'
import { sleep } from '../../src/base/abort.ts'
import { aMoment, underLoad } from './under-load.ts'

const isLong = process.env.WALBACK_LONG !== undefined
const rounds = isLong ? 50 : 5

it(`loses nothing when the agent is killed ${rounds} times under load`, {
  timeout: isLong ? 600_000 : 115_000,
}, async () => {
  const outcome = await underLoad({ seed: 101, targets: isLong ? 10 : 3 }, async ({ agent, random }) => {
    for (let round = 0; round < rounds; round++) {
      await using running = agent()
      // Not before it could have done anything; from then on at any moment, the middle of an object's write included.
      await running.logged(round % 3 === 0 ? /^capturing$/ : /^segment stored$/)
      await aMoment(random)
      expect(running.ended).toBeUndefined()
      await running.kill()
    }
    await using last = agent()
    await last.logged(/^segment stored$/, { times: 3 })
    await sleep(500)
    expect(await last.stop()).toBe(0)
  })
  expect(outcome.polls).toBeGreaterThan(20)
  expect(outcome.positions).toBeGreaterThan(rounds)
})
