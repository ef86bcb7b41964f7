import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { EmbeddedServer } from '../../src/postgres/embedded.ts'
import {
  type Folder,
  finished,
  here,
  openApp,
  type Ran,
  type RunOptions,
  sql,
  start,
  succeed,
  xidOfDelete,
} from './walback.ts'

let server: EmbeddedServer
let place: Folder
let app: string
let options: RunOptions
let xid: string

const run = (...args: string[]): Promise<Ran> => here(args, options)
const done = (...args: string[]): Promise<Ran> => succeed(args, options, here)

interface Action {
  readonly action: string
  readonly state: string
  readonly asked: string
  readonly asked_facts: Readonly<Record<string, unknown>>
  readonly came: string | null
  readonly came_facts: Readonly<Record<string, unknown>> | null
  readonly by: { readonly role: string | null; readonly pid: number }
}
interface Trail {
  readonly actions: readonly Action[]
  readonly total: number
  readonly whole: boolean
}
const audit = async (...args: string[]): Promise<Trail> =>
  JSON.parse((await done('audit', '--json', ...args)).stdout) as Trail
const newest = async (): Promise<Action> => (await audit('--limit', '1')).actions[0] as Action
const lastLine = ({ stdout }: Ran): Record<string, unknown> =>
  JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Record<string, unknown>

beforeAll(async () => {
  ;({ server, place, app, options } = await openApp())
  await sql(
    app,
    'CREATE TABLE orders (id int PRIMARY KEY, note text)',
    `INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 10) n`,
  )
  await done('init', '--db', app, '--repo', 'repo')
  await done('backup', '--full')
  await sql(app, 'DELETE FROM orders')
  await done('backup', '--incremental')
  xid = await xidOfDelete(options)
})
afterAll(async () => {
  await server?.[Symbol.asyncDispose]()
  await place?.[Symbol.asyncDispose]()
})

it('has what restores, undos, rollbacks and pins did, and nothing of what only looked', async () => {
  expect((await done('audit')).stdout).toContain('nothing was recorded yet')
  await done('restore', '--to', 'latest', '--into', 'other', '--plan')
  await done('undo', `tx:${xid}`)
  expect(await audit()).toMatchObject({ actions: [], whole: true })

  const restored = lastLine(await done('restore', '--before-tx', xid, '--into', 'other', '--yes', '--json'))
  expect(restored).toMatchObject({ type: 'summary', audit: { record: 1, note: null } })
  expect(await newest()).toMatchObject({
    action: 'restore',
    state: 'done',
    by: { role: 'postgres', pid: process.pid },
    asked: expect.stringMatching(new RegExp(`^before-tx:${xid} \\(0/\\w+\\) into postgres://postgres@\\S+/other`)),
    asked_facts: { database: 'other', selection: null, target: `before-tx:${xid}` },
    came: '1 table, 10 rows; 10 rows proven',
    came_facts: { tables: 1, rows: 10, proven: { tables: 1, rows: 10 } },
  })
  const again = await run('restore', '--before-tx', xid, '--table', 'orders', '--as', 'orders', '--yes')
  expect(again).toMatchObject({ exit: 22 })
  const failed = await newest()
  expect(failed).toMatchObject({ state: 'failed', came_facts: { code: 'refused' } })
  expect(again.stderr).toContain(failed.came)

  await done('undo', `tx:${xid}`, '--apply', '--yes')
  expect(await newest()).toMatchObject({
    action: 'undo',
    state: 'done',
    came: expect.stringMatching(/^undone by tx:\d+: 10 rows inserted$/),
    came_facts: { tables: [{ schema: 'public', name: 'orders', inserts: 10 }] },
  })
  await done('restore', '--before-tx', xid, '--table', 'orders', '--as', 'orders_before', '--yes')
  expect(await newest()).toMatchObject({ action: 'restore-live', came: 'public.orders_before: 10 rows inserted' })
  await done('restore', '--before-tx', xid, '--in-place', '--confirm', 'app')
  const inPlace = await newest()
  const kept = String(inPlace.came_facts?.['kept'])
  expect(inPlace).toMatchObject({ action: 'restore-in-place', came: expect.stringContaining(`kept as ${kept}`) })
  await done('restore', 'rollback', '--confirm', 'app')
  expect(await newest()).toMatchObject({ action: 'rollback', state: 'done', asked: `swap app for ${kept}` })
  const { bases } = JSON.parse((await done('list', '--json')).stdout) as { bases: { id: string }[] }
  const pin = JSON.parse((await done('pin', '--base', bases[0]?.id ?? '', '--json')).stdout) as { pin: { id: string } }
  expect(await newest()).toMatchObject({ action: 'pin', came: `pin ${pin.pin.id}` })
  await done('unpin', pin.pin.id)
  expect(await newest()).toMatchObject({ action: 'unpin', state: 'done' })
  const { total } = await audit()
  const words = (await done('audit')).stdout
  expect(words.match(/^\S+Z {2}#\d+ {2}/gm)).toHaveLength(total)
  expect(words).not.toMatch(/password/i)
})

it('has a restore that was killed as begun and not ended', async () => {
  const before = (await audit()).total
  const blocker = new pg.Client({ connectionString: app })
  await blocker.connect()
  try {
    await blocker.query('BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE')
    const child = start(['restore', '--before-tx', xid, '--table', 'orders', '--merge', 'replace', '--yes'], options)
    const ended = finished(child)
    while ((await audit()).total === before && child.exitCode === null) await new Promise(setImmediate)
    child.kill('SIGKILL')
    await ended
  } finally {
    await blocker.end()
  }
  expect(await newest()).toMatchObject({ action: 'restore-live', state: 'begun', came: null })
  expect((await done('audit')).stdout).toContain('BEGUN, AND NOT ENDED')
})

it('restores all the same where nothing can be recorded, and says so', async () => {
  const records = path.join(place.path, 'repo', 'sources', 'app', 'audit')
  await rename(records, `${records}.away`)
  await writeFile(records, 'a file in the way')
  const restored = await done('restore', '--before-tx', xid, '--into', 'unrecorded', '--yes')
  expect(restored.stderr).toContain('this is not in the audit record: ')
  await rm(records)
  await rename(`${records}.away`, records)
})

it('says when its chain is broken, after what is there', async () => {
  const folderOfChain = path.join(place.path, 'repo', 'sources', 'app', 'audit')
  const [chain = ''] = await readdir(folderOfChain)
  await mkdir(path.join(place.path, 'aside'))
  await rename(path.join(folderOfChain, chain, '00000003.json'), path.join(place.path, 'aside', '3.json'))
  const broken = await run('audit')
  expect(broken).toMatchObject({ exit: 21, stderr: expect.stringContaining('record 3 is missing') })
  expect(broken.stdout).toContain('restore-in-place')
  expect((await run('verify', '--no-read')).stdout).toContain('audit-broken')
})
