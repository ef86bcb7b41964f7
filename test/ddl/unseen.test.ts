/** Changes of the schema of which no event trigger tells: none is there, or it was disabled. */
import type pg from 'pg'
import pino from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type AgentOptions, runAgent } from '../../agent/agent.ts'
import { takeBase } from '../../src/backup/base-backup.ts'
import { waitFor } from '../../src/base/abort.ts'
import { CatalogWatch } from '../../src/capture/catalog-watch.ts'
import { writeHeartbeat } from '../../src/capture/heartbeat.ts'
import { publishing } from '../../src/capture/publish-tables.ts'
import { SequenceWatch } from '../../src/capture/sequences.ts'
import { requireTimeline } from '../../src/capture/session.ts'
import { readHoldings } from '../../src/history/status.ts'
import type { RecoveryTarget } from '../../src/model/target.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { readManifests } from '../../src/repository/base.ts'
import { UnseenChanges } from '../../src/repository/unseen-changes.ts'
import { here } from '../cli/walback.ts'
import { once, open, packages, Subject } from '../restore/round-trip.ts'
import { oneOrBoth } from '../support/majors.ts'
import { openArchive, type TestArchive } from '../support/walback.ts'

const stream = { segmentBytes: 128 << 10, segmentAge_ms: 50, heartbeat_ms: 500 }
const patience = { timeout_ms: 60_000, interval_ms: 50 }

interface Agent extends AsyncDisposable {
  /** Resolves when the agent has said it. */
  said(words: RegExp): Promise<void>
}

/** The agent in this process. */
function startAgent(archive: TestArchive, options: Partial<AgentOptions> = {}): Agent {
  const lines: string[] = []
  const stop = new AbortController()
  const { conninfo, repository, source } = archive
  const log = pino({ level: 'info' }, { write: (line) => void lines.push(line) })
  const running = runAgent({ conninfo, repository, source, stream, log, signal: stop.signal, ...options })
  running.catch(() => undefined)
  return {
    said: async (words) => {
      const isSaid = async (): Promise<true | undefined> => lines.some((line) => words.test(line)) || undefined
      if (!(await waitFor(isSaid, patience))) throw new Error(`the agent has not said ${words}:\n${lines.join('')}`)
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await running
    },
  }
}

/** Runs SQL as one transaction, which can then be named as a target. */
async function transaction(client: pg.Client, sql: string): Promise<RecoveryTarget> {
  await client.query(`begin; ${sql}`)
  const { rows } = await client.query<{ xid: string }>('select pg_current_xact_id()::text as xid')
  await client.query('commit')
  return { kind: 'tx', xid: BigInt(rows[0]?.xid ?? ''), inclusive: true }
}

const isCaveat = (line: string): boolean => line.includes('UNSEEN CHANGE')
const caveats = async (archive: TestArchive, target: RecoveryTarget): Promise<string[]> =>
  (await archive.plan(target)).notRestored.filter(isCaveat)

const spans = async ({ repository, source }: TestArchive): Promise<(string | undefined)[]> =>
  (await readHoldings(repository, source)).uncertain.map(({ to }) => (to ? 'mended' : 'open'))

