import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { once, type Subject } from '../restore/round-trip.ts'
import { begin, openSubject, preview, rowsOf, scriptOf, transaction, undo } from './stage.ts'

let server: EmbeddedServer
beforeAll(async () => {
  server = await startEmbedded({ settings: { fsync: 'off' } })
})
afterAll(() => server[Symbol.asyncDispose]())

const subject = (...schema: string[]): Promise<Subject> => openSubject(server, ...schema)

/** Undoes, compares with before, undoes that, compares with after. */
async function thereAndBack(one: Subject, tables: readonly string[], ...statements: string[]): Promise<void> {
  const before = await rowsOf(one, ...tables)
  const xid = await transaction(one, ...statements)
  const after = await rowsOf(one, ...tables)
  expect(after).not.toEqual(before)
  const report = await undo(one, [xid])
  expect(await rowsOf(one, ...tables)).toEqual(before)
  await undo(one, [String(report.xid)])
  expect(await rowsOf(one, ...tables)).toEqual(after)
}

const tree = [
  'CREATE TABLE parent (id int PRIMARY KEY, name text)',
  'CREATE TABLE child (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent int NOT NULL REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)',
  'ALTER TABLE parent REPLICA IDENTITY FULL',
  'ALTER TABLE child REPLICA IDENTITY FULL',
  `INSERT INTO parent SELECT n, 'p' || n FROM generate_series(1, 5) n`,
  'INSERT INTO child (parent, n) SELECT n % 5 + 1, n FROM generate_series(1, 20) n',
]

describe('tables that refer to each other', () => {
  it('come back together, with what their triggers and cascades did', async () => {
    await using one = await subject(
      ...tree,
      'CREATE TABLE total (id int PRIMARY KEY, sum int)',
      'ALTER TABLE total REPLICA IDENTITY FULL',
      'INSERT INTO total VALUES (1, (SELECT sum(n) FROM child))',
      `CREATE FUNCTION keep_total() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         UPDATE public.total SET sum = sum + coalesce(new.n, 0) - coalesce(old.n, 0); RETURN null; END $$`,
      'CREATE TRIGGER keep_total AFTER INSERT OR UPDATE OR DELETE ON child FOR EACH ROW EXECUTE FUNCTION keep_total()',
    )
    await thereAndBack(
      one,
      ['parent', 'child', 'total'],
      'DELETE FROM parent WHERE id = 1',
      'UPDATE parent SET id = id + 100 WHERE id > 3',
      `INSERT INTO parent VALUES (9, 'new')`,
      'INSERT INTO child (parent, n) VALUES (9, 1000)',
    )
    const xid = await transaction(one, 'DELETE FROM child WHERE n = 6')
    expect((await preview(one, [xid])).tables).toMatchObject([
      { name: 'child', silentTriggers: ['keep_total'] },
      { name: 'total', silentTriggers: [] },
    ])
  })

  it('are left as they are where a foreign key would not hold', async () => {
    await using one = await subject(...tree)
    const inserted = await transaction(one, `INSERT INTO parent VALUES (50, 'new')`)
    await one.sql('INSERT INTO child (parent, n) VALUES (50, 1)')
    const now = await rowsOf(one, 'parent', 'child')
    await expect(undo(one, [inserted])).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringMatching(
        /child_parent_fkey would not hold: 1 rows of public.child refer to rows of public.parent/,
      ),
    })
    expect(await rowsOf(one, 'parent', 'child')).toEqual(now)
    const removed = await transaction(one, 'DELETE FROM parent WHERE id = 2')
    await expect(undo(one, [removed], { tables: ['child'] })).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringMatching(/4 rows of public.child would refer to rows of public.parent that are not there/),
    })
  })

  it('and unique constraints too: of every kind, the server says which', async () => {
    await using one = await subject(
      'CREATE TABLE seat (id int PRIMARY KEY, place int UNIQUE, late int UNIQUE DEFERRABLE INITIALLY DEFERRED)',
      'ALTER TABLE seat REPLICA IDENTITY FULL',
      'INSERT INTO seat SELECT n, n, n FROM generate_series(1, 9) n',
    )
    // Places go round: no order of single updates would do.
    await thereAndBack(
      one,
      ['seat'],
      'UPDATE seat SET place = -place',
      'UPDATE seat SET place = CASE place WHEN -9 THEN 1 ELSE 1 - place END',
      'UPDATE seat SET id = CASE id WHEN 1 THEN 0 ELSE id END',
    )
    const place = await transaction(one, 'DELETE FROM seat WHERE id = 3')
    await one.sql('INSERT INTO seat SELECT 300, 4, NULL')
    await expect(undo(one, [place])).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining('seat_place_key'),
    })
    const late = await transaction(one, 'DELETE FROM seat WHERE id = 5')
    await one.sql('INSERT INTO seat SELECT 500, 500, 5')
    await expect(undo(one, [late])).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining('seat_late_key'),
    })
  })
})

