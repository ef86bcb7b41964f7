/** Types that are not the system's: made in SQL, down to base types with input and output of their own, and by extensions. */
import type { Case } from './round.ts'

/** One statement an item, since a new label of an enum can be used only after its transaction. */
const ownSchema = [
  `create schema own`,
  // Base types on the server's own functions: one like text, whose arrays are divided by semicolons; one by value; one with a modifier.
  `create type own.label; create type own.whole; create type own.short`,
  `set client_min_messages = error`,
  `create function own.label_in(cstring) returns own.label language internal immutable strict as 'textin';
   create function own.label_out(own.label) returns cstring language internal immutable strict as 'textout';
   create function own.whole_in(cstring) returns own.whole language internal immutable strict as 'int4in';
   create function own.whole_out(own.whole) returns cstring language internal immutable strict as 'int4out';
   create function own.short_in(cstring, oid, int) returns own.short language internal immutable strict as 'varcharin';
   create function own.short_out(own.short) returns cstring language internal immutable strict as 'varcharout';
   create function own.short_mod_in(cstring[]) returns int language internal immutable strict as 'varchartypmodin';
   create function own.short_mod_out(int) returns cstring language internal immutable strict as 'varchartypmodout'`,
  `create type own.label (input = own.label_in, output = own.label_out, like = text, delimiter = ';', default = 'no "label"')`,
  `create type own.whole (input = own.whole_in, output = own.whole_out, like = int4, category = 'N')`,
  `create type own.short (input = own.short_in, output = own.short_out, typmod_in = own.short_mod_in, typmod_out = own.short_mod_out, internallength = variable)`,
  `reset client_min_messages`,
  ...['lt', 'le', 'eq', 'ge', 'gt'].map(
    (name) =>
      `create function own.label_${name}(own.label, own.label) returns bool language internal immutable strict as 'bytea${name}'`,
  ),
  `create function own.label_cmp(own.label, own.label) returns int language internal immutable strict as 'byteacmp'`,
  ...Object.entries({ '<': 'lt', '<=': 'le', '=': 'eq', '>=': 'ge', '>': 'gt' }).map(
    ([sign, name]) =>
      `create operator own.${sign} (leftarg = own.label, rightarg = own.label, function = own.label_${name})`,
  ),
  `create operator class own.label_ops default for type own.label using btree as operator 1 own.<, operator 2 own.<=, operator 3 own.=, operator 4 own.>=, operator 5 own.>, function 1 own.label_cmp(own.label, own.label)`,
  `create table own.based (id own.label primary key, w own.whole, s own.short(3), ls own.label[], ws own.whole[], ss own.short(2)[])`,
  `alter table own.based alter ls set storage external`,
  `insert into own.based select n::text::own.label, n::text::own.whole, 'abc', array[n::text::own.label, null, 'a;b', '{,"\\', ''], array[n::text::own.whole], '{a,NULL,"é;"}' from generate_series(1, 12) n`,
  `insert into own.based (id) values (default)`,

  // Enums with labels put between; domains upon domains, enums, arrays, ranges and composites; composites that lost an attribute.
  `create type own.mood as enum ('b', 'd')`,
  `alter type own.mood add value 'a' before 'b'`,
  `alter type own.mood add value 'c,"'' \\' after 'b'`,
  `alter type own.mood add value E'\\ttab\\n'`,
  `alter type own.mood rename value 'd' to 'renamed'`,
  `create domain own.mild as own.mood check (value <> 'a')`,
  `create domain own.milder as own.mild not null default 'b'`,
  `create domain own.moods as own.mood[] check (cardinality(value) < 9)`,
  `create domain own.span as int4range check (not isempty(value))`,
  `create type own.pair as (a int, gone text, b text, m own.mood)`,
  `create table own.pairs (id int primary key, p own.pair, ps own.pair[])`,
  `insert into own.pairs values (1, row(1, 'gone', 'x', 'b'), array[row(1, 'gone', null, null)::own.pair, null])`,
  `alter type own.pair drop attribute gone cascade`,
  `alter type own.pair add attribute later numeric cascade`,
  `create domain own.good_pair as own.pair check ((value).a is distinct from -1)`,
  `create type own.deep as (p own.pair, ps own.pair[], d own.good_pair, ms own.moods, s own.span, t timestamptz)`,
  `create table own.deeper (id int primary key, d own.deep, ds own.deep[], good own.good_pair, ms own.moods, mss own.moods[], m own.milder, spans own.span[])`,
  `insert into own.pairs values (2, null, '{}'), (3, row(null, null, null, null), '[2:3]={NULL,"(,,,)"}'), (4, row(4, '', 'c,"'' \\', 1.10), null)`,
  `insert into own.deeper values (1, row(p('x'), null, null, '{a,NULL}', '[1,2)', 'infinity'), null, row(1, '', null, null), '{}', '{}', default, '{NULL,"[1,5)"}'),
    (2, row(null, array[p('"'), null, p(E'\\n\\t\\\\')], p('y'), null, null, '0044-03-15 12:00:00+00 BC'), array[row(p('('), array[p(')')], null, array['b', 'a']::own.mood[], null, null)::own.deep, null], null, null, null, 'b', null),
    (3, null, '{}', null, '{a,"c,\\"'' \\\\",NULL}', array['{a}', null, '{}']::own.moods[], 'renamed', '{}')`.replaceAll(
    /\bp\(((?:E)?'[^']*')\)/g,
    "row(1, $1, 'c,\"'' \\', 1.50)::own.pair",
  ),
  `create table own.typed of own.pair (primary key (a))`,
  `insert into own.typed values (1, 'x', 'b', null)`,
  // A row of a table as a value of another's column.
  `create table own.holder (id int primary key, held own.typed, helds own.pairs[])`,
  `insert into own.holder select 1, t, array[pairs, null] from own.typed t, own.pairs where pairs.id = 1`,

  // Ranges over text, over an enum, and in steps; multiranges with names of their own.
  `create type own.words as range (subtype = text, collation = "C", multirange_type_name = own."many words")`,
  `create type own.mood_span as range (subtype = own.mood)`,
  `create table own.ranged (id int primary key, w own.words, ws own."many words", m own.mood_span, mm own.mood_span[], u own.words)`,
  `insert into own.ranged values (1, '["a,b","c\\"d]")', '{["",a),["b\\\\",)}', '["c,\\"'' \\\\",renamed]', '{empty,"(,b)"}', null), (2, 'empty', '{}', '(,)', null, E'["\\t","\\n\\n")'), (3, '["",]', null, null, '{}', '(,)')`,
]

export const ownTypes: Case = {
  schema: ownSchema,
  across: [
    `update own.based set w = '77', ls = '{x;y}' where id operator(own.=) '3'`,
    `update own.deeper set good = row(9, E'\\t', 'b', 0), ms = ms || 'b'::own.mood where id = 3`,
  ],
  later: [
    `update own.based set id = 'it''s; "new"' where id operator(own.=) '4'; update own.based set s = 'é' where id operator(own.=) '5'; delete from own.based where id operator(own.=) '6'`,
    `update own.pairs set p.b = 'changed', ps[5] = row(5, null, null, 'NaN') where id in (1, 3); delete from own.pairs where id = 2`,
    `update own.deeper set id = id + 10, ds[2].ms[3] = 'b' where id < 3; insert into own.deeper select id + 100, d, ds, good, ms, mss, m, spans from own.deeper`,
    `update own.holder set held.b = 'y', helds = helds || helds`,
    `update own.ranged set u = w, w = u; update own.ranged set id = -id where id = 2; insert into own.ranged select id + 10, w, ws, m, mm, u from own.ranged`,
  ],
  last: [
    `truncate own.ranged; insert into own.ranged values (1, '[a,b)', '{[a,b)}', 'empty', '{}', null)`,
    `delete from own.deeper where id = 11`,
  ],
}

/** Contrib modules that bring types, kinds of index, or both. */
const extensionSchema = [
  `create schema ext; create schema moved`,
  ...[
    'hstore',
    'citext',
    'ltree',
    'cube',
    'seg',
    'isn',
    'intarray',
    'pg_trgm',
    'btree_gin',
    'btree_gist',
    'bloom',
    'lo',
    'earthdistance',
    'unaccent',
    'dict_int',
    '"uuid-ossp"',
  ].map((name) => `create extension ${name} schema ext`),
  `alter extension seg set schema moved`,
  `set search_path = ext, moved, public`,
  `create table ext.kinds (id int primary key, h hstore, c citext, l ltree, lq lquery, lt ltxtquery, cu cube, s seg, e ean13, i isbn13, i10 isbn, m ismn, n issn, u upc, q query_int, o lo, g earth, u4 uuid default uuid_generate_v5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'x'),
     hs hstore[], cs citext[], ls ltree[], lqs lquery[], cus cube[], ss seg[], es isbn13[], qs query_int[])`,
  `insert into ext.kinds values (1, 'a=>NULL, "b\\"c"=>"\\\\ ,", ""=>""', 'ÄbC', 'Top.Sci_1.Astro', '*.!a|b*@%{1,3}.*{2}', 'a & !b@* | (c%)', '(1, -0),(NaN, 3)', '1.10 .. 2.00e2', '4719512002889', '978-0-393-04002-9', '0-393-04002-X', '979-0-2600-0043-8', '1436-4522', '220356483481', '1&(2|!3)', 7001, ll_to_earth(1, 2), default,
     array['a=>"x,y"', null]::hstore[], '{Ab,"c\\"",NULL}', '{a.b,"",NULL}', '{"*.a{,2}",NULL}', array['(1),(2)', '()']::cube[], array['~1.0', '<5', '>1e10', '1 .. 2']::seg[], '{978-0-393-04002-9}', array['1 | 2', null]::query_int[]),
     (2, '', '', '', '*', 'a', '()', '~1.000', null, null, null, null, null, null, '!1', null, null, null, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')`,
  ...['hstore', 'citext', 'ltree', 'cube', 'seg', 'isbn13', 'earth'].map(
    (type) => `create table ext."by ${type}" (k ${type} primary key, v int)`,
  ),
  `insert into ext."by hstore" select hstore(n::text, repeat('x,"', n)), n from generate_series(1, 9) n; insert into ext."by citext" select 'Key' || n, n from generate_series(1, 9) n;
   insert into ext."by ltree" select ('a.b' || n)::ltree, n from generate_series(1, 9) n; insert into ext."by cube" select cube(n / 3.0, -n), n from generate_series(1, 9) n; insert into ext."by seg" select (n || '.0 .. ' || n || '.00')::seg, n from generate_series(1, 9) n;
   insert into ext."by isbn13" values ('978-0-393-04002-9', 1), ('978-3-16-148410-0', 2); insert into ext."by earth" select ll_to_earth(n, n), n from generate_series(1, 9) n`,
  `create table ext.indexed (id int, t text, a int[], h hstore, l ltree, c cube, s seg, n int)`,
  `create index on ext.indexed using gin (t gin_trgm_ops); create index on ext.indexed using gist (t gist_trgm_ops(siglen = 32)); create index on ext.indexed using gin (a gin__int_ops); create index on ext.indexed using gist (a gist__intbig_ops(siglen = 64));
   create index on ext.indexed using gin (h); create index on ext.indexed using gist (l gist_ltree_ops); create index on ext.indexed using gist (c); create index on ext.indexed using gist (s); create index on ext.indexed using bloom (n, t) with (length = 96, col1 = 3); create index on ext.indexed using gin (n, t gin_trgm_ops); create index on ext.indexed using hash (h)`,
  `insert into ext.indexed select n, md5(n::text), array[n, n + 1], hstore('k', n::text), 'a.b'::ltree, cube(n), '1'::seg, n from generate_series(1, 50) n`,
  `create text search dictionary ext.number (template = intdict_template, maxlen = 3); create text search configuration ext.plain (copy = simple); alter text search configuration ext.plain alter mapping for int with ext.number; alter text search configuration ext.plain alter mapping for word with unaccent, simple`,
  `create table ext.searched (id int primary key, body text, words tsvector generated always as (to_tsvector('ext.plain', body)) stored); create index on ext.searched using gin (words)`,
  `insert into ext.searched values (1, 'Hôtel 123456'), (2, null)`,
  `reset search_path`,
]

const moveKeys = [
  `update ext."by hstore" set k = k operator(ext.||) 'z=>NULL' where v % 3 = 0`,
  `update ext."by citext" set k = lower(k::text)::ext.citext where v % 3 = 0`,
  `update ext."by ltree" set k = k operator(ext.||) 'x'::ext.ltree where v % 3 = 0`,
  `update ext."by cube" set k = ext.cube(k, -1.5) where v % 3 = 0`,
  `update ext."by seg" set k = ('<' || v)::moved.seg where v % 3 = 0`,
]

export const extensionTypes: Case = {
  schema: extensionSchema,
  across: [`update ext.kinds set h = null, c = 'AbC', s = '>1.00' where id = 2`],
  during: moveKeys,
  later: [
    `insert into ext.kinds select id + 10, h, c, l, lq, lt, cu, s, e, i, i10, m, n, u, q, o, g, u4, hs, cs, ls, lqs, cus, ss, es, qs from ext.kinds; update ext.kinds set c = 'abc' where id = 1; update ext.kinds set id = 3 where id = 2`,
    `delete from ext."by hstore" where v = 1; delete from ext."by citext" where v = 6; update ext."by citext" set k = upper(k::text)::ext.citext where v > 6; update ext."by isbn13" set v = v + 1; delete from ext."by earth" where v > 4`,
    `update ext.indexed set t = t || 'x', a = a || 1 where id % 7 = 0; delete from ext.indexed where id % 11 = 0`,
    `update ext.searched set body = 'Crème 7' where id = 2; insert into ext.searched values (3, 'é')`,
  ],
  last: [`truncate ext.indexed; insert into ext.indexed (id) values (1)`, `delete from ext.kinds where id > 10`],
}
