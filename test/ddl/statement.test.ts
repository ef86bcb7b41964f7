import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  type CommandInput,
  candidates,
  isBarrier,
  type Replay,
  rewriteForReplay,
  StatementCursor,
} from '../../src/postgres/ddl-statement.ts'
import { type EmbeddedServer, startEmbedded } from '../../src/postgres/embedded.ts'
import { everyday, packageOf } from '../support/majors.ts'
import { Lab } from './statement-events.ts'
import { type Case, cases, preparation } from './statement-matrix.ts'

/** What a client does at once, and the cases that run by it. */
interface Step {
  readonly run: (lab: Lab) => Promise<unknown>
  readonly cases: readonly Case[]
}

/** Each case by itself, around which a wrapper may put what it likes. */
const singly = (matrix: readonly Case[], run: (lab: Lab, sql: string, index: number) => Promise<unknown>): Step[] =>
  matrix.map((item, index) => ({ run: (lab) => run(lab, item.sql, index), cases: [item] }))

/** Some cases at a time. */
function together(matrix: readonly Case[], size: number, run: (lab: Lab, all: string[]) => Promise<unknown>): Step[] {
  const steps: Step[] = []
  for (let from = 0; from < matrix.length; from += size) {
    const some = matrix.slice(from, from + size)
    const all = some.map(({ sql }) => sql)
    steps.push({ run: (lab) => run(lab, all), cases: some })
  }
  return steps
}

const inBlocks = (matrix: readonly Case[]): Case[] => matrix.filter(({ isAlone }) => !isAlone)
const executed = (matrix: readonly Case[]): Case[] =>
  inBlocks(matrix).filter(({ notInPlpgsql }) => notInPlpgsql !== 'all')

/** The frame of a SQL function shows its name as it is, and nothing of its text. */
async function runInSqlFunction(lab: Lab, sql: string): Promise<void> {
  const name = `lab."sql ""f"" statement 9"`
  await lab.quietly(`set check_function_bodies = off;
    create function ${name}(int) returns void language sql as $lab$ select 1; ${sql}; select 2 $lab$;
    create function ${name}(text) returns void language sql as $lab$ select 1; drop table lab.run; create table u () $lab$`)
  await lab.client.query(`select ${name}(1)`)
  await lab.quietly(`drop function ${name}(int), ${name}(text)`)
}

/** Of temporary tables and extensions, servers tell more than there is to replay. */
const isPassedOver = (replay: Replay): boolean => replay.kind === 'skip' && /temporary|script/.test(replay.why)

const wrappers: Record<string, (matrix: readonly Case[]) => Step[]> = {
  'at top level': (matrix) => singly(matrix, (lab, sql) => lab.client.query(sql)),
  'among comments and semicolons': (matrix) =>
    singly(inBlocks(matrix), (lab, sql) => lab.client.query(`/* é ; "'$$ */ -- x;\n\t ;; ${sql}\n ; -- behind; it\n`)),
  'as a named prepared statement': (matrix) =>
    singly(matrix, (lab, text, index) => lab.client.query({ name: `statement ${index}`, text })),
  'as static SQL of a DO block': (matrix) =>
    singly(
      inBlocks(matrix).filter(({ notInPlpgsql }) => notInPlpgsql === undefined),
      (lab, sql) => lab.client.query(`do $lab$ begin\n  perform 1;\n  ${sql};\nend $lab$`),
    ),
  'by functions in functions, with parameters': (matrix) =>
    singly(executed(matrix), (lab, sql) => lab.client.query('select lab.outer($1), $2::text', [sql, 'x'])),
  'in a SQL function with a hostile name and an overload': (matrix) => singly(inBlocks(matrix), runInSqlFunction),
  'by a trigger': (matrix) =>
    singly(executed(matrix), (lab, sql) => lab.client.query('insert into lab.run values ($1)', [sql])),
  'by a procedure that commits': (matrix) =>
    singly(executed(matrix), (lab, sql) => lab.client.query('call lab.commits($1)', [sql])),
  'as another role by SECURITY DEFINER': (matrix) =>
    singly(executed(matrix), async (lab, sql) => {
      await lab.client.query('set role lab_plain')
      await lab.client.query('select lab.definer($1)', [sql])
      await lab.client.query('reset role')
    }),
  'many in one string': (matrix) =>
    together(inBlocks(matrix), 15, (lab, all) => lab.client.query(`select 1; ${all.join(' ;\n-- next;\n')}; select 2`)),
  'two in one EXECUTE': (matrix) =>
    together(executed(matrix), 2, (lab, all) => lab.client.query('select lab.inner($1)', [all.join(';')])),
}

