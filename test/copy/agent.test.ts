import pino from 'pino'
import { expect, it } from 'vitest'
import { runAgent } from '../../agent/agent.ts'
import { waitFor } from '../../src/base/abort.ts'
import { readHoldings } from '../../src/history/status.ts'
import type { WalbackEvent } from '../../src/model/event.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import { proveLatest, sql } from '../faults/proof.ts'
import { MemoryStorage } from '../repository/memory-storage.ts'
import { storeIsAway } from '../support/faults.ts'
import { openArchive } from '../support/walback.ts'

class AwayStorage extends MemoryStorage {
  isAway = true

  override async size(key: string): Promise<number | undefined> {
    if (this.isAway) throw storeIsAway(key)
    return super.size(key)
  }
}

it('the agent goes on while a copy is away, and brings it up when it is back', { timeout: 120_000 }, async () => {
  await using server = await startEmbedded()
  await sql(server.url(), 'create table t (id serial primary key, what text)')
  await using archive = await openArchive(server.url())
  await archive.base()
  const far = new AwayStorage()
  const events: WalbackEvent[] = []
  const stop = new AbortController()
  const running = runAgent({
    ...archive,
    stream: { segmentBytes: 64 << 10, segmentAge_ms: 50, heartbeat_ms: 300 },
    copies: { targets: [far], every_ms: 50 },
    log: pino({ level: 'silent' }),
    onEvent: (event) => void events.push(event),
    signal: stop.signal,
  })
  running.catch(() => undefined)
  const heard = (state: WalbackEvent['state']): Promise<unknown> =>
    waitFor(async () => events.find((one) => one.kind === 'repository-behind' && one.state === state), {
      timeout_ms: 60_000,
      interval_ms: 20,
    })
  const transactions = async (repository: Repository): Promise<number> =>
    (await readHoldings(repository, 'app')).segments.transactions
  expect(await heard('raised')).toMatchObject({ subject: 'memory:', severity: 'warning' })
  const before = await transactions(archive.repository)
  await sql(server.url(), `insert into t (what) values ('while the copy is away')`)
  const grown = async (): Promise<true | undefined> => (await transactions(archive.repository)) > before || undefined
  expect(await waitFor(grown, { timeout_ms: 60_000, interval_ms: 50 })).toBe(true)
  far.isAway = false
  await heard('cleared')
  stop.abort()
  await running
  const copy = await Repository.open(far)
  expect((await readHoldings(copy, 'app')).windows).toHaveLength(1)
  expect(await transactions(copy)).toBeGreaterThan(before)
  await archive.catchUp()
  await proveLatest(archive, server.url())
})
