/** Bases of some of the tables: what they hold, what they are taken for, and what they are never taken for. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { takeBase } from '../../src/backup/base-backup.ts'
import { present } from '../../src/base/assert.ts'
import { requireTimeline } from '../../src/capture/session.ts'
import { planCompaction } from '../../src/compact/plan.ts'
import { readHoldings } from '../../src/history/status.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { everything, type Selection } from '../../src/model/selection.ts'
import type { RecoveryTarget } from '../../src/model/target.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { type BaseManifest, readBaseHeads } from '../../src/repository/base.ts'
import { manifestKey } from '../../src/repository/layout.ts'
import { Repository } from '../../src/repository/repository.ts'
import { sealedJson } from '../../src/repository/sealed-json.ts'
import { planSelected } from '../../src/restore/plan-selected.ts'
import { restore } from '../../src/restore/restore.ts'
import { type VerifyReport, verifySource } from '../../src/verify/verify.ts'
import { sql } from '../faults/proof.ts'
import { FailingOnce } from '../support/faults.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'

const latest: RecoveryTarget = { kind: 'latest' }
const only = (...tables: string[]): Selection => ({ ...everything, tables })

const schema = `
  create schema audit;
  create table small (id int primary key, t text); insert into small select g, 's' || g from generate_series(1, 200) g;
  create table big (id int primary key, small int references small, t text);
  insert into big select g, g % 200 + 1, repeat(md5(g::text), 20) from generate_series(1, 4000) g;
  create table audit.log (id serial primary key, t text); insert into audit.log (t) select 'l' || g from generate_series(1, 300) g;
  create table parts (id int, t text) partition by range (id);
  create table parts_1 partition of parts for values from (0) to (100); create table audit.parts_2 partition of parts default;
  insert into parts select g, 'p' || g from generate_series(1, 200) g;
  select lo_from_bytea(0, 'large')`

let server: EmbeddedServer
let archive: TestArchive
let restores = 0

beforeAll(async () => {
  server = await startEmbedded()
})
afterEach(() => archive?.[Symbol.asyncDispose]())
afterAll(() => server?.[Symbol.asyncDispose]())

async function begin(): Promise<void> {
  const name = `app_${++restores}`
  await sql(server.url(), `create database ${name}`)
  await sql(server.url(name), schema)
  archive = await openArchive(server.url(name), name)
}

/** One of all tables, changes, one of some, changes. */
async function withBoth(selection: Selection): Promise<{ full: BaseManifest; some: BaseManifest }> {
  await begin()
  const full = await archive.base()
  await run(
    `insert into small values (1001, 'between'); update big set t = 'between' where id < 5; insert into audit.log (t) values ('between')`,
  )
  const some = await archive.base({ selection })
  await run(
    `update small set t = 'later' where id < 10; delete from audit.log where id < 20; insert into parts values (500, 'later'), (7, 'later')`,
  )
  await archive.catchUp()
  return { full, some }
}

const run = (text: string) => sql(sourceUrl(), text)
const sourceUrl = (): string => server.url(archive.conninfo.database)

const plan = (selection: Selection, target: RecoveryTarget = latest) =>
  planSelected(archive.repository, archive.source, target, selection)

