import { expect, it } from 'vitest'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import { verifySource } from '../../src/verify/verify.ts'
import { buildTargets } from '../verify/archive.ts'
import { damageRounds } from '../verify/rounds.ts'

const seed = Number(process.env['WALBACK_SEED'] ?? Date.now() % 1_000_000)
const rounds = Number(process.env['WALBACK_ROUNDS'] ?? 2000)

it(`finds ${rounds} of ${rounds} damages (seed ${seed})`, { timeout: 60_000 + rounds * 1000 }, async () => {
  await using server = await startEmbedded()
  const { storage, targets } = await buildTargets(server)
  await verifySource(await Repository.open(storage), 'app')
  const { found, missed, wrong, ...counts } = await damageRounds(storage, targets, { seed, rounds })
  console.log(`${found} of ${rounds} found`, counts)
  expect(missed).toEqual([])
  expect(wrong).toEqual([])
})
