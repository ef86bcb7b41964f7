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
  await sql(
    app,
    `INSERT INTO t (what) VALUES ('three')`,
    'COMMENT ON PUBLICATION walback_app IS NULL',
    'COMMENT ON PUBLICATION walback_app_inserts IS NULL',
  )
  expect(await run('init')).toMatchObject({ exit: 0, stderr: expect.stringContaining('note at publication') })
  expect(await run('backup', '--incremental')).toMatchObject({ exit: 0 })
  const after = JSON.parse((await run('check', '--json')).stdout)
  expect(after).toMatchObject({ errors: 0, canary: { state: 'back' } })
  expect(JSON.parse((await run('list', '--json')).stdout)).toMatchObject({ gaps: [], windows: [{}] })
  expect(await run('uninstall', '--yes')).toMatchObject({ exit: 0 })
}, 180_000)