/** Restores what is selected, and compares each of these tables with the source's. */
async function expectEqual(selection: Selection, tables: readonly string[], base: BaseManifest): Promise<void> {
  const planned = await plan(selection)
  expect(planned.base.id).toBe(base.id)
  const database = `restored_${++restores}`
  const { warnings } = await restore(archive.repository, planned, { conninfo: archive.conninfo, database }, { jobs: 2 })
  expect(warnings).toEqual([])
  const rowsOf = (url: string, table: string) =>
    sql(url, `select to_jsonb(t) as r from ${table} t order by to_jsonb(t)::text`)
  for (const table of tables)
    expect(await rowsOf(server.url(database), table), table).toEqual(await rowsOf(sourceUrl(), table))
  const there = `select coalesce(string_agg(n.nspname || '.' || c.relname, ' ' order by 1), '') as names from pg_class c
    join pg_namespace n on n.oid = relnamespace where relkind = 'r' and nspname not in ('pg_catalog', 'information_schema')`
  const [found] = await sql<{ names: string }>(server.url(database), there)
  const shown = tables
    .filter((table) => table !== 'parts')
    .map((table) => (table.includes('.') ? table : `public.${table}`))
  expect(found?.names.split(' ').sort()).toEqual(
    [...shown, ...(tables.includes('parts') ? ['audit.parts_2', 'public.parts_1'] : [])].sort(),
  )
}