describe.each(Object.keys(everyday).map(Number))('on PostgreSQL %i', (major) => {
  let server: EmbeddedServer
  let labs = 0
  beforeAll(async () => {
    server = await startEmbedded({ package: packageOf(major), settings: { fsync: 'off' } })
    await Lab.prepare(server, preparation)
  })
  afterAll(() => server?.[Symbol.asyncDispose]())

  const openLab = (): Promise<Lab> => Lab.open(server, `lab_${++labs}`)

  async function run(lab: Lab, steps: readonly Step[]): Promise<CommandInput[][]> {
    for (const step of steps) {
      await step.run(lab).catch((error) => {
        throw new Error(`${step.cases.map(({ sql }) => sql).join('; ')}: ${error}`)
      })
      await lab.mark()
    }
    return lab.commands()
  }

  test.each(Object.keys(wrappers))('the first candidate is the statement %s', async (name) => {
    await using lab = await openLab()
    const steps = wrappers[name]?.(cases(major, server.port)) ?? []
    const groups = await run(lab, steps)
    const cursor = new StatementCursor()
    const found: unknown[] = []
    const right: unknown[] = []
    for (const [index, step] of steps.entries()) {
      for (const item of step.cases.filter(({ isSilent }) => !isSilent)) {
        right.push({ text: item.sql, replay: item.replay ?? { text: item.sql } })
      }
      for (const command of groups[index] ?? []) {
        const [statement] = await candidates(command, cursor)
        if (statement === undefined) {
          found.push({ none: command })
          continue
        }
        cursor.use(command, statement)
        const replay = rewriteForReplay(statement, command)
        if (isPassedOver(replay)) continue
        found.push({ text: statement.text, replay: replay.kind === 'run' ? { text: replay.text } : replay.kind })
      }
    }
    expect(found).toEqual(right)
  })

  test('the statement is among the candidates after a twin that was rolled back', async () => {
    await using lab = await openLab()
    const steps = singly(inBlocks(cases(major, server.port)), (client, sql) =>
      client.client.query(`begin; savepoint s; ${sql} /* undone */; rollback to s; ${sql}; commit`),
    )
    const groups = await run(lab, steps)
    for (const [index, { cases: some }] of steps.entries()) {
      const commands = (groups[index] ?? []).filter(({ objects }) => !objects.some(({ extension }) => extension))
      const [item, last] = [some[0], commands.at(-1)]
      if (item === undefined || item.isSilent) continue
      const texts = last === undefined ? [] : (await candidates(last)).map(({ text }) => text)
      expect({ sql: item.sql, texts }).toEqual({ sql: item.sql, texts: [`${item.sql} /* undone */`, item.sql] })
    }
  })

  /** The statements that are taken to have run, in order. */
  async function taken(lab: Lab, ...strings: string[]): Promise<string[]> {
    for (const sql of strings) await lab.client.query(sql)
    await lab.mark()
    const cursor = new StatementCursor()
    const texts: string[] = []
    for (const command of (await lab.commands())[0] ?? []) {
      const [first] = await candidates(command, cursor)
      if (first) cursor.use(command, first)
      if (first && isPassedOver(rewriteForReplay(first, command))) continue
      texts.push(first?.text ?? '')
    }
    return texts
  }

  test('a string that is sent again is gone through again', async () => {
    await using lab = await openLab()
    const statements = [
      'create table again (a int)',
      'alter table again add b int',
      'alter table again add c int',
      'alter table again drop b',
      'drop table again',
    ]
    const all = statements.join('; ')
    expect(await taken(lab, all, `begin; ${all}; rollback`, all, all)).toEqual([
      ...statements,
      ...statements,
      ...statements,
    ])
  })

  test('what is called alike is told apart by schema, case and arguments', async () => {
    await using lab = await openLab()
    const statements = [
      'create schema "S"',
      'create table "S".t (a int)',
      'create table t (a int)',
      'create table "T" (a int)',
      'create function f(int, "T") returns int language sql as $$ select 1 $$',
      'create function f(varchar, double precision[]) returns int language sql as $$ select 2 $$',
    ]
    const drops = [
      'drop function if exists f(varchar, float8[])',
      'drop table if exists t',
      'drop table if exists "S".t',
      'drop function if exists f(int, "T")',
      'drop table if exists "T"',
    ]
    expect(await taken(lab, statements.join(';'))).toEqual(statements)
    // Each drops one thing; the others are gone or come too early.
    await lab.quietly('drop table "S".t')
    const string = [...drops.slice(2), ...drops].join(';')
    expect(await taken(lab, string)).toEqual([drops[3], drops[4], drops[0], drops[1]])
  })

  test('what fires nothing is passed over', async () => {
    await using lab = await openLab()
    const statements = [
      'create temp table t (a text)',
      'create table public.t (a int, b int)',
      'alter table if exists gone rename a to z',
      'alter table if exists gone rename to z',
      'alter table public.t rename a to z',
      'alter table public.t rename to z',
      'create temp view v as select 1 as a',
      'create view public.v as select 1 as a',
      'create index if not exists z_b on z (b)',
      'create index if not exists z_b on z (z)',
      'create index on z (z)',
      'drop trigger if exists x on z',
      'drop view if exists pg_temp.v',
      'drop view v',
    ]
    expect(await taken(lab, statements.join(';'))).toEqual([1, 4, 5, 7, 8, 10, 13].map((place) => statements[place]))
  })

  test('hostile names made by format', async () => {
    await using lab = await openLab()
    const names = [
      'weird "name',
      'a"\nPL/pgSQL function f() line 1 at EXECUTE\n',
      'x; drop table y',
      'SQL statement "x"',
      'ü"',
    ]
    const texts = await taken(
      lab,
      `do $$ declare n text; begin
         foreach n in array array[${names.map((name) => `'${name}'`).join()}] loop execute format('create table %I (a int)', n); end loop;
       end $$`,
    )
    expect(texts).toEqual(names.map((name) => `create table "${name.replaceAll('"', '""')}" (a int)`))
  })

  test('frames in the text that can be read as its end', async () => {
    await using lab = await openLab()
    await lab.quietly(`create table far (a int); create table "new" (a int)`)
    const [first, second] = ['create table one (a int)', 'create table two (a int)']
    const sql = `${first}; -- the "new"\nCOPY "new" TO PROGRAM 'true'; ${second}; comment on table one is '"\nSQL function "lab" statement 1'`
    expect(await taken(lab, `select lab.inner($lab$${sql}$lab$)`)).toEqual([
      first,
      second,
      `comment on table one is '"\nSQL function "lab" statement 1'`,
    ])
  })

  test('backslashes that escape', async () => {
    await using lab = await openLab()
    const statements = [
      `create table v (a text default '\\'); drop table v; --', b text default e'\\'', c text default $$\\'$$, "d\\" text)`,
      `comment on table v is 'it\\'s; \\\\'`,
      `comment on table v is '\\\\'`,
      "create index v_a on v (a, (\"d\\\" || '\\';')) /* \\' */",
    ]
    expect(await taken(lab, 'set standard_conforming_strings = off', statements.join(';'))).toEqual(statements)
    expect(await taken(lab, `select lab.inner($lab$drop index v_a; ${statements[3]}$lab$)`)).toEqual([
      'drop index v_a',
      statements[3],
    ])
  })

  test('a table from a variable is known, and made from its state', async () => {
    await using lab = await openLab()
    await lab.client.query('do $$ declare v int := 7; begin create table made as select v as a; end $$')
    await lab.mark()
    const [command] = (await lab.commands())[0] ?? []
    const [statement] = command ? await candidates(command) : []
    expect(statement?.text).toBe('create table made as select v as a')
    expect(command && statement && rewriteForReplay(statement, command)).toMatchObject({ kind: 'state' })
  })

  test('what the script of an extension does is left to its command', async () => {
    await using lab = await openLab()
    const strings = [
      'create extension earthdistance cascade; create table g (a int); drop function if exists g_cube(int)',
    ]
    for (const sql of strings) await lab.client.query(sql)
    await lab.mark()
    const cursor = new StatementCursor()
    const kinds: string[] = []
    for (const command of (await lab.commands())[0] ?? []) {
      const [statement] = await candidates(command, cursor)
      if (statement) cursor.use(command, statement)
      const replay = statement && rewriteForReplay(statement, command)
      // What it makes is marked, so what it drops is what matters.
      if (command.objects.every(({ extension }) => !extension)) kinds.push(`${command.tag} ${replay?.kind}`)
    }
    expect(kinds).toEqual([
      'DROP FUNCTION skip',
      'DROP FUNCTION skip',
      'DROP OPERATOR skip',
      'DROP OPERATOR skip',
      'CREATE EXTENSION run',
      'CREATE TABLE run',
    ])
  })

  test('syntax that our parser has given up is cut at its semicolons', async ({ skip }) => {
    skip(major > 15, 'json_scalar is a word of its grammar')
    await using lab = await openLab()
    const statements = [
      'create table a1 (a int check (a > 0))',
      'create function json_scalar(int) returns int language sql as $$ select 1; select 2 $$',
      'create function f() returns int language sql begin atomic select 1; select case when true then 2 end; end',
      'create table a2 (a int)',
    ]
    expect(await taken(lab, `${statements.join('; -- next;\n')};`)).toEqual(statements)
  })
})

