import { cp, readdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseLsn } from '../../src/model/lsn.ts'
import { everything } from '../../src/model/selection.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { readManifests } from '../../src/repository/base.ts'
import { Repository } from '../../src/repository/repository.ts'
import { sealedJson } from '../../src/repository/sealed-json.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { planSelected } from '../../src/restore/plan-selected.ts'
import { restore } from '../../src/restore/restore.ts'
import { openStorage } from '../../src/storage/open.ts'
import { whole } from '../../src/verify/subset.ts'
import { verifySource } from '../../src/verify/verify.ts'
import { type Folder, folder, here, sql } from '../cli/walback.ts'
import { once } from '../restore/round-trip.ts'
import { contentSql, type GoldenTarget } from './content.ts'

const golden = (await readdir(import.meta.dirname, { withFileTypes: true }))
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name)
const at = (name: string): string => path.join(import.meta.dirname, name)

/** An encrypted one has its passphrase beside it. */
async function openGolden(name: string): Promise<Repository> {
  const passphrase = await readFile(path.join(at(name), 'passphrase'), 'utf8').catch(() => undefined)
  const access = passphrase === undefined ? undefined : { credential: { kind: 'passphrase', passphrase } as const }
  return await Repository.open(openStorage(path.join(at(name), 'repository')), access)
}

let server: EmbeddedServer
let place: Folder

beforeAll(async () => {
  server = await startEmbedded()
  place = await folder()
})

afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await place[Symbol.asyncDispose]()
})

describe.each(golden)('the golden repository %s', (name) => {
  it('is sound', async () => {
    const repository = await openGolden(name)
    const report = await verifySource(repository, 'app', { subset: whole, isRecorded: false })
    expect(report.findings).toEqual([])
    expect(report.read_bytes).toBeGreaterThan(10_000)
  })

  it('gives back what the database held at each of its moments', async () => {
    const targets = JSON.parse(await readFile(path.join(at(name), 'expected.json'), 'utf8')) as GoldenTarget[]
    const repository = await openGolden(name)
    const conninfo = resolveConninfo(server.url(), {})
    for (const [place, { what, lsn, content }] of targets.entries()) {
      const isLast = place === targets.length - 1
      const target = isLast ? ({ kind: 'latest' } as const) : ({ kind: 'lsn', lsn: parseLsn(lsn) } as const)
      const database = `${name.replaceAll(/\W/g, '_')}_${place}`
      const plan = await planRestore(repository, 'app', target)
      await restore(repository, plan, { conninfo, database }, { jobs: 1 })
      const [found] = await once<{ content: string }>(server.url(database), contentSql)
      expect([what, found?.content]).toEqual([what, content])
      // A sequence that was behind its table would give an id that is taken.
      await once(server.url(database), `insert into orders (customer) values ('after')`)
    }
    const marked = await planRestore(repository, 'app', { kind: 'mark', name: 'golden' })
    expect(marked.timeline.id).toBe('00000001')
  })

  it('serves restores of some tables from the last base that has them', async () => {
    const repository = await openGolden(name)
    const last = (await readManifests(repository, 'app', { of: 'any' })).findLast(({ tables }) =>
      tables.some((table) => table.name === 'orders'),
    )
    const orders = { ...everything, tables: ['orders'] }
    const plan = await planSelected(repository, 'app', { kind: 'latest' }, orders)
    expect(plan.base.id).toBe(last?.id)
    const database = `${name.replaceAll(/\W/g, '_')}_orders`
    const report = await restore(
      repository,
      plan,
      { conninfo: resolveConninfo(server.url(), {}), database },
      { jobs: 1 },
    )
    const targets = JSON.parse(await readFile(path.join(at(name), 'expected.json'), 'utf8')) as GoldenTarget[]
    const rows = targets.at(-1)?.content.match(/^\(\d+,"?[A-Z]/gm)?.length
    expect(report).toMatchObject({ tables: 1, rows })
  })
})

describe('a repository of a later format', () => {
  const flags = (): string[] => ['--db', server.url('newer'), '--repo', 'newer', '--source', 'app']

  beforeAll(async () => {
    await sql(server.url(), 'create database newer')
    await cp(path.join(at(golden[0] ?? ''), 'repository'), path.join(place.path, 'newer'), { recursive: true })
    const file = path.join(place.path, 'newer', 'walback.json')
    // It may be of another shape altogether.
    await writeFile(file, sealedJson({ walback: 'repository', format: 3, what: { is: ['not', 'known'] } }))
  })

  it.each([
    ['init', '--no-config'],
    ['check'],
    ['backup', '--full'],
    ['backup', '--incremental'],
    ['agent'],
    ['status'],
    ['list'],
    ['info'],
    ['log'],
    ['mark', 'now'],
    ['restore', '--to', 'latest', '--into', 'x', '--yes'],
    ['verify'],
  ])('is refused by %s', async (...words) => {
    const ran = await here([...words, ...flags()], { cwd: place.path })
    expect(ran.stderr + ran.stdout).toMatch(/walback\.json has format 3, and this walback reads 2/)
    expect(ran.stderr + ran.stdout).toMatch(/use the walback that wrote it, or a newer one/)
    expect(ran.exit).not.toBe(0)
  })
})
