import type pg from 'pg'
import { z } from 'zod'
import { throwIfAborted } from '../base/abort.ts'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { type Statement, splitStatements } from '../postgres/split-sql.ts'
import type { ObjectReference } from '../repository/base.ts'
import { readContainer } from '../repository/container.ts'
import type { Repository } from '../repository/repository.ts'
import type { Checkpoints } from './checkpoints.ts'
import type { RestorePlan } from './plan.ts'
import { isAboutRole, type Roles } from './roles.ts'

/** A dump's statements in the three turns in which a restore runs them. */
export interface SchemaStatements {
  /** Before rows. */
  readonly pre: readonly Statement[]
  /** After rows: indexes, constraints, triggers, policies. */
  readonly post: readonly Statement[]
  /** At the very end: event triggers would fire on what comes before. */
  readonly last: readonly Statement[]
}

/** The statements of a plan's base. */
export async function loadStatements(
  repository: Repository,
  { base, timeline }: Pick<RestorePlan, 'base' | 'timeline'>,
  signal: AbortSignal | undefined,
): Promise<SchemaStatements> {
  const text = async (reference: ObjectReference): Promise<string> => {
    const parts: Buffer[] = []
    for await (const part of readContainer(repository.storage, { ...reference, kind: 'text' }, signal)) {
      if (part.kind === 'block') parts.push(part.raw)
    }
    return Buffer.concat(parts).toString('utf8')
  }
  return readStatements(await text(base.schema.preData), await text(base.schema.postData), timeline)
}

/** Takes the dump apart, and leaves out what walback itself had put into the source. */
async function readStatements(
  preData: string,
  postData: string,
  own: { publications: readonly string[] },
): Promise<SchemaStatements> {
  const isWanted = (statement: Statement): boolean => !isOurs(statement, own.publications)
  const pre = (await splitStatements(preData)).filter(isWanted)
  // What functions are called for may not name everything: what comes after rows runs with the source's search_path.
  const after = (await splitStatements(postData)).filter((statement) => isWanted(statement) && !emptiesPath(statement))
  const isLast = (statement: Statement): boolean =>
    eventTriggerKinds.has(statement.kind) || isAboutEventTrigger(statement)
  return {
    pre,
    post: after.filter((statement) => !isLast(statement)),
    last: after.filter(isLast),
  }
}

const emptiesPath = ({ kind, text: sql }: Statement): boolean =>
  kind === 'SelectStmt' && sql.includes(`set_config('search_path'`)

const eventTriggerKinds = new Set(['CreateEventTrigStmt', 'AlterEventTrigStmt'])

const text = (node: unknown): string => JSON.stringify(node ?? null)

const isAboutEventTrigger = (statement: Statement): boolean =>
  (statement.kind === 'AlterOwnerStmt' || statement.kind === 'CommentStmt') &&
  text(statement.node).includes('"OBJECT_EVENT_TRIGGER"')

/** Event triggers whose name starts with `walback_`, our publications, and statements about either. */
function isOurs(statement: Statement, publications: readonly string[]): boolean {
  const node = text(statement.node)
  const names = (name: string): boolean =>
    node.includes(`"pubname":${JSON.stringify(name)}`) || node.includes(`"sval":${JSON.stringify(name)}`)
  if (statement.kind === 'CreateEventTrigStmt' || statement.kind === 'AlterEventTrigStmt')
    return /"trigname":"walback_/.test(node)
  if (isAboutEventTrigger(statement)) return /"sval":"walback_/.test(node)
  const isAboutPublication =
    statement.kind === 'CreatePublicationStmt' ||
    statement.kind === 'AlterPublicationStmt' ||
    ((statement.kind === 'AlterOwnerStmt' || statement.kind === 'CommentStmt') && node.includes('"OBJECT_PUBLICATION"'))
  return isAboutPublication && publications.some(names)
}

/** A statement that the target refused and that was left out: what else is to be told of it hangs on the error. */
export const refusalShape = z.object({ message: z.string(), code: z.string(), file: z.string().optional() })

/**
 * Runs statements one by one, for the roles that the target has. What only names a role that is not there, or what only
 * a superuser may do and rows do not depend on, is left out with a warning; anything else fails the restore. What an
 * earlier attempt has run is not run again, but for the settings that what comes next needs.
 */
