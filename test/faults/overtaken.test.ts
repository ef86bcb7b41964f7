import { expect, it } from 'vitest'
import { captureUpToNow } from '../../src/capture/session.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import { StallingStorage } from '../support/faults.ts'
import { openArchive } from '../support/walback.ts'
import { proveLatest, sql } from './proof.ts'

it('takes an archive that another capture has carried on since for no gap', async () => {
  await using server = await startEmbedded()
  await sql(server.url(), 'create table t (id serial primary key)')
  await using archive = await openArchive(server.url())
  await archive.base()
  await archive.catchUp()
  await sql(server.url(), 'insert into t default values')
  const storage = new StallingStorage(archive.repository.storage)
  let others = 0
  // Between the archive's end being read and the slot being taken, which it then finds past that end.
  storage.afterList = async () => {
    if (others++ === 0) await archive.catchUp()
  }
  const stream = { segmentBytes: 1 << 20, segmentAge_ms: 100, heartbeat_ms: 1000, stop: new AbortController().signal }
  const late = captureUpToNow(archive.conninfo, await Repository.open(storage), archive.source, stream)
  await expect(late).rejects.toMatchObject({ code: 'locked', retryable: true })
  expect(others).toBeGreaterThan(1)
  await archive.catchUp()
  await proveLatest(archive, server.url())
})
