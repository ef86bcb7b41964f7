import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { type Folder, folder, here, sql } from '../cli/walback.ts'

let server: EmbeddedServer
let place: Folder
beforeAll(async () => {
  server = await startEmbedded({ settings: { fsync: 'off' } })
  place = await folder()
  await writeFile(path.join(place.path, 'key'), 'correct horse battery staple\n')
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await place[Symbol.asyncDispose]()
})

const common = () => ['--db', server.url(), '--repo', 'repo', '--key-file', 'walback.key']
const run = (...args: string[]) => here([...args, ...common()], { cwd: place.path })
const succeed = async (...args: string[]) => {
  const ran = await run(...args)
  if (ran.exit !== 0) throw new Error(`walback ${args.join(' ')} ended with ${ran.exit}: ${ran.stderr}`)
  return ran
}
const json = async (...args: string[]) => JSON.parse((await succeed(...args, '--json')).stdout)
const rows = (query: string) => sql<Record<string, unknown>>(server.url(), query)

const name = 'Order "lines"\n2'
const quoted = `"${name.replaceAll('"', '""')}"`

describe('the command line, with an encrypted repository', () => {
  let deletion: { xid: string }
  it('finds, looks at and undoes a DELETE without WHERE', async () => {
    await sql(
      server.url(),
      `CREATE TABLE ${quoted} (id int PRIMARY KEY, "a b" text, note text)`,
      `INSERT INTO ${quoted} SELECT n, E'tab\\t\\u001b[31m' || n, 'it''s' FROM generate_series(1, 1000) n`,
    )
    await succeed('init', '--no-config', '--encrypt')
    await succeed('backup', '--full')
    await sql(
      server.url(),
      `UPDATE ${quoted} SET note = NULL WHERE id = 7`,
      `DELETE FROM ${quoted}`,
      `INSERT INTO ${quoted} VALUES (5, 'mine', NULL), (2000, 'later', NULL)`,
    )
    await succeed('backup', '--incremental')
    const log = await succeed('log', '--op', 'delete')
    const found = await json('log', '--op', 'delete')
    deletion = found.transactions[0]
    expect(log.stderr).toContain(`  look:  walback show tx:${deletion.xid} --repo repo --key-file walback.key\n`)
    expect(log.stderr).toContain(`  undo:  walback undo tx:${deletion.xid} --repo repo --key-file walback.key\n`)

    const shown = await succeed('show', `tx:${deletion.xid}`, '--limit', '3')
    expect(shown.stdout.split('\n').slice(1)).toEqual([
      '  public.Order "lines"\\x0a2: 1 000 deleted',
      '',
      'public.Order "lines"\\x0a2',
      '  - id=1  (only the key was sent)',
      '  - id=2  (only the key was sent)',
      '  - id=3  (only the key was sent)',
      '',
    ])
    expect(shown.stderr).toContain('only the first 3 changes are shown')

    const stopped = await run('undo', deletion.xid, '--show-conflicts')
    expect(stopped.exit).toBe(23)
    expect(stopped.stdout).toMatch(
      /^undo tx:\d+ of \S+ in \S.*\n {2}public\.Order "lines"\\x0a2: insert 999; 1 conflict: the key exists again\n {2}public\.Order "lines"\\x0a2 id=5: its key exists again \(insert\)\n$/,
    )
    expect(await rows(`SELECT count(*)::int FROM ${quoted}`)).toEqual([{ count: 2 }])
    const refused = await run('undo', deletion.xid, '--on-conflict', 'skip', '--apply')
    expect(refused).toMatchObject({ exit: 22 })
    expect(refused.stderr).toContain('not confirmed')
    expect(await rows(`SELECT count(*)::int FROM ${quoted}`)).toEqual([{ count: 2 }])

    const done = await json('undo', deletion.xid, '--on-conflict', 'skip', '--apply', '--yes')
    expect(done).toMatchObject({
      schema_version: 1,
      transactions: [{ xid: deletion.xid }],
      tables: [{ inserts: 999, updates: 0, deletes: 0, conflicts: { changed: 0, exists: 1, gone: 0 } }],
      conflicts: 1,
      applied: { xid: expect.stringMatching(/^\d+$/) },
    })
    expect(
      await rows(
        `SELECT count(*)::int, count(*) FILTER (WHERE note = 'it''s')::int AS notes, count("a b")::int AS texts FROM ${quoted}`,
      ),
    ).toEqual([{ count: 1001, notes: 998, texts: 1001 }])
    await succeed('backup', '--incremental')
    const back = await succeed('undo', done.applied.xid, '--apply', '--yes')
    expect(back.stdout).toMatch(
      /undone by tx:\d+: 999 rows deleted\. To take that back: walback undo tx:\d+( --\S+ \S+)*\n$/,
    )
  })

  it('writes the undo as SQL that does the same', async () => {
    const file = path.join(place.path, 'undo.sql')
    expect((await run('undo', deletion.xid, '--sql', 'undo.sql')).exit).toBe(23)
    await succeed('undo', deletion.xid, '--on-conflict', 'skip', '--sql', 'undo.sql')
    const again = await run('undo', deletion.xid, '--on-conflict', 'skip', '--sql', 'undo.sql')
    expect(again).toMatchObject({ exit: 22 })
    const script = await readFile(file, 'utf8')
    const { stdout } = await succeed('undo', deletion.xid, '--on-conflict', 'skip', '--sql')
    expect(stdout).toBe(script)
    expect(await rows(`SELECT count(*)::int FROM ${quoted}`)).toEqual([{ count: 2 }])
    await sql(server.url(), script)
    expect(await rows(`SELECT id, "a b", note FROM ${quoted} WHERE id < 9 ORDER BY 1`)).toEqual(
      [1, 2, 3, 4, 5, 6, 7, 8].map((id) =>
        id === 5
          ? { id, 'a b': 'mine', note: null }
          : { id, 'a b': `tab\t\u001b[31m${id}`, note: id === 7 ? null : `it's` },
      ),
    )
    expect(await rows(`SELECT count(*)::int FROM ${quoted}`)).toEqual([{ count: 1001 }])
  })

  it('says what it does not know', async () => {
    const unknown = await run('undo', '1')
    expect(unknown.exit).toBe(20)
    expect(unknown.stderr).toMatch(
      /^error: there is no transaction 1 in the archive\nhint: the nearest that changed anything: tx:\d+; `walback log` shows/,
    )
    expect(await run('show', 'tx:abc')).toMatchObject({ exit: 2 })
    const table = await run('undo', deletion.xid, '--table', 'ordr')
    expect(table.exit).toBe(2)
    expect(table.stderr).toContain('has no rows of "ordr"')
  })
})
