import { readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import type { RestoreProgress } from '../../src/restore/progress.ts'
import { start } from '../cli/walback.ts'
import { differences, fingerprint } from '../support/fingerprint.ts'
import { ourObjects } from '../support/walback.ts'
import { once, packages, Subject } from './round-trip.ts'
import { fillSlowly } from './slow-subject.ts'

// The fingerprint lists the tables of a publication in any order.
const unordered = ['--ignore-object', '^publication (theirs|in_schema|filtered)$']
const phases: readonly RestoreProgress['phase'][] = ['schema', 'replay', 'rows', 'indexes', 'proof']

// Of 14 what could differ is in the schema alone, which schema.test.ts restores.
describe.each(process.env.WALBACK_LONG ? ([14, 18] as const) : ([18] as const))(
  'a restore that fails, on %i',
  (major) => {
    let subject: Subject
    let target: EmbeddedServer
    beforeAll(async () => {
      target = await startEmbedded({ package: packages[major], settings: { fsync: 'off' } })
      subject = await Subject.start(packages[major])
      await fillSlowly(subject, target, major)
      await once(target.url(), 'create database empty')
    })
    afterAll(async () => {
      await subject?.[Symbol.asyncDispose]()
      await target?.[Symbol.asyncDispose]()
    })

    const databases = async (): Promise<string[]> =>
      (await once<{ datname: string }>(target.url(), 'select datname from pg_database order by 1')).map(
        (row) => row.datname,
      )
    const kindsOfEmpty = [
      `select nspname, nspowner::regrole, nspacl::text, obj_description(oid, 'pg_namespace') as comment from pg_namespace where nspname !~ '^pg_(toast_)?temp' order by 1`,
      ...[
        'pg_proc',
        'pg_operator',
        'pg_cast',
        'pg_type',
        'pg_class',
        'pg_collation',
        'pg_ts_config',
        'pg_ts_dict',
        'pg_opclass',
        'pg_opfamily',
        'pg_default_acl',
        'pg_foreign_server',
        'pg_foreign_data_wrapper',
        'pg_publication',
        'pg_event_trigger',
        'pg_largeobject_metadata',
        'pg_extension',
        'pg_language',
        'pg_statistic_ext',
        'pg_policy',
        'pg_am',
      ].map((catalog) => `select count(*) as "${catalog}" from ${catalog} t`),
    ]
    const empty = async (): Promise<unknown[]> => {
      const answers: unknown[] = []
      for (const question of kindsOfEmpty) answers.push(await once(target.url('empty'), question))
      return answers
    }
    const asBefore = async (work: () => Promise<unknown>, error: object): Promise<void> => {
      const [names, contents] = [await databases(), await empty()]
      await expect(work()).rejects.toMatchObject(error)
      expect(await databases()).toEqual(names)
      expect(await empty()).toEqual(contents)
    }
    const into = (database: string) => ({ conninfo: resolveConninfo(target.url(), {}), database })
    const onPhase = (phase: RestoreProgress['phase'], work: () => void) => {
      let done = false
      return (progress: RestoreProgress): void => {
        if (progress.phase !== phase || done) return
        done = true
        work()
      }
    }

    it.each(phases.flatMap((phase) => ['asked_for', 'empty'].map((name) => ({ phase, name }))))(
      'because its sessions are ended in phase $phase leaves $name as it was',
      async ({ phase, name }) => {
        const kill = () =>
          void once(
            target.url(),
            `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'walback restore' and (datname like 'walback%' or datname = 'empty')`,
          )
        await asBefore(
          () =>
            subject.restoreInto(
              into(name),
              { kind: 'latest' },
              { onProgress: onPhase(phase, kill), memory_bytes: 2000 },
            ),
          { message: expect.any(String) },
        )
      },
    )

    it.each(phases.flatMap((phase) => ['asked_for', 'empty'].map((name) => ({ phase, name }))))(
      'because it is interrupted in phase $phase leaves $name as it was',
      async ({ phase, name }) => {
        const abort = new AbortController()
        const onProgress = onPhase(phase, () => setTimeout(() => abort.abort(), 30))
        const started = performance.now()
        await asBefore(
          () => subject.restoreInto(into(name), { kind: 'latest' }, { onProgress, signal: abort.signal }),
          {
            code: 'interrupted',
          },
        )
        expect(performance.now() - started).toBeLessThan(20_000)
      },
    )

    it('because an object is damaged or missing, of whatever kind, says so and leaves the server as it was', async () => {
      const { folder } = subject.opened
      const files = (await readdir(folder, { recursive: true, withFileTypes: true }))
        .filter((entry) => entry.isFile() && entry.name !== 'walback.json')
        .map((entry) => join(entry.parentPath, entry.name))
      const kindOf = (file: string): string => file.slice(folder.length).replace(/\d+/g, 'N')
      const kinds = new Map(files.map((file) => [kindOf(file), file]))
      const newest = files
        .filter((file) => file.endsWith('.wbs'))
        .sort()
        .at(-1)
      const silent: string[] = []
      // What is not needed may be damaged: then what was restored is right all the same.
      const judge = async (failure: unknown, what: string): Promise<void> => {
        if (failure instanceof Error) {
          expect({ what, failure }).toMatchObject({ failure: { code: expect.any(String) } })
          return
        }
        const golden = subject.moments[0]?.golden as never
        const found = differences(golden, await fingerprint(target.url('damaged')), [...ourObjects, ...unordered])
        if (found.length > 0) silent.push(`${what}: ${found.join('; ')}`)
        await once(target.url(), 'drop database damaged')
      }
      for (const [kind, file] of kinds) {
        const bytes = await readFile(file)
        for (const place of kind.endsWith('.json') ? [0.3, 0.6] : [0.02, 0.5, 0.99]) {
          const at = Math.floor((bytes.length - 1) * place)
          const damaged = Buffer.from(bytes)
          damaged[at] = (damaged[at] as number) ^ (kind.endsWith('.json') ? 1 : 0x40)
          await writeFile(file, damaged)
          const names = await databases()
          const failure = await subject.restoreInto(into('damaged')).catch((error: unknown) => error)
          await writeFile(file, bytes)
          await judge(failure, `${kind} at ${at}: ${damaged.subarray(at - 40, at + 20)}`)
          expect(await databases()).toEqual(names)
        }
        // Without its newest segment a repository is what it was before that was stored, which nothing in it can tell.
        if (file === newest) continue
        await rename(file, `${file}.gone`)
        const names = await databases()
        const failure = await subject.restoreInto(into('damaged')).catch((error: unknown) => error)
        await rename(`${file}.gone`, file)
        await judge(failure, `${kind} missing`)
        expect(await databases()).toEqual(names)
      }
      expect(silent).toEqual([])
    })

    it('because somebody took its name meanwhile leaves theirs alone', async () => {
      const create = () =>
        void once(target.url(), 'create database taken').then(() => once(target.url('taken'), 'create table theirs ()'))
      const names = await databases()
      await expect(
        subject.restoreInto(into('taken'), { kind: 'latest' }, { onProgress: onPhase('schema', create) }),
      ).rejects.toMatchObject({ code: 'refused', message: expect.stringContaining('taken') })
      expect(await databases()).toEqual([...names, 'taken'].sort())
      expect(await once(target.url('taken'), 'select count(*)::int as n from theirs')).toEqual([{ n: 0 }])
      await once(target.url(), 'drop database taken')
    })

    it.each([
      'create schema s',
      'create table t ()',
      'create function f() returns int language sql as $$ select 1 $$',
      'create type e as enum ()',
      'create cast (int as box) with inout',
      'create foreign data wrapper w',
      'create collation c from "C"',
      'select lo_create(1)',
      'create publication p',
      'alter default privileges grant select on tables to bob',
      'create extension hstore',
      'create operator === (leftarg = int, rightarg = int, function = int4eq)',
    ])('because the database holds something (%s) does not touch it', async (sql) => {
      await once(target.url(), 'create database occupied')
      await once(target.url('occupied'), sql)
      const before = await fingerprint(target.url('occupied'))
      await asBefore(() => subject.restoreInto(into('occupied')), {
        code: 'refused',
        message: expect.stringContaining('not empty'),
      })
      expect(differences(before, await fingerprint(target.url('occupied')))).toEqual([])
      await once(target.url(), 'drop database occupied')
    })

    it('because it was killed early leaves a database that the next restore removes, and only then', async () => {
      const args = [
        'restore',
        '--repo',
        subject.opened.folder,
        '--source',
        subject.opened.source,
        '--db',
        target.url(),
        '--into',
        'killed',
        '--to',
        'latest',
        '--yes',
      ]
      const child = start(args, { cwd: subject.opened.folder })
      let said = ''
      child.stderr?.on('data', (chunk) => (said += chunk))
      const left = async () => (await databases()).filter((name) => name.startsWith('walback_restoring_'))
      // While its schema is made: from then on it could be gone on with (resume.test.ts).
      while ((await left()).length === 0) {
        if (child.exitCode !== null) throw new Error(said)
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
      child.kill('SIGSTOP')
      const [mine] = await left()
      expect(mine).toBeDefined()
      // One that runs is no leftover, also while it has no session in its database.
      await once(target.url(), `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${mine}'`)
      await subject.restoreInto(into('beside'))
      expect(await left()).toEqual([mine])
      const exited = new Promise((resolve) => child.on('exit', resolve))
      child.kill('SIGKILL')
      await exited
      expect(await databases()).not.toContain('killed')
      const ours = `select 1 from pg_stat_activity where application_name = 'walback restore'`
      while ((await once(target.url(), ours)).length > 0) await new Promise((resolve) => setTimeout(resolve, 50))
      expect(await left()).toContain(mine)
      await subject.restoreInto(into('after'))
      expect(await left()).toEqual([])
      await once(target.url(), 'drop database beside')
      await once(target.url(), 'drop database after')
    })

    it('because of a statement of the schema says which, and works in the end', async () => {
      const poor = await databases()
      await subject.sql(
        `create function slow.refuse(n int) returns int language plpgsql immutable as $$ begin if current_database() <> 'postgres' then raise 'not here'; end if; return n; end $$; create index refused on slow.checked (slow.refuse(n))`,
      )
      await subject.opened.base()
      await subject.opened.catchUp()
      await asBefore(() => subject.restoreInto(into('asked_for')), {
        code: 'database',
        message: expect.stringContaining('refused'),
      })
      await asBefore(() => subject.restoreInto(into('empty')), {
        code: 'database',
        message: expect.stringContaining('refused'),
      })
      await subject.sql('drop index slow.refused; create extension pg_trgm')
      await subject.opened.base()
      await subject.opened.catchUp()
      await subject.restoreInto(into('empty'))
      expect(
        differences(await fingerprint(subject.url), await fingerprint(target.url('empty')), [
          ...ourObjects,
          ...unordered,
        ]),
      ).toEqual([])
      expect(await databases()).toEqual(poor)
    })
  },
)
