/** Random histories of rows over tables of every kind of key, from several sessions whose transactions overlap. */
import type pg from 'pg'
import { Random } from '../support/random.ts'

/** The tables. What is inserted, and how keys and values are changed, is an expression with `$n` and `$t` for number and text. */
interface Kind {
  readonly name: string
  readonly insert: string
  /** Assignments, some of the key, some of the rest. */
  readonly updates: readonly string[]
  /** Which rows: `$n` is a small number. */
  readonly where: readonly string[]
  readonly truncate?: string
}

export const historySchema = (major: number): string => `
  create extension citext; create extension hstore; create extension ltree; create extension cube;
  create schema h; set search_path = h, public;
  create function nasty_text(n int) returns text language sql immutable as $$
    select (array['', E'a\\tb', E'one\\ntwo\\r\\n', 'back\\slash', '\\N', '\\.', ' ', 'é漢', E'\\b\\f\\v', '"', 'a', 'A'])[n % 12 + 1] || case when n >= 12 then (n / 12)::text else '' end $$;
  create function wide(n int) returns text language sql volatile as $$
    select string_agg(md5(random()::text || n), '') from generate_series(1, 70 + n % 100) $$;
  create table simple (id int primary key, v text, n numeric);
  create table texts (v int, k1 text, x text, k2 text, primary key (k2, k1));
  create table numerics (k numeric primary key, v text);
  create table floats (v text, k float8 primary key);
  create table citexts (k citext primary key, v int);
  create table hstores (k hstore primary key, v int);
  create table ltrees (k ltree primary key, v int);
  create table cubes (k cube primary key, v int);
  create table padded (k char(6) primary key, v int);
  create table chars (k "char", k2 name, v int, primary key (k, k2));
  create type h.co as (a int, b text);
  create type h.mood as enum ('a', 'b,"', '');
  create domain h.shout as text check (value <> 'forbidden');
  create table composed (k h.co, m h.mood, d h.shout, v int, primary key (k, m, d));
  create table arrays (k text[] primary key, v int);
  create table times (k timestamptz, i interval, v int, primary key (k, i));
  create table ranges (k int4range, j jsonb, b bytea, v int, primary key (k, j, b));
  create table toasted (id int primary key, small int, a text, b text, c text);
  alter table toasted alter a set storage external, alter b set storage external;
  create table toastkey (k text primary key, w text, v int);
  alter table toastkey alter k set storage external, alter w set storage external;
  create table indexed (a int, code text not null, b text, w text);
  create unique index indexed_code on indexed (code);
  alter table indexed replica identity using index indexed_code;
  alter table indexed alter w set storage external;
  create table fullkey (id int primary key, v text, w text);
  alter table fullkey alter w set storage external; alter table fullkey replica identity full;
  create table bag (a int, b text, j json, w text, x xml, p point);
  alter table bag alter w set storage external;
  create table deferred (id int primary key deferrable initially deferred, v text);
  create table columnless ();
  create table generated (id int generated always as identity primary key, n int, d int generated always as (n * 2) stored${major >= 18 ? ', e int generated always as (n * 3) virtual' : ''});
  create table parent (id int primary key, v text);
  create table child (extra text, id int, v text, primary key (id));
  alter table child inherit parent;
  create table part (id int, r text, v text, primary key (id, r)) partition by list (r);
  create table part_a partition of part for values in ('a');
  create table part_b (v text, gone int, r text not null, id int not null);
  alter table part_b drop column gone;
  alter table part attach partition part_b for values in ('b') ;
  create table part_c partition of part for values in ('c', null) partition by hash (id);
  create table part_c0 partition of part_c for values with (modulus 2, remainder 0);
  create table part_c1 partition of part_c for values with (modulus 2, remainder 1) partition by range (id);
  create table part_c1_low partition of part_c1 for values from (minvalue) to (50);
  create table part_c1_high partition of part_c1 for values from (50) to (maxvalue);
  create table part_rest partition of part default;
  create table dropped (a int, b text, id int primary key, c text);
  alter table dropped drop column b; alter table dropped add column e text default 'fast'; alter table dropped drop column a;
  reset search_path;`

