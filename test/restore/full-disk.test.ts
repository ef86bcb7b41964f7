import { execFile } from 'node:child_process'
import { chmod, cp, mkdtemp, rename, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { everything } from '../../src/model/selection.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { interruptedRestores } from '../../src/restore/interrupted.ts'
import { restoreIntoLive } from '../../src/restore/live.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { selectTables } from '../../src/restore/selected.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { ourObjects } from '../support/walback.ts'
import { once, Subject } from './round-trip.ts'

const run = promisify(execFile)

/** A small disk of its own, for whoever may mount one. */
async function mountSmall(size: string): Promise<string | undefined> {
  const folder = await mkdtemp(path.join(tmpdir(), 'walback-small-'))
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=0755`, 'tmpfs', folder])
    return folder
  } catch {
    await rm(folder, { recursive: true, force: true })
    return undefined
  }
}

const small = await mountSmall('110m')

let server: EmbeddedServer
let subject: Subject
beforeAll(async () => {
  if (small === undefined) return
  // The databases alone are on the small disk: without room for its log, a server stops altogether.
  const directory = await mkdtemp(path.join(tmpdir(), 'walback-data-'))
  await chmod(directory, 0o755)
  server = await startEmbedded({ directory, settings: { fsync: 'off', autovacuum: 'off' } })
  await server.stop()
  const base = path.join(server.dataDirectory, 'base')
  await run('chown', ['--reference', base, small])
  await cp(base, path.join(small, 'base'), { recursive: true, preserveTimestamps: true })
  await run('chown', ['-R', '--reference', base, path.join(small, 'base')])
  await rename(base, `${base}.before`)
  await symlink(path.join(small, 'base'), base)
  await server.start()
  subject = await Subject.start(server)
  await subject.sql(
    'create table first (id int primary key, filler text)',
    'create table second (id int primary key, filler text)',
    `insert into first select n, repeat(md5(n::text), 20) from generate_series(1, 10000) n`,
    `insert into second select n, repeat(md5(n::text), 20) from generate_series(1, 10000) n`,
  )
  const archive = await subject.open()
  await archive.base()
  await subject.note('then')
  await archive.catchUp()
})
afterAll(async () => {
  try {
    await subject?.[Symbol.asyncDispose]()
  } finally {
    await server?.[Symbol.asyncDispose]()
    if (small !== undefined) {
      await run('umount', [small])
      await rm(small, { recursive: true, force: true })
      if (server) await rm(path.dirname(server.dataDirectory), { recursive: true, force: true })
    }
  }
})

/** Takes most of the room that is left away. */
async function fill(left_mb: number): Promise<void> {
  const { stdout } = await run('df', ['-k', '--output=avail', small ?? ''])
  const free_kb = Number(stdout.trim().split('\n').at(-1))
  await once(server.url(), 'create table filler (t text); alter table filler alter t set storage external')
  const rows = Math.floor((free_kb - left_mb * 1024) / 1024)
  await once(server.url(), `insert into filler select repeat('x', 1000000) from generate_series(1, ${rows})`)
}
async function makeRoom(): Promise<void> {
  await once(server.url(), 'drop table filler')
  await once(server.url(), 'checkpoint')
}

it('a disk that is full gets back the room that a restore has taken', async ({ skip }) => {
  skip(small === undefined, 'no disk can be mounted here')
  await fill(14)
  const [moment] = subject.moments
  const conninfo = resolveConninfo(server.url(), {})
  const attempt = async () =>
    subject.restoreInto({ conninfo, database: 'again' }, moment?.target, { jobs: 1, request: {} })
  await expect(attempt()).rejects.toMatchObject({
    code: 'database',
    message: expect.stringContaining('No space left on device'),
  })
  expect(await interruptedRestores(conninfo)).toEqual([])
  expect(await once(server.url(), `select datname from pg_database where datname like 'walback%'`)).toEqual([])
  await makeRoom()
  await attempt()
  const found = await fingerprint(server.url('again'))
  expect(differences(moment?.golden ?? found, found, ourObjects)).toEqual([])
  await once(server.url(), 'drop database again')
})

it('a disk that is full leaves the tables of the live database as they are', async ({ skip }) => {
  skip(small === undefined, 'no disk can be mounted here')
  await subject.sql('delete from first where id > 10')
  const before = await fingerprint(subject.url)
  await fill(22)
  const { repository, source } = subject.opened
  const [moment] = subject.moments
  const plan = await planRestore(repository, source, moment?.target ?? { kind: 'latest' })
  const selected = await selectTables(repository, plan, { ...everything, tables: ['first'] })
  await expect(
    restoreIntoLive(repository, selected, resolveConninfo(subject.url, {}), { merge: 'insert-missing' }, { jobs: 1 }),
  ).rejects.toMatchObject({ message: expect.stringContaining('No space left on device') })
  await makeRoom()
  expect(differences(before, await fingerprint(subject.url), ourObjects)).toEqual([])
  expect(await once(server.url(), `select datname from pg_database where datname like 'walback%'`)).toEqual([])
})
