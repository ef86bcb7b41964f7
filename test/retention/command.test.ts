import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { Lease } from '../../src/repository/lease.ts'
import { Repository } from '../../src/repository/repository.ts'
import { openStorage } from '../../src/storage/open.ts'
import { type Folder, folder, here, type Ran } from '../cli/walback.ts'
import { MadeArchive } from './made-archive.ts'

interface Stage extends AsyncDisposable {
  readonly repo: string
  readonly archive: MadeArchive
  run(...args: string[]): Promise<Ran>
}

/** Six days with a base on each, in a folder; and a configuration. */
async function stage(retention = ''): Promise<Stage> {
  const archive = await MadeArchive.begin()
  for (let day = 0; day < 6; day++) {
    await archive.base()
    await archive.segment({ commits: 2, hours: 12, heartbeat: 0, ...(day === 1 ? { mark: 'release' } : {}) })
    await archive.segment({ commits: 2, hours: 12, heartbeat: 0 })
  }
  const place: Folder = await folder()
  const repo = path.join(place.path, 'repo')
  for (const [key, bytes] of archive.storage.objects) {
    await mkdir(path.dirname(path.join(repo, key)), { recursive: true })
    await writeFile(path.join(repo, key), bytes)
  }
  await writeFile(path.join(place.path, 'walback.yaml'), `version: 1\nrepositories: [repo]\n${retention}`)
  return {
    repo,
    archive,
    run: (...args) => here(args, { cwd: place.path }),
    [Symbol.asyncDispose]: () => place[Symbol.asyncDispose](),
  }
}

const removed = ({ stdout }: Ran): number => stdout.split('\n').filter((line) => line.startsWith('remove ')).length

describe('walback prune', () => {
  it('shows and removes nothing until it is told to', async () => {
    await using at = await stage()
    const dry = await at.run('prune', '--keep-last', '2')
    expect(dry).toMatchObject({ exit: 0, stderr: expect.stringContaining('add --yes') })
    expect(dry.stdout).toMatch(/^remove {2}b9999 +2026-01-01 00:06:00Z .* no rule keeps it$/m)
    expect(dry.stdout).toMatch(/^restorable afterwards: every moment from 2026-01-05T\S+ \(0\/\w+\) to 2026-01-07T/m)
    expect(removed(await at.run('prune', '--keep-last', '2', '--yes', '--dry-run'))).toBe(4)
    const done = await at.run('prune', '--keep-last', '2', '--yes')
    expect(done).toMatchObject({ exit: 0, stdout: expect.stringMatching(/^removed \d+ objects, /m) })
    expect((await at.run('prune', '--keep-last', '2', '--yes')).stdout).toContain('nothing to remove')
    expect(JSON.parse((await at.run('audit', '--json')).stdout)).toMatchObject({
      total: 1,
      whole: true,
      actions: [{ action: 'prune', state: 'done', asked_facts: { bases: expect.arrayContaining(['b9999']) } }],
    })
    expect(JSON.parse((await at.run('list', '--json')).stdout).bases).toHaveLength(2)
  })

  it('takes its policy from the configuration, and from flags instead', async () => {
    await using at = await stage('retention: { daily: 3, window: 1d }\n')
    expect(removed(await at.run('prune'))).toBe(3)
    expect(removed(await at.run('prune', '--keep-last', '1'))).toBe(5)
  })

  it('refuses an empty policy, and another prune', async () => {
    await using at = await stage()
    expect(await at.run('prune', '--yes')).toMatchObject({ exit: 22, stderr: expect.stringContaining('is empty') })
    const repository = await Repository.open(openStorage(at.repo, {}))
    await using _ = await Lease.take(repository, 'app', { purpose: 'prune' })
    const refused = await at.run('prune', '--keep-last', '1', '--yes')
    expect(refused).toMatchObject({ exit: 11, stderr: expect.stringContaining(`process ${process.pid}`) })
    expect(await at.run('pin', '--base', 'b9999')).toMatchObject({ exit: 11 })
    expect((await at.run('info')).stdout).toMatch(/^leases +prune on /m)
  })

  it('only names what may go where a rule of the store removes it', async () => {
    await using at = await stage('retention: { last: 1, mode: external }\n')
    const named = JSON.parse((await at.run('prune', '--yes', '--json')).stdout)
    expect(named.may_remove).toContain('sources/app/bases/b9999/manifest.json')
    expect(named).toMatchObject({ removed: null, keep_written_since: '2026-01-06T00:30:00.000Z' })
    expect(JSON.parse((await at.run('list', '--json')).stdout).bases).toHaveLength(6)
  })
})

describe('walback pin', () => {
  it('keeps a base, a mark or a time until it is taken away', async () => {
    await using at = await stage()
    const base = JSON.parse((await at.run('pin', '--base', 'b9999', '--note', 'the audit', '--json')).stdout).pin
    expect((await at.run('pin', '--mark', 'release')).exit).toBe(0)
    expect((await at.run('pin', '--time', '2026-01-03T12:00:00Z')).exit).toBe(0)
    expect((await at.run('pin', 'list')).stdout.split('\n')).toHaveLength(5)
    const done = await at.run('prune', '--keep-last', '1', '--yes', '--json')
    expect(done.exit).toBe(0)
    expect(JSON.parse(done.stdout).moments_after).toHaveLength(5)
    for (const target of [
      ['--to-mark', 'release'],
      ['--to', '2026-01-03T12:00:00Z'],
      ['--to', '2026-01-01T00:06:00Z'],
    ])
      expect(
        await at.run('restore', ...target, '--into', 'x', '--db', 'postgres://nobody@127.0.0.1:1/x', '--plan'),
      ).toMatchObject({
        exit: 0,
      })
    expect((await at.run('unpin', base.id)).exit).toBe(0)
    expect(removed(await at.run('prune', '--keep-last', '1'))).toBe(1)
  })

  it('is refused for what cannot be restored, and for nothing in particular', async () => {
    await using at = await stage()
    expect(await at.run('pin', '--time', '2020-01-01T00:00:00Z')).toMatchObject({ exit: 20 })
    expect(await at.run('pin', '--base', 'b9998x')).toMatchObject({
      exit: 2,
      stderr: expect.stringContaining('b9998?'),
    })
    expect(await at.run('pin')).toMatchObject({ exit: 2, stderr: expect.stringContaining('pin what?') })
    expect(await at.run('unpin', 'nothing')).toMatchObject({ exit: 2 })
  })
})