describe('a base of some tables', () => {
  it('has the rows of these and of no other, and is what a restore of them goes by', async () => {
    const { full, some } = await withBoth({ ...everything, tables: ['small', 'parts'], schemas: ['audit'] })
    expect(some.tables.map(({ name }) => name).sort()).toEqual(['log', 'parts_1', 'parts_2', 'small'])
    expect(some.leftOut?.map(({ name }) => name)).toEqual(['big'])
    expect(some.largeObjects.objects).toEqual([])
    // Of all relations they would say how much room these need.
    expect([full.sizes, some.sizes]).toEqual([expect.anything(), undefined])
    await expectEqual(only('small'), ['small'], some)
    await expectEqual(only('small', 'audit.log', 'parts'), ['small', 'audit.log', 'parts'], some)
    await expectEqual({ ...everything, schemas: ['audit'] }, ['audit.log', 'audit.parts_2'], some)
    await expectEqual({ ...everything, excludeTables: ['big'] }, ['small', 'audit.log', 'parts'], some)
    await expectEqual(only('parts'), ['parts'], some)
    await expectEqual(only('big'), ['big'], full)
    expect((await plan(only('big', 'small'))).base.id).toBe(full.id)
    expect((await plan(everything)).base.id).toBe(full.id)
    const schemaOnly = await plan({ ...only('big', 'small'), rows: false })
    expect([schemaOnly.base.id, schemaOnly.selected?.tables.size]).toEqual([some.id, 2])
    // Before it there is only the other.
    const before = { kind: 'lsn', lsn: parseLsn(full.lsn) } as const
    expect((await plan(only('small'), before)).base.id).toBe(full.id)
  })

  it('is left where its rows do not do, since the schema was changed after it', async () => {
    const { full } = await withBoth(only('small'))
    await run(`alter table big rename to small2; alter table small rename to big; alter table small2 rename to small`)
    await archive.catchUp()
    await expectEqual(only('small'), ['small'], full)
    await expectEqual(only('big'), ['big'], full)
  })

  it('serves moments before and after a change of the schema, if none lies between', async () => {
    await begin()
    await archive.base()
    await run('alter table small add column before int default 1')
    const some = await archive.base({ selection: only('small', 'parts') })
    const last = await archive.base({ selection: only('small') })
    await run(`insert into small values (1001, 'kept')`)
    const [{ lsn }] = (await run('select pg_current_wal_lsn() as lsn')) as [{ lsn: string }]
    await run('alter table small add column after int default 2')
    await archive.catchUp()
    const target = { kind: 'lsn', lsn: parseLsn(lsn) } as const
    expect((await plan(only('small'), target)).base.id).toBe(last.id)
    // Of the one before it, where the last has not all rows.
    expect((await plan(only('small', 'parts'), target)).base.id).toBe(some.id)
    expect((await plan(only('small'))).base.selection).toBeUndefined()
  })

  it('counts as no base of all tables, wherever one is asked for', async () => {
    await begin()
    const some = await archive.base({ selection: only('small') })
    await archive.catchUp()
    const { repository, source } = archive
    expect(await readBaseHeads(repository, source)).toEqual([])
    const holdings = await readHoldings(repository, source)
    expect(holdings.bases).toEqual([])
    expect(holdings.windows).toEqual([])
    expect(holdings.partialBases.map(({ id }) => id)).toEqual([some.id])
    await expect(archive.plan(latest)).rejects.toMatchObject({ code: 'outside_window' })
    await expect(planCompaction(repository, source, latest)).rejects.toMatchObject({ code: 'outside_window' })
    await expect(plan(everything)).rejects.toMatchObject({
      code: 'outside_window',
      hint: expect.stringContaining(some.id),
    })
    await expect(plan(only('big'))).rejects.toMatchObject({
      code: 'outside_window',
      hint: expect.stringContaining(some.id),
    })
    await expectEqual(only('small'), ['small'], some)
    const report = await verified()
    expect(report.findings).toEqual([])
    await run('alter table small add column more int')
    await archive.catchUp()
    await expect(plan(only('small'))).rejects.toMatchObject({
      code: 'outside_window',
      hint: expect.stringMatching(/has no rows of public.big, which are needed: .*ALTER TABLE/),
    })
  })

  it('that is damaged costs no target of the others, and is found', async () => {
    const { full, some } = await withBoth(only('small'))
    const key = present(some.tables[0]?.pieces[0]?.key, 'a piece of it')
    await archive.repository.storage.delete(key)
    const { findings } = await verified()
    expect(findings).toMatchObject([{ kind: 'base-object-missing', key, lost: [] }])
    const passedOver: string[] = []
    const planned = await planSelected(archive.repository, archive.source, latest, only('small'), {
      onPassedOver: (id) => passedOver.push(id),
    })
    expect([planned.base.id, passedOver]).toEqual([full.id, [some.id]])
    const manifest = manifestKey(archive.source, some.id)
    await archive.repository.storage.delete(manifest)
    await archive.repository.storage.put(manifest, sealedJson({ ...some, selection: undefined }))
    await expect(plan(only('small'))).rejects.toMatchObject({ code: 'corrupt', message: /of all tables/ })
  })

  it('is carried on by whoever wants the same tables, and leaves one of all tables to be carried on', async () => {
    await begin()
    const selection = only('small', 'big')
    const interrupt = async (of: Selection | undefined): Promise<void> => {
      const repository = await Repository.open(new FailingOnce(archive.repository.storage, 'put before', 6))
      const timeline = await requireTimeline(repository, archive.source)
      const options = { jobs: 1, lockTimeout_ms: 2000, maxSnapshotAge_ms: 1, selection: of }
      await expect(takeBase(archive.conninfo, repository, timeline, options)).rejects.toMatchObject({ code: 'storage' })
    }
    const resumed = async (of: Selection | undefined): Promise<number | undefined> => {
      let tables: number | undefined
      await archive.base({
        ...(of === undefined ? {} : { selection: of }),
        onProgress: (state) => {
          if (state.phase === 'resuming') tables = state.tables
        },
      })
      return tables
    }
    await interrupt(undefined)
    await interrupt(selection)
    expect(await resumed(only('small'))).toBeUndefined()
    expect(await resumed(selection)).toBe(1)
    expect(await resumed(undefined)).toBeGreaterThan(0)
    await archive.catchUp()
    await expectEqual(only('big'), ['big'], present((await readAll()).at(-1), 'the last base'))
    const report = await verified()
    expect(report.findings).toEqual([])
  })

  it('is refused where nothing is selected', async () => {
    await begin()
    await expect(archive.base({ selection: only('smal') })).rejects.toMatchObject({
      code: 'usage',
      hint: 'did you mean small?',
    })
    await expect(archive.base({ selection: only('small', 'gone') })).rejects.toMatchObject({ code: 'usage' })
  })
})

const verified = (): Promise<VerifyReport> => verifySource(archive.repository, archive.source)

const readAll = () => readBaseHeads(archive.repository, archive.source) as Promise<BaseManifest[]>
