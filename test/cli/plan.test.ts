import { afterAll, beforeAll, expect, it } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { packageOf } from '../support/majors.ts'
import { type Folder, folder, here, type Ran, type RunOptions, sql, succeed } from './walback.ts'

let server: EmbeddedServer
let older: EmbeddedServer
let place: Folder
let options: RunOptions

const run = (...args: string[]): Promise<Ran> => here(args, options)
const done = (...args: string[]): Promise<Ran> => succeed(args, options, here)
const databases = async (url: string): Promise<string[]> =>
  (await sql<{ datname: string }>(url, 'SELECT datname FROM pg_database ORDER BY 1')).map(({ datname }) => datname)

beforeAll(async () => {
  ;[server, older] = await Promise.all([startEmbedded(), startEmbedded({ package: packageOf(14) })])
  place = await folder()
  options = { cwd: place.path }
  await sql(server.url(), 'CREATE DATABASE app')
  const app = server.url('app')
  await sql(
    app,
    'CREATE EXTENSION pg_walinspect',
    'CREATE TABLE orders (id int PRIMARY KEY, note text)',
    `INSERT INTO orders SELECT n, repeat('x', 100) FROM generate_series(1, 2000) n`,
  )
  await done('init', '--db', app, '--repo', 'repo')
  await done('backup', '--full')
  await sql(
    app,
    'CREATE EXTENSION pg_logicalinspect',
    'CREATE EXTENSION "uuid-ossp"',
    'DELETE FROM orders WHERE id = 1',
  )
  await done('backup', '--incremental')
})
afterAll(async () => {
  await Promise.all([server, older].map((one) => one?.[Symbol.asyncDispose]()))
  await place?.[Symbol.asyncDispose]()
})

it('says what the server is, how much room it takes, and how much is free', async () => {
  const { stdout } = await done('restore', '--to', 'latest', '--into', 'other', '--plan')
  expect(stdout).toMatch(/^ {2}server {5}PostgreSQL 18\.\d+, as role postgres$/m)
  expect(stdout).toMatch(/^ {2}disk {7}about \S+ KiB \(tables .* as they were on the source\), .*; .* are free in \//m)
  expect(stdout).not.toMatch(/FAILS|may fail|differs/)
  const plan = JSON.parse((await done('restore', '--to', 'latest', '--into', 'other', '--plan', '--json')).stdout)
  expect(plan.server).toMatchObject({ looked_at: true, role: 'postgres', findings: [] })
  const { needed, free_bytes } = plan.server.disk
  // 2,000 rows of about 130 bytes on pages of 8 KiB, with one narrow index.
  expect(needed).toMatchObject({ from: 'source' })
  expect(needed.tables_bytes).toBeGreaterThan(240_000)
  expect(needed.tables_bytes).toBeLessThan(400_000)
  expect(needed.indexes_bytes).toBeGreaterThan(30_000)
  expect(free_bytes).toBeGreaterThan(0)
})

it('refuses what would fail before anything is touched, and names all of it', async () => {
  const before = await databases(older.url())
  const into = older.url('other')
  for (const how of [['--plan'], ['--yes']]) {
    const refused = await run('restore', '--to', 'latest', '--into-url', into, ...how)
    expect(refused).toMatchObject({ exit: 30 })
    expect(`${refused.stdout}${refused.stderr}`).toMatch(
      /may fail {3}the server is PostgreSQL 14, and the source was 18/,
    )
    expect(refused.stderr).toMatch(/error: the server does not have extension pg_walinspect \(1\.\d in the source\)\n/)
    // What the stream makes may be left out, and told.
    expect(`${refused.stdout}${refused.stderr}`).toMatch(
      /may fail .*\n(?: {13}.*\n)* {13}the server does not have extension pg_logicalinspect\n/,
    )
    expect(refused.stderr).not.toMatch(/error: .*pg_logicalinspect/)
    expect(refused.stderr).not.toContain('uuid-ossp')
    expect(refused.stderr).toContain('hint: install it on the server')
  }
  expect(await databases(older.url())).toEqual(before)
  expect(JSON.parse((await done('audit', '--json')).stdout)).toMatchObject({ total: 0 })
  await sql(server.url(), 'CREATE ROLE weak LOGIN')
  const weak = await run(
    'restore',
    '--to',
    'latest',
    '--into-url',
    server.url('other').replace('//postgres', '//weak'),
    '--yes',
  )
  expect(weak).toMatchObject({ exit: 30, stderr: expect.stringContaining('role weak may not make databases') })
  expect(weak.stderr).toContain('only a superuser can make extension pg_walinspect')
})

it('carries out what only may fail or differs', async () => {
  const { stdout } = await done('restore', '--to', 'latest', '--into', 'whole', '--yes', '--json')
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  expect(lines.at(-1)).toMatchObject({ type: 'summary', proven: { rows: 1999 } })
  const rows = lines.filter(({ type, phase }) => type === 'status' && phase === 'rows').at(-1)
  expect(rows).toMatchObject({ unit: 'bytes', rows: 2000, left_ms: 0 })
  expect(rows).toHaveProperty('rate_per_s')
  expect(rows?.['done']).toBe(rows?.['total'])
})
