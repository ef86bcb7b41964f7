import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { type Folder, folder, here, type Ran, sql, succeed } from './walback.ts'

let server: EmbeddedServer
let place: Folder
let flags: string[]

beforeAll(async () => {
  server = await startEmbedded()
  place = await folder()
  await sql(server.url(), 'CREATE DATABASE app', 'CREATE DATABASE other')
  for (const name of ['app', 'other']) {
    const url = server.url(name)
    const own = ['--db', url, '--repo', 'repo', '--source', name]
    await sql(url, 'CREATE TABLE orders (id int PRIMARY KEY)', 'INSERT INTO orders VALUES (1)')
    await succeed(['init', '--no-config', ...own], { cwd: place.path })
    await succeed(['backup', '--full', ...own], { cwd: place.path })
    await sql(url, 'INSERT INTO orders VALUES (2)')
    await succeed(['backup', '--incremental', ...own], { cwd: place.path })
  }
  flags = ['--repo', 'repo']
})

afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await place[Symbol.asyncDispose]()
})

const run = (...args: string[]): Promise<Ran> => here(['verify', ...flags, ...args], { cwd: place.path })
const lines = ({ stdout }: Ran): Record<string, unknown>[] =>
  stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))

async function filesIn(below: string, end: string): Promise<string[]> {
  const at = path.join(place.path, 'repo', 'sources', below)
  const names = await readdir(at, { recursive: true })
  return names
    .filter((name) => name.endsWith(end))
    .sort()
    .map((name) => path.join(at, name))
}

/** Turns one bit of a file over for as long as something is done. */
async function damaged<T>(file: string, what: () => Promise<T>): Promise<T> {
  const bytes = await readFile(file)
  const other = Buffer.from(bytes)
  other[100] = (other[100] as number) ^ 4
  await writeFile(file, other)
  try {
    return await what()
  } finally {
    await writeFile(file, bytes)
  }
}

describe('walback verify', () => {
  it('finds a sound repository sound, source by source, and status shows it', async () => {
    const before = await here(['status', ...flags, '--source', 'app'], { cwd: place.path })
    expect(before.stdout).toContain('verified     never')
    const { exit, stdout } = await run()
    expect(exit).toBe(0)
    expect(stdout).toMatch(/^app {2}sound {2}\d+ objects, .* read in .*\nother {2}sound {2}.*\n$/)
    const after = await here(['status', ...flags, '--source', 'app'], { cwd: place.path })
    expect(after.stdout).toMatch(/verified {5}\d+\.\d s ago: sound, all of it read/)
    const json = await here(['status', ...flags, '--source', 'app', '--json'], { cwd: place.path })
    expect(JSON.parse(json.stdout)).toMatchObject({ last_verification: { outcome: 'sound', damaged: 0 } })
  })

  it('names what is damaged, what that costs and what to do, and ends with 21', async () => {
    const [segment = ''] = await filesIn('app/timelines', '.wbs')
    const { exit, stdout, stderr } = await damaged(segment, () => run('--no-record'))
    expect(exit).toBe(21)
    expect(stdout).toMatch(
      /^DAMAGED {2}segment-damaged {2}sources\/app\/timelines\/.*\n +costs {2}targets from .*\n +mend .*--full/,
    )
    expect(stdout).toMatch(/\napp {2}DAMAGED .*\nother {2}sound/)
    expect(stderr).toMatch(/error: the repository is damaged: 1 finding\n/)
  })

  it('says the same in JSON lines', async () => {
    const [rows = ''] = await filesIn('other/bases', '.wbr')
    const ran = await damaged(rows, () => run('--no-record', '--json'))
    expect(ran.exit).toBe(21)
    const key = path.relative(path.join(place.path, 'repo'), rows)
    const all = lines(ran)
    expect(all.filter(({ type }) => type === 'finding')).toMatchObject([
      {
        level: 'damage',
        kind: 'base-object-damaged',
        source: 'other',
        key,
        lost: [{ timeline: '00000001', to: null }],
      },
    ])
    expect(all.at(-1)).toMatchObject({
      type: 'summary',
      damaged: 1,
      sources: [
        { source: 'app', outcome: 'sound', read: { part: 1, of: 1 }, not_recorded: null },
        { source: 'other', outcome: 'damaged', findings: [{ kind: 'base-object-damaged', key }] },
      ],
    })
    expect(JSON.parse(ran.stderr)).toMatchObject({ type: 'error', code: 21, name: 'corrupt', facts: { damaged: 1 } })
  })

  it('reads a part, or nothing, and finds by that what it can', async () => {
    const [rows = ''] = await filesIn('app/bases', '.wbr')
    const exits = await damaged(rows, async () => {
      const parts = [await run('--no-record', '--read-subset', '1/2'), await run('--no-record', '--read-subset', '2/2')]
      return [...parts.map(({ exit }) => exit).sort(), (await run('--no-record', '--no-read')).exit]
    })
    expect(exits).toEqual([0, 21, 0])
    const kept = await readFile(rows)
    await rm(rows)
    const walk = await run('--no-record', '--no-read')
    await writeFile(rows, kept)
    expect(walk.exit).toBe(21)
    expect(walk.stdout).toContain('base-object-missing')
  })

  it('sees that what it saw before is gone, also at the end', async () => {
    expect((await run('--source', 'app')).exit).toBe(0)
    const last = (await filesIn('app/timelines', '.wbs')).at(-1) ?? ''
    const kept = await readFile(last)
    await rm(last)
    const { exit, stdout } = await run('--no-record')
    await writeFile(last, kept)
    expect(exit).toBe(21)
    expect(stdout).toMatch(
      /DAMAGED {2}rolled-back {2}.* is missing: an earlier verification found the archive to reach/,
    )
  })

  it.each([
    [['--repo', 'nowhere'], 10, /there is no repository/],
    [['--repo', 'repo', '--source', 'no'], 10, /holds no source no/],
    [['--repo', 'repo', '--read-subset', '8/7'], 2, /part of a whole/],
    [['--repo', 'repo', '--no-read', '--read-subset', '1/7'], 2, /exclude each other/],
  ])('refuses %j', async (args, exit, message) => {
    const ran = await here(['verify', ...args], { cwd: place.path })
    expect(ran.exit).toBe(exit)
    expect(ran.stderr).toMatch(message)
  })
})
