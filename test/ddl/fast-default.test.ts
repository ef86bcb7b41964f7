import { describe, expect, it } from 'vitest'
import { packages, Subject } from '../restore/round-trip.ts'

describe.each([18, 14] as const)('columns added with a default on %i', (major) => {
  it('give rows the values that they had, not new ones', { timeout: 120_000 }, async () => {
    await using subject = await Subject.start(packages[major])
    await subject.sql(
      'create table t (a text, b text)',
      "insert into t values ('x', 'y'), ('x', 'y'), (null, '')",
      'create table keyed (id int primary key); insert into keyed values (1), (2)',
      'create table parent (id int) partition by range (id); create table leaf partition of parent for values from (0) to (9); insert into parent values (1)',
    )
    const archive = await subject.open()
    await archive.base()
    await subject.sql(
      'alter table t add column n timestamptz default now(), add column m int default 5 not null',
      'insert into t (b) values (null); alter table t add constraint later check (a is not null or b is not null) not valid; comment on constraint later on t is $$c$$',
      'set local search_path = pg_catalog; alter table public.t add column o timestamptz default now(); reset search_path',
      'alter table t add column p double precision default random()',
      'alter table keyed add column u text default current_user',
      'alter table parent add column at timestamptz default now()',
      'update keyed set id = 3 where id = 2',
    )
    await subject.note('added')
    await subject.sql(
      "update t set m = 6 where b = ''",
      'alter table t alter column n drop default',
      'insert into t (a) values (1)',
      "begin; insert into t (a) values ('in'); alter table t add column k timestamptz default clock_timestamp(), add column l timestamptz default now(); insert into t (a) values ('after'); commit",
    )
    await subject.note('and changed')
    await archive.catchUp()
    const reports = await subject.compare({ sizes: [undefined] })
    expect(reports.flatMap(({ warnings }) => warnings)).toEqual([])
  })
})