describe('tables without a key', () => {
  it('are bags of rows: of equal ones as many go or come as the transaction took or brought', async () => {
    await using one = await subject(
      'CREATE TABLE bag (a int, b json, c point)',
      `INSERT INTO bag SELECT n % 3, '{"a": 1}', '(1,2)' FROM generate_series(1, 12) n`,
      'INSERT INTO bag VALUES (NULL, NULL, NULL), (NULL, NULL, NULL)',
    )
    await thereAndBack(
      one,
      ['bag'],
      'DELETE FROM bag WHERE ctid IN (SELECT ctid FROM bag WHERE a = 1 LIMIT 2)',
      'DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE a IS NULL)',
      `UPDATE bag SET b = '{"a": 2}' WHERE a = 2`,
      `INSERT INTO bag SELECT 0, '{"a": 1}', '(1,2)' FROM generate_series(1, 3)`,
    )
    await one.sql(
      'CREATE TABLE words (a text, b text)',
      `INSERT INTO words VALUES ('x', NULL), ('x', ''), ('', 'x'), (NULL, 'x'), (NULL, NULL), ('', '')`,
    )
    await thereAndBack(one, ['words'], 'DELETE FROM words WHERE a IS NULL', `UPDATE words SET a = 'y' WHERE b = ''`)
    const xid = await transaction(one, 'UPDATE bag SET a = 7 WHERE a = 2', 'INSERT INTO bag VALUES (8), (8)')
    await one.sql('DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE a = 8)')
    await one.sql('UPDATE bag SET c = NULL WHERE ctid = (SELECT min(ctid) FROM bag WHERE a = 7)')
    expect((await undo(one, [xid])).tables).toMatchObject([{ updates: 3, deletes: 1, conflicts: { gone: 2 } }])
    await undo(one, [xid], { policy: 'skip' })
    const { rows } = await one.client.query(
      'SELECT a, count(*)::int FROM bag WHERE a IN (2, 7, 8) GROUP BY 1 ORDER BY 1',
    )
    expect(rows).toEqual([
      { a: 2, count: 3 },
      { a: 7, count: 1 },
    ])
  })
})

