import pino from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Events } from '../../agent/events.ts'
import { Rehearser } from '../../agent/rehearser.ts'
import { waitFor } from '../../src/base/abort.ts'
import { readHoldings } from '../../src/history/status.ts'
import type { WalbackEvent } from '../../src/index.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import type { Credential } from '../../src/repository/credential.ts'
import { findProof, listProofs, readProof } from '../../src/repository/proof-record.ts'
import type { NewRecipient } from '../../src/repository/recipients.ts'
import { Repository } from '../../src/repository/repository.ts'
import { openStorage } from '../../src/storage/open.ts'
import type { Assertion } from '../../src/throwaway/assertions.ts'
import { estimateRestore_ms, type ProveOptions, proveRestore } from '../../src/throwaway/prove.ts'
import { randomTarget } from '../../src/throwaway/random-target.ts'
import { verifySource } from '../../src/verify/verify.ts'
import { once, packages } from '../restore/round-trip.ts'
import { Random } from '../support/random.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'
import { buildArchive } from '../verify/archive.ts'

const seed = Number(process.env['WALBACK_SEED'] ?? 71_204)
const rounds = process.env['WALBACK_LONG'] === undefined ? 6 : 200
const credential: NewRecipient & Credential = { kind: 'passphrase', passphrase: 'correct horse battery staple' }

let server: EmbeddedServer
let archive: TestArchive
let url = ''

beforeAll(async () => {
  server = await startEmbedded({ package: packages[14], settings: { fsync: 'off' } })
  await once(server.url(), 'CREATE DATABASE app')
  url = server.url('app')
  await once(
    url,
    `create table t (id serial primary key, what text); create table plain (a int, b text); create table none ();
     create table kinds (id int primary key); create table of_kinds (kind int references kinds);
     insert into kinds values (1), (2); insert into of_kinds values (1), (2), (2);
     insert into t (what) select 'row ' || n from generate_series(1, 500) n;
     insert into plain select n, null from generate_series(1, 50) n`,
  )
  archive = await openArchive(url, 'app', credential)
  await buildArchive(url, archive)
})

afterAll(async () => {
  await archive[Symbol.asyncDispose]()
  await server[Symbol.asyncDispose]()
})

const onServer = (): ProveOptions => ({ jobs: 2, on: resolveConninfo(server.url(), {}) })

