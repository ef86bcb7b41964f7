/** Bases that are read under one snapshot after the other, while everything changes. */
import { expect, it } from 'vitest'
import { sleep } from '../../src/base/abort.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import type { BaseManifest } from '../../src/repository/base.ts'
import { proveLatest, proveSamples, sql, withClient } from '../faults/proof.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { Random } from '../support/random.ts'
import { startRefereed } from '../support/referee.ts'
import { openArchive, ourObjects, type TestArchive } from '../support/walback.ts'
import { createNasty, createPgbench, runNasty, runPgbench } from '../support/workload.ts'

const snapshotsOf = (base: BaseManifest): Set<string> =>
  new Set(base.tables.map((table) => table.snapshot ?? base.snapshot))

/** Tables of more than a megabyte, so that one is a round, in which rows move, keys are exchanged and values are TOASTed. */
const moving = ['moving_a', 'moving_b', 'moving_c', 'moving_d'] as const
const isLong = process.env.WALBACK_LONG !== undefined

async function createMoving(url: string): Promise<void> {
  for (const name of moving)
    await sql(
      url,
      `create table ${name} (id int primary key, n int, filler text, big text);
       alter table ${name} alter big set storage external;
       insert into ${name} select g, g, repeat(md5(g::text), 10), case when g % 500 = 0 then repeat('x', 3000) end
       from generate_series(1, 6500) g`,
    )
}

async function move(url: string, signal: AbortSignal, seed: number): Promise<void> {
  const random = new Random(seed)
  await withClient(url, async (client) => {
    while (!signal.aborted) {
      const [a, b] = [random.pick(moving), random.pick(moving)]
      const at = random.int(1, 6400)
      await client.query('begin')
      await client.query(`update ${a} set n = n + 1, filler = filler || 'x' where id between $1 and $1 + 20`, [at])
      await client.query(`update ${b} set id = -id where id in ($1, -($1::int))`, [at])
      await client.query(`insert into ${b} (id, n) select coalesce(max(id), 0) + 1, 0 from ${b}`)
      await client.query(`delete from ${a} where id = $1`, [at + 30])
      if (random.int(0, 60) === 0) await client.query('truncate moving_d')
      await client.query('commit')
    }
  })
}

it('are exact under load, whichever tables were read when', { timeout: 240_000 }, async () => {
  await using source = await startRefereed({ settings: { max_prepared_transactions: '20' } })
  const url = source.server.url()
  await createNasty(url)
  await createPgbench(url, 0.1)
  await createMoving(url)
  await using archive = await openArchive(url)
  await using physical = await source.archive.baseBackup()
  const stopCapture = archive.capture()
  const ending = new AbortController()
  const { signal } = ending
  const loads = [
    runNasty(url, { clients: 2, seed: 7, signal }),
    runPgbench(url, { clients: 2, seed: 7, signal }),
    move(url, signal, 7).then(() => undefined),
  ]
  for (const load of loads) load.catch(() => undefined)
  await sleep(500)
  const base = await archive.base({ maxSnapshotAge_ms: 1 })
  await sleep(1000)
  ending.abort()
  const reports = await Promise.all(loads)
  await archive.catchUpAfter(stopCapture)
  expect(snapshotsOf(base).size).toBeGreaterThan(3)
  await source.archive.flush()
  const samples = reports.flatMap((report) => report?.samples ?? [])
  await proveLatest(archive, url)
  await proveSamples(archive, physical, samples, { after: base.lsn, count: isLong ? 10 : 1, random: new Random(8) })
})

async function proveEqual(archive: TestArchive, url: string): Promise<void> {
  await archive.catchUp()
  const golden = await fingerprint(url)
  await archive.restored({ kind: 'latest' }, async (restored) => {
    expect(differences(golden, await fingerprint(restored), ourObjects)).toEqual([])
  })
}

it('take what changed between the snapshots in its new form, and need no new start for it', async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await createMoving(url)
  await sql(
    url,
    `create type mood as enum ('well', 'ill');
     create table feelings (id int primary key, m mood); insert into feelings values (1, 'well');
     create unlogged table scratch (n int); insert into scratch values (1);
     create table names (r regclass); insert into names values ('moving_a');
     create table dropped (n int); insert into dropped values (1)`,
  )
  await using archive = await openArchive(url)
  const script = [
    'alter table moving_a add column more int default 7; update moving_a set more = 8 where id < 100',
    `alter type mood rename value 'well' to 'fine'; insert into feelings values (2, 'fine')`,
    'truncate moving_b; insert into moving_b (id, n) values (1, 1)',
    `drop table dropped; create table dropped (n text); insert into dropped values ('again'); insert into scratch values (2);
     alter table moving_a rename to moved_a; create table late (n int primary key); insert into late values (1)`,
  ]
  let rounds = 0
  const base = await archive.base({
    jobs: 1,
    maxSnapshotAge_ms: 1,
    preparation: {
      run: async () => {
        rounds++
        for (const statement of script.shift()?.split(/;\s/) ?? []) await sql(url, statement)
        // What was read before follows by the stream alone.
        for (const name of ['moving_c', 'moving_d']) await sql(url, `update ${name} set n = n + 1 where id < 50`)
      },
      check: async () => ({ isDone: true, unpublished: [] }),
    },
  })
  expect(script).toEqual([])
  expect(rounds).toBeGreaterThan(4)
  expect(snapshotsOf(base).size).toBeGreaterThan(1)
  expect(base.tables.map(({ name }) => name)).toContain('moved_a')
  for (const name of ['scratch', 'names'])
    expect(base.tables.find((table) => table.name === name)).not.toHaveProperty('snapshot')
  await sql(
    url,
    'insert into late values (2); update moving_c set n = n - 1 where id > 100; delete from moving_d where id > 100',
  )
  await proveEqual(archive, url)
})
