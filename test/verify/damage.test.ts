import { expect, it } from 'vitest'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import { verifySource } from '../../src/verify/verify.ts'
import { buildTargets } from './archive.ts'
import { damageRounds } from './rounds.ts'

const seed = Number(process.env['WALBACK_SEED'] ?? 84_893)

it(`finds every damage, and a restore uses none (seed ${seed})`, async () => {
  await using server = await startEmbedded()
  const { storage, targets } = await buildTargets(server)
  await verifySource(await Repository.open(storage), 'app')
  const tally = await damageRounds(storage, targets, { seed, rounds: 150 })
  expect(tally.missed).toEqual([])
  expect(tally.wrong).toEqual([])
  expect(tally.found).toBe(150)
})
