/** The contract, and the whole way of a database, on the real S3 servers that there are (real-s3-servers.ts). */
import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compactApart } from '../../src/compact/apart.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { readKeyFile } from '../../src/repository/credential.ts'
import { S3Storage } from '../../src/storage/s3.ts'
import { parseS3Url } from '../../src/storage/s3-url.ts'
import { readAll } from '../../src/storage/storage.ts'
import { finished, folder, here, type RunOptions, sql, start, succeed } from '../cli/walback.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { ourObjects } from '../support/walback.ts'
import { listed, storageContract } from './contract.ts'
import { type Server, servers } from './real-s3-servers.ts'

const partBytes = (): number => 5 << 20

/** What the SDK takes from the environment. */
const login = (): Record<string, string> =>
  Object.fromEntries(
    Object.entries(process.env).flatMap(([name, value]) =>
      name.startsWith('AWS_') && value !== undefined ? [[name, value]] : [],
    ),
  )

for (const { name, start: open, absent } of servers) {
  describe.skipIf(absent)(`${name}${absent ? ` (skipped: ${absent})` : ''}`, () => {
    let server: Server
    beforeAll(async () => {
      server = await open()
    }, 600_000)
    afterAll(() => server?.[Symbol.asyncDispose]())

    const fresh = (): S3Storage => {
      const at = new URL(server.url)
      at.pathname = `${at.pathname}/${randomBytes(6).toString('hex')}`
      return new S3Storage(parseS3Url(at.href, process.env), { partBytes })
    }

    storageContract(name, async () => {
      const storage = fresh()
      return {
        storage,
        another: () => new S3Storage(parseS3Url(storage.url, process.env), { partBytes }),
        [Symbol.asyncDispose]: async () => {
          for (const { key } of await listed(storage, '')) await storage.delete(key)
        },
      }
    })

    test('says whether it honours conditional writes', async () => {
      const honours = await fresh().honoursIfAbsent()
      console.log(`${name} ${honours ? 'honours' : 'does not honour'} If-None-Match on puts and uploads`)
      expect(typeof honours).toBe('boolean')
    })

    test('lists more than a thousand objects, each once and in order', async () => {
      const storage = fresh()
      const keys = Array.from({ length: 1203 }, (_, n) => `many/${String(n).padStart(5, '0')}`)
      for (let at = 0; at < keys.length; at += 50)
        await Promise.all(keys.slice(at, at + 50).map((key) => storage.put(key, Buffer.from(key))))
      expect((await listed(storage, 'many/')).map(({ key }) => key)).toEqual(keys)
      for (let at = 0; at < keys.length; at += 50)
        await Promise.all(keys.slice(at, at + 50).map((key) => storage.delete(key)))
    })

    test.each([{ encrypt: [] }, { encrypt: ['--encrypt'] }] as const)(
      'protects a database from set-up to restore, over a kill of the agent, with compaction and prune $encrypt',
      { timeout: 600_000 },
      async ({ encrypt }) => {
        const storage = fresh()
        await using _ = {
          [Symbol.asyncDispose]: async () => {
            for (const { key } of await listed(storage, '')) await storage.delete(key)
          },
        }
        await wholeWay(storage, encrypt)
      },
    )
  })
}

async function wholeWay(storage: S3Storage, encrypt: readonly string[]): Promise<void> {
  await using server = await startEmbedded()
  await using place = await folder()
  await sql(server.url(), 'CREATE DATABASE app')
  const app = server.url('app')
  await sql(
    app,
    'CREATE TABLE orders (id bigserial PRIMARY KEY, note text)',
    `INSERT INTO orders (note) SELECT 'order ' || n FROM generate_series(1, 5000) n`,
    `INSERT INTO orders (note) VALUES ('${secret}')`,
  )
  const keyFile = path.join(place.path, 'key')
  await writeFile(keyFile, randomBytes(32).toString('base64'))
  const env = { ...login(), ...(encrypt.length > 0 ? { WALBACK_KEY_FILE: keyFile } : {}) }
  const options: RunOptions = { cwd: place.path, env }
  const done = (...args: string[]) => succeed(args, options, here)
  await done('init', '--db', app, '--repo', storage.url, ...encrypt)
  await done('backup', '--full')

  const agent = start(['agent'], options)
  const killed = finished(agent)
  const isCapturing = async (): Promise<boolean> =>
    JSON.parse((await done('status', '--json')).stdout).database.slot.active
  await expect.poll(isCapturing, { timeout: 120_000, interval: 200 }).toBe(true)
  await sql(app, `UPDATE orders SET note = 'changed' WHERE id % 7 = 0`)
  // It is back once the agent has stored all that was committed before it.
  const { canary } = JSON.parse((await here(['check', '--json', '--timeout', '2m'], options)).stdout)
  expect(canary).toMatchObject({ state: 'back', captured_by: 'agent' })
  agent.kill('SIGKILL')
  await killed

  await sql(app, `DELETE FROM orders WHERE id % 5 = 0`, `INSERT INTO orders (note) VALUES ('after the kill')`)
  const golden = await fingerprint(app)
  await done('backup', '--incremental')
  const access = encrypt.length > 0 ? { credential: await readKeyFile(keyFile) } : undefined
  const { url } = storage
  const order = { source: 'app', memory_bytes: 16 << 20, maxRate: undefined, evenIfStopped: false, niceness: 0 }
  const outcome = await compactApart({ ...order, place: { url, env, access } })
  expect(outcome).toMatchObject({ kind: 'made', stoppedBy: undefined })
  await done('prune', '--keep-last', '1', '--yes')
  const { bases } = JSON.parse((await done('list', '--json')).stdout)
  expect(bases).toMatchObject([{ made_from: expect.any(String) }])
  await done('verify')
  await done('restore', '--to', 'latest', '--into', 'back', '--yes')
  expect(differences(golden, await fingerprint(server.url('back')), ourObjects)).toEqual([])

  let isReadable = false
  for (const { key } of await listed(storage, '')) isReadable ||= (await readAll(storage.get(key))).includes(secret)
  expect(isReadable).toBe(encrypt.length === 0)
  // Where no configuration names the key.
  await using elsewhere = await folder()
  const keyless = await here(['list', '--repo', url], { cwd: elsewhere.path, env: login() })
  expect(keyless.exit).toBe(encrypt.length > 0 ? 12 : 0)
}

/** A text that LZ4 leaves as it is, for there is nothing like it. */
const secret = 'Zq8 vX2 kWp jR5'
