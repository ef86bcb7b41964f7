import { randomBytes } from 'node:crypto'
import pino from 'pino'
import { expect, it } from 'vitest'
import { runAgent } from '../../agent/agent.ts'
import { waitFor } from '../../src/base/abort.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { rotateKey } from '../../src/repository/key-changes.ts'
import { Repository } from '../../src/repository/repository.ts'
import { openStorage } from '../../src/storage/open.ts'
import { proveLatest, sql } from '../faults/proof.ts'
import { openArchive } from '../support/walback.ts'

it('goes on with a key that is rotated while it captures', async () => {
  await using server = await startEmbedded()
  await sql(server.url(), 'create table t (id serial primary key, what text)')
  const credential = { kind: 'file', secret: randomBytes(32) } as const
  await using archive = await openArchive(server.url(), 'app', credential)
  const said: string[] = []
  const heard = (line: RegExp): Promise<unknown> =>
    waitFor(async () => said.some((one) => line.test(one)) || undefined, { timeout_ms: 60_000, interval_ms: 20 })
  const stop = new AbortController()
  const running = runAgent({
    conninfo: archive.conninfo,
    repository: archive.repository,
    source: 'app',
    stream: { segmentBytes: 64 << 10, segmentAge_ms: 50, heartbeat_ms: 300 },
    patience: { key_ms: 50 },
    log: pino({ base: null }, { write: (line) => void said.push(JSON.parse(line).msg) }),
    signal: stop.signal,
  })
  running.catch(() => undefined)
  await heard(/^base backup done$/)
  const other = await Repository.open(openStorage(archive.folder), { credential })
  if (other.key === undefined) throw new Error('it is encrypted')
  await rotateKey(other.clear, other.key)
  await heard(/sealed to generation 2$/)
  await sql(server.url(), `insert into t (what) values ('sealed anew')`)
  stop.abort()
  await running
  await archive.catchUp()
  await proveLatest(archive, server.url())
  expect(archive.repository.key?.newest.number).toBe(2)
})
