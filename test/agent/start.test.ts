import pino from 'pino'
import { expect, it } from 'vitest'
import { runAgent } from '../../agent/agent.ts'
import { waitFor } from '../../src/base/abort.ts'
import { WalbackError } from '../../src/base/errors.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import type { Storage } from '../../src/storage/storage.ts'
import { proveLatest, sql } from '../faults/proof.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'

/** A store that fails at the first reads. */
const unreachable = (inner: Storage, fails: () => WalbackError | undefined): Storage => {
  const check = (): void => {
    const failure = fails()
    if (failure) throw failure
  }
  return Object.assign(Object.create(inner) as Storage, {
    async *get(...args: Parameters<Storage['get']>) {
      check()
      yield* inner.get(...args)
    },
    size: async (...args: Parameters<Storage['size']>) => {
      check()
      return inner.size(...args)
    },
  })
}

const lasting = (): WalbackError => new WalbackError('storage', 'the store does not answer', { retryable: true })

function start(archive: Pick<TestArchive, 'conninfo' | 'repository'>, fails: () => WalbackError | undefined) {
  const said: string[] = []
  const stop = new AbortController()
  const running = runAgent({
    conninfo: archive.conninfo,
    repository: Object.assign(Object.create(Repository.prototype) as Repository, {
      storage: unreachable(archive.repository.storage, fails),
    }),
    source: 'app',
    stream: { segmentBytes: 64 << 10, segmentAge_ms: 50, heartbeat_ms: 300 },
    log: pino({ base: null }, { write: (line) => void said.push(JSON.parse(line).msg) }),
    signal: stop.signal,
  })
  running.catch(() => undefined)
  const heard = (line: RegExp): Promise<unknown> =>
    waitFor(async () => said.some((one) => line.test(one)) || undefined, { timeout_ms: 60_000, interval_ms: 20 })
  return { said, heard, stop, running }
}

it('waits for a store that is not there yet', async () => {
  await using server = await startEmbedded()
  await sql(server.url(), 'create table t (id serial primary key, what text)')
  await using archive = await openArchive(server.url())
  await archive.base()
  await archive.catchUp()
  let left = 3
  const agent = start(archive, () => (left-- > 0 ? lasting() : undefined))
  await agent.heard(/^capturing$/)
  expect(agent.said.filter((line) => /^NOT CAPTURING: the store does not answer/.test(line))).toHaveLength(3)
  await sql(server.url(), `insert into t (what) values ('captured')`)
  agent.stop.abort()
  await agent.running
  await archive.catchUp()
  await proveLatest(archive, server.url())
})

it('does not wait for what will not pass, nor once it is told to stop', async () => {
  const archive = {
    conninfo: resolveConninfo('postgres://nobody@localhost/none', {}),
    repository: { storage: new MemoryStorage() } as unknown as Repository,
  }
  const refused = start(archive, () => new WalbackError('storage', 'access denied'))
  await expect(refused.running).rejects.toMatchObject({ code: 'storage', message: 'access denied' })
  const waiting = start(archive, lasting)
  await waiting.heard(/^NOT CAPTURING/)
  waiting.stop.abort()
  await expect(waiting.running).rejects.toMatchObject({ code: 'interrupted' })
})
