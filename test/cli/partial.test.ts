import { afterAll, beforeAll, expect, it } from 'vitest'
import type { EmbeddedServer } from '../../src/postgres/embedded.ts'
import { type Folder, here, openApp, type Ran, type RunOptions, sql, succeed } from './walback.ts'

let server: EmbeddedServer
let place: Folder
let app: string
let options: RunOptions

const json = async <T>(...args: string[]): Promise<T> => JSON.parse((await does(...args, '--json')).stdout) as T
const does = (...args: string[]): Promise<Ran> => succeed(args, options, here)

interface Base {
  readonly id: string
  readonly selection: string | null
  readonly tables: number
  readonly left_out: number
}

beforeAll(async () => {
  ;({ server, place, app, options } = await openApp())
  await sql(
    app,
    `create table orders (id int primary key, t text); insert into orders select g, 'o' || g from generate_series(1, 50) g`,
    `create table "log of it" (id int); insert into "log of it" select generate_series(1, 9); create table other (id int)`,
  )
  await does('init', '--db', app, '--repo', 'archive')
  await does('backup', '--full')
})
afterAll(async () => {
  await place?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

it('a base of some tables is taken, shown apart, pinned, counted apart, and read by what it is for', async () => {
  const [first] = (await json<{ bases: Base[] }>('list')).bases
  const said = await does('backup', '--full', '--table', 'orders', '--exclude-schema', 'audit')
  expect(said.stdout).toContain('of 1 of 3 tables')
  expect(said.stderr).toContain('restores of these take it')
  const again = await json<Base & { kind: string }>('backup', '--full', '--table', 'log*')
  expect(again).toMatchObject({ kind: 'partial', selection: "--table 'log*'", tables: 1, left_out: 2 })

  const list = await json<{ bases: Base[]; partial_bases: Base[] }>('list')
  expect(list.bases).toMatchObject([{ id: first?.id, selection: null, tables: 3, left_out: 0 }])
  expect(list.partial_bases).toMatchObject([
    { selection: '--table orders --exclude-schema audit', tables: 1, left_out: 2 },
    { id: again.id, selection: "--table 'log*'" },
  ])
  const words = (await does('list')).stdout
  expect(words).toContain('of some tables, for restores of these')
  expect(words).toMatch(/1 of 3 .*--table orders --exclude-schema audit/)
  expect((await does('info', again.id)).stdout).toMatch(/selected by +--table 'log\*'; 2 tables left out/)
  expect((await json<{ base: Base }>('info')).base.id).toBe(first?.id)

  const planned = (...args: string[]) =>
    json<{ base: string }>('restore', '--to', 'latest', '--plan', '--into', 'new', ...args)
  expect((await planned('--table', 'log of it')).base).toBe(again.id)
  expect((await planned('--table', 'other')).base).toBe(first?.id)
  expect((await planned()).base).toBe(first?.id)

  await does('pin', '--base', again.id)
  const pruned = await json<{ bases: (Base & { keep: boolean; reasons: string[] })[] }>('prune', '--keep-daily', '1')
  expect(pruned.bases.map(({ id, keep }) => [id, keep])).toEqual([
    [first?.id, true],
    [list.partial_bases[0]?.id, true],
    [again.id, true],
  ])
  expect(pruned.bases[2]?.reasons.join()).toMatch(/^daily .*,pin /)
  expect((await does('prune', '--keep-last', '1')).stdout).toContain('last; of some tables (--table orders')
})

it('is made with --full, of something that is there', async () => {
  expect(await here(['backup', '--incremental', '--table', 'orders'], options)).toMatchObject({
    exit: 2,
    stderr: expect.stringContaining('the stream is of all tables'),
  })
  expect(await here(['backup', '--full', '--table', 'order'], options)).toMatchObject({
    exit: 2,
    stderr: expect.stringContaining('did you mean orders?'),
  })
})