describe.each(oneOrBoth(14))('a change of the schema that nothing tells of, on %i', (major) => {
  let server: EmbeddedServer
  beforeAll(async () => {
    server = await startEmbedded({ package: packages[major], settings: { fsync: 'off' } })
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  it('because a trigger was disabled, is seen, told, and mended by a base', async () => {
    await using subject = await Subject.start(server)
    await subject.sql(`create table t (id int primary key, v text); insert into t values (1, 'a'), (2, 'b')`)
    const archive = await subject.open()
    await archive.base()
    await subject.sql(
      'create table told (id int primary key)',
      'insert into told values (1)',
      `update t set v = 'c' where id = 2`,
    )
    await subject.note('before')
    await archive.catchUp()
    await using agent = startAgent(archive)
    await agent.said(/capturing/)
    // One that is told hides none that is not.
    await subject.sql('alter table told add note text')
    const changed = await transaction(
      subject.client,
      `alter event trigger walback_2_command disable; create table bag (n int); insert into bag values (1), (1);
       alter table t add column w int; update t set w = id; drop table told; alter event trigger walback_2_command enable`,
    )
    await agent.said(/UNSEEN CHANGE OF THE SCHEMA/)
    await agent.said(/base backup done/)
    // From the base on all is as ever: the tables it found are followed, and so are changes of the schema.
    await subject.sql(`update bag set n = 2 where ctid = '(0,1)'`, `insert into t values (3, 'd', 3)`)
    await subject.sql(
      'alter table bag add m int default 7',
      'create table more (id int)',
      'insert into more values (1)',
    )
    await subject.note('after')
    await agent[Symbol.asyncDispose]()
    await archive.catchUp()

    await subject.compare({ sizes: [undefined] })
    const [before, after] = subject.moments
    expect(await caveats(archive, before?.target as RecoveryTarget)).toEqual([])
    expect(await caveats(archive, after?.target as RecoveryTarget)).toEqual([])
    expect(await caveats(archive, changed)).toEqual([
      expect.stringMatching(/UNSEEN CHANGE of the schema.* between \d{4}-.*Z \(\w+\/\w+\) and \d{4}-.*Z \(\w+\/\w+\)/),
    ])
    expect(await spans(archive)).toEqual(['mended'])
    expect(await readManifests(archive.repository, archive.source)).toHaveLength(2)
    await expect(subject.restoreTo(changed, server, undefined, async () => undefined)).rejects.toMatchObject({
      code: 'refused',
    })
  })

  it('because there are no triggers, is seen, told, and mended by a base with the first rows of new tables', async () => {
    await once(server.url(), `create role owner_${major} login replication`)
    await using subject = await Subject.start(server, `owner owner_${major}`)
    const url = subject.url.replace('postgres@', `owner_${major}@`)
    const owner = await open(url)
    try {
      const run = async (...statements: string[]): Promise<void> => {
        for (const statement of statements) await owner.query(statement)
      }
      await run(`create table t (id serial primary key, v text)`, `insert into t (v) values ('a'), ('b')`)
      const archive = await openArchive(url, new URL(url).pathname.slice(1))
      subject.archive = archive
      expect((await requireTimeline(archive.repository, archive.source)).ddl).toBe('none')
      await archive.base()
      await run(`update t set v = 'c' where id = 2`)
      await subject.note('before')
      await archive.catchUp()
      await run(`create table later (id int primary key, v text)`, `insert into later values (1, 'a'), (2, 'b')`)
      await run('create table bag (n int)', 'insert into bag values (1), (1)', 'grant select on bag to public')
      const lacking = await transaction(owner, `insert into t (v) values ('d')`)
      const refused = await transaction(owner, `alter table t add column w int; insert into t (v, w) values ('e', 1)`)

      await using agent = startAgent(archive)
      await agent.said(/UNSEEN CHANGE OF THE SCHEMA/)
      await agent.said(/public\.bag.*public\.later.*published tables that were made since/)
      await agent.said(/base backup done/)
      await run(
        `insert into later values (3, 'c')`,
        `update bag set n = 2 where ctid = '(0,1)'`,
        'delete from t where id = 1',
      )
      await subject.note('after')
      await agent[Symbol.asyncDispose]()
      await archive.catchUp()

      await subject.compare({ sizes: [undefined] })
      expect(await spans(archive)).toEqual(['mended'])
      for (const { target } of subject.moments) expect(await caveats(archive, target)).toEqual([])
      // In between: what the stream contradicts is refused, anything else is given with that caveat.
      for (const target of [lacking, refused])
        expect(await caveats(archive, target)).toEqual([expect.stringMatching(/UNSEEN CHANGE of the schema.* between/)])
      await expect(subject.restoreTo(refused, server, undefined, async () => undefined)).rejects.toMatchObject({
        code: 'refused',
        message: expect.stringContaining('columns of table public.t'),
      })
      const { report, found } = await subject.restoreTo(lacking, server, undefined, (restored) =>
        once(restored, `select to_regclass('later')::text as later, (select count(*)::int from t) as rows`),
      )
      expect(found).toEqual([{ later: null, rows: 3 }])
      expect(report.warnings.filter(isCaveat)).toHaveLength(1)
    } finally {
      await owner.end()
    }
  })
})

describe('without an agent and without triggers', () => {
  let server: EmbeddedServer
  beforeAll(async () => {
    server = await startEmbedded({ settings: { fsync: 'off' } })
    await once(server.url(), `create role app login replication`)
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  const start = async (): Promise<{ subject: Subject; archive: TestArchive; url: string; app: pg.Client }> => {
    const subject = await Subject.start(server, 'owner app')
    const url = subject.url.replace('postgres@', 'app@')
    const app = await open(url)
    await app.query(`create table t (id int primary key, v text)`)
    await app.query(`insert into t values (1, 'a')`)
    subject.archive = await openArchive(url, new URL(url).pathname.slice(1))
    return { subject, archive: subject.archive, url, app }
  }

  it('one-shot captures warn until a base is taken, which names what it cannot publish', async () => {
    const { subject, archive, url, app } = await start()
    await using _ = subject
    const cwd = archive.folder
    const flags = ['--db', url, '--repo', archive.folder, '--source', archive.source]
    expect(await here(['backup', '--full', ...flags], { cwd })).toMatchObject({ exit: 0 })
    expect(await here(['backup', '--incremental', '--quiet', ...flags], { cwd })).toMatchObject({ exit: 0, stderr: '' })
    await app.query('create table later (id int primary key)')
    for (const _ of ['once', 'and again']) {
      const captured = await here(['backup', '--incremental', '--quiet', ...flags], { cwd })
      expect(captured).toMatchObject({ exit: 3, stdout: '' })
      expect(captured.stderr).toMatch(/^warning: the schema was changed between .*walback backup --full/)
    }
    const open = await here(['status', ...flags], { cwd })
    expect(open.stdout).toMatch(/SCHEMA CHANGED UNSEEN/)
    expect(open.stdout).toMatch(/uncertain .* \.\. now .*walback backup --full mends it/)
    expect(open.stdout).toMatch(/schema {7}1 change since \d{4}.*walback backup --full/)
    const json = JSON.parse((await here(['status', '--json', ...flags], { cwd })).stdout)
    expect(json).toMatchObject({
      schema: { followed_by: 'none' },
      uncertain: [{ to: null, changes: [{ kind: 'untold' }] }],
    })
    expect(json.schema.unseen_since).toEqual(json.uncertain[0].from)

    await subject.sql('create table theirs (id int primary key)', 'grant select on theirs to app')
    const full = await here(['backup', '--full', ...flags], { cwd })
    expect(full.exit).toBe(3)
    expect(full.stderr).toMatch(/published, since they were made after init: public\.later/)
    expect(full.stderr).toMatch(/warning: not captured after this base.*theirs/)
    await archive.catchUp()
    expect((await archive.plan({ kind: 'latest' })).notRestored).toContain(
      'changes since the base of tables not published: public.theirs',
    )
    await subject.sql('drop table theirs')
    expect(await here(['backup', '--full', ...flags], { cwd })).toMatchObject({ exit: 0 })
    expect(await here(['backup', '--incremental', '--quiet', ...flags], { cwd })).toMatchObject({ exit: 0, stderr: '' })
    const mended = await here(['status', ...flags], { cwd })
    expect(mended.stdout).not.toMatch(/UNSEEN|\.\. now/)
    expect(mended.stdout).toMatch(/uncertain .*a base mended it/)
    await app.end()
  })

  it('a table is published before the base that holds its first rows, whoever is writing to it', async () => {
    const { subject, archive, url, app } = await start()
    await using _ = subject
    await archive.base()
    await app.query('create table later (id int primary key, v text)')
    // It wrote before the table was published, and goes on after the base.
    const writer = await open(url)
    await writer.query(`begin; insert into later values (1, 'before')`)
    const timeline = await requireTimeline(archive.repository, archive.source)
    const published: string[][] = []
    const preparation = publishing(archive.conninfo, timeline, {
      onPublished: ({ added }) => void published.push([...added]),
    })
    let runs = 0
    const taking = takeBase(archive.conninfo, archive.repository, timeline, {
      jobs: 1,
      lockTimeout_ms: 10_000,
      preparation: {
        run: async () => {
          await preparation.run()
          // Made too late to be published, and before the snapshot.
          if (++runs === 1) await app.query(`create table latest (id int primary key); insert into latest values (1)`)
        },
        check: preparation.check,
      },
    })
    const waits = `select from pg_locks where not granted and relation = 'later'::regclass`
    await waitFor(async () => ((await subject.client.query(waits)).rowCount ?? 0) > 0 || undefined, patience)
    await writer.query(`insert into later values (2, 'after'); commit`)
    await taking
    expect(published).toEqual([['public.later'], ['public.latest']])
    await writer.query(`update later set v = v || '!'; insert into latest values (2)`)
    await subject.note('later')
    await archive.catchUp()
    await subject.compare({ sizes: [undefined] })
    await writer.end()
    await app.end()
  })

  it('the agent only says so where it is told to', async () => {
    const { subject, archive, app } = await start()
    await using _ = subject
    await archive.base()
    await app.query('create view v as select 1 as one')
    await using agent = startAgent(archive, { onUnseenChange: 'alert' })
    await agent.said(/UNSEEN CHANGE OF THE SCHEMA.*take one with `walback backup --full`/)
    await agent[Symbol.asyncDispose]()
    expect(await readManifests(archive.repository, archive.source)).toHaveLength(1)
    expect(await spans(archive)).toEqual(['open'])
    await app.end()
  })

  it('an agent that was away finds what it missed, and takes no second base so soon after the first', async () => {
    const { subject, archive, app } = await start()
    await using _ = subject
    await archive.base()
    await app.query('create view v as select 1 as one')
    await archive.catchUp()
    await app.query(`insert into t values (2, 'b')`)
    await archive.catchUp()
    await using agent = startAgent(archive)
    await agent.said(/UNSEEN CHANGE OF THE SCHEMA.*a base backup follows/)
    await agent.said(/base backup done/)
    await app.query('create view w as select 2 as two')
    await agent.said(/another base backup is needed, so soon after the last; it is put off/)
    expect(await spans(archive)).toEqual(['mended', 'open'])
    await agent[Symbol.asyncDispose]()
    expect(await readManifests(archive.repository, archive.source)).toHaveLength(2)
    await app.end()
  })
})

describe('the watch over the catalogs', () => {
  let server: EmbeddedServer
  let client: pg.Client
  let other: pg.Client
  beforeAll(async () => {
    server = await startEmbedded({ settings: { fsync: 'off', autovacuum: 'off' } })
    client = await open(server.url())
    other = await open(server.url())
  })
  afterAll(async () => {
    await client?.end()
    await other?.end()
    await server?.[Symbol.asyncDispose]()
  })

  /** The stamp in the heartbeat that is written now, and whether the catalogs were read for it. */
  const beat = async (watch: CatalogWatch): Promise<{ catalog: string | undefined; read: boolean }> => {
    const asked: (readonly [string, unknown[]])[] = []
    const recording = {
      query: (sql: string, values: unknown[] = []) => {
        asked.push([sql, values])
        return client.query(sql, values)
      },
    }
    await writeHeartbeat(recording as unknown as pg.Client, new SequenceWatch(), watch)
    const message = asked.find(([sql]) => sql.includes('pg_logical_emit_message'))?.[1][1]
    return {
      catalog: JSON.parse(String(message)).catalog,
      read: asked.some(([sql]) => sql.includes('hash_record_extended')),
    }
  }

  it('reads them only when somebody may have changed them, and rests after it', async () => {
    const watch = new CatalogWatch()
    const first = await beat(watch)
    expect(first).toEqual({ catalog: expect.stringMatching(/^1-/), read: true })
    // Nobody has written anything but the heartbeats themselves.
    for (let n = 0; n < 3; n++) expect(await beat(watch)).toEqual({ ...first, read: false })
    await other.query('create table made (id int)')
    // It is not time yet to read them again, so that it says nothing rather than what was.
    expect(await beat(watch)).toEqual({ catalog: undefined, read: false })
    const again = await beat(new CatalogWatch())
    expect(again.read).toBe(true)
    expect(again.catalog).not.toBe(first.catalog)
  })

  it('does not take for unchanged what a transaction may change that was running', async () => {
    const watch = new CatalogWatch()
    await other.query('begin; create table pending (id int)')
    expect((await beat(watch)).read).toBe(true)
    await other.query('commit')
    expect(await beat(watch)).toEqual({ catalog: undefined, read: false })
  })

  it('takes no change for unseen of all that sessions make side by side while it looks', async () => {
    await using subject = await Subject.start(server)
    const archive = await subject.open()
    const base = await archive.base()
    const sessions = await Promise.all([1, 2].map(() => open(subject.url)))
    let isOver = false
    const changing = sessions.map(async (session, n) => {
      for (let round = 0; !isOver; round++) {
        const table = `t_${n}_${round % 5}`
        await session.query(
          `begin; create table if not exists ${table} (id int); alter table ${table} add c_${round} int`,
        )
        await session.query(`savepoint a; drop table ${table}; ${round % 3 ? 'rollback to a' : 'release a'}; commit`)
        // Not so often that something is told between any two looks.
        await session.query('select pg_sleep(0.15 * random())')
      }
    })
    for (let n = 0; n < 40; n++) await writeHeartbeat(subject.client, new SequenceWatch(), new CatalogWatch())
    isOver = true
    await Promise.all(changing)
    await Promise.all(sessions.map((session) => session.end()))
    await archive.catchUp()
    const { transactions } = await archive.history()
    expect(new Set(transactions.flatMap(({ heartbeat }) => heartbeat?.catalog ?? [])).size).toBeGreaterThan(5)
    const changes = new UnseenChanges([base])
    for (const entry of transactions) changes.offer(entry)
    expect(changes.since(base)).toEqual([])
  })

  it('leaves heartbeats as they are where they cannot be read, and says so once', async () => {
    const failures: unknown[] = []
    const watch = new CatalogWatch((error) => failures.push(error))
    await other.query(
      'create role walled; grant walled to current_user; revoke select on pg_catalog.pg_proc from public',
    )
    await client.query('set role walled')
    for (let n = 0; n < 2; n++) expect(await beat(watch)).toMatchObject({ catalog: undefined })
    expect(failures).toEqual([expect.objectContaining({ code: '42501' })])
  })
})
