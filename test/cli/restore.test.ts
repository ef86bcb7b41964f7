import type { ChildProcess } from 'node:child_process'
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
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
const one = async (database: string, query: string): Promise<unknown> =>
  Object.values((await sql(server.url(database), query))[0] ?? {})[0]

beforeAll(async () => {
  ;({ server, place, app, options } = await openApp())
  await sql(
    app,
    'CREATE TABLE customers (id int PRIMARY KEY, name text)',
    'CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, note text)',
    `INSERT INTO customers SELECT n, 'c' || n FROM generate_series(1, 10) n`,
    `INSERT INTO orders SELECT n, n % 10 + 1, 'x' FROM generate_series(1, 1000) n`,
  )
  await done('init', '--db', app, '--repo', 'repo')
  await done('backup', '--full')
  await sql(
    app,
    `UPDATE orders SET note = 'y' WHERE id = 1`,
    'DELETE FROM orders',
    `INSERT INTO customers VALUES (11, 'late')`,
  )
  await done('backup', '--incremental')
  xid = await xidOfDelete(options)
})
afterAll(async () => {
  await server?.[Symbol.asyncDispose]()
  await place?.[Symbol.asyncDispose]()
})

it('writes a plan to be reviewed, and carries out that one and no other', async () => {
  const planned = await done(
    'restore',
    '--to',
    'latest',
    '--table',
    'customers',
    '--into',
    'reviewed',
    '--plan-file',
    'plan.json',
  )
  expect(planned.stdout).toMatch(/only +1 of 2 tables: public.customers/)
  expect(planned.stderr).toContain('carry it out with: walback restore --apply')
  const file = path.join(place.path, 'plan.json')
  expect((await stat(file)).mode & 0o777).toBe(0o600)
  expect(await run('restore', '--to', 'latest', '--into', 'x', '--plan-file', 'plan.json')).toMatchObject({ exit: 2 })
  // What comes later is not in it, since it was not when it was reviewed.
  await sql(app, `INSERT INTO customers VALUES (12, 'later still')`)
  await done('backup', '--incremental')
  expect(await run('restore', '--apply', 'plan.json', '--into', 'other')).toMatchObject({ exit: 2 })
  const altered = JSON.parse(await readFile(file, 'utf8')) as { outcome: { transactions: number } }
  altered.outcome.transactions += 1
  await writeFile(path.join(place.path, 'altered.json'), JSON.stringify(altered))
  const refused = await run('restore', '--apply', 'altered.json')
  expect(refused).toMatchObject({ exit: 22, stderr: expect.stringContaining('transactions was') })
  await writeFile(path.join(place.path, 'none.json'), '{"walback": "restore plan", "version": 2}')
  expect(await run('restore', '--apply', 'none.json')).toMatchObject({ exit: 2 })
  const applied = await done('restore', '--apply', 'plan.json')
  expect(applied.stdout).toContain('restored 1 table, 11 rows')
  expect(await one('reviewed', 'SELECT count(*)::int FROM customers')).toBe(11)
  expect(await one('reviewed', `SELECT to_regclass('orders')`)).toBeNull()
})

it('writes SQL into a folder, a file for each part, of rows alone if asked for', async () => {
  const whole = await done('restore', '--to', 'latest', '--sql-out', '-')
  await done('restore', '--to', 'latest', '--sql-out', 'dump/')
  const files = async (folder: string): Promise<string[]> => {
    const entry = await readFile(path.join(place.path, folder, 'restore.sql'), 'utf8')
    return [...entry.matchAll(/^\\ir '(.*)'$/gm)].map(([, file]) => file ?? '')
  }
  const texts = async (folder: string): Promise<string> => {
    const parts = (await files(folder)).map((file) => readFile(path.join(place.path, folder, file), 'utf8'))
    return (await Promise.all(parts)).join('')
  }
  expect(await files('dump')).toContain('00002-rows-of-public.customers.sql')
  const steady = (text: string): string => text.replaceAll(/^\\(un)?restrict .*$/gm, '')
  expect(steady(await texts('dump'))).toBe(steady(whole.stdout))
  expect((await stat(path.join(place.path, 'dump'))).mode & 0o777).toBe(0o700)
  expect(await run('restore', '--to', 'latest', '--sql-out', 'dump/')).toMatchObject({ exit: 22 })
  expect((await readdir(place.path)).filter((name) => name.includes('partial'))).toEqual([])
  await done('restore', '--to', 'latest', '--table', 'orders', '--data-only', '--sql-out', 'rows/')
  expect(await texts('rows')).toMatch(/^COPY "public"\."orders" /m)
  expect(await texts('rows')).not.toContain('CREATE')
  expect(await run('restore', '--to', 'latest', '--data-only', '--merge', 'overwrite')).toMatchObject({ exit: 2 })
})

