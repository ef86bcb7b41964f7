import { randomBytes } from 'node:crypto'
import { getPriority } from 'node:os'
import pino from 'pino'
import { afterEach, expect, it } from 'vitest'
import { runAgent } from '../../agent/agent.ts'
import { waitFor } from '../../src/base/abort.ts'
import type { CompactSettings } from '../../src/config.ts'
import type { WalbackEvent } from '../../src/model/event.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { readManifests } from '../../src/repository/base.ts'
import { readLeases } from '../../src/repository/lease.ts'
import { Prune } from '../../src/retention/prune.ts'
import { isDamage } from '../../src/verify/finding.ts'
import { verifySource } from '../../src/verify/verify.ts'
import { proveLatest, sql } from '../faults/proof.ts'
import { startAgent } from '../support/agent-process.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { processes, type RunningProcess } from '../support/processes.ts'
import { openArchive, ourObjects, type TestArchive } from '../support/walback.ts'
import { createPgbench, runPgbench } from '../support/workload.ts'

const opened: AsyncDisposable[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one[Symbol.asyncDispose]()
})

const stream = { segmentBytes: 64 << 10, segmentAge_ms: 50, heartbeat_ms: 100 }
const settings: CompactSettings = {
  every_ms: 3000,
  memory_bytes: 16 << 20,
  maxRate: undefined,
  onSchemaChange: 'backup',
}
/** Where nothing has to be proven of that, it does not wait for all the other tests. */
const brisk = { ...settings, niceness: 0 }
const patience = { timeout_ms: 120_000, interval_ms: 20 }

async function source(credential?: Parameters<typeof openArchive>[2]) {
  const server = await startEmbedded()
  opened.push(server)
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, what text)')
  const archive = await openArchive(url, 'app', credential)
  opened.push(archive)
  return { url, archive }
}

function agentOf(url: string, archive: TestArchive, compact: CompactSettings = brisk) {
  const agent = startAgent({ url, repository: archive.folder, source: 'app', ...stream, compact })
  opened.push(agent)
  return {
    pid: agent.pid,
    stop: () => agent.stop(),
    kill: () => agent.kill(),
    said: (line: RegExp, times = 1) => agent.logged(line, { times, timeout_ms: patience.timeout_ms }),
  }
}

const bases = ({ repository }: TestArchive) => readManifests(repository, 'app')
const damage = async ({ repository }: TestArchive): Promise<unknown[]> =>
  (await verifySource(repository, 'app', { isRecorded: false })).findings.filter(isDamage)

/** The process that compacts for an agent, once it has begun to write. */
async function compactionOf(agent: { readonly pid: number }, archive: TestArchive): Promise<RunningProcess> {
  const found = await waitFor(async () => {
    const leases = await readLeases(archive.repository, 'app')
    if (!leases.some(({ purpose }) => purpose === 'compact')) return undefined
    return (await processes()).find(({ parent, command }) => parent === agent.pid && /compact-process/.test(command))
  }, patience)
  if (found === undefined) throw new Error('no compaction was begun')
  return found
}

it('makes bases off the source while it captures, of which the last carries a restore alone', async () => {
  const { url, archive } = await source()
  await createPgbench(url, 0.05)
  const agent = agentOf(url, archive)
  await agent.said(/^base backup done$/)
  for (const round of [1, 2]) {
    await runPgbench(url, { clients: 2, seed: round, transactions: 100 })
    await agent.said(/^a base was made off the source$/, round)
  }
  expect(await agent.stop()).toBe(0)
  const [full, ...made] = await bases(archive)
  expect(full?.compacted).toBeUndefined()
  expect(made.map(({ compacted }) => compacted?.full.id)).toEqual(made.map(() => full?.id))
  await archive.catchUp()
  {
    await using prune = await Prune.begin(archive.repository, 'app', { last: 1 })
    await prune.run()
  }
  expect((await bases(archive)).map(({ id }) => id)).toEqual([made.at(-1)?.id])
  expect(await damage(archive)).toEqual([])
  const golden = await fingerprint(url)
  await archive.restored({ kind: 'latest' }, async (restored) => {
    expect(differences(golden, await fingerprint(restored), ourObjects)).toEqual([])
  })
})

