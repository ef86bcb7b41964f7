import { describe, expect, it } from 'vitest'
import { oneOrBoth } from '../support/majors.ts'
import { packages, Subject } from './round-trip.ts'

const columns = Array.from({ length: 1600 }, (_, n) => `c${n}`)

const schema = `
  create table toast (id int primary key, small int, a text, b text); alter table toast alter a set storage external, alter b set storage external;
  create function wide(n int) returns text language sql immutable as $$ select string_agg(md5(n::text || g), '') from generate_series(1, 100) g $$;
  insert into toast select n, 0, wide(n), wide(-n) from generate_series(1, 20) n;
  create table toast_full (id int, a text, b text); alter table toast_full alter a set storage external, alter b set storage external; alter table toast_full replica identity full;
  insert into toast_full select n % 3, wide(n % 3), wide(n % 2) from generate_series(1, 12) n;
  create table swap (id int primary key, v text); insert into swap select n, 'v' || n from generate_series(1, 6) n;
  create table late_swap (id int primary key deferrable, v text); insert into late_swap select n, 'v' || n from generate_series(1, 6) n;
  create table none (id int primary key, v text); alter table none replica identity nothing; insert into none values (1, 'a');
  create table twins (v text, n float8); insert into twins select 'twin', '-0' from generate_series(1, 5); insert into twins values ('twin', 0), (null, null), ('', null);
  create table broad (${columns.map((column) => `${column} int`).join(', ')}, primary key (c7, c1599)); insert into broad (c7, c1599, c0) select n, n, n from generate_series(1, 5) n;
  create table broad_bag (${columns
    .slice(1)
    .map((column) => `${column} bool`)
    .join(', ')}); insert into broad_bag default values; insert into broad_bag (c5) values (true), (true);
  create table part (id int, k int, v text) partition by range (k); create table part_1 partition of part for values from (0) to (10); create table part_2 partition of part for values from (10) to (20) partition by list (id);
  create table part_2_1 partition of part_2 for values in (1, 2, 3); create table part_2_rest partition of part_2 default; insert into part select n, n, 'v' from generate_series(0, 19) n;
  create table parent (id int primary key); create table child () inherits (parent); insert into parent values (1), (2); insert into child values (3);
  create table restarted (id serial primary key, other int generated always as identity, v text); insert into restarted (v) select 'v' from generate_series(1, 50);
  create table bytes (k bytea, v bytea, primary key (k)); insert into bytes select decode(lpad(to_hex(n), 2, '0'), 'hex'), decode(lpad(to_hex(n), 2, '0') || '0a5c09', 'hex') from generate_series(0, 255) n;`

/** Each is one transaction, and after each a restore must give what was there. */
const transactions: readonly (readonly [string, string])[] = [
  ['an update that leaves long values out', 'update toast set small = 1 where id = 1'],
  [
    'then two more, of the key as well',
    'update toast set small = 2 where id = 1; update toast set id = 101, small = 3 where id = 1; update toast set id = 102 where id = 101',
  ],
  [
    'one of the long values, and then the key',
    'update toast set a = wide(99) where id = 2; update toast set id = 202 where id = 2; update toast set b = null where id = 202',
  ],
  [
    'a row deleted, and another moved to its key with its long values left out',
    'update toast set small = 9 where id = 3; delete from toast where id = 3; update toast set id = 3, small = 8 where id = 4; update toast set small = 7 where id = 3',
  ],
  [
    'a row that comes back after it was deleted',
    "update toast set small = 5 where id = 5; delete from toast where id = 5; insert into toast values (5, 1, wide(55), 'short'); update toast set small = 6 where id = 5",
  ],
  [
    'a ring of keys',
    'update toast set id = -1 where id = 6; update toast set id = 6 where id = 7; update toast set id = 7 where id = 8; update toast set id = 8 where id = -1',
  ],
  [
    'a row that is moved away and back',
    'update toast set id = 900 where id = 9; update toast set small = 4 where id = 900; update toast set id = 9 where id = 900',
  ],
  [
    'a row that is moved, and one made in its place',
    "update toast set id = 910, small = 1 where id = 10; insert into toast values (10, 2, 'x', null); update toast set a = b, b = a where id = 910",
  ],
  [
    'long values of rows without a key',
    'update toast_full set id = id + 1 where id = 1; update toast_full set b = null where id = 2; delete from toast_full where ctid = (select min(ctid) from toast_full)',
  ],
  [
    'keys exchanged by one statement',
    'update swap set id = 100 where id = 1; update swap set id = 1 where id = 2; update swap set id = 2 where id = 100; update late_swap set id = 7 - id',
  ],
  ['inserts where updates are not told', "insert into none values (2, E'b\\t')"],
  [
    'one of several twins',
    "delete from twins where ctid = (select min(ctid) from twins); update twins set v = 'other' where ctid = (select min(ctid) from twins); insert into twins values ('twin', '-0'), ('twin', 0); delete from twins where v is null",
  ],
  [
    '1600 columns',
    'update broad set c1598 = 4 where c7 = 2; update broad set c7 = 77 where c7 = 3; delete from broad where c7 = 4; update broad_bag set c9 = false where ctid = (select min(ctid) from broad_bag where c5); delete from broad_bag where c5 is null',
  ],
  [
    'rows moved between partitions',
    'update part set k = k + 10 where k < 5; update part set k = 1, id = 3 where k = 12; update part set id = 2 where k > 15',
  ],
  [
    'a partitioned table emptied, then filled',
    "truncate part; insert into part values (1, 1, 'new'), (9, 19, 'new'); update part set k = 11 where k = 1",
  ],
  ['a part of one', 'truncate part_2'],
  [
    'several at once',
    "truncate swap, twins, parent cascade; insert into parent values (9); insert into twins values ('after', 1)",
  ],
  [
    'a parent without its children',
    'insert into child values (7); truncate only parent; insert into parent values (1)',
  ],
  [
    'rows before, between and after truncations',
    "insert into restarted (v) values ('gone'); truncate restarted restart identity; insert into restarted (v) values ('gone too'); truncate restarted; insert into restarted (v) values ('stays'), ('goes'); delete from restarted where v = 'goes'",
  ],
  [
    'a truncation that is rolled back',
    "begin; savepoint s; truncate bytes; insert into bytes values ('\\x01', '\\x'); rollback to s; update bytes set k = k || '\\x5c' where k < '\\x10'; delete from bytes where k > '\\xf0'; commit",
  ],
  ['nothing left, and then something', 'delete from bytes; delete from toast'],
]

describe.each(oneOrBoth(14))('changes of rows on %i', (major) => {
  it('are restored one transaction at a time', async () => {
    await using subject = await Subject.start(packages[major])
    await subject.sql(schema)
    await subject.open()
    await subject.opened.base()
    for (const [name, sql] of transactions) {
      await subject.sql(sql)
      await subject.note(name)
    }
    await subject.opened.catchUp()
    // Each restore replays all before it: a few moments between, and the end.
    const chosen = process.env.WALBACK_LONG
      ? subject.moments
      : subject.moments.filter((_, n) => n % 5 === 4 || n === transactions.length - 1)
    expect(chosen.length).toBeGreaterThan(4)
    subject.moments.splice(0, Number.POSITIVE_INFINITY, ...chosen)
    await subject.compare({ sizes: [undefined, 1, 3000] })
  })
})
