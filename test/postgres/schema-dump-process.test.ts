import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { connect } from '../../src/postgres/connect.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { dumpSchema } from '../../src/postgres/schema-dump.ts'
import { processes, type RunningProcess } from '../support/processes.ts'

let server: EmbeddedServer
beforeAll(async () => {
  server = await startEmbedded()
})
afterAll(() => server[Symbol.asyncDispose]())

/** The process of the dump that this one, or another, has started, once it is there. */
async function dumpOf(parent: number): Promise<RunningProcess> {
  const found = await waitFor(
    async () => (await processes()).find((one) => one.parent === parent && /schema-dump-process/.test(one.command)),
    { timeout_ms: 30_000, interval_ms: 50 },
  )
  if (found === undefined) throw new Error('no dump was started')
  return found
}

/** A session with a table that is locked, so that whoever dumps it waits. */
async function locked() {
  const client = await connect(resolveConninfo(server.url(), {}))
  await client.query('CREATE TABLE IF NOT EXISTS locked (id int)')
  await client.query('BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE')
  return { client, [Symbol.asyncDispose]: () => client.end() }
}

describe('the process of the built-in pg_dump', () => {
  test('is another one, whose arguments tell nothing, and its end is the end of the dump', async () => {
    await using _ = await locked()
    const conninfo = { ...resolveConninfo(server.url(), {}), password: 'hunter2' }
    await using leader = await sharing(conninfo)
    const failure = dumpSchema(conninfo, leader.options).catch((error: unknown) => error)
    const { pid, command } = await dumpOf(process.pid)
    expect(command).not.toMatch(/hunter2|postgres@|127\.0\.0\.1/)
    process.kill(pid, 'SIGKILL')
    expect(await failure).toMatchObject({ code: 'database', message: 'pg_dump failed: its process ended with SIGKILL' })
  })

  test('leaves it to the one that started it to act on what is sent to both', async () => {
    await using lock = await locked()
    const conninfo = resolveConninfo(server.url(), {})
    await using leader = await sharing(conninfo)
    const dump = dumpSchema(conninfo, leader.options)
    const { pid } = await dumpOf(process.pid)
    await dumpWaits()
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(pid, name)
    await lock.client.query('ROLLBACK')
    expect((await dump).preData).toContain('CREATE TABLE public.locked')
    expect((await processes()).filter((one) => one.pid === pid)).toEqual([])
  })

  test('is gone when what started it is killed', async () => {
    await using _ = await locked()
    const program = fileURLToPath(new URL('dump-program.ts', import.meta.url))
    const parent = spawn(process.execPath, ['--import', 'tsx', program, server.url()], { stdio: 'inherit' })
    const { pid } = await dumpOf(parent.pid ?? 0)
    await dumpWaits()
    parent.kill('SIGKILL')
    await once(parent, 'exit')
    const isGone = async () => !(await processes()).some((one) => one.pid === pid) || undefined
    expect(await waitFor(isGone, { timeout_ms: 30_000, interval_ms: 50 })).toBe(true)
  })
})

/** Waits until a dump waits for the lock: by then it is at work, and does with signals what it does. */
async function dumpWaits(): Promise<void> {
  const looker = await connect(resolveConninfo(server.url(), {}))
  const count = `SELECT FROM pg_stat_activity WHERE application_name = 'walback schema' AND wait_event_type = 'Lock'`
  await expect.poll(async () => (await looker.query(count)).rowCount, { timeout: 60_000, interval: 50 }).toBe(1)
  await looker.end()
}

/** A session that shares its snapshot for a dump. */
async function sharing(conninfo: ReturnType<typeof resolveConninfo>) {
  const leader = await connect(conninfo)
  await leader.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
  const { rows } = await leader.query<{ snapshot: string; version: number }>(
    `SELECT pg_export_snapshot() AS snapshot, current_setting('server_version_num')::int AS version`,
  )
  const { snapshot, version: serverVersion } = rows[0] as { snapshot: string; version: number }
  return {
    options: { snapshot, serverVersion, excludeSchemas: [], lockTimeout_ms: 60_000, prefer: 'builtin' },
    [Symbol.asyncDispose]: () => leader.end(),
  } as const
}
