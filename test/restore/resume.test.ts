import { readdir, rename } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { waitFor } from '../../src/base/abort.ts'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { discardRestore, interruptedRestores, readRequest } from '../../src/restore/interrupted.ts'
import type { RestoreProgress } from '../../src/restore/progress.ts'
import type { RestoreOptions, RestoreReport } from '../../src/restore/restore.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { Random } from '../support/random.ts'
import { ourObjects } from '../support/walback.ts'
import { once, packages, Subject } from './round-trip.ts'
import { fillSlowly } from './slow-subject.ts'

const unordered = ['--ignore-object', '^publication (theirs|in_schema|filtered)$']
const rounds = process.env.WALBACK_LONG ? 40 : 1

describe.each(process.env.WALBACK_LONG ? ([14, 18] as const) : ([18] as const))(
  'an interrupted restore, on %i',
  (major) => {
    let subject: Subject
    let target: EmbeddedServer
    let undisturbed: RestoreReport
    beforeAll(async () => {
      target = await startEmbedded({ package: packages[major], settings: { fsync: 'off' } })
      subject = await Subject.start(packages[major])
      await once(subject.url, 'create role dora')
      await subject.sql(
        'create table of_dora (n int); alter table of_dora owner to dora',
        // Its rows take their time where they are restored.
        `create function slowly_there(n int) returns int language plpgsql immutable as $$ begin
           if current_database() like 'walback%' then perform pg_sleep(0.01); end if; return n; end $$`,
        'create table computed (n int, same int generated always as (slowly_there(n)) stored)',
        'insert into computed select generate_series(1, 100)',
        `select lo_from_bytea(4711, decode(repeat('ab', 5000), 'hex')), lo_from_bytea(4712, 'x'); grant select on large object 4711 to public`,
      )
      await fillSlowly(subject, target, major)
      undisturbed = await attempt({})
      await expectEqual()
    })
    afterAll(async () => {
      await subject?.[Symbol.asyncDispose]()
      await target?.[Symbol.asyncDispose]()
    })

    // What a test that failed has left is no matter of the next one's.
    afterEach(async () => {
      for (const one of await interruptedRestores(conninfo())) await discardRestore(conninfo(), one)
      await once(target.url(), 'drop database if exists again')
      await once(target.url(), 'drop role if exists dora')
    })

    const conninfo = () => resolveConninfo(target.url(), {})
    const attempt = (options: Partial<RestoreOptions>): Promise<RestoreReport> =>
      subject.restoreInto(
        { conninfo: conninfo(), database: 'again' },
        { kind: 'latest' },
        // So little memory that what is folded is applied many times.
        { memory_bytes: 2000, request: { said: 'by the caller' }, roles: { create: true }, ...options },
      )
    const left = async () => {
      const [found] = await interruptedRestores(conninfo())
      return found
    }
    /** The same, once the sessions that were ended are gone. */
    const leftBehind = () =>
      waitFor(async () => ((await left())?.isRunning === false ? left() : undefined), {
        timeout_ms: 10_000,
        interval_ms: 20,
      })
    /** The restored database is what it has to be; it and the roles that were made for it are dropped. */
    const expectEqual = async (): Promise<void> => {
      const [moment] = subject.moments
      const found = await fingerprint(target.url('again'))
      expect(differences(moment?.golden ?? found, found, [...ourObjects, ...unordered])).toEqual([])
      await once(target.url(), 'drop database again with (force)')
      await once(target.url(), 'drop role dora')
      expect(await once(target.url(), `select datname from pg_database where datname like 'walback%'`)).toEqual([])
    }
    const endSessions = (): void =>
      void once(
        target.url(),
        `select pg_terminate_backend(pid) from pg_stat_activity where datname like 'walback\\_restoring%'`,
      )
    const at = (isIt: (progress: RestoreProgress, n: number) => boolean, work: () => void) => {
      let [n, done] = [0, false]
      return (progress: RestoreProgress): void => {
        if (done || !isIt(progress, ++n)) return
        done = true
        work()
      }
    }
    const failureOf = (running: Promise<unknown>): Promise<{ facts: Record<string, unknown>; code: string }> =>
      running.then(
        () => expect.fail('it was not interrupted'),
        (error) => error,
      )

    it.each(Array.from({ length: rounds }, (_, round) => ({ seed: 7000 + round })))(
      'at any moments, and again and again, is gone on with (seed $seed)',
      async ({ seed }) => {
        const draw = new Random(seed)
        let report: RestoreReport | undefined
        for (let attempts = 0; report === undefined; attempts++) {
          const resumed = await left()
          const abort = new AbortController()
          const interrupt = draw.chance(0.5) ? endSessions : () => setTimeout(() => abort.abort(), draw.int(0, 20))
          // At the latest the tenth goes through.
          const moment = attempts < 9 ? draw.int(1, 400) : Number.POSITIVE_INFINITY
          const onProgress = at((_, n) => n === moment, interrupt)
          try {
            report = await attempt({ resumed, onProgress, signal: abort.signal })
          } catch (error) {
            expect(error).toMatchObject({ code: expect.stringMatching(/^(interrupted|database)$/) })
            const { resumable } = (error as { facts: Record<string, unknown> }).facts
            expect((await left())?.database).toBe(resumable)
            if (resumable === undefined) expect(resumed).toBeUndefined()
          }
        }
        const { duration_ms: _, ...told } = report
        const { duration_ms: __, ...expected } = undisturbed
        expect({ ...told, warnings: [...told.warnings].sort() }).toEqual({
          ...expected,
          warnings: [...expected.warnings].sort(),
        })
        await expectEqual()
      },
    )

    it('is kept where the rows of a table are on their way, and where going on fails before it has begun', async () => {
      const abort = new AbortController()
      const inCopy = `select from pg_stat_activity where datname like 'walback%' and query like 'COPY "public"."computed"%' and state = 'active'`
      const watch = waitFor(async () => (await once(target.url(), inCopy))[0], { timeout_ms: 60_000, interval_ms: 5 })
      void watch.then(() => abort.abort())
      const failure = await failureOf(attempt({ signal: abort.signal, jobs: 1 }))
      expect(failure).toMatchObject({ code: 'interrupted', facts: { resumable: expect.any(String) } })
      const resumed = await left()
      // The store is away for a moment.
      const { folder } = subject.opened
      const schemas = (await readdir(folder, { recursive: true })).filter((file) => file.endsWith('.wbt'))
      const move = async (from: string, to: string): Promise<void> => {
        for (const file of schemas) await rename(path.join(folder, file + from), path.join(folder, file + to))
      }
      await move('', '.away')
      await failureOf(attempt({ resumed }))
      await move('.away', '')
      expect(await left()).toEqual(resumed)
      await attempt({ resumed })
      await expectEqual()
    })

    it('does not forget what was left out for roles that came since', async () => {
      const roles = { create: false }
      const failure = await failureOf(
        attempt({ roles, onProgress: at(({ phase }) => phase === 'indexes', endSessions) }),
      )
      expect(failure.facts).toEqual({ resumable: expect.any(String) })
      await once(target.url(), 'create role dora')
      const { warnings } = await attempt({ roles, resumed: await left() })
      expect(warnings).toContainEqual(expect.stringContaining('the target has no role dora'))
      expect(warnings.join()).not.toContain('[object')
      await once(target.url(), 'drop database again')
      await once(target.url(), 'drop role dora')
    })

    it('does not load again what was loaded', async () => {
      const failure = await failureOf(attempt({ onProgress: at(({ phase }) => phase === 'indexes', endSessions) }))
      expect(failure.facts).toEqual({ resumable: expect.stringMatching(/^walback_restoring_/) })
      const resumed = await left()
      expect(await readRequest(conninfo(), resumed ?? expect.fail())).toEqual({ said: 'by the caller' })
      const rows = (await readdir(subject.opened.folder, { recursive: true })).filter((file) =>
        /\/rows\/.*\.wbr$/.test(file),
      )
      expect(rows.length).toBeGreaterThan(10)
      const hide = async (from: string, to: string): Promise<void> => {
        for (const file of rows)
          await rename(path.join(subject.opened.folder, file + from), path.join(subject.opened.folder, file + to))
      }
      await hide('', '.hidden')
      await attempt({ resumed })
      await hide('.hidden', '')
      await expectEqual()
    })

    it('outlives the server, and is no leftover for other restores', async () => {
      let loaded = 0
      let stopped = Promise.resolve()
      const stop = (): void => {
        stopped = target.stop('immediate')
      }
      const failure = await failureOf(
        attempt({ onProgress: at(({ phase }) => phase === 'rows' && ++loaded > 20, stop) }),
      )
      expect(failure.facts).toMatchObject({ resumable: expect.any(String) })
      await stopped
      await target.start()
      await subject.restoreInto({ conninfo: conninfo(), database: 'other' })
      await once(target.url(), 'drop database other')
      await attempt({ resumed: await left() })
      await expectEqual()
    })

    it('is not gone on with where the server has lost rows since that others are built on', async () => {
      let stopped = Promise.resolve()
      const stop = (): void => {
        stopped = target.stop('immediate')
      }
      const failure = await failureOf(
        attempt({ onProgress: at(({ phase, done }) => phase === 'indexes' && done > 30, stop) }),
      )
      expect(failure.facts).toMatchObject({ resumable: expect.any(String) })
      await stopped
      await target.start()
      const resumed = (await left()) ?? expect.fail()
      await expect(attempt({ resumed })).rejects.toMatchObject({
        code: 'refused',
        message: expect.stringContaining('crashed'),
      })
      await discardRestore(conninfo(), resumed)
    })

    it('is gone on with by one only, and only as what it was', async () => {
      await failureOf(attempt({ onProgress: at(({ phase }) => phase === 'indexes', endSessions) }))
      const resumed = await left()
      await expect(attempt({ resumed, memory_bytes: 3000 })).rejects.toMatchObject({ code: 'refused' })
      expect(await left()).toEqual(resumed)
      let second: Promise<unknown> = Promise.resolve()
      await attempt({
        resumed,
        onProgress: at(
          ({ phase }) => phase === 'indexes',
          () => {
            second = expect(attempt({ resumed })).rejects.toMatchObject({ code: 'locked' })
          },
        ),
      })
      await second
      await expectEqual()
    })

    it('knows its name again in a database of another encoding', async () => {
      await using latin = await Subject.start(
        subject.server,
        `encoding 'LATIN1' template template0 lc_collate 'C' lc_ctype 'C'`,
      )
      await latin.sql('create table places (name text primary key)', `insert into places values ('größe')`)
      await (await latin.open()).base()
      const onProgress = at(({ phase }) => phase === 'indexes', endSessions)
      const destination = { conninfo: conninfo(), database: 'größe база' }
      await failureOf(latin.restoreInto(destination, { kind: 'latest' }, { request: {}, onProgress }))
      const resumed = await leftBehind()
      expect(resumed).toMatchObject({ into: 'größe база' })
      await latin.restoreInto(destination, { kind: 'latest' }, { request: {}, resumed })
      const url = target.url('größe база')
      expect(await once(url, 'select name from places')).toEqual([{ name: 'größe' }])
      await once(target.url(), 'drop database "größe база"')
    })

    it('is removed with the roles that it made', async () => {
      await failureOf(attempt({ onProgress: at(({ phase }) => phase === 'indexes', endSessions) }))
      expect(await once(target.url(), `select from pg_roles where rolname = 'dora'`)).toHaveLength(1)
      const found = await leftBehind()
      await discardRestore(conninfo(), found ?? expect.fail())
      expect(await left()).toBeUndefined()
      expect(await once(target.url(), `select from pg_roles where rolname = 'dora'`)).toHaveLength(0)
    })

    it('is not left behind where nobody asked to be able to go on', async () => {
      const running = attempt({ request: undefined, onProgress: at(({ phase }) => phase === 'indexes', endSessions) })
      expect((await failureOf(running)).facts).toEqual({})
      expect(await left()).toBeUndefined()
    })
  },
)