describe('a restore that proves', () => {
  it(`to any moment of what can be restored, drawn at random (seed ${seed})`, { timeout: 600_000 }, async () => {
    const random = new Random(seed)
    const holdings = await readHoldings(archive.repository, 'app')
    expect(holdings.windows).toHaveLength(2)
    const timelines = new Set<string>()
    for (let round = 0; round < rounds; round++) {
      // In turn, since the first is much longer than the second.
      const windows = holdings.windows.slice(round % 2, (round % 2) + 1)
      const target = randomTarget({ windows }, () => random.next())
      const { record, findings } = await proveRestore(archive.repository, await archive.plan(target), {
        ...onServer(),
        isRandom: true,
        assertions: [{ name: 'kinds', sql: 'SELECT count(*) FROM of_kinds', expect: 3 }],
      })
      expect({ target, findings }).toEqual({ target, findings: [] })
      expect(record).toMatchObject({ outcome: 'proven', random: true, checked: { foreignKeys: 1, assertions: 1 } })
      timelines.add(record.timeline)
    }
    expect([...timelines].sort()).toEqual(['00000001', '00000002'])
  })

  it('each end of what can be restored may be drawn, and nothing beside it', async () => {
    const { windows } = await readHoldings(archive.repository, 'app')
    const draw = (share: number) => randomTarget({ windows }, () => share)
    expect(draw(0)).toEqual({ kind: 'lsn', lsn: windows[0]?.from.lsn })
    const last = draw(0.999_999)
    expect(last).toMatchObject({ kind: 'lsn' })
    for (let n = 0; n < 1000; n++) {
      const target = draw(n / 1000)
      const isIn = windows.some(
        ({ from, to }) => target.kind === 'lsn' && target.lsn >= from.lsn && target.lsn <= to.lsn,
      )
      expect(isIn).toBe(true)
    }
    expect(() => randomTarget({ windows: [] }, () => 0)).toThrow(/nothing can be restored yet/)
  })

  it('leaves a record that only the key opens, that verify checks, and that plans go by', async () => {
    const plan = await archive.plan({ kind: 'latest' })
    const { key, record } = await proveRestore(archive.repository, plan, onServer())
    const number = (await listProofs(archive.repository, 'app')).at(-1) ?? 0
    expect(await readProof(archive.repository, 'app', number)).toEqual(record)
    expect(key).toBe(`sources/app/proofs/${String(number).padStart(8, '0')}.json`)
    const raw = await openStorage(archive.folder)
    const bytes: Buffer[] = []
    for await (const part of raw.get(key ?? '')) bytes.push(part)
    expect(Buffer.concat(bytes).toString('latin1')).not.toContain('latest')
    expect(estimateRestore_ms(plan, record)).toBe(record.restore_ms)
    expect(
      estimateRestore_ms({ bytes: { base: 2 * plan.bytes.base, segments: 2 * plan.bytes.segments } }, record),
    ).toBe(2 * (record.restore_ms ?? 0))
    expect((await verifySource(archive.repository, 'app', { isRecorded: false })).damaged).toBe(0)
    const damaged = Buffer.concat(bytes)
    damaged[60] = (damaged[60] as number) ^ 1
    await raw.put(key ?? '', damaged)
    const found = await verifySource(archive.repository, 'app', { isRecorded: false })
    expect(found.findings).toMatchObject([{ kind: 'verification-damaged', key }])
    await raw.delete(key ?? '')
    await expect(Repository.open(raw)).rejects.toMatchObject({ code: 'wrong_key' })
  })

  it('does not count what a server lacks, or a disk, as a finding', async () => {
    await once(server.url(), 'CREATE DATABASE extended')
    const extended = server.url('extended')
    await once(extended, 'CREATE EXTENSION adminpack; CREATE EXTENSION citext')
    const other = await openArchive(extended, 'extended')
    await using _ = other
    await other.base()
    await once(extended, 'CREATE EXTENSION old_snapshot; CREATE EXTENSION "uuid-ossp"')
    await other.catchUp()
    const plan = await other.plan({ kind: 'latest' })
    await expect(proveRestore(other.repository, plan, { jobs: 1 })).rejects.toMatchObject({
      code: 'prerequisite',
      message: 'the throwaway server (PostgreSQL 18) lacks extensions that the source has: adminpack, old_snapshot',
      hint: expect.stringMatching(/give --on postgres:\/\/… of a server with PostgreSQL 14 or later that has them/),
    })
    const newer = { ...plan, base: { ...plan.base, serverVersion: 190_001 } }
    await expect(proveRestore(other.repository, newer, onServer())).rejects.toMatchObject({
      code: 'prerequisite',
      message: expect.stringMatching(/^the source is PostgreSQL 19, and postgres:.* is older$/),
    })
    const large = { ...plan, base: { ...plan.base, raw_bytes: 1e16 } }
    await expect(proveRestore(other.repository, large, { jobs: 1 })).rejects.toMatchObject({
      code: 'prerequisite',
      message: expect.stringMatching(/^a throwaway server needs about \d+ MB in .*, where \d+ MB are free$/),
    })
    expect(await listProofs(other.repository, 'extended')).toEqual([])
    expect((await proveRestore(other.repository, plan, onServer())).findings).toEqual([])
    await once(server.url(), `select pg_drop_replication_slot('walback_extended')`)
  })

  it('under a locale that the machine lacks sorts by bytes, and says so', async () => {
    const plan = await archive.plan({ kind: 'latest' })
    const database = { ...plan.base.database, collate: 'xx_XX.UTF-8', ctype: 'xx_XX.UTF-8' }
    const { record } = await proveRestore(
      archive.repository,
      { ...plan, base: { ...plan.base, database } },
      { jobs: 2, isRecorded: false },
    )
    expect(record).toMatchObject({ outcome: 'proven', warnings: [expect.stringContaining('no locale xx_XX.UTF-8')] })
  })
})

describe('the agent', () => {
  const log = pino({ level: 'silent' })

  /** Runs a rehearser that is due until it has told so much, or left so many records. */
  async function until(assertions: readonly Assertion[], count: number, told: WalbackEvent[]) {
    const before = (await listProofs(archive.repository, 'app')).length
    const rehearser = new Rehearser({
      repository: archive.repository,
      source: 'app',
      settings: { every_ms: 0, target: 'random' },
      assertions,
      log,
      events,
      signal: new AbortController().signal,
    })
    rehearser.begin()
    const enough = async () => {
      const records = (await listProofs(archive.repository, 'app')).length - before
      return records >= count ? true : undefined
    }
    expect(await waitFor(enough, { timeout_ms: 110_000, interval_ms: 20 })).toBe(true)
    await rehearser.close()
    return told.map(({ kind, state, severity }) => [kind, state, severity])
  }

  const told: WalbackEvent[] = []
  const events = new Events('app', log, (event) => told.push(event))

  it('rehearses when it is due, tells what it found once, and that it is over', async () => {
    expect(await until([{ name: 'no', sql: 'SELECT false', expect: true }], 1, told)).toEqual([
      ['restore-unproven', 'raised', 'error'],
    ])
    expect(told[0]).toMatchObject({
      message: expect.stringContaining('NOT PROVEN RESTORABLE: assertion no: it gives "f"'),
    })
    await until([], 1, told)
    expect(told.slice(1)).toMatchObject([{ kind: 'restore-unproven', state: 'cleared' }])
    expect(await findProof(archive.repository, 'app', () => true)).toMatchObject({
      outcome: 'proven',
      random: true,
      server: { kind: 'throwaway', major: 18 },
    })
  })
})
