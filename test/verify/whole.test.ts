import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import { listVerifications, readVerification } from '../../src/repository/verification.ts'
import { parseSubset, type ReadSubset, whole } from '../../src/verify/subset.ts'
import { verifySource } from '../../src/verify/verify.ts'
import type { MemoryStorage } from '../repository/memory-storage.ts'
import { buildTargets } from './archive.ts'

let server: EmbeddedServer
let storage: MemoryStorage
let repository: Repository

beforeAll(async () => {
  server = await startEmbedded()
  storage = (await buildTargets(server)).storage
  repository = await Repository.open(storage)
})

afterAll(() => server[Symbol.asyncDispose]())

const sizeOf = (prefix: string): number =>
  [...storage.objects].reduce((sum, [key, bytes]) => sum + (key.startsWith(prefix) ? bytes.length : 0), 0)

/** What is read whole of the archive: all but what is JSON. */
const containers_bytes = (): number =>
  [...storage.objects].reduce((sum, [key, bytes]) => sum + (key.endsWith('.json') ? 0 : bytes.length), 0)

describe('a sound archive', () => {
  test('is found to be sound, and all of it is read', async () => {
    const report = await verifySource(repository, 'app', { subset: whole })
    expect(report.findings).toEqual([])
    expect(report.read_bytes).toBe(containers_bytes())
    expect(report.windows.map(({ timeline }) => timeline)).toEqual(['00000001', '00000002'])
  })

  test('is read in parts that are together all of it, and a walk reads none', async () => {
    const read = async (subset: ReadSubset | undefined): Promise<number> => {
      const report = await verifySource(repository, 'app', { subset, isRecorded: false })
      expect(report.findings).toEqual([])
      return report.read_bytes
    }
    const parts = ['1/3', '2/3', '3/3'].map(parseSubset)
    let sum = 0
    for (const part of parts) sum += await read(part)
    expect(sum).toBe(containers_bytes())
    expect(await read(undefined)).toBe(0)
  })

  test('has a record of each verification, with what there was', async () => {
    const before = await listVerifications(repository, 'app')
    const { record } = await verifySource(repository, 'app')
    const number = (before.at(-1) ?? 0) + 1
    expect(record).toBe(`sources/app/verifications/${String(number).padStart(8, '0')}.json`)
    const read = await readVerification(repository, 'app', number)
    expect(read).toMatchObject({ outcome: 'sound', read: null, damaged: 0, findings: [] })
    expect(read.timelines.map(({ id }) => id)).toEqual(['00000001', '00000002'])
    expect(read.bases).toHaveLength(3)
    expect(sizeOf('sources/app/verifications/')).toBeLessThan(10_000)
  })
})