describe('tables that were changed since', () => {
  it('are found by their id, and take what their columns are now', async () => {
    await using one = await subject(
      'CREATE TABLE old_name (id int PRIMARY KEY, a int, gone text, empty text)',
      'ALTER TABLE old_name REPLICA IDENTITY FULL',
      `INSERT INTO old_name SELECT n, n FROM generate_series(1, 5) n`,
      'CREATE TABLE unchanged (id int PRIMARY KEY)',
    )
    const xid = await transaction(one, 'DELETE FROM old_name WHERE id > 2', 'INSERT INTO unchanged VALUES (1)')
    const values = await transaction(one, `UPDATE old_name SET gone = 'value' WHERE id = 1`)
    const lost = await transaction(one, 'DELETE FROM old_name WHERE id = 1')
    await one.sql(
      'ALTER TABLE old_name RENAME TO new_name',
      'CREATE TABLE old_name (id int)',
      'ALTER TABLE new_name ALTER a TYPE bigint, DROP gone, ADD fresh int DEFAULT 7',
    )
    expect((await undo(one, [xid])).tables).toMatchObject([{ name: 'new_name', inserts: 3 }, { name: 'unchanged' }])
    expect(await rowsOf(one, 'new_name')).toEqual({ new_name: ['(2,2,,7)', '(3,3,,7)', '(4,4,,7)', '(5,5,,7)'] })
    await expect(undo(one, [lost])).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('column gone of public.new_name was dropped since, and 1 rows'),
    })
    // A value that was set is not missed; the one that it had been would be.
    await undo(one, [values], { policy: 'skip' })
    await one.sql('DROP TABLE new_name')
    await one.sql('DROP TABLE old_name')
    await expect(undo(one, [xid])).rejects.toMatchObject({
      code: 'refused',
      message: 'there is no table public.old_name any more',
    })
    await undo(one, [xid], { tables: ['unchanged'], policy: 'skip' })
  })

  it('also where a column that was added since, or is computed, refers to something', async () => {
    await using one = await subject(
      'CREATE TABLE place (id int PRIMARY KEY)',
      'INSERT INTO place VALUES (1), (2), (20)',
      'CREATE TABLE visit (id int PRIMARY KEY, n int, far int GENERATED ALWAYS AS (n * 10) STORED REFERENCES place)',
      'ALTER TABLE visit REPLICA IDENTITY FULL',
      'INSERT INTO visit VALUES (1, 2)',
    )
    const xid = await transaction(one, 'DELETE FROM visit')
    await one.sql('ALTER TABLE visit ADD near int DEFAULT 1 REFERENCES place')
    expect(await undo(one, [xid])).toMatchObject({ conflicts: 0 })
    expect(await rowsOf(one, 'visit')).toEqual({ visit: ['(1,2,20,1)'] })
    const again = await transaction(one, 'DELETE FROM visit')
    for (const [gone, key] of [
      ['20', 'visit_far_fkey'],
      ['1', 'visit_near_fkey'],
    ]) {
      await one.sql(`DELETE FROM place WHERE id = ${gone}`)
      await expect(undo(one, [key === 'visit_far_fkey' ? again : xid])).rejects.toMatchObject({
        code: 'conflict',
        message: expect.stringContaining(String(key)),
      })
      await one.sql(`INSERT INTO place VALUES (${gone})`)
    }
    expect(await rowsOf(one, 'visit')).toEqual({ visit: [] })
  })

  it('or emptied, or made: that is no undo, and what else a transaction did is', async () => {
    await using one = await subject(
      'CREATE TABLE emptied (id int PRIMARY KEY)',
      'CREATE TABLE kept (id int PRIMARY KEY)',
      'INSERT INTO emptied VALUES (1)',
    )
    const truncated = await transaction(one, 'TRUNCATE emptied', 'INSERT INTO kept VALUES (1)')
    await expect(undo(one, [truncated])).rejects.toMatchObject({
      code: 'refused',
      message: `transaction ${truncated} truncated public.emptied: the rows that were in it are not in the stream`,
      hint: expect.stringContaining(`walback restore --before-tx ${truncated}`),
    })
    await undo(one, [truncated], { tables: ['kept'] })
    expect(await rowsOf(one, 'kept')).toEqual({ kept: [] })
    const made = await transaction(
      one,
      'ALTER TABLE emptied ADD a int',
      'INSERT INTO emptied VALUES (2)',
      'INSERT INTO kept VALUES (2)',
    )
    await expect(undo(one, [made])).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('also changed the schema'),
    })
    await expect(undo(one, [made], { tables: ['emptied'] })).rejects.toMatchObject({ code: 'refused' })
    await undo(one, [made], { tables: ['kept'] })
    expect(await rowsOf(one, 'kept')).toEqual({ kept: [] })
  })
})

