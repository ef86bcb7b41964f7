import { readdirSync } from 'node:fs'
import { chmod, mkdir, readdir } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { finished, here, sql, start } from '../cli/walback.ts'
import { openShop, type Shop } from './shop.ts'

let shop: Shop
let temporary = ''

beforeAll(async () => {
  shop = await openShop(18)
  await shop.write(`INSERT INTO customers SELECT n, repeat(n::text, 50) FROM generate_series(11, 20000) n`)
  await sql(shop.url, `CREATE DATABASE other`)
  temporary = path.join(shop.folder.path, 'tmp')
  await mkdir(temporary)
  // A server that another account has to run must get there.
  await chmod(shop.folder.path, 0o755)
})

afterAll(() => shop[Symbol.asyncDispose]())

/** Starts a rehearsal with temporary files where nobody else has any; it has as good as all of its restore before it. */
function rehearse(...args: string[]) {
  const options = { cwd: shop.folder.path, env: { TMPDIR: temporary } }
  const child = start(['verify', '--restore', ...shop.flags, ...args], options)
  const done = finished(child)
  const isAt = (phase: RegExp): Promise<unknown> => {
    let said = ''
    return new Promise((settle) => {
      child.stderr?.on('data', (chunk) => {
        said += chunk
        if (phase.test(said)) settle(said)
      })
    })
  }
  return { child, done, isAt }
}

const filesOf = async (folder: string): Promise<string[]> => {
  const names = await readdir(path.join(shop.folder.path, 'repo'), { recursive: true })
  return names.filter((name) => name.includes(`/${folder}/`))
}

/** What is there of ours; the runner of TypeScript keeps its own. */
const left = (): string[] => readdirSync(temporary).filter((name) => name.startsWith('walback'))

const emptied = () =>
  waitFor(async () => (left().length === 0 ? true : undefined), { timeout_ms: 60_000, interval_ms: 20 })

describe('a rehearsal that is interrupted', () => {
  it('on a throwaway server leaves nothing: no folder, no server, no lease, no record', async () => {
    const { child, done, isAt } = rehearse()
    await isAt(/schema/)
    expect(left()).toMatchObject([expect.stringMatching(/^walback-pg-/)])
    child.kill('SIGINT')
    expect(await done).toMatchObject({ exit: 130, stderr: expect.stringContaining('error: interrupted') })
    expect(left()).toEqual([])
    expect(await filesOf('leases')).toEqual([])
    expect(await filesOf('proofs')).toEqual([])
  })

  it('and so it is when it is killed, but for the lease, which counts no more when it is old', async () => {
    const { child, done, isAt } = rehearse()
    await isAt(/schema/)
    expect(left()).not.toEqual([])
    child.kill('SIGKILL')
    await done
    expect(await emptied()).toBe(true)
    expect(await filesOf('proofs')).toEqual([])
  })

  it('on a server that is given drops its database, or the next one does', async () => {
    const databases = () => sql(shop.url, `SELECT datname::text AS name FROM pg_database ORDER BY 1`)
    const before = await databases()
    const first = rehearse('--on', shop.url)
    await first.isAt(/replay|rows/)
    first.child.kill('SIGINT')
    expect((await first.done).exit).toBe(130)
    expect(await databases()).toEqual(before)
    const second = rehearse('--on', shop.url)
    await second.isAt(/replay|rows/)
    second.child.kill('SIGKILL')
    await second.done
    const name = 'walback_throwaway_000000000000'
    await sql(shop.url, `CREATE DATABASE ${name}`)
    const sessions = `SELECT FROM pg_stat_activity WHERE application_name LIKE 'walback%'`
    await waitFor(async () => ((await sql(shop.url, sessions)).length === 0 ? true : undefined), {
      timeout_ms: 60_000,
      interval_ms: 20,
    })
    const third = await here(['verify', '--restore', '--on', shop.url, ...shop.flags], { cwd: shop.folder.path })
    expect(third.exit).toBe(0)
    expect(await databases()).toEqual(before)
  })
})
