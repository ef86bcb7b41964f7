import { describe, expect, it } from 'vitest'
import { once, open, packages, Subject } from '../restore/round-trip.ts'
import { startAgent } from '../support/agent-process.ts'

describe.each([18, 14] as const)('what a dump stumbles over, on %i', (major) => {
  it('is replayed, and what no server takes is left out and told', { timeout: 240_000 }, async () => {
    await using subject = await Subject.start(packages[major])
    await subject.sql(
      'create table trees_of_base as select adrelid, adbin from pg_attrdef; create table seq (n serial)',
    )
    await subject.sql('insert into trees_of_base select adrelid, adbin from pg_attrdef')
    const archive = await subject.open()
    await archive.base()
    await subject.sql(
      // A partition that is detached without a lock keeps a CHECK of where it was.
      'create table parted (a int, b text) partition by range (a); create table low partition of parted for values from (0) to (100); create table high partition of parted for values from (100) to (200); insert into parted values (1, $$x$$), (150, $$y$$)',
      'alter table parted detach partition low concurrently',
      'insert into low values (2, $$z$$)',
      // Addresses that the server gives and does not take: of composite types, and of operators with one side.
      `create type pair as (a int, b text); alter type pair add attribute c bigint; comment on column pair.b is 'the second'; alter type pair rename attribute a to first`,
      `create function half(int) returns int language sql immutable as 'select $1 / 2'; create operator @# (rightarg = int, function = half); comment on operator @# (none, int) is 'half'`,
    )
    await subject.note('before what is left out')
    await subject.sql('create table trees as select adrelid, adbin from pg_attrdef')
    const { rows } = await subject.client.query('select count(*)::int as n from trees')
    expect(rows[0].n).toBeGreaterThan(0)
    // A function of a temporary type is gone with its session, and nobody says so.
    const other = await open(subject.url)
    await other.query(
      'create temp table mine (a int); create function of_mine(mine) returns int language sql as $$ select 1 $$',
    )
    await other.end()
    await archive.catchUp()
    await subject.compare({
      sizes: [undefined],
      isAllowed: (difference) => difference.includes('trees_of_base'),
    })
    const { report, found } = await subject.restoreTo({ kind: 'latest' }, subject.server, undefined, (url) =>
      once(
        url,
        `select to_regproc('of_mine')::text as f, (select count(*)::int from trees) as n from seq full join (values (1)) v on true`,
      ),
    )
    expect(found).toEqual([{ f: null, n: 0 }])
    expect([...report.warnings].sort()).toEqual([
      'left out (cannot accept a value of type pg_node_tree): rows of table "public"."trees"',
      'left out (cannot accept a value of type pg_node_tree): rows of table "public"."trees_of_base"',
    ])
  })
})

describe('rows with bytes that are no text of the encoding', () => {
  it('are left out one by one, and told', { timeout: 120_000 }, async () => {
    // Up to 15, "char" gives its byte as it is, which in UTF-8 is none.
    await using subject = await Subject.start(packages[14])
    await subject.sql(
      `create table old (id int primary key, c "char"); insert into old values (1, 'a'), (2, (-61)::int::"char"), (3, 'b')`,
    )
    const archive = await subject.open()
    await archive.base()
    await subject.sql(
      `create table late (c "char"); insert into late values ('x'), ((-60)::int::"char"), ('y')`,
      `update old set id = id + 10; delete from late where c = 'x'; delete from old where id = 12`,
      `insert into old values (20, 'c'), (21, (-1)::int::"char")`,
    )
    await archive.catchUp()
    const { report, found } = await subject.restoreTo({ kind: 'latest' }, subject.server, undefined, (url) =>
      once(
        url,
        `select (select string_agg(id || c, ' ' order by id) from old) as old, (select string_agg(c, ' ') from late) as late`,
      ),
    )
    expect(found).toEqual([{ old: '11a 13b 20c', late: 'y' }])
    expect(report.warnings.filter((warning) => warning.includes('no UTF-8'))).toEqual(
      expect.arrayContaining([expect.stringMatching(/^left out: \d rows? of table "public"\."old"/)]),
    )
  })
})

describe.each([18, 14] as const)('replica identities on %i', (major) => {
  it('are put right by the agent where no event trigger could, and no trigger of the user sees it', {
    timeout: 120_000,
  }, async () => {
    await using subject = await Subject.start(packages[major])
    await subject.sql(
      'create table seen (tag text)',
      'create function see() returns event_trigger language plpgsql as $$ begin insert into seen values (tg_tag); end $$',
      'create event trigger see on ddl_command_end execute function see()',
      'create table told (id int primary key)',
    )
    const archive = await subject.open()
    await archive.base()
    await subject.sql('delete from seen', 'create table keyless (a int); update keyless set a = 1')
    const { rows } = await subject.client.query('select tag from seen')
    expect(rows).toEqual([{ tag: 'CREATE TABLE' }])
    await using agent = startAgent({
      url: subject.url,
      repository: archive.folder,
      source: archive.source,
      segmentBytes: 1 << 20,
      segmentAge_ms: 50,
      heartbeat_ms: 1000,
    })
    await agent.logged(/capturing/)
    await subject.sql(
      'explain (analyze) create table unseen as select 1 as a',
      'alter table told replica identity nothing',
      'insert into told values (1)',
    )
    await agent.logged(/it has FULL now/, { times: 2 })
    await subject.sql('update unseen set a = 2', 'update told set id = 2')
    await agent.stop()
    const left = await subject.client.query(
      `select relname from pg_class where relname in ('told', 'unseen') and relreplident = 'f' order by 1`,
    )
    expect(left.rows).toEqual([{ relname: 'told' }, { relname: 'unseen' }])
  })
})
