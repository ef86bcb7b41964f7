/**
 * Streams that are made to hurt, in small (bench/hostile.ts has them at length): captured by an agent as a process of
 * its own, whose memory must not grow with them, and restored.
 */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { type AgentProcess, startAgent } from '../support/agent-process.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'
import { proveLatest, sql } from './proof.ts'

let server: EmbeddedServer
let archive: TestArchive
beforeAll(async () => {
  server = await startEmbedded({ settings: { max_locks_per_transaction: '512', logical_decoding_work_mem: '1MB' } })
  const tables = Array.from({ length: 500 }, (_, n) => `create table t${n} (id int primary key, note text)`)
  await sql(
    server.url(),
    `create table many (id int primary key, note text); create table wide (id int primary key, note text);
     create table bare (note text); alter table wide alter note set storage external; ${tables.join(';')}`,
  )
  archive = await openArchive(server.url())
  await archive.base()
  await archive.catchUp()
})
afterAll(async () => {
  await archive?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

const each = (count: number, statement: (n: number) => string): string =>
  Array.from({ length: count }, (_, n) => statement(n)).join(';')

const hostile: readonly (readonly [string, string])[] = [
  [
    'two thousand subtransactions, of which a tenth are rolled back',
    `do $$ begin for n in 1..2000 loop begin insert into many values (n, md5(n::text));
       if n % 10 = 0 then raise 'undone'; end if; exception when raise_exception then null; end; end loop; end $$`,
  ],
  [
    'rows of all of many tables in one transaction',
    `begin; ${each(500, (n) => `insert into t${n} values (1, 'one')`)}; ${each(500, (n) => `update t${n} set note = 'two'`)}; commit`,
  ],
  [
    'a hundred changes of the schema in one transaction',
    `begin; ${each(50, (n) => `create table made_${n} (id int primary key default ${n}); insert into made_${n} default values; alter table many add column c${n} int default ${n}`)}; commit`,
  ],
  [
    'fields of 48 MiB, written, kept, changed and taken away',
    `insert into wide values (1, repeat(md5('a'), 3 << 19)), (2, repeat(md5('b'), 3 << 19)); update wide set id = id + 10;
     insert into bare select note from wide where id = 11; update bare set note = note || 'more'; delete from wide where id = 12`,
  ],
  [
    'many small transactions at once',
    `do $$ begin for n in 10001..14000 loop insert into many (id) values (n); commit; end loop; end $$`,
  ],
]

const now_mib = (agent: AgentProcess, what: string): number =>
  Number(new RegExp(`${what}:\\s+(\\d+)`).exec(readFileSync(`/proc/${agent.pid}/status`, 'utf8'))?.[1] ?? 0) / 1024

it('are archived within bounds, and restored', { timeout: 240_000 }, async ({ annotate }) => {
  const url = server.url()
  await using agent = startAgent({
    url,
    repository: archive.folder,
    source: archive.source,
    segmentBytes: 8 << 20,
    segmentAge_ms: 300,
    heartbeat_ms: 1000,
  })
  await agent.logged(/^capturing$/)
  for (const [name, statements] of hostile) {
    if (name.startsWith('many')) await sql(url, statements)
    else
      for (const statement of name.startsWith('fields') ? statements.split(';') : [statements])
        await sql(url, statement)
    const rows = await sql<{ lsn: string }>(url, 'select pg_current_wal_insert_lsn()::text as lsn')
    const isArchived = async (): Promise<true | undefined> => {
      const found = await sql<{ done: boolean }>(
        url,
        `select confirmed_flush_lsn >= '${rows[0]?.lsn}' as done from pg_replication_slots where slot_name = 'walback_app'`,
      )
      return found[0]?.done || undefined
    }
    expect(await waitFor(isArchived, { timeout_ms: 60_000, interval_ms: 50 }), name).toBe(true)
    // Proc is Linux's.
    if (process.platform !== 'linux') continue
    const peak = now_mib(agent, 'VmHWM')
    await annotate(`${name}: peak ${peak.toFixed(0)} MiB`)
    expect(peak, name).toBeLessThan(300)
  }
  expect(await agent.stop()).toBe(0)
  await proveLatest(archive, url)
})