it('says before it begins what could not be done at its end', async () => {
  const names = async (): Promise<unknown> => one('app', 'SELECT count(*)::int FROM pg_database')
  const before = await names()
  const where = ['restore', '--to', 'latest', '--table', 'orders', '--yes']
  for (const [flags, exit, message] of [
    [['--as', 'customers'], 22, /public\.customers is there already/],
    [['--as', 'nowhere.orders'], 22, /no schema nowhere/],
    [['--sql-out', '.'], 22, /name one that is not there yet/],
    [['--sql-out', 'no/such/out.sql'], 1, /make the folder/],
    [['--into', 'template1'], 2, /what new databases are copied from/],
    [['--into', 'x', '--base', 'nope'], 2, /there is no base backup "nope"/],
  ] as const) {
    const ran = await run(...where, ...flags)
    expect(ran).toMatchObject({ exit, stderr: expect.stringMatching(message) })
    expect(ran.stderr).not.toContain('rows  ')
  }
  expect(await names()).toBe(before)
})

it('carries out a plan that ends where the base does', async () => {
  const base = JSON.parse((await done('info', '--json')).stdout) as { base: { lsn: string } }
  const file = ['--plan-file', 'at-base.json']
  await done(
    'restore',
    '--to-lsn',
    base.base.lsn,
    '--table',
    '"customers"',
    '--table',
    'order_s',
    '--into',
    'at_base',
    ...file,
  )
  const applied = await done('restore', '--apply', 'at-base.json')
  expect(applied.stderr).toContain('anything of order_s')
  expect(applied.stdout).toContain('restored 1 table, 10 rows')
})

it('puts a table into the live database under another name, or its rows back', async () => {
  const where = ['restore', '--before-tx', xid, '--table', 'orders']
  const beside = await done(...where, '--as', 'orders_before', '--yes')
  expect(beside.stdout).toBe('public.orders_before: 1 000 rows inserted\n')
  expect(await one('app', `SELECT note FROM orders_before WHERE id = 1`)).toBe('y')
  const asked = await run(...where, '--merge', 'insert-missing')
  expect(asked).toMatchObject({ exit: 22, stderr: expect.stringContaining('add --yes') })
  const merged = await done(...where, '--merge', 'insert-missing', '--yes')
  expect(merged.stdout).toBe('public.orders: 1 000 rows inserted\n')
  expect(merged.stderr).toContain('public.orders: 1000 missing now, 0 different, 0 that were not there then')
  const again = JSON.parse(
    (await done(...where, '--merge', 'replace', '--yes', '--json')).stdout.trim().split('\n').at(-1) ?? '',
  )
  expect(again).toMatchObject({ type: 'summary', tables: [{ name: 'orders', inserted: 0, updated: 0, deleted: 0 }] })
  for (const wrong of [
    ['--as', 'x', '--merge', 'replace'],
    ['--as', 'x', '--into', 'y'],
    ['--merge', 'all'],
    ['--as', 'x', '--in-place'],
  ])
    expect(await run(...where, ...wrong)).toMatchObject({ exit: 2 })
  expect(await run('restore', '--to', 'latest', '--table', 'order', '--into', 'x')).toMatchObject({
    exit: 2,
    stderr: expect.stringContaining('did you mean orders?'),
  })
})