describe('several transactions', () => {
  const counter = [
    'CREATE TABLE counter (id int PRIMARY KEY, n int)',
    'ALTER TABLE counter REPLICA IDENTITY FULL',
    'INSERT INTO counter SELECT n, 0 FROM generate_series(1, 3) n',
  ]
  it('are undone from the last to the first, whatever came between', async () => {
    await using one = await subject(...counter)
    const first = await transaction(one, 'UPDATE counter SET n = 1', 'DELETE FROM counter WHERE id = 3')
    const second = await transaction(one, 'INSERT INTO counter VALUES (3, 33)', 'UPDATE counter SET n = 2 WHERE id < 3')
    expect(await preview(one, [first])).toMatchObject({ conflicts: 3 })
    await undo(one, [first, second])
    expect(await rowsOf(one, 'counter')).toEqual({ counter: ['(1,0)', '(2,0)', '(3,0)'] })

    const third = await transaction(one, 'UPDATE counter SET n = 3 WHERE id = 1')
    await one.sql('UPDATE counter SET n = 4 WHERE id = 1')
    const fourth = await transaction(one, 'UPDATE counter SET n = 5 WHERE id = 1')
    expect(await undo(one, [fourth, third])).toMatchObject({ conflicts: 1, xid: undefined })
    expect(await rowsOf(one, 'counter')).toEqual({ counter: ['(1,5)', '(2,0)', '(3,0)'] })
  })

  it('in another database as well, by name', async () => {
    await using one = await subject(...counter)
    const xid = await transaction(one, 'DELETE FROM counter')
    await one.opened.catchUp()
    await one.opened.base()
    await one.opened.catchUp()
    await one.restoreTo({ kind: 'latest' }, server, undefined, async (url) => {
      await undo(one, [xid], { url })
      expect(await once(url, 'SELECT count(*)::int FROM counter')).toEqual([{ count: 3 }])
    })
    expect(await rowsOf(one, 'counter')).toEqual({ counter: [] })
  })
})

it('a transaction that is larger than a segment, in parts, and the one after it', async () => {
  await using one = await subject(
    'CREATE TABLE big (id int PRIMARY KEY, v text)',
    `INSERT INTO big SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 3000) n`,
  )
  await one.opened.base()
  const before = await rowsOf(one, 'big')
  const xid = await transaction(
    one,
    `UPDATE big SET v = v || 'x'`,
    'UPDATE big SET id = -id WHERE id % 3 = 0',
    'DELETE FROM big WHERE id % 2 = 0',
  )
  const next = await transaction(one, 'DELETE FROM big')
  await one.opened.catchUp({ segmentBytes: 200_000 })
  // Folded anew after each block.
  const report = await undo(one, [xid, next], { memory_bytes: 1 })
  expect(report.tables).toMatchObject([{ conflicts: { changed: 0, exists: 0, gone: 0 } }])
  expect(await rowsOf(one, 'big')).toEqual(before)
})

it('a role that may not silence triggers is told so, and what needs no silence is done', async () => {
  await using one = await subject(
    ...tree,
    'CREATE TABLE lone (id int PRIMARY KEY)',
    'DROP ROLE IF EXISTS modest',
    `CREATE ROLE modest LOGIN PASSWORD 'x'`,
    'GRANT ALL ON ALL TABLES IN SCHEMA public TO modest',
  )
  const url = new URL(one.url)
  url.username = 'modest'
  url.password = 'x'
  const lone = await transaction(one, 'INSERT INTO lone VALUES (1)')
  const bound = await transaction(one, 'DELETE FROM child WHERE id = 1')
  await undo(one, [lone], { url: url.href })
  expect(await rowsOf(one, 'lone')).toEqual({ lone: [] })
  await expect(undo(one, [bound], { url: url.href })).rejects.toMatchObject({
    code: 'prerequisite',
    message: expect.stringContaining('session_replication_role'),
  })
  await one.sql('GRANT SET ON PARAMETER session_replication_role TO modest')
  await undo(one, [bound], { url: url.href })
  await one.sql('REVOKE SET ON PARAMETER session_replication_role FROM modest')
})

it('an undo as SQL does the same, guards what is changed until it runs, and is refused where a key is taken', async () => {
  await using one = await subject(
    ...tree,
    'CREATE TABLE bag (a int, b json, c bool, d inet)',
    `INSERT INTO bag SELECT 1, '{"q": "it''s \\\\ "}', true, '10.0.0.1' FROM generate_series(1, 3)`,
  )
  const tables = ['parent', 'child', 'bag']
  const before = await rowsOf(one, ...tables)
  const xid = await transaction(
    one,
    'DELETE FROM parent WHERE id = 1',
    `UPDATE parent SET name = E'tab\\t\\\\ ''quoted''' WHERE id = 2`,
    'UPDATE child SET n = NULL WHERE id = 1',
    `INSERT INTO parent VALUES (9, NULL)`,
    'INSERT INTO child (parent, n) VALUES (9, 1)',
    'DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag)',
    'UPDATE bag SET a = 2 WHERE ctid = (SELECT min(ctid) FROM bag)',
    'INSERT INTO bag VALUES (3, NULL, NULL, NULL)',
  )
  const after = await rowsOf(one, ...tables)
  const script = await scriptOf(one, [xid])
  expect(await rowsOf(one, ...tables)).toEqual(after)
  await one.sql(`UPDATE parent SET name = 'mine' WHERE id = 2`)
  await one.client.query(script)
  expect((await one.client.query('SELECT name FROM parent WHERE id = 2')).rows).toEqual([{ name: 'mine' }])
  await one.sql(`UPDATE parent SET name = 'p2' WHERE id = 2`)
  expect(await rowsOf(one, ...tables)).toEqual(before)
  await expect(one.client.query(script)).rejects.toMatchObject({ code: '23505' })
  await one.sql('ROLLBACK')
})

