import type { EmbeddedServer } from '../../src/postgres/embedded.ts'
import { once, type Subject } from './round-trip.ts'
import { everyKindOfObject, hostileNames } from './schemas.ts'

/** An archive with an end, of objects of every kind and of rows and indexes that a restore takes its time for. */
export async function fillSlowly(subject: Subject, target: EmbeddedServer, major: 14 | 18): Promise<void> {
  for (const url of [subject.url, target.url()])
    await once(url, `create role alice; create role bob; create role "O'Brien ""x"" é"; create role carol`)
  await subject.sql(...hostileNames.split(/\n(?= {2}\S)/), ...everyKindOfObject(major).split(/\n(?= {2}\S)/))
  // Slow where the phases are, so that what happens in each happens in it.
  await subject.sql(`
  create schema slow; create function slow.ly(n int) returns int language plpgsql immutable as $$ begin perform pg_sleep(0.002); return n; end $$;
  create function slow.ly_here(n int) returns bool language plpgsql immutable as $$ begin if current_database() <> 'postgres' then perform pg_sleep(0.002); end if; return true; end $$;
  create table slow.checked (n int primary key check (slow.ly_here(n))); insert into slow.checked select generate_series(1, 150);
  create table slow.indexed (n int, filler text); insert into slow.indexed select n, repeat(md5(n::text), 100) from generate_series(1, 150) n; create index on slow.indexed (slow.ly(n));`)
  const archive = await subject.open()
  await archive.base()
  await subject.sql('insert into slow.checked select generate_series(151, 200); update slow.indexed set n = -n')
  await subject.note('end')
  await archive.catchUp()
}