it('says where there is nothing to gain; has a base taken where the schema was changed, and goes on from that', async () => {
  const { url, archive } = await source()
  await archive.base()
  await archive.catchUp()
  const agent = agentOf(url, archive)
  await agent.said(/^nothing to compact: nothing that the stream tells has changed/)
  await sql(url, `insert into t (what) values ('before'); alter table t add more int default 7`)
  await agent.said(/^not compacted, since only the source gets past this: ALTER TABLE of public\.t in tx:\d+/)
  await agent.said(/^base backup done$/)
  await sql(url, `insert into t (what) values ('after')`)
  const { transactions } = await agent.said(/^a base was made off the source$/)
  expect(transactions).toBe(1)
  expect(await agent.stop()).toBe(0)
  const compacted = (await bases(archive)).map((base) => base.compacted !== undefined)
  expect(compacted).toEqual([false, false, true])
  await archive.catchUp()
  await proveLatest(archive, url)
})

it('goes as far as it can where no base is to be taken, and says what it could not pass', async () => {
  const { url, archive } = await source()
  await archive.base()
  await sql(url, `insert into t (what) values ('before')`)
  await archive.catchUp()
  await sql(url, 'create index on t (what)')
  await archive.catchUp()
  const agent = agentOf(url, archive, { ...brisk, onSchemaChange: 'alert' })
  const raised = await agent.said(/^compaction goes no further than CREATE INDEX of public\.t_what_idx/)
  expect(raised).toMatchObject({ event: 'compaction-stopped', state: 'raised' })
  expect((await bases(archive)).map(({ compacted }) => compacted !== undefined)).toEqual([false, true])
  await archive.base()
  await agent.said(/^compaction goes on$/)
})

const isGone = ({ pid }: RunningProcess): Promise<true | undefined> =>
  waitFor(async () => !(await processes()).some((one) => one.pid === pid) || undefined, patience)

async function expectNothingLeft(archive: TestArchive): Promise<void> {
  expect(await readLeases(archive.repository, 'app')).toEqual([])
  const [base, ...others] = await bases(archive)
  expect(others).toEqual([])
  const left: string[] = []
  for await (const { key } of archive.repository.storage.list('sources/app/bases/'))
    if (!key.includes(`/${base?.id}/`) && !key.endsWith('/manifest.json')) left.push(key)
  expect(left).toEqual([])
  expect(await damage(archive)).toEqual([])
}

it('compacts in a process that yields to others, and that leaves nothing when the agent ends in whatever way', async () => {
  const { url, archive } = await source()
  await sql(url, `insert into t (what) select repeat(md5(n::text), 4) from generate_series(1, 20000) n`)
  await archive.base()
  await sql(url, `update t set what = 'changed' where id % 7 = 0`)
  await archive.catchUp()
  // So slow that it is at work until it is ended.
  const slow = { ...brisk, maxRate: 64 << 10 }
  {
    const agent = agentOf(url, archive, { ...settings, maxRate: slow.maxRate })
    const compaction = await compactionOf(agent, archive)
    expect([getPriority(agent.pid), getPriority(compaction.pid)]).toEqual([0, 19])
    expect(await agent.stop()).toBe(0)
    expect(await isGone(compaction)).toBe(true)
    await expectNothingLeft(archive)
  }
  {
    const agent = agentOf(url, archive, slow)
    const compaction = await compactionOf(agent, archive)
    await agent.kill()
    expect(await isGone(compaction)).toBe(true)
    await expectNothingLeft(archive)
  }
  const agent = agentOf(url, archive, slow)
  process.kill((await compactionOf(agent, archive)).pid, 'SIGKILL')
  const failed = await agent.said(/^no base could be made off the source: .* ended with SIGKILL$/)
  expect(failed).toMatchObject({ event: 'compaction-failed', state: 'raised' })
  await sql(url, `insert into t (what) values ('captured all the same')`)
  expect(await agent.stop()).toBe(0)
  await archive.catchUp()
  await proveLatest(archive, url)
})

it('opens an encrypted repository with what the agent was given', async () => {
  const credential = { kind: 'file', secret: randomBytes(32) } as const
  const { url, archive } = await source(credential)
  await archive.base()
  await sql(url, `insert into t (what) values ('secret')`)
  await archive.catchUp()
  const events: WalbackEvent[] = []
  const stop = new AbortController()
  const running = runAgent({
    ...archive,
    stream,
    compact: { settings, place: { url: archive.folder, env: {}, access: { credential } }, niceness: 0 },
    log: pino({ level: 'silent' }),
    onEvent: (event) => void events.push(event),
    signal: stop.signal,
  })
  running.catch(() => undefined)
  const made = await waitFor(async () => events.find(({ kind }) => kind.startsWith('compact')), patience)
  stop.abort()
  await running
  expect(made).toMatchObject({ kind: 'compacted', facts: { transactions: 1 } })
})