it('what others change between preview and apply is found, and what they hold is waited for', async () => {
  await using one = await subject(
    'CREATE TABLE t (id int PRIMARY KEY, v int)',
    'ALTER TABLE t REPLICA IDENTITY FULL',
    'INSERT INTO t SELECT n, 0 FROM generate_series(1, 3) n',
  )
  const xid = await transaction(one, 'UPDATE t SET v = 1')
  await one.opened.catchUp()
  await using work = await begin(one, [xid], {})
  expect(await work.preview()).toMatchObject({ conflicts: 0 })
  await one.sql('BEGIN', 'UPDATE t SET v = 2 WHERE id = 2')
  const applied = work.apply('abort')
  const waits = `SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'walback undo' AND NOT l.granted`
  while ((await one.client.query(waits)).rows.length === 0) await new Promise((settle) => setTimeout(settle, 20))
  await one.sql('COMMIT')
  expect(await applied).toMatchObject({ conflicts: 1, xid: undefined })
  expect(await rowsOf(one, 't')).toEqual({ t: ['(1,1)', '(2,2)', '(3,1)'] })
  await one.sql('ALTER TABLE t ADD w int')
  await expect(work.apply('skip')).rejects.toMatchObject({
    retryable: true,
    message: 'table public.t was altered meanwhile',
  })
})

it('keys of extensions, domains, enums and collations are found by their index', async () => {
  await using one = await subject(
    'CREATE EXTENSION citext',
    `CREATE COLLATION alike (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
    `CREATE TYPE mood AS ENUM ('sad', 'glad')`,
    'CREATE DOMAIN short AS varchar(10) NOT NULL CHECK (length(value) > 0)',
    'CREATE TABLE c1 (k citext PRIMARY KEY, v int)',
    'CREATE TABLE c2 (k text COLLATE alike PRIMARY KEY, v text COLLATE alike)',
    'CREATE TABLE c3 (m mood, d short, b bytea, v text COLLATE "C", PRIMARY KEY (d, m))',
    'CREATE TABLE c4 (k text COLLATE "C" PRIMARY KEY, c1 citext REFERENCES c1 ON UPDATE CASCADE)',
    ...['c1', 'c2', 'c3', 'c4'].map((table) => `ALTER TABLE ${table} REPLICA IDENTITY FULL`),
    `INSERT INTO c1 VALUES ('Abc', 1), ('def', 2)`,
    `INSERT INTO c2 VALUES ('Abc', 'V'), ('def', 'w')`,
    `INSERT INTO c3 VALUES ('sad', 'a', '\\x00', 'x'), ('glad', 'a', NULL, NULL), ('sad', 'b', NULL, 'y')`,
    `INSERT INTO c4 VALUES ('é', 'ABC'), ('z', NULL)`,
  )
  await thereAndBack(
    one,
    ['c1', 'c2', 'c3', 'c4'],
    // A key that is equal, and reads otherwise.
    `UPDATE c1 SET k = 'ABC', v = v + 1 WHERE k = 'abc'`,
    `UPDATE c2 SET v = 'v' WHERE k = 'ABC'`,
    `DELETE FROM c2 WHERE k = 'DEF'`,
    `UPDATE c3 SET m = 'glad' WHERE d = 'b'`,
    `DELETE FROM c3 WHERE d = 'a' AND m = 'glad'`,
    `UPDATE c4 SET c1 = 'def' WHERE k = 'z'`,
    `DELETE FROM c4 WHERE k = 'é'`,
  )
})
