import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { resolveConninfo } from '../../src/postgres/conninfo.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { oneOrBoth } from '../support/majors.ts'
import { packages, Subject } from './round-trip.ts'

/**
 * What changes the schema after the base behind the triggers' back, with a change of rows that the stream then carries.
 * A table that nobody knows is left out, and told; rows that contradict what is known are refused.
 */
const changes: readonly (readonly [string, string, string])[] = [
  [
    'a table made later',
    'create table later (id int primary key); insert into later values (1)',
    'left out: table public.later',
  ],
  [
    'a table made anew',
    'drop table t; create table t (id int primary key, v text); insert into t values (1)',
    'left out: table public.t',
  ],
  ['a column added', 'alter table t add column w int; insert into t values (9, null, 9)', 'columns of table public.t'],
  ['a column dropped', 'alter table t drop column v; insert into t values (9)', 'columns of table public.t'],
  ['a column renamed', 'alter table t rename v to w; insert into t values (9)', 'columns of table public.t'],
  ['a table renamed', 'alter table t rename to u; insert into u values (9)', 'table public.t was renamed to public.u'],
  [
    'a table renamed after changes',
    'insert into t values (8); alter table t rename to u; insert into u values (9)',
    'was renamed',
  ],
  [
    'a table in another schema',
    'create schema s; alter table t set schema s; insert into s.t values (9)',
    'table public.t was renamed to s.t',
  ],
  [
    'a type changed',
    'alter table t alter v type varchar(100) using v || 1; insert into t values (9)',
    'type of column v of table public.t',
  ],
  [
    'a length changed',
    'alter table t alter c type varchar(20); insert into t values (9)',
    'type of column c of table public.t',
  ],
  [
    'a partition made later',
    `create table p2 partition of p for values in (2); insert into p values (2)`,
    'left out: table public.p2',
  ],
  [
    'a table made and truncated',
    'create table later (id int primary key); truncate later',
    'left out: table public.later',
  ],
]

describe.each(oneOrBoth(18))('a change of the schema after the base, on %i', (major) => {
  let server: EmbeddedServer
  beforeAll(async () => {
    server = await startEmbedded({ package: packages[major], settings: { fsync: 'off' } })
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  it.each(major === 18 ? changes : changes.slice(1, 4))(
    '%s is told or refused, and what was before it is not',
    async (_, sql, message) => {
      await using subject = await Subject.start(server)
      await subject.sql(`create table t (id int primary key, v text, c varchar(10)); insert into t values (1, 'a'), (2, 'b');
      create table p (n int) partition by list (n); create table p1 partition of p for values in (1)`)
      await subject.open()
      await subject.opened.base()
      await subject.sql(`update t set v = 'c' where id = 2`)
      await subject.note('before')
      await subject.sql(`set walback.quiet = 'on'; ${sql}`)
      await subject.opened.catchUp()
      for (const memory_bytes of [1 << 20, 1]) {
        if (message.startsWith('left out')) {
          const { report } = await subject.restoreTo({ kind: 'latest' }, server, memory_bytes, async () => undefined)
          expect(report.warnings.join()).toContain(message)
          continue
        }
        const into = { conninfo: resolveConninfo(server.url(), {}), database: 'refused' }
        await expect(subject.restoreInto(into, { kind: 'latest' }, { memory_bytes })).rejects.toMatchObject({
          code: 'refused',
          message: expect.stringContaining(message),
          hint: expect.stringContaining('backup --full'),
        })
      }
      await subject.compare({ sizes: [1] })
    },
  )
})
