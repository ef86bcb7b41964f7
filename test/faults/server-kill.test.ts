import { expect, it } from 'vitest'
import { sleep } from '../../src/base/abort.ts'
import { aMoment, type Scene, underLoad } from './under-load.ts'

const isLong = process.env.WALBACK_LONG !== undefined
const timeout = isLong ? 600_000 : 115_000

/** Kills the server as by a power cut, and starts it again; the load and the agent find it by themselves. */
async function powerCut({ source }: Scene): Promise<void> {
  await source.server.kill()
  await source.server.start()
}

it('follows a server that is killed under load, and loses nothing', { timeout }, async () => {
  const rounds = isLong ? 25 : 3
  const outcome = await underLoad({ seed: 201, targets: isLong ? 8 : 2 }, async (scene) => {
    await using agent = scene.agent()
    for (let round = 1; round <= rounds; round++) {
      await agent.logged(/^capturing$/, { times: round })
      await aMoment(scene.random)
      await powerCut(scene)
    }
    await agent.logged(/^capturing$/, { times: rounds + 1 })
    await sleep(1000)
    expect(agent.lines.filter(({ msg }) => /GAP|timeline/.test(msg))).toEqual([])
    expect(await agent.stop()).toBe(0)
  })
  expect(outcome.reconnects).toBeGreaterThanOrEqual(rounds)
})
