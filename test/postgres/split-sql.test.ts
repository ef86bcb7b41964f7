import { describe, expect, test } from 'vitest'
import { splitStatements } from '../../src/postgres/split-sql.ts'

const texts = async (sql: string) => (await splitStatements(sql)).map(({ text }) => text)
const kinds = async (sql: string) => (await splitStatements(sql)).map(({ kind }) => kind)

/** An entry of a dump, with the comment that pg_dump writes above it. */
const entry = (name: string, sql: string, type = 'TABLE'): string =>
  `--\n-- Name: ${name}; Type: ${type}; Schema: public; Owner: postgres\n--\n\n${sql}\n\n\n`

const newSyntax = 'CREATE FROBNICATION x (a; b);'

describe('the parser splits', () => {
  test('without the comments before and the semicolon after', async () => {
    expect(await texts('-- one;\nSET a = 1; /* ; */ SELECT 2 -- three;\n;\n\n--\n-- end\n--\n')).toEqual([
      'SET a = 1',
      'SELECT 2 -- three;',
    ])
  })

  test('nothing', async () => {
    expect(await splitStatements('')).toEqual([])
    expect(await splitStatements('\n--\n-- PostgreSQL database dump complete\n--\n\n')).toEqual([])
    expect(await splitStatements('/* only */ -- this')).toEqual([])
  })

  test('around quotations of every kind', async () => {
    const statements = [
      `CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $a$ BEGIN RETURN $$;$$ || ';' || $b$;$b$; END; $a$`,
      `CREATE FUNCTION g() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END`,
      `CREATE TABLE "semi;colon ""q"" \n newline" (a text DEFAULT ';' , b text DEFAULT E'\\';')`,
      `CREATE RULE r AS ON DELETE TO t DO INSTEAD (SELECT 1; SELECT 2)`,
      `COMMENT ON TABLE t IS '--\n-- Name: x; Type: TABLE; Schema: public; Owner: postgres\n--\n'`,
    ]
    expect(await texts(statements.join(';\n'))).toEqual(statements)
  })

  test('by bytes, not by UTF-16 units', async () => {
    const statements = ['CREATE TABLE "größe 🐘" ("日本" text)', `COMMENT ON TABLE "größe 🐘" IS 'é;🐘'`, 'SELECT 1']
    expect(await texts(`${statements.join(';')};`)).toEqual(statements)
  })

  test('and names the kind', async () => {
    expect(await kinds('CREATE TABLE a (); ALTER TABLE a OWNER TO b; GRANT SELECT ON a TO b; SET x = 1')).toEqual([
      'CreateStmt',
      'AlterTableStmt',
      'GrantStmt',
      'VariableSetStmt',
    ])
    const [statement] = await splitStatements('CREATE TABLE s.a ()')
    expect(statement?.node).toMatchObject({ relation: { schemaname: 's', relname: 'a' } })
  })
})

describe('when the parser refuses the whole', () => {
  test('only the entry that it does not know stays in one piece', async () => {
    const dump = `SET a = 1;\n\n${entry('a', 'CREATE TABLE a ();\n\n\nALTER TABLE a OWNER TO b;')}${entry('x', newSyntax)}${entry('ü', 'CREATE TABLE "ü" ();')}`
    const statements = await splitStatements(dump)
    expect(statements.map(({ kind }) => kind)).toEqual([
      'VariableSetStmt',
      'CreateStmt',
      'AlterTableStmt',
      'unknown',
      'CreateStmt',
    ])
    expect(statements[3]).toEqual({ text: entry('x', newSyntax).trim(), kind: 'unknown', node: undefined })
    expect(statements[4]?.text).toBe('CREATE TABLE "ü" ()')
  })

  test.each([
    [
      "a function's body",
      (text: string) => `CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $_$ BEGIN\n${text}END $_$`,
    ],
    ['a constant', (text: string) => `COMMENT ON TABLE a IS 'it''s\n${text}'`],
    ['a quoted name', (text: string) => `CREATE TABLE "a\n${text}" ()`],
    ['an escaped constant', (text: string) => `COMMENT ON TABLE a IS E'\\'\n${text}'`],
  ])('what looks like an entry in %s is none', async (_, quote) => {
    const statement = quote(entry('fake', 'SELECT 1;') + entry('fake too', 'SELECT 2;'))
    const dump = entry('first', `${statement};`) + entry('x', newSyntax) + entry('last', 'CREATE TABLE z ();')
    const statements = await splitStatements(dump)
    expect(statements.map(({ kind }) => kind).slice(1)).toEqual(['unknown', 'CreateStmt'])
    expect(statements[0]?.text).toBe(statement)
  })

  test('new syntax around a body that looks like an entry stays whole', async () => {
    const strange = `CREATE FROBNICATION f AS $$\n${entry('fake', 'SELECT 1;')}$$;`
    const statements = await splitStatements(entry('x', strange) + entry('last', 'CREATE TABLE z ();'))
    expect(statements.map(({ kind }) => kind)).toEqual(['unknown', 'CreateStmt'])
    expect(statements[0]?.text).toContain(strange)
  })

  test('text without entries is one statement of an unknown kind', async () => {
    expect(await splitStatements(`  ${newSyntax} `)).toEqual([{ text: newSyntax, kind: 'unknown', node: undefined }])
  })
})

test('5,000 tables, with and without a refusal, take seconds at most', async () => {
  const table = (index: number) =>
    entry(
      `größe_${index}`,
      `CREATE TABLE public."größe_${index}" (\n    id bigint NOT NULL,\n    b text DEFAULT 'x;y'\n);\n\n\nALTER TABLE public."größe_${index}" OWNER TO postgres;`,
    )
  const dump = Array.from({ length: 5_000 }, (_, index) => table(index)).join('')
  for (const [sql, expected] of [
    [dump, 10_000],
    [dump + entry('x', newSyntax), 10_001],
  ] as const) {
    const began = performance.now()
    expect(await splitStatements(sql)).toHaveLength(expected)
    // Measured at 0.4 s and 0.9 s.
    expect(performance.now() - began).toBeLessThan(10_000)
  }
}, 30_000)