const nText = 'h.nasty_text($n)'
const kinds: readonly Kind[] = [
  {
    name: 'simple',
    insert: `(id, v, n) values ($n, ${nText}, $n * 1.10)`,
    updates: [`v = ${nText}`, 'id = id + 100', 'n = n', 'id = -id, v = null'],
    where: ['id = $n', 'id % 7 = $n % 7', 'id < 0'],
  },
  {
    name: 'texts',
    insert: `values ($n, ${nText}, null, h.nasty_text($n / 2))`,
    updates: ['v = v + 1', "k1 = k1 || E'\\t'", 'k2 = k1, k1 = k2', 'x = k1'],
    where: [`k1 = ${nText}`, 'v % 5 = $n % 5'],
  },
  {
    name: 'numerics',
    insert: `values ($n * 0.5, ${nText})`,
    updates: [
      'k = trim_scale(k)',
      'k = k::numeric(20,2)',
      'k = k::numeric(20,6), v = v',
      "k = case when k = 0 then 'NaN' else k end",
      'v = null',
    ],
    where: ['k = $n * 0.50', 'floor(k) % 4 = $n % 4'],
  },
  {
    name: 'floats',
    insert: `values (${nText}, $n / 10.0 - 0.3)`,
    updates: ["k = case when k = 0 then '-0' else k end", 'k = case when k = 0 then 0 else -k end', `v = ${nText}`],
    where: ['k = $n / 10.0 - 0.3', 'k = 0', 'k < 0'],
  },
  {
    name: 'citexts',
    insert: `values (${nText}, $n)`,
    updates: ['k = upper(k::text)', 'k = lower(k::text)', 'v = v + 1'],
    where: [`k = ${nText}::public.citext`, 'v % 3 = $n % 3'],
  },
  {
    name: 'hstores',
    insert: `values (public.hstore(${nText}, ${nText}), $n)`,
    updates: ["k = k || 'z=>NULL'", 'v = v + 1'],
    where: ['v % 5 = $n % 5'],
  },
  {
    name: 'ltrees',
    insert: `values (('a.b' || $n)::public.ltree, $n)`,
    updates: ["k = k || 'x'", 'v = v + 1'],
    where: ['v % 5 = $n % 5'],
  },
  {
    name: 'cubes',
    insert: `values (public.cube($n / 3.0), $n)`,
    updates: ['k = public.cube(k, -1.5)', 'v = v + 1'],
    where: ['v % 5 = $n % 5'],
  },
  {
    name: 'padded',
    insert: `values (left(${nText}, 3), $n)`,
    updates: ["k = k || 'x'", 'k = upper(k)', 'v = v + 1'],
    where: ['v % 4 = $n % 4'],
  },
  {
    name: 'chars',
    insert: `values (chr(65 + $n % 20)::"char", ${nText}::name, $n)`,
    updates: ["k2 = (k2 || 'x')::name", 'v = v + 1'],
    where: ['v % 4 = $n % 4'],
  },
  {
    name: 'composed',
    insert: `values (($n, ${nText}), (array['a', 'b,"', ''])[$n % 3 + 1]::h.mood, ${nText}, 0)`,
    updates: ["k = ((k).a, (k).b || ',')", "m = ''", 'v = v + 1'],
    where: ['(k).a % 4 = $n % 4'],
  },
  {
    name: 'arrays',
    insert: `values (array[${nText}, null, 'x'], $n)`,
    updates: ['k = k || k', "k[0] = 'zero'", 'v = v + 1'],
    where: ['v % 4 = $n % 4'],
  },
  {
    name: 'times',
    insert: `values ('2000-01-01'::timestamptz + $n * interval '1 day', make_interval(days => $n), $n)`,
    updates: [
      "i = justify_hours(i) + interval '24 hours'",
      'i = make_interval(hours => 24 * v)',
      "k = 'infinity', v = v + 1",
      "k = k - interval '3000 years'",
    ],
    where: ['v % 9 = $n % 9'],
  },
  {
    name: 'ranges',
    insert: `values (int4range($n, $n + 3), to_jsonb(${nText}), decode(lpad(to_hex($n), 4, '0'), 'hex'), $n)`,
    updates: ["k = 'empty'", 'j = jsonb_build_array(j)', "b = b || '\\x0a5c09'::bytea", 'v = v + 1'],
    where: ['v % 6 = $n % 6'],
  },
  {
    name: 'toasted',
    insert: `values ($n, 0, h.wide($n), case when $n % 3 = 0 then h.wide($n) end, h.wide($n))`,
    updates: [
      'small = small + 1',
      'a = h.wide($n)',
      'b = h.wide($n), id = id + 100',
      'id = -id',
      'c = null, small = 7',
      'a = b, b = a',
      'id = id + 1000, small = small + 1',
    ],
    where: ['id = $n', 'id % 6 = $n % 6', 'id < 0'],
  },
  {
    name: 'toastkey',
    insert: `values (repeat(md5('$n'), 60), h.wide($n), $n)`,
    updates: ['v = v + 1', "k = k || 'x'", 'w = h.wide($n)', "k = 'short' || v"],
    where: ['v % 6 = $n % 6'],
  },
  {
    name: 'indexed',
    insert: `values ($n, ${nText}, ${nText}, h.wide($n))`,
    updates: ['a = a + 1', "code = code || 'x'", 'b = null', 'w = h.wide($n)'],
    where: ['a % 5 = $n % 5', `code = ${nText}`],
  },
  {
    name: 'fullkey',
    insert: `values ($n, ${nText}, h.wide($n))`,
    updates: ['v = v || 1', 'id = id + 100', 'w = null', 'v = null'],
    where: ['id = $n', 'id % 7 = $n % 7'],
  },
  {
    name: 'bag',
    insert: `select $n % 3, h.nasty_text($n % 3), '{"k": 1}', case when g = 2 then h.wide($n) end, '<a/>', '(1,-0)' from generate_series(1, 3) g`,
    updates: ['a = a', 'a = a + 1', 'b = b || 1', 'j = \'{"k":  1}\'', 'w = h.wide($n)', "b = null, p = '(NaN,1)'"],
    where: ['a = $n % 3', 'ctid = (select min(ctid) from h.bag)', 'w is not null'],
  },
  {
    name: 'deferred',
    insert: `values ($n, ${nText})`,
    updates: ['v = v', 'id = id + 1', 'id = 60 - id'],
    where: ['true', 'id % 5 = $n % 5'],
  },
  {
    name: 'columnless',
    insert: 'default values',
    updates: [],
    where: ['ctid = (select min(ctid) from h.columnless)', 'false'],
  },
  {
    name: 'generated',
    insert: '(n) values ($n)',
    updates: ['n = n + 1', 'n = null'],
    where: ['id % 5 = $n % 5'],
    truncate: 'truncate h.generated restart identity',
  },
  {
    name: 'parent',
    insert: `values ($n, ${nText})`,
    updates: [`v = ${nText}`, 'id = id + 500'],
    where: ['id % 5 = $n % 5'],
    truncate: 'truncate only h.parent',
  },
  {
    name: 'child',
    insert: `values ('e', $n, ${nText})`,
    updates: ['extra = null', 'id = id + 500'],
    where: ['id % 5 = $n % 5'],
  },
  {
    name: 'part',
    insert: `values ($n, (array['a','b','c','z'])[$n % 4 + 1], ${nText})`,
    updates: [`v = ${nText}`, "r = 'c'", "r = 'a'", "r = 'b'", 'id = id + 37'],
    where: ['id = $n', 'id % 5 = $n % 5'],
  },
  { name: 'part_c', insert: `values ($n, 'c', ${nText})`, updates: ['id = id + 51'], where: ['id % 5 = $n % 5'] },
  {
    name: 'dropped',
    insert: `values ($n, ${nText})`,
    updates: ['e = c', "e = 'fast'", 'id = id + 200'],
    where: ['id % 5 = $n % 5'],
  },
]

