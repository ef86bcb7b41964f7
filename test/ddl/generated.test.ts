import { describe, expect, it } from 'vitest'
import { once, packages, Subject } from '../restore/round-trip.ts'

/** Tables whose identity would have a generated column in it, or that have one and no key. */
const stored = `
  create table keyless (a int, g int generated always as (a * 2) stored); insert into keyless values (1), (1), (2);
  create table keyed (a int, g int generated always as (a + 100) stored primary key); insert into keyed values (1), (2), (3);
  create table indexed (a int, g int generated always as (a + 100) stored not null, b int unique not null); create unique index ig on indexed (g, b); alter table indexed replica identity using index ig; insert into indexed values (1, default, 1), (2, default, 2);
  create table beside (id int primary key, a text, g text generated always as (a || '!') stored, z int default 7); insert into beside values (1, 'x'), (2, 'y')`
const virtual = `
  create table virtual_keyed (id int primary key, a int, g int generated always as (a * 2) virtual); insert into virtual_keyed values (1, 1), (2, 2)`

const work = (suffix: string): string[] => [
  `update keyless${suffix} set a = 5 where a = 2`,
  `delete from keyless${suffix} where ctid = '(0,1)'`,
  `update keyed${suffix} set a = 30 where a = 3`,
  `delete from keyed${suffix} where g = 101`,
  `update indexed${suffix} set a = 7 where b = 1`,
  `delete from indexed${suffix} where b = 2`,
  `update beside${suffix} set a = 'changed' where id = 1`,
  `insert into beside${suffix} (id, a) values (3, 'new')`,
  `delete from beside${suffix} where id = 2`,
]

describe.each([18, 14] as const)('generated columns on %i', (major) => {
  it('stand in the way of no update, and are computed again', { timeout: 120_000 }, async () => {
    await using subject = await Subject.start(packages[major])
    const virtualWork = (suffix: string): string[] =>
      major < 18
        ? []
        : [`update virtual_keyed${suffix} set a = 9 where id = 1`, `delete from virtual_keyed${suffix} where id = 2`]
    await subject.sql(stored, ...(major < 18 ? [] : [virtual]))
    const archive = await subject.open()
    await archive.base()
    await subject.sql(...work(''), ...virtualWork(''))
    await subject.note('tables from before')
    const later = (sql: string): string =>
      sql
        .replaceAll(/create table (\w+)/g, 'create table $1_later')
        .replaceAll(/insert into (\w+)/g, 'insert into $1_later')
    await subject.sql(
      later(stored)
        .replace('index ig on indexed', 'index ig_later on indexed_later')
        .replace(
          'alter table indexed replica identity using index ig',
          'alter table indexed_later replica identity using index ig_later',
        ),
      ...(major < 18 ? [] : [later(virtual)]),
      ...work('_later'),
      ...virtualWork('_later'),
      'alter table keyless_later add column h int generated always as (a * 3) stored',
      'update keyless_later set a = a + 1',
    )
    await subject.note('tables from after')
    await archive.catchUp()
    await subject.compare()
  })
})

describe('a table without a key and with a virtual generated column', () => {
  it('takes updates, and what is not followed of it is told', { timeout: 120_000 }, async () => {
    await using subject = await Subject.start(packages[18])
    await subject.sql(
      `create table first (a int, g int generated always as (a * 2) virtual); insert into first values (1)`,
    )
    const archive = await subject.open()
    await archive.base()
    await subject.sql(
      'create table second (a int, g int generated always as (a * 2) virtual); insert into second values (1)',
      'create table third (a int); insert into third values (1)',
      'alter table third add column g int generated always as (a * 2) virtual',
      'update first set a = 2',
      'update second set a = 2',
      'update third set a = 2',
      'create table fourth (a int); insert into fourth values (1); update fourth set a = 2',
    )
    await archive.catchUp()
    const rows = await archive.restored({ kind: 'latest' }, (url) => once<{ a: number }>(url, 'select a from fourth'))
    expect(rows).toEqual([{ a: 2 }])
  })

  it('takes updates where every table was published before it came', { timeout: 120_000 }, async () => {
    await using subject = await Subject.start(packages[18])
    await subject.sql('create table plain (a int); insert into plain values (1)')
    const archive = await subject.open()
    await archive.base()
    await subject.sql(
      'create table virtual (a int, g int generated always as (a * 2) virtual); insert into virtual values (1)',
      'update virtual set a = 2',
      'update plain set a = 2',
      'create table later (a int); insert into later values (1); update later set a = 3',
    )
    await archive.catchUp()
    const rows = await archive.restored({ kind: 'latest' }, (url) =>
      once<{ a: number }>(url, 'select a from plain union all select a from later order by 1'),
    )
    expect(rows).toEqual([{ a: 2 }, { a: 3 }])
  })
})