it('replaces the live database only if its name is given, and goes back', async () => {
  await sql(app, 'DELETE FROM orders')
  const where = ['restore', '--before-tx', xid, '--in-place']
  expect(await run(...where, '--yes')).toMatchObject({ exit: 22, stderr: expect.stringContaining('--yes does not') })
  expect(await run(...where, '--confirm', 'other')).toMatchObject({ exit: 22 })
  expect(await run(...where, '--confirm', 'app', '--table', 'orders')).toMatchObject({ exit: 2 })
  const { stdout, stderr } = await done(...where, '--confirm', 'app')
  expect(stdout).toContain('restored 2 tables, 1 010 rows in place of app')
  const kept = /the database before is (app_before_\d{8}T\d{6}Z)/.exec(stderr)?.[1] ?? ''
  expect(await one('app', 'SELECT count(*)::int FROM orders')).toBe(1000)
  expect(await one(kept, 'SELECT count(*)::int FROM orders')).toBe(0)
  await done('backup', '--full')
  expect((await done('status')).stdout).toContain('was restored in place')
  const back = await done('restore', 'rollback', '--confirm', 'app')
  expect(back.stdout).toBe(`app is ${kept} again\n`)
  expect(await one('app', 'SELECT count(*)::int FROM orders')).toBe(0)
  expect(await run('restore', 'rollback', '--confirm', 'app')).toMatchObject({ exit: 22 })
})

it('goes on with a restore that was killed or interrupted, or removes it', async () => {
  // An index that is not finished as long as there is a brake.
  await sql(
    app,
    `CREATE FUNCTION held(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
       WHILE current_database() <> 'app' AND EXISTS (SELECT FROM pg_database WHERE datname = 'brake') LOOP PERFORM pg_sleep(0.05); END LOOP; RETURN n; END $$`,
    'CREATE INDEX held ON customers (held(id))',
  )
  await sql(server.url(), 'CREATE DATABASE brake')
  await done('backup', '--full')
  const atTheIndex = (): Promise<unknown> =>
    waitFor(
      async () =>
        (
          await sql(
            server.url(),
            `SELECT FROM pg_stat_activity WHERE datname LIKE 'walback_restoring%' AND query LIKE 'CREATE INDEX held%' AND state = 'active'`,
          )
        )[0],
      { timeout_ms: 60_000, interval_ms: 50 },
    )
  const begin = async (): Promise<{ child: ChildProcess; ended: Promise<Ran> }> => {
    const child = start(['restore', '--to', 'latest', '--into', 'paused', '--yes'], options)
    const ended = finished(child)
    expect(await atTheIndex()).toBeDefined()
    return { child, ended }
  }
  const killed = await begin()
  killed.child.kill('SIGKILL')
  await killed.ended
  // Its sessions go on with what they were asked.
  expect(await run('restore', 'resume')).toMatchObject({ exit: 22, stderr: expect.stringContaining('under way') })
  expect((await done('restore', 'pause')).stdout).toContain('paused the restore of app into paused')
  await sql(server.url(), 'DROP DATABASE brake')
  const other = await done('restore', '--to', 'latest', '--into', 'other', '--yes')
  expect(other.stderr).toContain('there is an interrupted restore of app into paused')
  expect((await done('restore', 'resume', '--into', 'paused')).stdout).toContain('restored 3 tables')
  expect(await one('paused', 'SELECT count(*)::int FROM customers')).toBe(12)
  expect(await run('restore', 'resume')).toMatchObject({ exit: 22, stderr: expect.stringContaining('no such restore') })
  await sql(server.url(), 'DROP DATABASE paused', 'CREATE DATABASE brake')
  const interrupted = await begin()
  interrupted.child.kill('SIGINT')
  const { exit, stderr } = await interrupted.ended
  expect(exit).toBe(130)
  expect(stderr).toContain('walback restore resume')
  expect(await run('restore', 'discard')).toMatchObject({ exit: 22 })
  await done('restore', 'discard', '--yes')
  expect(
    await sql(server.url(), `SELECT FROM pg_database WHERE datname LIKE 'walback%' OR datname = 'paused'`),
  ).toEqual([])
})