const toasted = new Set(['toasted', 'toastkey', 'indexed', 'fullkey'])

export class History {
  private readonly random: Random
  private readonly open = new Map<pg.Client, { truncates: boolean; savepoints: number }>()
  readonly counts = { committed: 0, refused: 0, statements: 0 }

  constructor(seed: number) {
    this.random = new Random(seed)
  }

  /** No transaction holds a lock that a reader would wait for. */
  get isReadable(): boolean {
    return [...this.open.values()].every(({ truncates }) => !truncates)
  }

  /** One step of one session: a statement, or an end of its transaction. Says whether it committed. */
  async step(sessions: readonly pg.Client[]): Promise<boolean> {
    const session = this.random.pick(sessions)
    const state = this.open.get(session)
    if (state === undefined) {
      await session.query(`begin; set local lock_timeout = '40ms'; set local statement_timeout = '5s'`)
      this.open.set(session, { truncates: false, savepoints: 0 })
      return false
    }
    const dice = this.random.next()
    if (dice < 0.22) {
      await this.end(session, this.random.chance(0.85))
      return !this.open.has(session)
    }
    if (dice < 0.28) {
      await session.query(`savepoint s${++state.savepoints}`)
      return false
    }
    if (dice < 0.32 && state.savepoints > 0) {
      await session.query(`${this.random.chance(0.6) ? 'rollback to' : 'release'} s${state.savepoints}`)
      state.savepoints--
      return false
    }
    const truncates = dice < 0.345
    const sql = truncates ? this.truncate() : this.statement()
    this.counts.statements++
    await session.query('savepoint attempt')
    try {
      await session.query(sql)
      await session.query('release attempt')
      state.truncates ||= truncates
    } catch {
      this.counts.refused++
      await session.query('rollback to attempt')
    }
    return false
  }

  async endAll(): Promise<void> {
    for (const session of [...this.open.keys()]) await this.end(session, true)
  }

  private async end(session: pg.Client, commits: boolean): Promise<void> {
    try {
      await session.query(commits ? 'commit' : 'rollback')
      if (commits) this.counts.committed++
    } catch {
      this.counts.refused++
    }
    this.open.delete(session)
  }

  private statement(): string {
    // Those with values that updates leave out need several of them to a row.
    const kind = this.random.pick(this.random.chance(0.3) ? kinds.filter(({ name }) => toasted.has(name)) : kinds)
    const n = String(this.random.int(0, 60))
    const where = this.random.pick(kind.where)
    const dice = this.random.next()
    const text =
      dice < 0.45 || (dice < 0.85 && kind.updates.length === 0)
        ? `insert into h.${kind.name} ${kind.insert}`
        : dice < 0.85
          ? `update h.${kind.name} set ${this.random.pick(kind.updates)} where ${where}`
          : `delete from h.${kind.name} where ${where}`
    return text.replaceAll('$n', n)
  }

  private truncate(): string {
    if (this.random.chance(0.3))
      return `truncate ${this.random.pick(['h.part', 'h.part_c', 'h.simple, h.bag, h.toasted', 'h.parent', 'h.part_c1, h.texts'])}`
    const kind = this.random.pick(kinds)
    return kind.truncate ?? `truncate h.${kind.name}`
  }
}
