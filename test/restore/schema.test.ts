import { describe, expect, it } from 'vitest'
import { startEmbedded } from '../../src/postgres/embedded.ts'
import { oneOrBoth } from '../support/majors.ts'
import { once, packages, Subject } from './round-trip.ts'
import { everyKindOfObject, hostileNames } from './schemas.ts'

describe.each(oneOrBoth(14))('schemas on %i', (major) => {
  it('come back whole: names, objects, rights, and nothing fires on the way', async () => {
    await using subject = await Subject.start(packages[major])
    await subject.sql(`create role alice; create role bob; create role "O'Brien ""x"" é"; create role carol`)
    // Line by line, since a new value of an enum can be used only after its transaction.
    await subject.sql(...hostileNames.split(/\n(?= {2}\S)/), ...everyKindOfObject(major).split(/\n(?= {2}\S)/))
    subject.also.push(...questions(major))
    const archive = await subject.open()
    await archive.base()
    await subject.note('base')
    await subject.sql(`
      update app.person set note = 'later' where id = 1; insert into app.person (id, name, note) values (77, 'new', null);
      select nextval('app.shared'), nextval('app.small'), nextval('app.falling');`)
    await subject.note('later')
    await archive.catchUp()
    const reports = await subject.compare({ sizes: [undefined], flags: unordered })
    expect(reports.flatMap((report) => report.warnings)).toEqual([])
    if (major === 14) {
      await using newer = await startEmbedded({ package: packages[18] })
      await once(newer.url(), `create role alice; create role bob; create role "O'Brien ""x"" é"; create role carol`)
      subject.also.splice(0)
      for (const moment of subject.moments) moment.also.splice(0)
      // 17 brought the right MAINTAIN, 15 took the triggers of partitions for the user's, and views are worded anew.
      const newerWords = ['--ignore-object', '^view |^acl |^trigger app.dated_']
      await subject.compare({ on: newer, sizes: [undefined], flags: [...unordered, ...newerWords] })
    }
  })
})

// The fingerprint lists the tables of a publication in any order.
const unordered = ['--ignore-object', '^publication (theirs|in_schema|filtered)$']

/** What the fingerprint does not ask. */
const questions = (major: number): string[] => [
  'select count(*) from app.fired',
  `select p.pubname, p.puballtables, p.pubinsert, p.pubupdate, p.pubtruncate, pubowner::regrole, t.* from pg_publication p left join pg_publication_tables t on t.pubname = p.pubname and not p.puballtables where p.pubname not like 'walback%' order by 1, t.schemaname, t.tablename`,
  `select tgname, tgenabled from pg_trigger where not tgisinternal order by 1`,
  `select evtname, evtenabled, evttags, evtowner::regrole from pg_event_trigger where evtname not like 'walback%' order by 1`,
  `select oid, lomowner::regrole, lomacl::text, obj_description(oid, 'pg_largeobject') as comment, length(lo_get(oid)) as length from pg_largeobject_metadata order by oid`,
  `select defaclrole::regrole, defaclnamespace::regnamespace, defaclobjtype, defaclacl::text from pg_default_acl order by 1, 2, 3`,
  `select n.nspname, t.typname, t.typowner::regrole, t.typacl::text from pg_type t join pg_namespace n on n.oid = t.typnamespace where n.nspname !~ '^pg_|information' order by 1, 2`,
  `select nspname, nspowner::regrole, nspacl::text from pg_namespace where nspname !~ '^pg_|^walback' order by 1`,
  `select relname, relreplident, relrowsecurity, relforcerowsecurity, reloptions from pg_class where oid >= 16384 and relkind in ('r', 'p', 'm') and relnamespace <> 'pg_toast'::regnamespace and relnamespace::regnamespace::text <> 'walback' order by 1, relnamespace::regnamespace::text`,
  `select c.relname, a.attname, a.attstattarget is not distinct from ${major >= 17 ? 'null' : '-1'} as plain, a.attoptions from pg_attribute a join pg_class c on c.oid = a.attrelid where c.oid >= 16384 and a.attnum > 0 and not a.attisdropped and c.relkind = 'r' and c.relnamespace::regnamespace::text <> 'walback' order by 1, 2, c.relnamespace::regnamespace::text`,
  `select stxname, stxkind::text from pg_statistic_ext order by 1`,
  `select opcname from pg_opclass where oid >= 16384 and not exists (select from pg_depend d where d.objid = pg_opclass.oid and d.deptype = 'e') order by 1`,
  `select cfgname from pg_ts_config where oid >= 16384 order by 1`,
  `select conname, contype, condeferrable, condeferred, convalidated from pg_constraint where oid >= 16384 and contype <> 'n' and connamespace::regnamespace::text !~ '^pg_' order by 1, 2, conrelid::regclass::text`,
  'select seqrelid::regclass::text, seqstart, seqincrement, seqcycle, seqmin, seqmax, seqcache, seqtypid::regtype::text from pg_sequence order by 1',
  `select last_value, is_called from app.never`,
  `select count(*) from app.unlogged_table`,
]
