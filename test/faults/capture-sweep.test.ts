import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { captureUpToNow } from '../../src/capture/session.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'
import { proveLatest, sql, watchSlot } from './proof.ts'
import { sweep, sweepKinds } from './sweep.ts'

let server: EmbeddedServer
let archive: TestArchive
beforeAll(async () => {
  server = await startEmbedded()
  await sql(server.url(), 'create table t (id bigserial primary key, filler text); create table bare (n int)')
  archive = await openArchive(server.url())
  await archive.base()
  await archive.catchUp()
})
afterAll(async () => {
  await archive?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

/** A few transactions of several batches of the stream, so that parts and more than one segment are stored. */
async function history(round: number): Promise<void> {
  await sql(
    server.url(),
    `truncate t; insert into t (filler) values ('round ${round}'); insert into bare values (${round})`,
  )
  const rows = `select md5(n::text) || md5((n + ${round})::text) from generate_series(1, 30000) n`
  await sql(server.url(), `insert into t (filler) ${rows}`)
  await sql(server.url(), `update t set filler = 'changed' where id % 97 = ${round}; delete from bare where n % 3 = 0`)
  await sql(server.url(), `begin; insert into bare select generate_series(1, 1500); rollback`)
  await sql(server.url(), `delete from t where id % 2 = 0`)
}

describe.each(sweepKinds)('a store that fails once, at %s', (kind) => {
  it('costs a one-shot capture nothing but another run', async () => {
    const stop = new AbortController().signal
    const stream = { segmentBytes: 16 << 10, segmentAge_ms: 20, heartbeat_ms: 60_000, stop }
    const watch = watchSlot(server.url(), archive, 5)
    const calls = await sweep(
      archive,
      kind,
      (repository) => captureUpToNow(archive.conninfo, repository, 'app', stream),
      {
        before: history,
        // Every other time the next failure comes before the last one was made good.
        after: (n) => (n % 2 === 0 ? archive.catchUp(stream) : Promise.resolve()),
      },
    )
    await archive.catchUp(stream)
    await watch.end()
    expect(calls).toBeGreaterThan(kind.startsWith('put') ? 3 : 0)
    console.log(`capture, ${kind}: ${calls} calls`)
    await proveLatest(archive, server.url())
  })
})
