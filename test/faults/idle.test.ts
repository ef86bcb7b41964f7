import { expect, it } from 'vitest'
import { sleep, waitFor } from '../../src/base/abort.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { readSlot, type SlotState } from '../../src/postgres/source.ts'
import { openArchive } from '../support/walback.ts'
import { proveLatest, sql, watchSlot, withClient } from './proof.ts'

const walSegment_bytes = 16 << 20

async function slotOf(server: EmbeddedServer): Promise<SlotState> {
  const slot = await withClient(server.url(), (client) => readSlot(client, 'walback_app'))
  if (slot?.confirmedFlushLsn === undefined) throw new Error('no slot')
  return slot
}

const currentLsn = async (server: EmbeddedServer): Promise<bigint> =>
  parseLsn((await sql<{ lsn: string }>(server.url(), 'select pg_current_wal_insert_lsn()::text as lsn'))[0]?.lsn ?? '')

/** Waits until the slot was told of a position at or after this one. */
async function confirmedPast(server: EmbeddedServer, position: bigint): Promise<void> {
  const probe = async (): Promise<true | undefined> =>
    ((await slotOf(server)).confirmedFlushLsn ?? 0n) >= position || undefined
  expect(await waitFor(probe, { timeout_ms: 20_000, interval_ms: 50 })).toBe(true)
}

it('moves the slot of a database in which nothing happens', async () => {
  await using server = await startEmbedded()
  await using archive = await openArchive(server.url())
  const watch = watchSlot(server.url(), archive)
  const stop = archive.capture({ heartbeat_ms: 300, segmentAge_ms: 50 })
  for (let round = 0; round < 5; round++) await confirmedPast(server, await currentLsn(server))
  await watch.end()
  await stop()
})

it('keeps the log bounded while another database of the cluster is busy', async () => {
  await using server = await startEmbedded({
    settings: { wal_keep_size: '0', min_wal_size: '32MB', max_wal_size: '64MB' },
  })
  await sql(server.url(), 'create table quiet (id int primary key)')
  await using archive = await openArchive(server.url())
  await archive.base()
  await sql(server.url(), 'create database busy')
  await sql(server.url('busy'), 'create table t (filler text)')
  const watch = watchSlot(server.url(), archive)
  const stop = archive.capture({ heartbeat_ms: 300, segmentAge_ms: 50 })
  const begin = await currentLsn(server)
  let most = 0
  for (let round = 0; round < 12; round++) {
    await sql(server.url('busy'), `insert into t select repeat(md5(n::text), 20) from generate_series(1, 15000) n`)
    await confirmedPast(server, await currentLsn(server))
    // The slot lets go of log up to a snapshot of running transactions, which the server writes at checkpoints, too.
    await sql(server.url(), 'checkpoint')
    await confirmedPast(server, await currentLsn(server))
    most = Math.max(most, (await slotOf(server)).retained_bytes)
  }
  const written = Number((await currentLsn(server)) - begin)
  console.log(`busy elsewhere: ${written >> 20} MiB written, at most ${(most / 2 ** 20).toFixed(1)} MiB kept`)
  expect(written).toBeGreaterThan(5 * walSegment_bytes)
  expect(most).toBeLessThan(3 * walSegment_bytes)
  await watch.end()
  await archive.catchUpAfter(stop)
  await proveLatest(archive, server.url())
})

it.runIf(process.env.WALBACK_LONG !== undefined)(
  'moves the slot without any heartbeat, by what the server says it has sent',
  { timeout: 400_000 },
  async () => {
    await using server = await startEmbedded()
    await using archive = await openArchive(server.url())
    await sql(server.url(), 'create database busy')
    await sql(server.url('busy'), 'create table t (filler text)')
    const watch = watchSlot(server.url(), archive)
    const stop = archive.capture({ heartbeat_ms: 3_600_000 })
    await sleep(2000)
    const target = await currentLsn(server)
    await sql(server.url('busy'), `insert into t select 'x' from generate_series(1, 1000) n`)
    const probe = async (): Promise<true | undefined> =>
      ((await slotOf(server)).confirmedFlushLsn ?? 0n) > target || undefined
    expect(await waitFor(probe, { timeout_ms: 300_000, interval_ms: 500 })).toBe(true)
    await watch.end()
    await stop()
  },
)
