import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { expect, it } from 'vitest'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { finished, folder, here, type RunOptions, sql, start, succeed } from '../cli/walback.ts'
import { S3Proxy } from '../storage/s3-proxy.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { ourObjects } from '../support/walback.ts'

const login = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'not-to-be-shown' }
Object.assign(process.env, login)

async function done(args: readonly string[], options: RunOptions): Promise<void> {
  const ran = await here(args, options)
  expect(ran.stderr).not.toContain('not-to-be-shown')
  expect(ran.exit, ran.stderr).toBe(0)
}

it.each([
  { conditional: 'honoured', encrypt: ['--encrypt'] },
  { conditional: 'ignored', encrypt: [] },
] as const)(
  'a database is protected by a bucket (conditional writes $conditional), over a kill of the agent $encrypt',
  {
    timeout: 300_000,
  },
  async ({ conditional, encrypt }) => {
    await using server = await startEmbedded()
    await using place = await folder()
    await using proxy = await S3Proxy.start()
    proxy.conditional = conditional
    const bucket = new URL(proxy.newBucket())
    const repository = `s3://${bucket.host}/backups/app?endpoint=${proxy.endpoint}`
    await sql(server.url(), 'CREATE DATABASE app')
    const app = server.url('app')
    await sql(
      app,
      'CREATE TABLE orders (id bigserial PRIMARY KEY, note text)',
      'CREATE TABLE journal (line text)',
      `INSERT INTO orders (note) SELECT 'order ' || n FROM generate_series(1, 5000) n`,
    )
    await writeFile(path.join(place.path, 'key'), randomBytes(32).toString('base64'))
    const key = encrypt.length > 0 ? { WALBACK_KEY_FILE: path.join(place.path, 'key') } : {}
    const options = { cwd: place.path, env: { ...login, ...key } }
    const init = await succeed(['init', '--db', app, '--repo', repository, ...encrypt], options)
    expect(init.stderr).not.toMatch(/NodeVersionSupportWarning|not-to-be-shown/)
    await done(['backup', '--full'], options)

    const agent = start(['agent'], options)
    const killed = finished(agent)
    proxy.fail('slow down', ({ method }) => method === 'PUT', 3)
    await sql(
      app,
      `UPDATE orders SET note = 'changed' WHERE id % 7 = 0`,
      `INSERT INTO journal VALUES ('with the agent')`,
    )
    const segments = (): number =>
      proxy.seen.filter(({ method, key }) => method === 'PUT' && key.endsWith('.wbs')).length
    const before = segments()
    await expect.poll(segments, { timeout: 120_000, interval: 100 }).toBeGreaterThan(before)
    agent.kill('SIGKILL')
    await killed

    proxy.fail('lost answer', ({ method, key }) => method === 'PUT' && key.endsWith('.wbs'), 2)
    await sql(app, `DELETE FROM orders WHERE id % 5 = 0`, `INSERT INTO journal VALUES ('after the kill')`)
    const golden = await fingerprint(app)
    await done(['backup', '--incremental'], options)
    await done(['compact'], options)
    await done(['prune', '--keep-last', '1', '--yes'], options)
    const list = await succeed(['list', '--json'], options)
    expect(JSON.parse(list.stdout).bases).toMatchObject([{ made_from: expect.any(String) }])
    await done(['verify'], options)
    await done(['restore', '--to', 'latest', '--into', 'back', '--yes'], options)
    expect(differences(golden, await fingerprint(server.url('back')), ourObjects)).toEqual([])
  },
)
