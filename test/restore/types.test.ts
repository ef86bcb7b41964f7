import { describe, expect, it } from 'vitest'
import { packages, Subject } from './round-trip.ts'

/** A column for each type, and values that have gone wrong somewhere. */
const values = (major: number): Readonly<Record<string, readonly string[]>> => ({
  smallint: ['-32768', '32767'],
  integer: ['-2147483648', '0'],
  bigint: ['-9223372036854775808', '9223372036854775807'],
  numeric: [
    'NaN',
    'Infinity',
    '-Infinity',
    '0',
    '-0.000',
    '1.10',
    '1.1000',
    '1e-400',
    `${'9'.repeat(300)}.${'1'.repeat(300)}`,
  ],
  'numeric(20,5)': ['NaN', '1.10000', '-99999999999999.99999'],
  ...(major >= 15 ? { 'numeric(3,-2)': ['12300'] } : {}),
  real: ['-0', 'NaN', 'Infinity', '-Infinity', '1e-45', '1.17549435e-38', '3.4028235e+38', '0.1', '16777217'],
  'double precision': [
    '-0',
    'NaN',
    '-Infinity',
    '5e-324',
    '2.2250738585072014e-308',
    '1.7976931348623157e308',
    '0.1',
    '0.30000000000000004',
  ],
  money: ['-92233720368547758.08', '92233720368547758.07', '0.00'],
  text: [
    '',
    'NULL',
    '\\N',
    '\\.',
    'a\tb',
    'one\ntwo\r\nthree',
    '\b\f\v',
    'back\\slash',
    `'q' "d"`,
    ' ',
    '\u0001\u007f',
    'é漢字😀\u2028',
    'x'.repeat(10_000),
  ],
  'character varying(40)': ['', '\\', 'ends in \\', ' '.repeat(40)],
  'character(5)': ['', 'ab', '  x', 'a\tb', 'é'],
  name: ['', 'select', 'x'.repeat(63)],
  '"char"': ['a', '', '\\', '\n'],
  bytea: ['\\x', '\\x00', `\\x${Array.from({ length: 256 }, (_, n) => n.toString(16).padStart(2, '0')).join('')}`],
  'timestamp with time zone': [
    'infinity',
    '-infinity',
    '4713-01-01 00:00:00+00 BC',
    '0044-03-15 12:00:00.000001+00 BC',
    '294276-12-31 23:59:59.999999+00',
    '2026-10-25 02:30:00+02',
  ],
  'timestamp without time zone': ['infinity', '0001-12-31 23:59:59.999999 BC', '2000-01-01 00:00:00'],
  'timestamp(3) with time zone': ['2001-02-03 04:05:06.789+00'],
  date: ['infinity', '-infinity', '4713-01-01 BC', '5874897-12-31'],
  'time without time zone': ['24:00:00', '00:00:00', '23:59:59.999999'],
  'time with time zone': ['24:00:00+15:59', '00:00:00-15:59:59', '12:30:00.5+05:30'],
  interval: [
    '0',
    '1 year -2 mons +3 days -04:05:06.789',
    '-178000000 years',
    '00:00:00.000001',
    '-1 mons +1 days',
    ...(major >= 17 ? ['infinity', '-infinity'] : []),
  ],
  'interval day to second(2)': ['1 04:05:06.78'],
  boolean: ['t', 'f'],
  json: [
    '{"a": 1, "a": 2}',
    '{\n  "line": "x\\ny\\t"\n}',
    '"\\u00e9 \\\\ \\" \\u0000"',
    '[1.0, 1e5, null]',
    ' {} ',
    '1.00',
  ],
  jsonb: ['{"b": [1, {"c": null}], "a": "\\n\\t\\\\"}', 'null', '1.10', '1e400', '""', '{"": ""}'],
  jsonpath: ['$."a b"[*] ? (@ > 1 && @ like_regex "^\\\\d+$")'],
  'integer[]': ['{}', '{NULL}', '{{1,2},{NULL,4}}', '[-1:0][5:6]={{1,2},{3,4}}', '{{{{{{1}}}}}}'],
  'text[]': [
    '{}',
    '{NULL,"NULL","null","a\\"b","c\\\\d","",",","{}"," e ","a\tb","x\ny"}',
    '[2:3]={x,"y\nz"}',
    '{"\\\\N","\\\\."}',
  ],
  'numeric[]': ['{NaN,1.10,-Infinity,NULL}'],
  'jsonb[]': ['{"{\\"a\\": [1, \\"x\\\\\\\\y\\"]}",NULL}'],
  'timestamp with time zone[]': ['{infinity,"0044-03-15 12:00:00+00 BC"}'],
  'bytea[]': ['{"\\\\x00ff",NULL,"\\\\x"}'],
  box: ['(1,1),(0,0)'],
  'box[]': ['{(1,1),(0,0);(2,2),(1,1)}'],
  point: ['(NaN,-0)', '(Infinity,1e-300)'],
  line: ['{1,-1,0}'],
  lseg: ['[(0,0),(1,-0)]'],
  path: ['[(0,0),(1,1)]', '((0,0),(1,1),(2,0))'],
  polygon: ['((0,0),(1,1),(2,0))'],
  circle: ['<(0,0),0>', '<(1,2),Infinity>'],
  int4range: ['empty', '[1,10)', '(,5)', '(,)'],
  numrange: ['[1.10,2.0]', '(-Infinity,NaN]'],
  tstzrange: ['["-infinity","infinity"]', '[,"2020-01-01 00:00:00+00")', 'empty'],
  daterange: ['[2020-01-01,infinity)'],
  nummultirange: ['{}', '{[1.5,2),(7,)}'],
  int8multirange: ['{[1,3),[5,9)}'],
  'int4range[]': ['{empty,"[1,2)",NULL}'],
  inet: ['::1', '192.168.0.1/24', 'fe80::ff/64', '10.0.0.1/32'],
  cidr: ['10.0.0.0/8', '::/0'],
  macaddr: ['08:00:2b:01:02:03'],
  macaddr8: ['08:00:2b:ff:fe:01:02:03'],
  'bit(3)': ['101'],
  'bit varying': ['', '1', '01'.repeat(50)],
  uuid: ['00000000-0000-0000-0000-000000000000', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
  tsvector: ['', `'a''b':1A,2 'c\\\\d' 'e f':3`, `' ':1`],
  tsquery: [`'a' & !( 'b' <2> 'c':*A )`, `'x''y' | 'z\\\\w'`],
  oid: ['0', '4294967295'],
  regtype: ['integer', 'pg_catalog."char"'],
  regclass: ['pg_class', 'odd."Referred ""to"""', '0', '999999'],
  regprocedure: ['pg_catalog.lower(text)'],
  regproc: ['now', '-'],
  regoper: ['pg_catalog.||/'],
  regoperator: ['pg_catalog.+(integer,integer)'],
  regrole: ['postgres'],
  regnamespace: ['pg_catalog', 'odd'],
  regconfig: ['english'],
  regdictionary: ['simple'],
  regcollation: ['"C"'],
  pg_lsn: ['0/0', 'FFFFFFFF/FFFFFFFF'],
  xid: ['4294967295'],
  xid8: ['18446744073709551615'],
  cid: ['7'],
  tid: ['(4294967295,65535)'],
  pg_snapshot: ['10:20:10,14,15'],
  txid_snapshot: ['10:20:10'],
  int2vector: ['1 2 3', ''],
  oidvector: ['1 2 3'],
  aclitem: ['postgres=arwdDxt/postgres', '=r/postgres'],
  refcursor: ['c"1'],
  xml: ['<a b="c">&lt;\n\t</a>', 'text <only/>', ''],
  'odd.mood': ['sad', `it's "fine"`, 'a,b', '', ' ', 'tab\there', 'é\\'],
  'odd.mood[]': ['{sad,"it\'s \\"fine\\"","a,b","",NULL}'],
  'odd.positive': ['1', '2147483647'],
  'odd.positive[]': ['{1,NULL,2}'],
  'odd.many': ['{1,2}', '{}'],
  'odd.pair': ['(,)', '(1,"")', '(2,"a,""b\\\\")', '(3," ")', '(4,"x\ty\nz")'],
  'odd.pair[]': ['{NULL,"(1,\\"x,y\\")"}'],
  'odd.nest': ['("(1,""a,""""b"")","{""(1,x)"",NULL}","{sad}",7)', '(,,,)'],
  'odd.float_range': ['[-0,0.1]', '(,Infinity)'],
  'public.hstore': ['', `"a"=>NULL, "b\\"c"=>"\\\\ \n", "NULL"=>"NULL"`],
  'public.citext': ['', 'AbC', 'Été'],
  'public.ltree': ['Top.Sci_1.Astro', ''],
  'public.cube': ['(1, -0),(NaN, 3)', '()'],
  'public.lo': ['12345'],
})

const schema = `
  create schema odd;
  create extension hstore; create extension citext; create extension ltree; create extension cube; create extension lo;
  create table odd."Referred ""to""" (n int);
  create type odd.mood as enum ('sad', 'it''s "fine"', 'a,b', '', ' ', E'tab\\there', E'é\\\\');
  create domain odd.positive as int check (value > 0);
  create domain odd.many as int[] check (array_length(value, 1) < 5);
  create type odd.pair as (x int, "na me" text);
  create type odd.nest as (p odd.pair, ps odd.pair[], m odd.mood[], d odd.positive);
  create type odd.float_range as range (subtype = float8, subtype_diff = float8mi);`

describe.each([14, 18] as const)('types on %i', (major) => {
  it('come back as they were, from the base and from the stream', async () => {
    await using subject = await Subject.start(packages[major])
    await subject.sql(schema)
    const missing: string[] = []
    const all = Object.entries(values(major)).map(([type, texts], n) => ({
      type,
      texts,
      table: `odd.t${n}`,
      bag: `odd.b${n}`,
    }))
    const kinds: typeof all = []
    for (const kind of all) {
      const { type, texts, table, bag } = kind
      try {
        await subject.sql(
          `create table ${table} (id int primary key, v ${type}, w ${type});
           create table ${bag} (v ${type}); alter table ${bag} replica identity full`,
        )
      } catch (error) {
        missing.push(`${type}: ${(error as Error).message}`)
        continue
      }
      kinds.push(kind)
      for (const [n, text] of texts.entries()) {
        try {
          await subject.client.query(`insert into ${table} values ($1, $2, null)`, [n, text])
          await subject.client.query(`insert into ${bag} values ($1), ($1)`, [text])
        } catch (error) {
          missing.push(`${type} ${JSON.stringify(text)}: ${(error as Error).message}`)
        }
      }
    }
    if (process.env.WALBACK_SHOW) console.log(missing)
    const archive = await subject.open()
    const base = await archive.base()
    expect(base.tables.length).toBeGreaterThan(150)
    for (const { table, bag } of kinds) {
      await subject.sql(
        `insert into ${table} select id + 1000, w, v from ${table}; insert into ${table} select id + 2000, v, v from ${table} where id < 1000;
         update ${table} set w = v where id % 2 = 0; delete from ${table} where id % 5 = 3;
         insert into ${bag} select v from ${bag} where ctid::text::point <@ box '(0,0),(0,3)';
         delete from ${bag} where ctid = (select min(ctid) from ${bag}); update ${bag} set v = null where ctid = (select max(ctid) from ${bag})`,
      )
    }
    await subject.note('changes')
    await archive.catchUp()
    await subject.compare()
  })
})