const name = (
  identity: string | null,
  type: string,
  state: Record<string, unknown> | null = null,
  extension = false,
) => ({
  class: 'pg_class',
  oid: 1,
  sub: 0,
  tag: '',
  type,
  schema: identity?.includes('.') ? (identity.split('.')[0] ?? null) : null,
  identity,
  address: null,
  extension,
  state,
})

const commandOf = (tag: string, query: string, over: Partial<CommandInput> = {}): CommandInput => ({
  v: 1,
  kind: 'ddl',
  tag,
  query,
  context: '',
  functions: [],
  role: 'r',
  session: 's',
  settings: {},
  time: '2026-01-01T00:00:00Z',
  objects: [name(null, 'TABLE')],
  rewritten: [],
  unknownRows: [],
  dropped: [],
  ...over,
})

describe('a frame in another language', () => {
  test.each([
    ['SQL-Anweisung »create table t (a text default $$»$$)«\nPL/pgSQL-Funktion f() Zeile 3 bei SQL-Anweisung'],
    ['instruction SQL « create table t (a text default $$»$$) »\nfonction PL/pgSQL f(), ligne 3 à instruction SQL'],
    ['sentencia SQL: «create table t (a text default $$»$$)»\nfunción PL/pgSQL f() en la línea 3 en sentencia SQL'],
    ['SQL-оператор: "create table t (a text default $$»$$)"\nфункция PL/pgSQL f(), строка 3, оператор SQL-оператор'],
  ])('tells the statement: %s', async (context) => {
    const found = await candidates(
      commandOf('CREATE TABLE', 'select f()', { context, objects: [name('public.t', 'table')] }),
    )
    expect(found.map(({ text }) => text)).toEqual(['create table t (a text default $$»$$)'])
  })
})