export async function runStatements(
  client: pg.Client,
  statements: readonly Statement[],
  options: {
    readonly roles: Roles
    readonly points: Checkpoints
    /** What is noted has this name: each statement, or, which is faster, that all were run (by the caller, at the end). */
    readonly name: string
    readonly noted: 'each' | 'as one'
    readonly onWarning: (warning: string) => void
    readonly onDone?: (() => void) | undefined
    readonly signal?: AbortSignal | undefined
  },
): Promise<void> {
  const { roles, points, onWarning } = options
  const wasRun = (key: string): boolean => points.has(options.noted === 'each' ? key : options.name)
  const run = (key: string, sql: string): Promise<unknown> =>
    options.noted === 'each' ? points.run(client, key, sql) : client.query(sql)
  let runsAsAnother = false
  const leftOut = (statement: Statement, error: unknown): void => {
    if (!roles.isRefusal(statement, error)) onWarning(`left out (${messageOf(error)}): ${firstLine(statement.text)}`)
  }
  for (const [place, statement] of statements.entries()) {
    throwIfAborted(options.signal)
    const key = `${options.name} ${place}`
    const sql = roles.statementFor(statement)
    const refused = points.get(`${key} refused`, refusalShape)
    if (refused !== undefined) leftOut(statement, Object.assign(new Error(refused.message), refused))
    if (statement.kind === 'VariableSetStmt') runsAsAnother = setsUser(statement, runsAsAnother)
    try {
      // Grants in another's name are run again: to note them, one has to be oneself.
      if (sql === undefined) continue
      if (statement.kind === 'VariableSetStmt' || runsAsAnother) await client.query(sql)
      else if (refused === undefined && !wasRun(key)) await run(key, sql)
    } catch (error) {
      throwIfAborted(options.signal)
      if (!canBeLeftOut(statement, error)) throw statementFailure(statement, error)
      leftOut(statement, error)
      // What comes next would go where the statement before this one said.
      if (setsTablespace(statement)) await client.query("SET default_tablespace = ''")
      else if (statement.kind !== 'VariableSetStmt' && !runsAsAnother)
        await points.note(
          client,
          `${key} refused`,
          refusalShape.parse({ ...(error as object), message: messageOf(error) }),
        )
    } finally {
      options.onDone?.()
    }
  }
}

const setsUser = (statement: Statement, before: boolean): boolean =>
  text(statement.node).includes('"name":"session_authorization"')
    ? text(statement.node).includes('"kind":"VAR_SET_VALUE"')
    : before

/** Statements about rights and owners, and such as describe but hold nothing. */
const rightsKinds = new Set([
  'AlterOwnerStmt',
  'GrantStmt',
  'GrantRoleStmt',
  'AlterDefaultPrivilegesStmt',
  'AlterTableStmt',
])
const describingKinds = new Set([
  'CommentStmt',
  'CreatePublicationStmt',
  'AlterPublicationStmt',
  'CreateEventTrigStmt',
  'AlterEventTrigStmt',
  'SecLabelStmt',
])

const setsTablespace = (statement: Statement): boolean =>
  statement.kind === 'VariableSetStmt' && text(statement.node).includes('"name":"default_tablespace"')

function canBeLeftOut(statement: Statement, error: unknown): boolean {
  const code = codeOf(error)
  if (setsTablespace(statement)) return code === '22023'
  // Around a GRANT that another role than the owner made: it is then granted by whoever restores.
  if (statement.kind === 'VariableSetStmt' && text(statement.node).includes('"name":"session_authorization"'))
    return code === '22023' || code === '42704' || code === '42501'
  if (statement.kind === 'CreatePolicyStmt') return code === '42704' && isAboutRole(error)
  // Of two roles in whose place one is put, both may have had a mapping.
  if (statement.kind === 'CreateUserMappingStmt') return (code === '42704' && isAboutRole(error)) || code === '42710'
  if (rightsKinds.has(statement.kind)) {
    const isOwner = statement.kind !== 'AlterTableStmt' || /"AT_ChangeOwner"/.test(text(statement.node))
    return isOwner && (code === '42704' || code === '42501')
  }
  return describingKinds.has(statement.kind) && code === '42501'
}

function statementFailure(statement: Statement, error: unknown): WalbackError {
  const code = codeOf(error)
  const hint =
    code === '0A000' || code === '58P01' || code === '42704'
      ? 'the target server lacks something that the source has (an extension, a language, a collation, a role); install it, then restore again'
      : code === '42501'
        ? 'restore as a superuser, or as the role that owned the source'
        : 'the target was left as it was; see the server log for details'
  return new WalbackError(
    'database',
    `the target refused a statement of the schema: ${messageOf(error)}: ${firstLine(statement.text)}`,
    { cause: error, hint },
  )
}

const firstLine = (sql: string): string => {
  const line = sql.trim().split('\n')[0] ?? ''
  return line.length > 120 ? `${line.slice(0, 117)}…` : line
}
