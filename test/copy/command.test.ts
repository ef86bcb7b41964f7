import { randomBytes } from 'node:crypto'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { formatLsn } from '../../src/model/lsn.ts'
import { readKeyFile } from '../../src/repository/credential.ts'
import { makeRecipient } from '../../src/repository/recipients.ts'
import { Repository } from '../../src/repository/repository.ts'
import { openStorage } from '../../src/storage/open.ts'
import { type Folder, folder, here, type Ran } from '../cli/walback.ts'
import { MadeArchive } from '../retention/made-archive.ts'

interface Stage extends AsyncDisposable {
  readonly path: string
  readonly archive: MadeArchive
  write(name: string): Promise<void>
  run(...args: string[]): Promise<Ran>
}

/** Two days with a base on each, in the folder `near`. */
async function stage(config = ''): Promise<Stage> {
  const archive = await MadeArchive.begin()
  const place: Folder = await folder()
  const write = async (name: string): Promise<void> => {
    for (const [key, bytes] of archive.storage.objects) {
      await mkdir(path.dirname(path.join(place.path, name, key)), { recursive: true })
      await writeFile(path.join(place.path, name, key), bytes)
    }
  }
  for (let day = 0; day < 2; day++) {
    await archive.base()
    await archive.segment({ commits: 2, hours: 12, heartbeat: 0 })
  }
  await write('near')
  await writeFile(path.join(place.path, 'walback.yaml'), `version: 1\n${config}`)
  return {
    path: place.path,
    archive,
    write,
    run: (...args) => here(args, { cwd: place.path }),
    [Symbol.asyncDispose]: () => place[Symbol.asyncDispose](),
  }
}

describe('walback copy', () => {
  it('copies from the configured repository, says what, and in JSON', async () => {
    await using at = await stage('repositories: [near]\n')
    const dry = await at.run('copy', '--to', 'far', '--dry-run')
    expect(dry).toMatchObject({
      exit: 0,
      stdout: expect.stringMatching(/^app {2}to copy: 2 bases, 2 segments; 11 objects/),
    })
    expect(await at.run('status', '--repo', 'far')).toMatchObject({ exit: 10 })
    const done = await at.run('copy', '--to', 'far')
    expect(done).toMatchObject({ exit: 0, stdout: expect.stringMatching(/^app {2}2 bases, 2 segments; 11 objects, /) })
    const again = JSON.parse((await at.run('copy', '--to', 'far', '--json')).stdout)
    expect(again).toMatchObject({ dry_run: false, sources: [{ source: 'app', objects: 0, bytes: 0, damage: [] }] })
    expect((await at.run('list', '--repo', 'far', '--json')).exit).toBe(0)
  })

  it('names what is damaged with exit 21, and refuses itself', async () => {
    await using at = await stage('repositories: [near]\n')
    const { key } = at.archive.segments[1] as { key: string }
    await writeFile(path.join(at.path, 'near', key), 'not this')
    const damaged = await at.run('copy', '--to', 'far')
    expect(damaged).toMatchObject({ exit: 21, stderr: expect.stringContaining(key) })
    expect(damaged.stdout).toContain('2 bases, 1 segment')
    expect(await at.run('copy', '--to', './near')).toMatchObject({ exit: 2 })
    expect(await at.run('copy', '--to', 'far', '--source', 'other')).toMatchObject({ exit: 10 })
  })

  it('copies an encrypted repository with its key, and to no open one', async () => {
    await using at = await stage('encryption: { key_file: own.key }\nrepositories: [sealed]\n')
    await writeFile(path.join(at.path, 'own.key'), `${randomBytes(32).toString('base64')}\n`)
    const storage = openStorage(path.join(at.path, 'sealed'), {})
    const credential = await readKeyFile(path.join(at.path, 'own.key'))
    await Repository.createEncrypted(storage, [await makeRecipient(credential as never, 'owner', 'full')])
    const sealed = await Repository.open(storage, { credential })
    for (const [key, bytes] of at.archive.storage.objects)
      if (key !== 'walback.json') await sealed.storage.put(key, bytes)
    expect(await at.run('copy', '--to', 'near')).toMatchObject({
      exit: 22,
      stderr: expect.stringMatching(/near is not encrypted, and .*sealed is/),
    })
    expect(await at.run('copy', '--to', 'far')).toMatchObject({ exit: 0 })
    expect(await at.run('list', '--repo', 'far')).toMatchObject({ exit: 12 })
    expect(await at.run('list', '--repo', 'far', '--key-file', 'own.key')).toMatchObject({ exit: 0 })
    // The configuration's key is for its own repository.
    expect(await at.run('copy', '--from', 'near', '--to', 'further')).toMatchObject({ exit: 0 })
    expect(await at.run('list', '--repo', 'further')).toMatchObject({ exit: 0 })
  })
})

