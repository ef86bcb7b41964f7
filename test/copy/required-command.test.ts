import { rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { expect, it } from 'vitest'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { folder, here, sql } from '../cli/walback.ts'
import { sql as rows } from '../faults/proof.ts'

it('backups have what is required in both places, and confirm nothing while one of them is away', async () => {
  await using server = await startEmbedded()
  await using place = await folder()
  await sql(server.url(), 'CREATE DATABASE app')
  const app = server.url('app')
  await sql(app, 'CREATE TABLE t (id serial PRIMARY KEY, what text)', `INSERT INTO t (what) VALUES ('one')`)
  const run = (...args: string[]) => here(args, { cwd: place.path })
  expect(await run('init', '--db', app, '--repo', 'near', '--no-config')).toMatchObject({ exit: 0 })
  await writeFile(
    path.join(place.path, 'walback.yaml'),
    `version: 1\nrepositories: [near, { url: far, mode: required }]\nsources: { app: { url: ${app} } }\n`,
  )
  expect(await run('backup', '--full')).toMatchObject({ exit: 0 })
  const lists = async (): Promise<unknown[]> =>
    Promise.all(
      ['near', 'far'].map(async (repo) => {
        const { bases, windows } = JSON.parse((await run('list', '--repo', repo, '--json')).stdout)
        return { bases, windows }
      }),
    )
  const [near, far] = await lists()
  expect(near).toMatchObject({ bases: [{ tables: 1 }] })
  expect(far).toEqual(near)
  const confirmed = async (): Promise<unknown> =>
    (await rows(app, 'SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots'))[0]?.['lsn']
  const before = await confirmed()
  expect(before).toEqual(expect.any(String))

  await rename(path.join(place.path, 'far'), path.join(place.path, 'away'))
  await writeFile(path.join(place.path, 'far'), 'no folder')
  await sql(app, `INSERT INTO t (what) VALUES ('two')`)
  expect(await run('backup', '--incremental')).toMatchObject({ exit: 31 })
  expect(await confirmed()).toBe(before)
  const check = JSON.parse((await run('check', '--json')).stdout)
  expect(check.findings).toContainEqual(expect.objectContaining({ code: 'copy-unreadable', level: 'warning' }))
  expect(check.canary.state).toBe('failed')

  await rm(path.join(place.path, 'far'))
  await rename(path.join(place.path, 'away'), path.join(place.path, 'far'))
  expect(await run('backup', '--incremental')).toMatchObject({ exit: 0 })
  const [here2, there] = await lists()
  expect(there).toEqual(here2)
  expect((await run('status')).stdout).toMatch(/copy +\S*far: has all of the stream/)
  expect(await run('verify')).toMatchObject({ exit: 0 })

  // The first is lost, and the other takes its place.
  await rm(path.join(place.path, 'near'), { recursive: true })
  await writeFile(
    path.join(place.path, 'walback.yaml'),
    `version: 1\nrepositories: [far]\nsources: { app: { url: ${app} } }\n`,
  )
  await sql(app, `INSERT INTO t (what) VALUES ('three')`)
  expect(await run('init')).toMatchObject({ exit: 22, stderr: expect.stringContaining('`walback check` says how') })
  const fixed = await run('check', '--fix', '--yes')
  expect(fixed).toMatchObject({ exit: 3, stderr: expect.stringContaining('note at publication walback_app') })
  expect(await run('backup', '--incremental')).toMatchObject({ exit: 0 })
  const after = JSON.parse((await run('check', '--json')).stdout)
  expect(after).toMatchObject({ errors: 0, canary: { state: 'back' } })
  expect(JSON.parse((await run('list', '--json')).stdout)).toMatchObject({ gaps: [], windows: [{}] })
  expect(await run('uninstall', '--yes')).toMatchObject({ exit: 0 })
}, 180_000)

it('a base that is in one of the required repositories alone is said, and counted on by nobody', async () => {
  await using server = await startEmbedded()
  await using place = await folder()
  await sql(server.url(), 'CREATE DATABASE app')
  const app = server.url('app')
  await sql(app, 'CREATE TABLE t (id serial PRIMARY KEY, what text)')
  const run = (...args: string[]) => here(args, { cwd: place.path })
  const json = async (...args: string[]) => JSON.parse((await run(...args, '--json')).stdout)
  expect(await run('init', '--db', app, '--repo', 'near', '--no-config')).toMatchObject({ exit: 0 })
  await writeFile(
    path.join(place.path, 'walback.yaml'),
    `version: 1\nrepositories: [near, { url: far, mode: required }]\nsources: { app: { url: ${app} } }\n`,
  )
  const near = ['--db', app, '--repo', 'near', '--source', 'app']
  expect(await run('backup', '--full', ...near)).toMatchObject({ exit: 0 })
  expect(await run('backup', '--incremental')).toMatchObject({ exit: 0 })

  // The stream is in both, and no base: the far one alone would not do.
  expect((await run('status')).stdout).toMatch(
    /NOT PROTECTED.*far: has all of the stream, and no base of it yet: it cannot be restored from there/s,
  )
  const [first] = (await json('list', '--repo', 'near')).bases
  expect(await json('status')).toMatchObject({
    protected: false,
    copies: [{ required: true, behind_bytes: 0, bases: { count: 0, missing: [first.id] } }],
  })
  const refused = await run('prune', '--keep-last', '1', '--yes')
  expect(refused).toMatchObject({ exit: 22, stderr: expect.stringContaining('in every required repository') })

  expect(await run('copy', '--to', 'far')).toMatchObject({ exit: 0 })
  expect((await run('status')).stdout).toMatch(/ protected.*far: has all of the stream, and all bases/s)
  await sql(app, `INSERT INTO t (what) VALUES ('more')`)
  expect(await run('backup', '--full', ...near)).toMatchObject({ exit: 0 })
  expect(await run('backup', '--incremental')).toMatchObject({ exit: 0 })
  expect((await run('status')).stdout).toMatch(/ protected.*; 1 base not there yet: an older one serves/s)
  const kept = await json('prune', '--keep-last', '1', '--yes')
  expect(kept.bases.map(({ keep, reasons }: { keep: boolean; reasons: string[] }) => [keep, reasons[0]])).toEqual([
    [true, 'last'],
    [true, expect.stringMatching(/^not in \S*far yet, and counts for no rule/)],
  ])

  await rename(path.join(place.path, 'far'), path.join(place.path, 'away'))
  await writeFile(path.join(place.path, 'far'), 'no folder')
  const unknown = await run('prune', '--keep-last', '1', '--yes')
  expect(unknown).toMatchObject({ exit: 31, stderr: expect.stringContaining('is not known') })
  await rm(path.join(place.path, 'far'))
  await rename(path.join(place.path, 'away'), path.join(place.path, 'far'))

  expect(await run('copy', '--to', 'far')).toMatchObject({ exit: 0 })
  const pruned = await json('prune', '--keep-last', '1', '--yes')
  expect(pruned.bases.map(({ keep }: { keep: boolean }) => keep)).toEqual([false, true])
  // What the other has removed by its own retention it does not lack.
  expect(await run('prune', '--keep-last', '1', '--yes', '--repo', 'far')).toMatchObject({ exit: 0 })
  expect(await json('status')).toMatchObject({ protected: true, copies: [{ bases: { count: 1, missing: [] } }] })
}, 180_000)
