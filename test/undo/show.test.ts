import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { findTransactions, parseTransactionName } from '../../src/history/find-transaction.ts'
import { showTransaction } from '../../src/history/show.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { type Folder, folder, here, sql } from '../cli/walback.ts'
import { Subject } from '../restore/round-trip.ts'
import { transaction } from './stage.ts'

let server: EmbeddedServer
let place: Folder
beforeAll(async () => {
  server = await startEmbedded({ settings: { fsync: 'off' } })
  place = await folder()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await place[Symbol.asyncDispose]()
})

describe('the name of a transaction', () => {
  it('is a number, with or without its prefix and timeline', () => {
    expect(parseTransactionName('123')).toEqual({ xid: 123n })
    expect(parseTransactionName(' tx:123 ')).toEqual({ xid: 123n })
    expect(parseTransactionName('tx:123@2')).toEqual({ xid: 123n, timeline: '00000002' })
    for (const wrong of ['', 'tx:', '12x', '-1', '1.0', '123@', '123@g'])
      expect(() => parseTransactionName(wrong)).toThrow('not a transaction id')
  })

  it('may lack its epoch, and must be the name of one', async () => {
    await using one = await Subject.start(server)
    await one.sql('CREATE TABLE t (id int PRIMARY KEY)')
    const { repository, source } = await one.open()
    const xid = BigInt(await transaction(one, 'INSERT INTO t VALUES (1)'))
    await one.opened.catchUp()
    const find = (name: string) => findTransactions(repository, source, [parseTransactionName(name)])
    expect(await find(String(xid))).toMatchObject([{ entry: { xid: String(xid) }, timeline: { id: '00000001' } }])
    await expect(find(String(xid + (1n << 32n)))).rejects.toMatchObject({ code: 'outside_window' })
    await expect(find(`${xid}@2`)).rejects.toMatchObject({
      code: 'outside_window',
      message: `there is no transaction ${xid} in timeline 00000002 of the archive`,
    })
    await expect(find(String(xid + 1000n))).rejects.toMatchObject({ hint: expect.stringContaining(`tx:${xid}`) })
  })
})

it('show prints rows before and after, printably', async () => {
  const common = ['--db', server.url(), '--repo', 'repo']
  const run = async (...args: string[]) => {
    const { exit, stdout, stderr } = await here([...args, ...common], { cwd: place.path })
    if (exit !== 0) throw new Error(`walback ${args.join(' ')} ended with ${exit}: ${stderr}`)
    return { stdout, stderr }
  }
  await sql(
    server.url(),
    'CREATE TABLE plain (id int PRIMARY KEY, a text, long text)',
    'ALTER TABLE plain ALTER long SET STORAGE EXTERNAL',
    'CREATE TABLE whole (id int PRIMARY KEY, "b c" text)',
    'ALTER TABLE whole REPLICA IDENTITY FULL',
    `INSERT INTO plain VALUES (1, 'one', repeat('x', 5000)), (2, 'two', NULL)`,
    `INSERT INTO whole VALUES (1, 'it''s'), (2, NULL)`,
  )
  await run('init', '--no-config')
  await sql(
    server.url(),
    `BEGIN; INSERT INTO plain VALUES (3, E'\\x1b[31m\\n', 'NULL'); UPDATE plain SET a = 'uno' WHERE id = 1; DELETE FROM plain WHERE id = 2;
     UPDATE whole SET "b c" = 'x y' WHERE id = 2; UPDATE whole SET id = 7 WHERE id = 1; DELETE FROM whole WHERE id = 7;
     TRUNCATE whole; CREATE TABLE made (); COMMIT`,
  )
  await run('backup', '--incremental')
  const { transactions } = JSON.parse((await run('log', '--json')).stdout)
  const { xid } = transactions.at(-1)
  const { stdout, stderr } = await run('show', xid)
  expect(stdout.split('\n').slice(1)).toEqual([
    '  public.plain: 1 inserted, 1 updated, 1 deleted',
    '  public.whole: 2 updated, 1 deleted, truncated',
    '',
    'public.plain',
    `  + id=3 a='\\x1b[31m\\x0a' long='NULL'`,
    '  ~ id=1  a: → uno  (old values were not sent)',
    '  - id=2  (only the key was sent)',
    'public.whole',
    `  ~ id=2  b c: NULL → 'x y'`,
    `  ~ b c='it''s'  id: 1 → 7`,
    `  - id=7 b c='it''s'`,
    'truncated public.whole: which rows it took is not in the stream',
    'CREATE TABLE public.made  by postgres',
    '',
  ])
  expect(stderr).toContain(`to just before it: walback restore --before-tx ${xid} `)
  const shown = JSON.parse((await run('show', xid, '--table', 'plain', '--limit', '2', '--json')).stdout)
  expect(shown).toMatchObject({ schema_version: 1, xid, ddl_count: 1, has_more_changes: true })
  expect(shown.changes).toEqual([
    { kind: 'insert', schema: 'public', name: 'plain', after: { id: '3', a: '\u001b[31m\n', long: 'NULL' } },
    {
      kind: 'update',
      schema: 'public',
      name: 'plain',
      key: { id: '1' },
      before: {},
      before_is_whole: false,
      after: { id: '1', a: 'uno' },
      not_sent: ['long'],
    },
  ])
})

it('a damaged segment is not shown', async () => {
  await using one = await Subject.start(server)
  await one.sql('CREATE TABLE t (id int PRIMARY KEY)')
  const { repository, source, folder: path } = await one.open()
  const xid = await transaction(one, 'INSERT INTO t SELECT generate_series(1, 1000)')
  await one.opened.catchUp()
  const [found] = await findTransactions(repository, source, [parseTransactionName(xid)])
  if (found === undefined) throw new Error('it was there')
  const bytes = await readFile(`${path}/${found.segment.key}`)
  const at = bytes.length >> 1
  bytes[at] = (bytes[at] as number) ^ 1
  await writeFile(`${path}/${found.segment.key}`, bytes)
  await expect(
    (async () => {
      for await (const _ of showTransaction(repository, found)) {
      }
    })(),
  ).rejects.toMatchObject({ code: 'corrupt' })
})
