import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { sleep, waitFor } from '../../src/base/abort.ts'
import { copySource } from '../../src/copy/copy.ts'
import { RequiredCopy } from '../../src/copy/required.ts'
import { parseLsn } from '../../src/model/lsn.ts'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { Repository } from '../../src/repository/repository.ts'
import { readSoundHead } from '../../src/repository/segments.ts'
import { currentTimeline, type Timeline } from '../../src/repository/timeline.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { openStorage } from '../../src/storage/open.ts'
import { startAgent } from '../support/agent-process.ts'
import { StallingStorage } from '../support/faults.ts'
import { archiveAt, openArchive, type TestArchive } from '../support/walback.ts'
import { createPgbench, runPgbench } from '../support/workload.ts'
import { proveLatest, sql, transactionsOf, watchSlot } from './proof.ts'
import { stream, supervised } from './supervised.ts'

interface Far extends AsyncDisposable {
  readonly folder: string
  readonly archive: TestArchive
}

/** A required repository, and the archive as it is seen there. */
async function farOf({ source }: TestArchive, url: string): Promise<Far> {
  const folder = await mkdtemp(join(tmpdir(), 'walback-far-'))
  const repository = await Repository.create(openStorage(folder))
  return {
    folder,
    archive: archiveAt(url, { folder, repository, source }),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
}

const headOf = async ({ repository, source }: TestArchive): Promise<bigint> =>
  (await readSoundHead(repository, (await currentTimeline(repository, source)) as Timeline)).head.end

const confirmedBy = async (url: string): Promise<bigint> =>
  parseLsn(
    (await sql<{ lsn: string }>(url, 'SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots'))[0]?.lsn ??
      '',
  )

async function expectEqual(near: TestArchive, far: TestArchive): Promise<void> {
  expect(await transactionsOf(far)).toEqual(await transactionsOf(near))
  await copySource(near.repository, far.repository, 'app')
  const target = { kind: 'latest' } as const
  const [there, here] = [
    await planRestore(far.repository, 'app', target),
    await planRestore(near.repository, 'app', target),
  ]
  expect(there).toEqual(here)
}

const all = ['fail', 'fail late', 'answer late', 'hang deaf', 'cut short', 'lose'] as const
const modes = process.env.WALBACK_LONG === undefined ? (['fail', 'answer late', 'cut short'] as const) : all

it.each(modes)(
  'confirms nothing that a required repository does not hold while its puts go: %s',
  async (mode) => {
    await using server = await startEmbedded()
    const url = server.url()
    await createPgbench(url, 0.02)
    await using archive = await openArchive(url)
    await archive.base()
    await archive.catchUp()
    const begun = await headOf(archive)
    await using far = await farOf(archive, url)
    const storage = new StallingStorage(far.archive.repository.storage)
    const capture = supervised(archive.conninfo, archive.repository, [new RequiredCopy(archive.repository, storage)])
    const ending = new AbortController()
    const load = runPgbench(url, { clients: 3, seed: 6, signal: ending.signal })
    const isFollowing = async (): Promise<true | undefined> => {
      const timeline = await currentTimeline(far.archive.repository, 'app')
      return timeline !== undefined && (await headOf(far.archive)) > begun ? true : undefined
    }
    expect(await waitFor(isFollowing, { timeout_ms: 60_000, interval_ms: 20 })).toBe(true)
    const watches = [archive, far.archive].map((one) => watchSlot(url, one))
    storage.mode = mode
    await sleep(3000)
    const held = await headOf(far.archive)
    // What was stored and not acknowledged may be found there, and no more.
    if (!mode.endsWith('late')) expect(await headOf(archive)).toBeGreaterThan(held)
    storage.release()
    // It comes up again, and so does what is confirmed.
    const isUp = async (): Promise<true | undefined> => ((await confirmedBy(url)) > held ? true : undefined)
    expect(await waitFor(isUp, { timeout_ms: 60_000, interval_ms: 50 })).toBe(true)
    ending.abort()
    await load
    await capture.end()
    for (const watch of watches) await watch.end()
    await archive.catchUp({ required: [new RequiredCopy(archive.repository, storage)] })
    await expectEqual(archive, far.archive)
    await proveLatest(archive, url)
  },
  180_000,
)

it('an agent that is killed between the two puts has the second done before it confirms anything', {
  timeout: 180_000,
}, async () => {
  await using server = await startEmbedded()
  const url = server.url()
  await sql(url, 'create table t (id serial primary key, what text)')
  await using archive = await openArchive(url)
  await archive.base()
  await archive.catchUp()
  await using far = await farOf(archive, url)
  const place = { url, repository: archive.folder, required: far.folder, source: 'app', ...stream }
  let round = 0
  for (const ending of ['kill', 'stop'] as const) {
    await using agent = startAgent(place)
    await agent.logged(/^capturing$/)
    const watch = watchSlot(url, far.archive)
    agent.signal('SIGUSR2')
    await agent.logged(/^stalled$/)
    const before = await headOf(far.archive)
    await sql(url, `insert into t (what) values ('round ${++round}')`)
    const isBetween = async (): Promise<true | undefined> => ((await headOf(archive)) > before ? true : undefined)
    expect(await waitFor(isBetween, { timeout_ms: 30_000, interval_ms: 20 })).toBe(true)
    expect(await headOf(far.archive)).toBe(before)
    expect(await confirmedBy(url)).toBeLessThanOrEqual(before)
    if (ending === 'kill') await agent.kill()
    else {
      agent.signal('SIGUSR2')
      await agent.stop()
    }
    await watch.end()
  }
  const watch = watchSlot(url, far.archive)
  await using agent = startAgent(place)
  await agent.logged(/^capturing$/)
  expect(await agent.stop()).toBe(0)
  await watch.end()
  await archive.catchUp({ required: [new RequiredCopy(archive.repository, openStorage(far.folder))] })
  await expectEqual(archive, far.archive)
  await proveLatest(archive, url)

  // The first is lost, and the required one takes its place: capture goes on where it was.
  await sql(url, `insert into t (what) values ('the first repository is lost')`)
  await rm(archive.folder, { recursive: true })
  await using other = startAgent({ ...place, repository: far.folder, required: undefined })
  await other.logged(/^capturing$/)
  expect(await other.stop()).toBe(0)
  await far.archive.catchUp()
  await proveLatest(far.archive, url)
})