describe('several repositories', () => {
  const both = 'repositories:\n  - near\n  - { url: far, name: offsite, mode: best_effort }\n'

  it('are read in their order: the first that answers and has the target', async () => {
    await using at = await stage(both)
    await at.run('copy', '--to', 'far')
    const into = ['--into-url', 'postgres://nobody@127.0.0.1:1/x', '--plan']
    const last = at.archive.commits.at(-1)
    const target = ['--to-lsn', formatLsn(last?.end as never)]
    const first = JSON.parse((await at.run('status', '--json')).stdout)
    expect(first.repository).toMatch(/near$/)
    expect(first.copies).toMatchObject([{ repository: expect.stringMatching(/far$/), behind_bytes: 0, why: null }])
    expect(first.passed_over).toBeUndefined()

    await rename(path.join(at.path, 'near'), path.join(at.path, 'gone'))
    for (const name of ['status', 'list', 'info', 'log']) {
      const words = await at.run(name)
      const read = await at.run(name, '--json')
      expect(words, name).toMatchObject({
        exit: 0,
        stderr: expect.stringMatching(/passed over \S*near: there is no repo/),
      })
      const json = JSON.parse(read.stdout)
      expect(json.repository, name).toMatch(/far$/)
      expect(json.passed_over, name).toMatchObject([{ reason: expect.stringContaining('no repository') }])
    }
    expect((await at.run('status')).stderr).toMatch(/read from offsite \(/)

    // It answers again, and does not reach as far.
    await rename(path.join(at.path, 'gone'), path.join(at.path, 'near'))
    await rename(path.join(at.path, 'near', at.archive.segments[1]?.key ?? ''), path.join(at.path, 'lost'))
    const plan = await at.run('restore', ...target, ...into)
    expect(plan.stderr).toMatch(/passed over /)
    // Nobody has it: the first one's word counts.
    expect(await at.run('restore', '--to-lsn', 'F/0', ...into)).toMatchObject({ exit: 20 })
    expect(await at.run('restore', '--to-lsn', 'F/0', '--repo', 'near', ...into)).toMatchObject({ exit: 20 })
  })

  it('are verified one after the other, and status says how far each is behind', async () => {
    await using at = await stage(both)
    expect((await at.run('status')).stdout).toMatch(/copy +\S*far: holds nothing yet/)
    expect(await at.run('verify', '--no-read')).toMatchObject({ exit: 10, stderr: expect.stringContaining('far') })
    await at.run('copy', '--to', 'far')
    const sound = await at.run('verify', '--no-read', '--json')
    expect(sound.exit).toBe(0)
    const summaries = sound.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
      .filter(({ type }) => type === 'summary')
    expect(summaries.map(({ repository, damaged }) => [path.basename(repository), damaged])).toEqual([
      ['near', 0],
      ['far', 0],
    ])
    const { key } = at.archive.segments[1] as { key: string }
    await writeFile(path.join(at.path, 'far', key), 'not this')
    expect(await at.run('verify', '--no-read')).toMatchObject({ exit: 21 })
    expect(await at.run('verify', '--no-read', '--repo', 'near')).toMatchObject({ exit: 0 })
    await rm(path.join(at.path, 'far', key))
    expect((await at.run('status')).stdout).toMatch(/copy +\S*far: .* of log behind/)
    await rm(path.join(at.path, 'far'), { recursive: true })
    await Repository.createEncrypted(openStorage(path.join(at.path, 'far'), {}), [])
    expect((await at.run('status')).stdout).toMatch(/copy +\S*far: cannot be looked at: .* is encrypted, and /)
  })

  it.each([
    ['repository: near\n', /did you mean repositories/],
    ['repositories: []\n', /empty/],
    ['repositories: [near, near]\n', /near is there twice/],
    ['repositories: [{ url: near, mode: best_effort }]\n', /it is required/],
    ['repositories: [near, { url: far, nam: x }]\n', /unknown key "nam"/],
    ['repositories: [near, { name: x }]\n', /url/],
    ['sources: { app: { repositories: [] } }\n', /empty/],
  ])('are refused as %j', async (config, says) => {
    await using at = await stage(config)
    expect(await at.run('list')).toMatchObject({ exit: 2, stderr: expect.stringMatching(says) })
  })
})
