import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { generateIdentity, identityToRecipient } from 'age-encryption'
import { expect, it } from 'vitest'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { folder, here, sql, start } from '../cli/walback.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { ourObjects } from '../support/walback.ts'

/** What lies on the agent's machine captures and takes bases, also after a restart, and reads no row of what it wrote. */
it('an agent with a key that only writes does all its work, and its thief reads no row', async () => {
  await using server = await startEmbedded()
  await using place = await folder()
  await sql(server.url(), 'CREATE DATABASE app')
  const app = server.url('app')
  await sql(
    app,
    'CREATE TABLE orders (id int PRIMARY KEY, note text)',
    `INSERT INTO orders SELECT n, 'note ' || n FROM generate_series(1, 5000) n`,
  )
  const identity = await generateIdentity()
  await writeFile(path.join(place.path, 'age.txt'), `${identity}\n`)
  const run = async (...args: string[]) => here(['--key-file', 'agent.key', ...args], { cwd: place.path })
  const ok = async (...args: string[]) => {
    const ran = await run(...args)
    expect(ran, args.join(' ')).toMatchObject({ exit: 0 })
    return ran
  }
  expect(await run('init', '--encrypt', '--write-only', '--db', app, '--repo', 'repo')).toMatchObject({
    exit: 2,
    stderr: expect.stringContaining('leaves nobody who could read'),
  })
  const recipient = await identityToRecipient(identity)
  await ok('init', '--encrypt', '--write-only', '--recipient', recipient, '--db', app, '--repo', 'repo')
  const config = await readFile(path.join(place.path, 'walback.yaml'), 'utf8')
  expect(config).toMatch(/key_file: .*agent\.key/)

  await ok('backup', '--full')
  await sql(app, `UPDATE orders SET note = repeat('changed ', 200) WHERE id % 7 = 0`)
  await ok('backup', '--incremental')
  for (const change of ['DELETE FROM orders WHERE id > 4000', 'ALTER TABLE orders ADD COLUMN more int DEFAULT 3']) {
    const agent = start(['agent', '--json', '-v'], { cwd: place.path })
    const said = saying(agent.stdout)
    await said('neither verified nor compacted here: the key of this agent writes and does not read')
    await said('"msg":"capturing"')
    await sql(app, change)
    await said('"msg":"segment stored"')
    const gone = new Promise((settle) => agent.once('exit', settle))
    agent.kill('SIGTERM')
    expect(await gone).toBe(0)
  }
  await ok('backup', '--full')
  expect((await ok('status')).stdout).toContain('may write and not read')
  expect((await ok('log')).stdout).toContain('orders')
  // The canary is not read back, and says why; warnings are the server's.
  const check = JSON.parse((await run('check', '--json')).stdout)
  expect(check).toMatchObject({ errors: 0, canary: { state: 'skipped', why: expect.stringContaining('may write') } })

  for (const args of [
    ['restore', '--to', 'latest', '--into', 'stolen', '--yes'],
    ['key', 'list'],
    ['key', 'rotate'],
    ['key', 'add', 'me', '--new-key-file', 'mine.key'],
  ]) {
    expect(await run(...args), args.join(' ')).toMatchObject({
      exit: 12,
      stderr: expect.stringContaining('may write'),
    })
  }
  const reader = { cwd: place.path, env: { WALBACK_KEY_FILE: 'age.txt' } }
  const restored = await here(['restore', '--to', 'latest', '--into', 'again', '--yes'], reader)
  expect(restored, restored.stderr).toMatchObject({ exit: 0 })
  expect(differences(await fingerprint(app), await fingerprint(server.url('again')), ourObjects)).toEqual([])

  // The reader rotates without the agent's key at hand, and the agent goes on with the new generation.
  expect(await here(['key', 'rotate'], reader)).toMatchObject({ exit: 0 })
  await sql(app, 'INSERT INTO orders VALUES (9999)')
  await ok('backup', '--incremental')
  const listed = JSON.parse((await here(['key', 'list', '--json'], reader)).stdout)
  expect(listed.recipients).toMatchObject([
    { name: 'key-file', access: 'write', generations: [1, 2], genuine: true },
    { name: 'recipient-1', access: 'full', generations: [1, 2], genuine: true },
  ])
})

/** Waits until a process has said something that it had not said when it was last waited for. */
function saying(stream: NodeJS.ReadableStream | null): (words: string) => Promise<void> {
  let said = ''
  let heard = (): void => undefined
  stream?.on('data', (chunk) => {
    said += chunk
    heard()
  })
  return (words) =>
    new Promise((settle) => {
      heard = () => {
        const at = said.indexOf(words)
        if (at < 0) return
        said = said.slice(at + words.length)
        heard = () => undefined
        settle()
      }
      heard()
    })
}
