import pg from 'pg'
import { afterEach, describe, expect, it } from 'vitest'
import { sleep, waitFor } from '../../src/base/abort.ts'
import { setUp } from '../../src/capture/setup.ts'
import { type Conninfo, resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { restore } from '../../src/restore/restore.ts'
import {
  type InPlaceOptions,
  type InPlaceReport,
  planRollback,
  restoreInPlace,
  rollBack,
} from '../../src/swap/in-place.ts'
import { sql } from '../cli/walback.ts'
import { startAgent } from '../support/agent-process.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { oneOrBoth, packageOf } from '../support/majors.ts'
import { openArchive, ourObjects, type TestArchive } from '../support/walback.ts'

/** An application that writes one row after the other, and connects again when it is thrown out. */
class Application implements AsyncDisposable {
  /** Of each row that the server said it has: its number, by the name of the database that took it. */
  readonly written: { readonly n: number; readonly oid: number }[] = []
  /** For how long in a row nothing could be written, at most. */
  longest_ms = 0
  private readonly url: string
  private readonly stop = new AbortController()
  private readonly running: Promise<void>

  constructor(url: string) {
    this.url = url
    this.running = this.run()
  }

  private async run(): Promise<void> {
    let last = performance.now()
    for (let n = 1; !this.stop.signal.aborted; ) {
      const client = new pg.Client({ connectionString: this.url, application_name: 'shop' })
      client.on('error', () => undefined)
      try {
        await client.connect()
        for (; !this.stop.signal.aborted; n++) {
          const { rows } = await client.query<{ oid: number }>(
            `insert into written values ($1) returning (select oid::int from pg_database where datname = current_database()) as oid`,
            [n],
          )
          this.written.push({ n, oid: rows[0]?.oid ?? 0 })
          this.longest_ms = Math.max(this.longest_ms, performance.now() - last)
          last = performance.now()
          await sleep(2)
        }
      } catch {
        // The row may have been taken or not: nobody said so.
        n++
        await sleep(10)
      } finally {
        await client.end().catch(() => undefined)
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop.abort()
    await this.running
  }
}

const numbers = async (url: string): Promise<number[]> =>
  (await sql(url, 'select n::int from written order by n')).map(({ n }) => n as number)

describe.each(oneOrBoth(18))('a restore in place (%i)', (major) => {
  const open: AsyncDisposable[] = []
  afterEach(async () => {
    for (const one of open.splice(0).reverse()) await one[Symbol.asyncDispose]()
  })

  const prepare = async (): Promise<{
    server: EmbeddedServer
    url: string
    conninfo: Conninfo
    archive: TestArchive
  }> => {
    const server = await startEmbedded({ package: packageOf(major), settings: { fsync: 'off' } })
    open.push(server)
    await sql(server.url(), 'create database shop')
    const url = server.url('shop')
    await sql(
      url,
      'create table written (n int primary key)',
      'create table goods (id serial primary key, name text)',
      `insert into goods (name) select 'g' || n from generate_series(1, 500) n`,
    )
    const archive = await openArchive(url, 'shop')
    open.push(archive)
    await archive.base()
    await archive.catchUp()
    return { server, url, conninfo: resolveConninfo(url, {}), archive }
  }

  const restoreTo = async (
    { archive, conninfo }: { archive: TestArchive; conninfo: Conninfo },
    mark: string,
    options: Partial<InPlaceOptions> = {},
  ): Promise<InPlaceReport> => {
    const plan = await planRestore(archive.repository, archive.source, { kind: 'mark', name: mark })
    return restoreInPlace(archive.repository, plan, conninfo, { jobs: 2, ...options })
  }

  const mark = (url: string, word: string): Promise<unknown> =>
    sql(url, `select pg_logical_emit_message(true, 'walback', '{"v":1,"kind":"mark","name":"${word}"}')`)

  it('under an application and an agent: nothing is lost on either side, and it goes back', async () => {
    const stage = await prepare()
    const { server, url, archive, conninfo } = stage
    const setting = { url, repository: archive.repository.storage.url, source: 'shop' }
    const agent = startAgent({ ...setting, segmentBytes: 1 << 20, segmentAge_ms: 300, heartbeat_ms: 1000 })
    open.push(agent)
    await agent.logged(/^capturing$/)
    const application = new Application(url)
    open.push(application)
    await waitFor(async () => application.written.length > 50 || undefined, { timeout_ms: 60_000, interval_ms: 20 })
    await mark(url, 'good')
    await sql(url, 'delete from goods')
    const count = application.written.length
    await waitFor(async () => application.written.length > count + 50 || undefined, {
      timeout_ms: 60_000,
      interval_ms: 20,
    })
    await waitFor(
      () => planRestore(archive.repository, 'shop', { kind: 'mark', name: 'good' }).catch(() => undefined),
      {
        timeout_ms: 60_000,
        interval_ms: 50,
      },
    )
    const { restored, swapped } = await restoreTo(stage, 'good')
    expect(restored).toMatchObject({ database: 'shop', warnings: [] })
    expect(swapped.hasAgent).toBe(true)
    await waitFor(async () => new Set(application.written.map(({ oid }) => oid)).size === 2 || undefined, {
      timeout_ms: 60_000,
      interval_ms: 20,
    })
    expect(await sql(url, 'select count(*)::int from goods')).toEqual([{ count: 500 }])
    // Every row that was acknowledged is where it was written to.
    const old = server.url(swapped.kept)
    const [before, after] = [await numbers(old), await numbers(url)]
    const [oldOid, newOid] = [...new Set(application.written.map(({ oid }) => oid))]
    const of = (oid: number | undefined): number[] =>
      application.written.filter((one) => one.oid === oid).map(({ n }) => n)
    expect(before).toEqual(expect.arrayContaining(of(oldOid)))
    expect(after).toEqual(expect.arrayContaining(of(newOid).slice(0, -1)))
    expect(await sql(old, 'select count(*)::int from goods')).toEqual([{ count: 0 }])
    // All that the old one ever had is restorable.
    const golden = await fingerprint(old)
    await archive.restored({ kind: 'mark', name: swapped.mark }, async (there) => {
      expect(differences(golden, await fingerprint(there), ourObjects)).toEqual([])
    })
    // Capture goes on by itself, and the new one is restorable too.
    await agent.logged(/^base backup done$/, { timeout_ms: 120_000 })
    await mark(url, 'later')
    const later = await fingerprintAt(archive, 'later')
    expect(later).toBeGreaterThan(0)
    // And back.
    const plan = await planRollback({ conninfo })
    expect(plan).toMatchObject({ kind: 'swap', to: swapped.kept })
    const back = await rollBack(plan, { conninfo, repository: archive.repository, source: 'shop' })
    expect(await sql(url, 'select count(*)::int from goods')).toEqual([{ count: 0 }])
    expect(await sql(server.url(back?.kept), 'select count(*)::int from goods')).toEqual([{ count: 500 }])
    await agent.logged(/^base backup done$/, { times: 2, timeout_ms: 120_000 })
    expect(application.longest_ms).toBeLessThan(60_000)
    expect(await agent.stop()).toBe(0)
  }, 300_000)

  /** How many goods a restore to a mark has, once it can be restored to. */
  const fingerprintAt = async (archive: TestArchive, word: string): Promise<number> => {
    const target = { kind: 'mark', name: word } as const
    const there = await waitFor(() => planRestore(archive.repository, 'shop', target).catch(() => undefined), {
      timeout_ms: 120_000,
      interval_ms: 100,
    })
    expect(there).toBeDefined()
    return archive.restored(target, async (at) => Number((await sql(at, 'select count(*) from goods'))[0]?.['count']))
  }

  it('without an agent captures the last of it by itself', async () => {
    const stage = await prepare()
    const { server, url, archive } = stage
    await mark(url, 'good')
    await archive.catchUp()
    await sql(url, `insert into goods (name) values ('after')`)
    const { swapped } = await restoreTo(stage, 'good')
    expect(swapped.hasAgent).toBe(false)
    await sql(url, `insert into goods (name) values ('in the new one')`)
    await archive.base()
    await archive.catchUp()
    const golden = await fingerprint(url)
    await archive.restored({ kind: 'latest' }, async (there) => {
      expect(differences(golden, await fingerprint(there), ourObjects)).toEqual([])
    })
    const old = await fingerprint(server.url(swapped.kept))
    await archive.restored({ kind: 'mark', name: swapped.mark }, async (there) => {
      expect(differences(old, await fingerprint(there), ourObjects)).toEqual([])
    })
  })

  it('that cannot be finished leaves the database open, and as it was', async () => {
    const stage = await prepare()
    const { url, archive, conninfo, server } = stage
    await mark(url, 'good')
    await archive.catchUp()
    const golden = await fingerprint(url)
    // Somebody takes our slot just when nobody seemed to read from it, and stores nothing.
    const reader = new pg.Client({ connectionString: url, replication: 'database' } as pg.ClientConfig)
    reader.on('error', () => undefined)
    await reader.connect()
    const failure: unknown = await restoreTo(stage, 'good', {
      patience_ms: 500,
      onStep: (step) => {
        if (!step.startsWith('no agent')) return
        reader
          .query(
            `START_REPLICATION SLOT walback_shop LOGICAL 0/0 (proto_version '1', publication_names 'walback_shop')`,
          )
          .catch(() => undefined)
      },
    }).catch((error: unknown) => error)
    expect(failure).toMatchObject({
      code: 'failed',
      hint: expect.stringContaining('restore rollback --to shop_restored_'),
    })
    expect(differences(golden, await fingerprint(url))).toEqual([])
    await reader.end().catch(() => undefined)
    // What was restored can still be put in its place.
    const { restored } = (failure as { facts: { restored: string } }).facts
    const plan = await planRollback({ conninfo, to: restored })
    await rollBack(plan, { conninfo, repository: archive.repository, source: 'shop' })
    expect(await sql(url, 'select count(*)::int from goods')).toEqual([{ count: 500 }])
    // One that was killed while it was closed is opened again.
    await sql(server.url(), 'alter database shop with allow_connections false')
    expect(await planRollback({ conninfo })).toEqual({ kind: 'open' })
    await rollBack({ kind: 'open' }, { conninfo, repository: archive.repository, source: 'shop' })
    expect(await numbers(url)).toEqual([])
  })

  it('that was killed between the swap and the new slot is carried on by `init --successor`', async () => {
    const { server, url, archive, conninfo } = await prepare()
    const plan = await planRestore(archive.repository, archive.source, { kind: 'latest' })
    await restore(archive.repository, plan, { conninfo, database: 'restored' }, { jobs: 1 })
    await sql(server.url(), 'alter database shop rename to shop_old', 'alter database restored rename to shop')
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    const options = { source: 'shop', replicaIdentity: 'full' } as const
    await expect(setUp(client, archive.repository, options)).rejects.toMatchObject({ code: 'refused' })
    const { timeline } = await setUp(client, archive.repository, { ...options, isSuccessor: true })
    await client.end()
    expect(timeline.parent).toMatchObject({ timeline: '00000001' })
    expect(await sql(url, 'select slot_name, database from pg_replication_slots')).toEqual([
      { slot_name: 'walback_shop', database: 'shop' },
    ])
    await sql(url, `insert into goods (name) values ('later')`)
    await archive.base()
    await archive.catchUp()
    const golden = await fingerprint(url)
    await archive.restored({ kind: 'latest' }, async (there) => {
      expect(differences(golden, await fingerprint(there), ourObjects)).toEqual([])
    })
  })
})