describe('a statement is replayed', () => {
  const replay = async (command: CommandInput) => {
    const [statement] = await candidates(command)
    if (statement === undefined) throw new Error('no candidate')
    return rewriteForReplay(statement, command)
  }

  test.each([
    ['ALTER TABLE', 'alter table p alter c type concurrently', 'alter table p alter c type concurrently'],
    [
      'CREATE INDEX',
      `create unique index concurrently if not exists "ü" on t (concurrently(a)) where b = 'concurrently'`,
      `create unique index  if not exists "ü" on t (concurrently(a)) where b = 'concurrently'`,
    ],
    ['CREATE INDEX', 'create index on t (concurrently(a))', 'create index on t (concurrently(a))'],
    ['DROP INDEX', 'drop index concurrently if exists s.i', 'drop index  if exists s.i'],
    ['SECURITY LABEL', `security label for dummy on table t is 'x'`, `security label for dummy on table t is 'x'`],
    [
      'ALTER TABLE',
      'alter table all in tablespace a set tablespace b nowait',
      'alter table all in tablespace a set tablespace b nowait',
    ],
  ])('%s: %s', async (tag, sql, text) => {
    expect(await replay(commandOf(tag, sql))).toEqual({ kind: 'run', text })
  })

  test.each([
    [
      'alter table only "p" detach partition /* concurrently */ s."concurrently" CONCURRENTLY -- now',
      'alter table only "p" detach partition /* concurrently */ s."concurrently"  -- now',
      'alter table only "p" detach partition /* concurrently */ s."concurrently" CONCURRENTLY  -- now',
    ],
    [
      'alter table p detach partition c finalize',
      'alter table p detach partition c',
      'alter table p detach partition c CONCURRENTLY',
    ],
  ])('outside of a transaction block where that does more: %s', async (sql, text, alone) => {
    expect(await replay(commandOf('ALTER TABLE', sql))).toEqual({ kind: 'run', text, alone })
  })

  test.each([
    ['SECURITY LABEL', `security label on table t is 'x'`, true],
    ['CREATE SUBSCRIPTION', `create subscription s connection '' publication p`, true],
    ['ALTER SUBSCRIPTION', 'alter subscription s enable', true],
    ['DROP SUBSCRIPTION', 'drop subscription s', false],
    ['REFRESH MATERIALIZED VIEW', 'refresh materialized view m', false],
    ['REINDEX', 'reindex (concurrently) table t', false],
  ])('%s not at all', async (tag, sql, report) => {
    expect(await replay(commandOf(tag, sql))).toMatchObject({ kind: 'skip', report })
  })

  test("not at all if it is about what is temporary, ours, or an extension's", async () => {
    const sql = 'alter table t add a int'
    const about = (...objects: CommandInput['objects']) => replay(commandOf('ALTER TABLE', sql, { objects }))
    expect(await about(name('pg_temp.t', 'table'))).toMatchObject({ kind: 'skip' })
    expect(await about(name('"a b" on pg_temp.t', 'trigger'))).toMatchObject({ kind: 'skip' })
    expect(await about(name('"a on pg_temp.t" on public.t', 'trigger'))).toEqual({ kind: 'run', text: sql })
    expect(await about(name('walback.t', 'table'))).toMatchObject({ kind: 'skip' })
    expect(await about(name('public.t', 'table', null, true))).toMatchObject({ kind: 'skip' })
    expect(await about(name('public.t', 'table'), name('pg_temp.t', 'table'))).toEqual({ kind: 'run', text: sql })
    expect(await about(name('walback_app.t', 'table'))).toEqual({ kind: 'run', text: sql })
  })

  test('CREATE LANGUAGE has no version, although it makes an extension', async () => {
    const objects = [name('pltcl', 'extension', { version: '1.0' })]
    const sql = 'create language pltcl'
    expect(await replay(commandOf('CREATE EXTENSION', sql, { objects }))).toEqual({ kind: 'run', text: sql })
    expect(await replay(commandOf('CREATE EXTENSION', 'create extension pltcl', { objects }))).toEqual({
      kind: 'run',
      text: `create extension pltcl VERSION '1.0'`,
    })
  })
})

