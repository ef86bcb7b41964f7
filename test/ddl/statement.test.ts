import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  type CommandInput,
  candidates,
  type DdlStatement,
  isBarrier,
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
        if (replay.kind === 'skip' && replay.why.includes('script')) continue
        found.push({ text: statement.text, replay: replay.kind === 'run' ? { text: replay.text } : replay.kind })
      }
    }
    expect(found).toEqual(right)
  })
})
