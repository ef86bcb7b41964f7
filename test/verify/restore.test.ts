import { expect, it } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import type { RecoveryTarget } from '../../src/model/target.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { restore } from '../../src/restore/restore.ts'
import type { MemoryStorage } from '../repository/memory-storage.ts'
import { once } from '../restore/round-trip.ts'
import { differences, type Fingerprint, fingerprint } from '../support/fingerprint.ts'
import { Random } from '../support/random.ts'
import { ourObjects } from '../support/walback.ts'
import { buildArchive, inMemoryCopy, openSourceDatabase } from './archive.ts'
import { harm } from './damage.ts'

const seed = Number(process.env['WALBACK_SEED'] ?? 235_116)
const rounds = 10

it(`restores from a damaged archive exactly, or not at all (seed ${seed})`, { timeout: 300_000 }, async () => {
  await using server = await startEmbedded()
  const { url, archive } = await openSourceDatabase(server)
  await using _ = archive
  const moments: { readonly target: RecoveryTarget; readonly print: Fingerprint }[] = []
  await buildArchive(url, archive, async () => {
    const [at] = await once<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn')
    moments.push({ target: { kind: 'lsn', lsn: parseLsn(at?.lsn ?? '') }, print: await fingerprint(url) })
  })
  // Of the end nothing tells that it is gone.
  moments.pop()
  const storage = await inMemoryCopy(archive.folder)
  const conninfo = resolveConninfo(url, {})
  let databases = 0

  /** What differs in what was restored; or why nothing was. */
  async function outcome(
    of: MemoryStorage,
    { target, print }: (typeof moments)[number],
  ): Promise<string[] | WalbackError> {
    const database = `restored_${++databases}`
    try {
      const repository = await Repository.open(of)
      const plan = await planRestore(repository, 'app', target)
      await restore(repository, plan, { conninfo, database }, { jobs: 1 })
      return differences(print, await fingerprint(server.url(database)), ourObjects)
    } catch (error) {
      if (!(error instanceof WalbackError)) throw error
      const left = await once(url, `select from pg_database where datname like 'restored_${databases}%'`)
      expect(left).toEqual([])
      return error
    } finally {
      await once(url, `drop database if exists ${database} with (force)`)
    }
  }

  const isOfABase = (key: string): boolean => key.endsWith('manifest.json')
  const manifests = [...storage.objects.keys()].filter(isOfABase).sort()
  const second = storage.objects.get(manifests[1] ?? '') as Buffer
  await storage.delete(manifests[1] ?? '')
  // An earlier base carries it, over the changes of the schema.
  expect(await outcome(storage, moments.at(-1) as (typeof moments)[number])).toEqual([])
  storage.objects.set(manifests[1] ?? '', second)

  const random = new Random(seed)
  for (let round = 0; round < rounds; round++) {
    const done = await harm(storage, random)
    if (done === undefined) continue
    const found = await outcome(storage, random.pick(moments))
    if (found instanceof WalbackError)
      expect([done.what, [10, 20, 21]]).toEqual([done.what, expect.arrayContaining([found.exit])])
    else expect([done.what, found]).toEqual([done.what, []])
    done.undo()
  }
})
