import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { Subject } from '../restore/round-trip.ts'
import { isMatrix, majors, packageOf } from '../support/majors.ts'
import { type Case, round } from './round.ts'

/** Databases whose text is told apart and ordered in ways of their own, and since when there are such. */
const locales = [
  { order: 'libc', since: 0, sql: '' },
  { order: 'ICU', since: 15, sql: `locale_provider icu icu_locale 'de-DE-u-kf-upper-kn'` },
  { order: 'ICU and rules', since: 16, sql: `locale_provider icu icu_locale 'und' icu_rules '&V << w <<< W'` },
  { order: 'the builtin provider', since: 17, sql: `locale_provider builtin builtin_locale 'C.UTF-8'` },
  { order: 'all of Unicode', since: 18, sql: `locale_provider builtin builtin_locale 'PG_UNICODE_FAST'` },
]
const cLocale = `lc_collate 'C' lc_ctype 'C'`

const collations = (major: number): readonly string[] => [
  `create schema c; create collation c.plain (provider = icu, locale = 'de-u-co-phonebk'); create collation c.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false); create collation c.accentless (provider = icu, locale = 'und-u-ks-level1-kc', deterministic = false)`,
  major >= 16
    ? `create collation c.ruled (provider = icu, locale = 'und', rules = '&V << w <<< W')`
    : 'create collation c.ruled from c.plain',
  `create domain c.word as text collate c.caseless; create type c.pair as (a text collate c.accentless, b c.word); create type c.span as range (subtype = text, collation = c.plain)`,
  // Of keys that are equal to such a collation there is one; of rows without a key there may be several.
  `create table c.keyed (k text collate c.caseless primary key, v text collate c.accentless, w text collate c.caseless); alter table c.keyed alter w set storage external; create table c.two (a c.word, b text collate c.accentless, n int, primary key (b, a)); create table c.bag (k text collate c.caseless, s c.span)`,
  `create table c.listed (k text collate c.plain, n int, primary key (k)) partition by range (k); create table c.listed_low partition of c.listed for values from (minvalue) to ('m'); create table c.listed_high partition of c.listed for values from ('m') to (maxvalue)`,
  `create index on c.keyed (v collate c.ruled, lower(v) collate c.plain desc); create unique index on c.keyed (upper(v) collate c.caseless) where v is not null; create view c.shown as select k, v collate c.plain as v from c.keyed where v < 'x' collate c.caseless; create materialized view c.sorted as select k, row_number() over (order by k collate c.ruled) as n from c.listed`,
  `insert into c.keyed select x, x || n, repeat(x, 3000) from unnest(array['Straße', 'apfel', 'Äpfel', 'zebra', 'résumé', 'İ', 'vw', 'W']) with ordinality t (x, n)`,
  `insert into c.two select x, x, n from unnest(array['a', 'B', 'ä̈', 'ß']) with ordinality t (x, n); insert into c.bag values ('a', '[a,b)'), ('A', '[A,B)'), ('a', '[a,b)'), ('á', null); insert into c.listed select x, 1 from unnest(array['a', 'Ä', 'z', 'Z', 'ö', 'w', 'V']) x`,
]

const changes: Omit<Case, 'schema'> = {
  across: [`update c.keyed set k = upper(k) where k = 'APFEL'`],
  during: [`insert into c.bag values ('Á', '[a,z)'), ('b', 'empty')`],
  later: [
    `update c.keyed set k = 'ZEBRA' where k = 'zebra'; update c.keyed set v = upper(v) where k = 'w'; update c.keyed set k = 'strasse2' where k = 'STRASSE' or k = 'Straße'; delete from c.keyed where k = 'RÉSUMÉ'; insert into c.keyed values ('Résumé', 'again', null)`,
    `update c.two set a = upper(a), b = 'á' where b = 'A'; update c.two set n = n + 1; delete from c.two where a = 'b'; insert into c.two values ('b', 'b', 9)`,
    `delete from c.bag where ctid = '(0,2)'; update c.bag set k = upper(k) where ctid = '(0,1)'; update c.listed set k = 'y' where k = 'a'; refresh materialized view c.sorted`,
  ],
  last: [
    `update c.keyed set k = lower(k), v = null; delete from c.bag where ctid = (select min(ctid) from c.bag where k = 'a'); truncate c.two; refresh materialized view c.sorted`,
  ],
}

const properties = (major: number): string =>
  `select datcollate, datctype, encoding${major >= 15 ? ', datlocprovider' : ''}${major >= 17 ? ', datlocale' : major >= 15 ? ', daticulocale' : ''}${major >= 16 ? ', daticurules' : ''} from pg_database where datname = current_database()`

describe.each(majors)('databases on %i', (major) => {
  let server: EmbeddedServer
  beforeAll(async () => {
    server = await startEmbedded({ package: packageOf(major), settings: { fsync: 'off' } })
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  const known = locales.filter(({ since }) => since <= major)
  // The matrix has all of them; every day it is those that say most.
  const chosen = isMatrix ? known : known.filter(({ order }) => major < 15 || /rules|builtin/.test(order))
  it.each(chosen)('ordered by $order keep that, and text by collations that tell little apart', async ({ sql }) => {
    await using subject = await Subject.start(server, `template template0 encoding 'UTF8' ${cLocale} ${sql}`)
    subject.also.push(
      properties(major),
      'select k from c.listed order by k',
      'select v from c.keyed order by v collate c.ruled',
    )
    const reports = await round(subject, [{ schema: collations(major), ...changes }])
    expect(reports.flatMap((report) => report.warnings)).toEqual([])
  })

  it.each(isMatrix || major === 14 ? ['LATIN1', 'SQL_ASCII'] : ['SQL_ASCII'])(
    'in %s keep every byte there is',
    async (encoding) => {
      await using subject = await Subject.start(server, `template template0 encoding '${encoding}' ${cLocale}`)
      const schema = [
        `create function byte(n int) returns text language sql immutable as $$ select convert_from(decode(lpad(to_hex(n), 2, '0'), 'hex'), '${encoding}') $$`,
        `create table bytes (k text primary key, v text, w text, a text[], j varchar(400)); create table bag (v text, c char(2)); alter table bytes alter w set storage external`,
        `insert into bytes select byte(n), byte(n) || 'x', repeat(byte(n), 3000), array[byte(n), null], byte(n) || '\\' || byte(n) from generate_series(1, 255) n; insert into bag select v, k from bytes, generate_series(1, 2)`,
        `insert into bytes select 'all', string_agg(k, ''), string_agg(w, ''), array_agg(k), string_agg(k, '') from bytes`,
      ]
      subject.also.push(
        `select md5(string_agg(convert_to(k || coalesce(v, '') || coalesce(w, '') || a::text || coalesce(j, ''), '${encoding}'), '' order by convert_to(k, '${encoding}'))) as all from bytes`,
        `select md5(string_agg(convert_to(v || c, '${encoding}'), '' order by convert_to(v || c, '${encoding}'))) as all from bag`,
      )
      const each = (n: number): string => `ascii(k) % 8 = ${n}`
      await round(subject, [
        {
          schema,
          across: [`update bytes set v = k where ${each(1)}`],
          later: [
            `update bytes set k = k || k where ${each(2)}; update bytes set v = null, a = array[k] where ${each(3)}; delete from bytes where ${each(4)}; update bag set v = v || v where ctid in (select min(ctid) from bag group by v)`,
          ],
          last: [
            `delete from bag where ctid in (select min(ctid) from bag group by v); update bytes set k = 'every' where k = 'all'; update bytes set w = k where ${each(5)}`,
          ],
        },
      ])
    },
  )
})
