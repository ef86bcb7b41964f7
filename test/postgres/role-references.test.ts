import { describe, expect, it } from 'vitest'
import { replaceRoles, rolePlaces } from '../../src/postgres/role-references.ts'
import { splitStatements } from '../../src/postgres/split-sql.ts'

/** The statement with `a` and hostile names replaced, and `gone` missing. */
async function replaced(sql: string): Promise<string> {
  // Behind another one, in bytes that are not characters: places are counted in the text of the statement itself.
  const [, statement] = await splitStatements(`SELECT 'é漢';\n-- ü\n${sql};`)
  if (statement === undefined) throw new Error('there is no statement')
  return replaceRoles(statement, (role) => (role === 'gone' ? undefined : `New ${role}`))
}

describe('roles in statements', () => {
  it.each([
    ['ALTER TABLE "é".a OWNER TO a', 'ALTER TABLE "é".a OWNER TO "New a"'],
    ['ALTER TABLE a OWNER TO "a ""b"" é=\n"', 'ALTER TABLE a OWNER TO "New a ""b"" é=\n"'],
    ['ALTER TABLE a OWNER TO U&"\\0061 b"', 'ALTER TABLE a OWNER TO "New a b"'],
    [`ALTER TABLE a OWNER TO u&"!0061" UESCAPE '!'`, 'ALTER TABLE a OWNER TO "New a"'],
    ['ALTER TABLE a OWNER TO ÉCOLE', 'ALTER TABLE a OWNER TO "New École"'],
    ['ALTER TABLE a OWNER TO session_user', 'ALTER TABLE a OWNER TO session_user'],
    ['ALTER TABLE a OWNER TO a, ADD COLUMN a int', 'ALTER TABLE a OWNER TO "New a", ADD COLUMN a int'],
    ['ALTER TABLE a OWNER TO gone, ADD COLUMN a int', 'ALTER TABLE a OWNER TO CURRENT_USER, ADD COLUMN a int'],
    ['CREATE SCHEMA a AUTHORIZATION gone', 'CREATE SCHEMA a AUTHORIZATION CURRENT_USER'],
    [
      'GRANT SELECT (a) ON a TO GROUP a, gone, PUBLIC, "B" WITH GRANT OPTION GRANTED BY a',
      'GRANT SELECT (a) ON a TO GROUP "New a", PUBLIC, "New B" WITH GRANT OPTION GRANTED BY "New a"',
    ],
    [
      'ALTER DEFAULT PRIVILEGES FOR ROLE a, b IN SCHEMA a REVOKE SELECT ON TABLES FROM a',
      'ALTER DEFAULT PRIVILEGES FOR ROLE "New a", "New b" IN SCHEMA a REVOKE SELECT ON TABLES FROM "New a"',
    ],
    [
      `CREATE POLICY a ON a TO gone, a, current_user USING (a = 'a')`,
      `CREATE POLICY a ON a TO "New a", current_user USING (a = 'a')`,
    ],
    ['CREATE USER MAPPING FOR a SERVER a', 'CREATE USER MAPPING FOR "New a" SERVER a'],
    [`SET SESSION AUTHORIZATION a`, `SET SESSION AUTHORIZATION 'New a'`],
    [`SET SESSION AUTHORIZATION "a\\"`, `SET SESSION AUTHORIZATION E'New a\\\\'`],
    [`SET SESSION AUTHORIZATION E'a\\'b'`, `SET SESSION AUTHORIZATION 'New a''b'`],
    [`SET SESSION AUTHORIZATION $x$a$x$`, `SET SESSION AUTHORIZATION 'New a'`],
    ['RESET SESSION AUTHORIZATION', 'RESET SESSION AUTHORIZATION'],
    ['SET ROLE none', 'SET ROLE none'],
    [
      `CREATE FUNCTION a() RETURNS text LANGUAGE sql SET role TO 'a' AS $$ SET ROLE a; SELECT 'a' $$`,
      `CREATE FUNCTION a() RETURNS text LANGUAGE sql SET role TO 'New a' AS $$ SET ROLE a; SELECT 'a' $$`,
    ],
    [`CREATE TABLE a (a text DEFAULT 'a')`, `CREATE TABLE a (a text DEFAULT 'a')`],
  ])('%s', async (sql, wanted) => {
    expect(await replaced(sql)).toBe(wanted)
  })

  it('are told with what they are there for', async () => {
    const [statement] = await splitStatements('CREATE POLICY p ON t TO a, PUBLIC')
    const places = statement === undefined ? [] : rolePlaces(statement)
    expect(places).toEqual([
      {
        kind: 'list',
        names: ['a', undefined],
        spans: [
          { start: 24, end: 25 },
          { start: 27, end: 33 },
        ],
      },
    ])
  })
})
