import { expect, it } from 'vitest'
import { captureUpToNow } from '../../src/capture/session.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import { StallingStorage } from '../support/faults.ts'
import { openArchive } from '../support/walback.ts'
import { proveLatest, sql } from './proof.ts'

// Then it finds the slot past the archive's end, or the archive past the end of the log.
it.each(['slot', 'archive'])(
  'takes an archive that another carries on once it has read the %s for no gap',
  async (when) => {
    await using server = await startEmbedded()
    await sql(server.url(), 'create table t (id serial primary key)')
    await using archive = await openArchive(server.url())
    await archive.base()
    await archive.catchUp()
    await sql(server.url(), 'insert into t default values')
    const storage = new StallingStorage(archive.repository.storage)
    let others = 0
    const overtake = async (): Promise<void> => {
      if (others++ > 0) return
      await sql(server.url(), 'insert into t default values')
      await archive.catchUp()
    }
    const list = storage.list.bind(storage)
    storage.list = async function* (prefix, options) {
      const isOfSegments = prefix.includes('/segments/')
      if (isOfSegments && when === 'slot') await overtake()
      yield* list(prefix, options)
      if (isOfSegments && when === 'archive') await overtake()
    }
    const stream = { segmentBytes: 1 << 20, segmentAge_ms: 100, heartbeat_ms: 1000, stop: new AbortController().signal }
    const late = captureUpToNow(archive.conninfo, await Repository.open(storage), archive.source, stream)
    await expect(late).rejects.toMatchObject({ code: 'locked', retryable: true })
    expect(others).toBeGreaterThan(1)
    await archive.catchUp()
    await proveLatest(archive, server.url())
  },
)
