import { expect, it } from 'vitest'
import { aMoment, type Scene, underLoad } from './under-load.ts'

const isLong = process.env.WALBACK_LONG !== undefined
const timeout = isLong ? 600_000 : 115_000

/** Kills the server as by a power cut, and starts it again; the load and the agent find it by themselves. */
async function powerCut({ source }: Scene): Promise<void> {
  await source.server.kill()
  await source.server.start()
}

it('loses nothing when server and agent are killed in any order', { timeout }, async () => {
  const rounds = isLong ? 40 : 5
  const outcome = await underLoad({ seed: 202, targets: isLong ? 8 : 2 }, async (scene) => {
    let agent = scene.agent()
    try {
      for (let round = 0; round < rounds; round++) {
        await aMoment(scene.random)
        expect(agent.ended).toBeUndefined()
        const fate = scene.random.int(0, 2)
        if (fate !== 1) await agent.kill()
        // Both at once: the agent is not there when the server comes back.
        if (fate !== 0) await powerCut(scene)
        if (fate !== 1) agent = scene.agent()
      }
      await agent.logged(/^segment stored$/, { times: 2 })
      expect(await agent.stop()).toBe(0)
    } finally {
      await agent[Symbol.asyncDispose]()
    }
  })
  expect(outcome.polls).toBeGreaterThan(10)
})