test.each<[tag: string, sql: string, is: boolean]>([
  ['CREATE TABLE', 'create table t (a int references u)', false],
  ['CREATE TABLE', 'create table t partition of u for values in (1)', true],
  ['CREATE TABLE', 'create table t () INHERITS (u)', true],
  ['CREATE FUNCTION', 'create function f() returns int language sql as $$select 1$$', false],
  ['CREATE FUNCTION', 'create or /* */ replace function f() returns int language sql as $$select 1$$', true],
  ['CREATE FUNCTION', '', true],
  ['CREATE VIEW', 'create or replace view v as select 1', false],
  ['GRANT', 'grant select on t to u', false],
  ['COMMENT', `comment on table t is 'x'`, false],
  ['CREATE TEXT SEARCH CONFIGURATION', '', false],
  ['CREATE TABLE AS', 'create table t as select 1', true],
  ['CREATE INDEX', 'create index on t (a)', true],
  ['CREATE EXTENSION', 'create extension e', true],
  ['ALTER TABLE', 'alter table t add a int', true],
  ['DROP TABLE', 'drop table t', true],
])('%s waits for rows: %s', (tag, sql, is) => {
  expect(isBarrier(commandOf(tag, sql))).toBe(is)
  expect(isBarrier(commandOf(tag, '', sql === '' ? {} : { context: `SQL statement "${sql}"` }))).toBe(is)
})

test('a script of 3,000 statements is gone through in order', async () => {
  const statements = Array.from({ length: 3000 }, (_, index) => `alter table t${index % 300} add column c${index} int`)
  const query = statements.join(';\n')
  const cursor = new StatementCursor()
  for (const [index, text] of statements.entries()) {
    const command = commandOf('ALTER TABLE', query, { objects: [name(`public.t${index % 300}`, 'table')] })
    const [first] = await candidates(command, cursor)
    expect(first?.text).toBe(text)
    if (first) cursor.use(command, first)
  }
})

test('a cursor forgets old texts, and begins them again', async () => {
  const cursor = new StatementCursor()
  const command = commandOf('ALTER TABLE', 'alter table t add a int; alter table t add b int', {
    objects: [name('public.t', 'table')],
  })
  const next = async () => {
    const [first] = await candidates(command, cursor)
    if (first) cursor.use(command, first)
    return first?.text
  }
  expect(await next()).toBe('alter table t add a int')
  await candidates({ ...command, query: `comment on table t is '${'x'.repeat(9 << 20)}'` }, cursor)
  expect(await next()).toBe('alter table t add b int')
  await candidates({ ...command, query: `comment on table t is '${'y'.repeat(9 << 20)}'` }, cursor)
  await candidates({ ...command, query: `comment on table t is '${'z'.repeat(9 << 20)}'` }, cursor)
  expect(await next()).toBe('alter table t add a int')
})
