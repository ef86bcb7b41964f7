import { once } from 'node:events'
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { Decrypter, generateIdentity, identityToRecipient } from 'age-encryption'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { type Folder, folder, here, sql, start } from '../cli/walback.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { ourObjects } from '../support/walback.ts'

/** A repository that is encrypted from its first day, by the commands that people give. */
const passphrase = 'correct horse battery staple'
const secrets = ['topsecret_value', 'confidential_table', 'private_column', 'hidden_function']

let server: EmbeddedServer
let place: Folder
let app: string
let repo: string
const withPassphrase = { WALBACK_PASSPHRASE: passphrase }

beforeAll(async () => {
  server = await startEmbedded()
  place = await folder()
  repo = path.join(place.path, 'repo')
  await sql(server.url(), 'CREATE DATABASE app')
  app = server.url('app')
  await sql(
    app,
    'CREATE TABLE confidential_table (id int PRIMARY KEY, private_column text)',
    `INSERT INTO confidential_table SELECT n, 'topsecret_value ' || n FROM generate_series(1, 20000) n`,
    `CREATE FUNCTION hidden_function() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
  )
})

afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await place[Symbol.asyncDispose]()
})

const run = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  here([...args, '--repo', repo, '--source', 'app'], { cwd: place.path, env })

async function ok(args: readonly string[], env: Readonly<Record<string, string>> = withPassphrase) {
  const ran = await run(args, env)
  if (ran.exit !== 0) throw new Error(`walback ${args.join(' ')} ended with ${ran.exit}: ${ran.stderr}`)
  return ran
}

const json = async (args: readonly string[], env?: Readonly<Record<string, string>>) =>
  JSON.parse((await ok([...args, '--json'], env)).stdout)

async function filesOf(below: string): Promise<string[]> {
  const found = await readdir(below, { recursive: true, withFileTypes: true })
  return found.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name))
}

async function expectNothingClear(): Promise<void> {
  for (const file of await filesOf(repo)) {
    const bytes = await readFile(file)
    for (const secret of [...secrets, passphrase]) {
      expect(bytes.includes(secret), `${file} holds ${secret}`).toBe(false)
      expect(file).not.toContain(secret)
    }
    const isClear = /\/repo\/(walback\.json$|keys\/)/.test(file)
    if (!isClear) expect(bytes.subarray(0, 8).toString(), file).toBe('WBSEALED')
  }
}

async function expectRestored(env: Readonly<Record<string, string>>, name: string, flags: readonly string[] = []) {
  await ok(['restore', '--to', 'latest', '--into', name, '--db', app, '--yes', ...flags], env)
  const restored = await fingerprint(server.url(name))
  expect(differences(await fingerprint(app), restored, ourObjects)).toEqual([])
  await sql(server.url(), `DROP DATABASE ${name}`)
}

describe('an encrypted repository', () => {
  it('needs something to encrypt with, and a passphrase that is worth it', async () => {
    expect(await run(['init', '--encrypt', '--no-config', '--db', app])).toMatchObject({
      exit: 2,
      stderr: expect.stringContaining('encrypt with what?'),
    })
    expect(await run(['init', '--encrypt', '--no-config', '--db', app], { WALBACK_PASSPHRASE: 'short' })).toMatchObject(
      { exit: 2, stderr: expect.stringContaining('too short') },
    )
  })

  it('is made by init, which says so and never shows the passphrase', async () => {
    const { stderr, stdout } = await ok(['init', '--encrypt', '--db', app])
    expect(stderr).toMatch(/encrypted for passphrase; key [0-9a-f]{4}(-[0-9a-f]{4}){7}\n/)
    const config = await readFile(path.join(place.path, 'walback.yaml'), 'utf8')
    expect(config).toMatch(/encryption:\n {2}fingerprint: /)
    expect(stdout + stderr + config).not.toContain(passphrase)
    expect(await json(['init', '--db', app])).toMatchObject({ already: true })
    await ok(['init', '--encrypt', '--db', app])
  })

  it('takes a base and the stream, and has nothing in the clear', async () => {
    await ok(['backup', '--full', '--db', app])
    await sql(
      app,
      `UPDATE confidential_table SET private_column = 'topsecret_value changed' WHERE id % 10 = 0`,
      'ALTER TABLE confidential_table ADD COLUMN more int',
      'DELETE FROM confidential_table WHERE id > 19000',
    )
    await ok(['backup', '--incremental', '--db', app])
    await expectNothingClear()
  })

  it('is written by an agent, too', async () => {
    const env = { ...withPassphrase, WALBACK_REPO: repo }
    const agent = start(['agent', '--source', 'app', '--db', app, '--json'], { cwd: place.path, env })
    const { stdout } = agent
    let said = ''
    await new Promise<void>((settle) => {
      stdout?.on('data', (chunk) => {
        said += chunk
        if (said.includes('capturing')) settle()
      })
      agent.once('exit', () => settle())
    })
    await sql(app, `INSERT INTO confidential_table VALUES (100000, 'topsecret_value by the agent')`)
    agent.kill('SIGTERM')
    await once(agent, 'exit')
    await ok(['backup', '--incremental', '--db', app])
    await expectNothingClear()
  })

  it('restores to the same database', () => expectRestored(withPassphrase, 'again'))

  it('refuses a wrong key, and none, with status 12, before anything else', async () => {
    for (const command of [
      ['status'],
      ['restore', '--to', 'latest', '--into', 'x', '--db', app, '--yes'],
      ['check', '--db', app],
    ]) {
      const wrong = await run(command, { WALBACK_PASSPHRASE: 'another horse battery' })
      expect(wrong).toMatchObject({ exit: 12, stderr: expect.stringContaining('does not open the repository') })
      const none = await here([...command, '--repo', repo], { cwd: '/', env: {} })
      expect(none).toMatchObject({ exit: 12, stderr: expect.stringContaining('is encrypted, and no key was given') })
      expect(none.stderr).toContain('--key-file')
    }
    const databases = await sql<{ datname: string }>(server.url(), 'SELECT datname FROM pg_database')
    expect(databases.map(({ datname }) => datname)).not.toContain('x')
  })

  it('says how it is encrypted', async () => {
    expect((await ok(['status'])).stdout).toMatch(/encryption {3}AES-256-GCM, key [0-9a-f-]{39}.*, generation 1/)
    expect(await json(['status'])).toMatchObject({ encryption: { generation: 1, access: 'full' } })
    expect(await json(['info'])).toMatchObject({ encryption: { generation: 1 } })
    expect((await run(['check', '--db', app], withPassphrase)).stdout).toContain('AES-256-GCM')
  })

  it('lets others in, by age and by file, and one out again, without touching data', async () => {
    const before = (await filesOf(repo)).filter((file) => !file.includes('/keys/'))
    const times = await Promise.all(before.map(async (file) => (await stat(file)).mtimeMs))
    const identity = await generateIdentity()
    const file = path.join(place.path, 'age.txt')
    await writeFile(file, `# created: now\n${identity}\n`)
    await ok(['key', 'add', 'alice', '--recipient', await identityToRecipient(identity)])
    await ok(['key', 'add', 'bob', '--new-key-file', 'bob.key'])
    expect((await stat(path.join(place.path, 'bob.key'))).mode & 0o777).toBe(0o600)
    expect((await json(['key', 'list'])).recipients).toMatchObject([
      { name: 'alice', kind: 'age', access: 'full', generations: [1], genuine: true },
      { name: 'bob', kind: 'file' },
      { name: 'passphrase', kind: 'passphrase' },
    ])
    await expectRestored({}, 'by_alice', ['--key-file', file])
    await ok(['status', '--key-file', 'bob.key'], {})
    // What is stored is a plain age file, and what is in it opens the repository by itself.
    const wrapped = (await filesOf(path.join(repo, 'keys'))).find((one) => /alice\.[0-9a-f]{8}\.age$/.test(one))
    const decrypter = new Decrypter()
    decrypter.addIdentity(identity)
    const text = await decrypter.decrypt(new Uint8Array(await readFile(wrapped ?? '')), 'text')
    await writeFile(path.join(place.path, 'exported.key'), text)
    await ok(['list', '--key-file', 'exported.key'], {})
    await ok(['key', 'remove', 'bob', '--yes'])
    expect((await run(['status', '--key-file', 'bob.key'])).exit).toBe(12)
    const after = await Promise.all(before.map(async (one) => (await stat(one)).mtimeMs))
    expect(after).toEqual(times)
  })

  it('is rotated: what is old stays readable, what is new is for the new key', async () => {
    const data = (await filesOf(repo)).filter((file) => !file.includes('/keys/'))
    await ok(['key', 'rotate'], { WALBACK_KEY_FILE: 'age.txt' })
    await sql(app, `INSERT INTO confidential_table VALUES (100001, 'topsecret_value after')`)
    await ok(['backup', '--incremental', '--db', app])
    const added = (await filesOf(repo)).filter((file) => !file.includes('/keys/') && !data.includes(file))
    expect(added.length).toBeGreaterThan(0)
    for (const file of added) expect((await readFile(file)).readUInt32LE(12)).toBe(2)
    await expectRestored(withPassphrase, 'rotated')
    await ok(['status', '--key-file', 'age.txt'], {})
    // Who has only the first generation is told that it is not enough.
    expect(await run(['status', '--key-file', 'exported.key'])).toMatchObject({
      exit: 12,
      stderr: expect.stringContaining('rotated'),
    })
    await expectNothingClear()
  })

  it('keeps its last reader', async () => {
    await ok(['key', 'remove', 'alice', '--yes'])
    expect((await run(['key', 'remove', 'passphrase', '--yes'], withPassphrase)).exit).toBe(22)
  })
})
