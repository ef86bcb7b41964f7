import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { quoteIdent } from '../model/identifier.ts'
import { type Statement, splitStatements } from '../postgres/split-sql.ts'

/** A dump's statements in the three turns in which a restore runs them. */
export interface SchemaStatements {
  /** Before rows. */
  readonly pre: readonly Statement[]
  /** After rows: indexes, constraints, triggers, policies. */
  readonly post: readonly Statement[]
  /** At the very end: event triggers would fire on what comes before. */
  readonly last: readonly Statement[]
  /** Materialized views in the order in which they were made, in which they can be filled. */
  readonly views: readonly { schema: string; name: string }[]
}

/** Takes the dump apart, and leaves out what walback itself had put into the source. */
export async function readStatements(
  preData: string,
  postData: string,
  own: { publications: readonly string[] },
): Promise<SchemaStatements> {
  const isWanted = (statement: Statement): boolean => !isOurs(statement, own.publications)
  const pre = (await splitStatements(preData)).filter(isWanted)
  const after = (await splitStatements(postData)).filter(isWanted)
  const isLast = (statement: Statement): boolean =>
    eventTriggerKinds.has(statement.kind) || isAboutEventTrigger(statement)
  return {
    pre,
    post: after.filter((statement) => !isLast(statement)),
    last: after.filter(isLast),
    // One that groups by a primary key is made after the key.
    views: [...pre, ...after].flatMap(materializedView),
  }
}

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

function materializedView(statement: Statement): { schema: string; name: string }[] {
  if (statement.kind !== 'CreateTableAsStmt') return []
  const node = text(statement.node)
  if (!node.includes('"OBJECT_MATVIEW"')) return []
  const match = /"rel":\{"schemaname":("(?:[^"\\]|\\.)*"),"relname":("(?:[^"\\]|\\.)*")/.exec(node)
  return match?.[1] && match[2]
    ? [{ schema: JSON.parse(match[1]) as string, name: JSON.parse(match[2]) as string }]
    : []
}

/**
 * Runs statements one by one. What only names a role that is not there, or what only a superuser may do and rows do not
 * depend on, is left out with a warning; anything else fails the restore.
 */
export async function runStatements(
  client: pg.Client,
  statements: readonly Statement[],
  options: {
    readonly onWarning: (warning: string) => void
    readonly onDone?: (() => void) | undefined
    readonly signal?: AbortSignal | undefined
  },
): Promise<void> {
  for (const statement of statements) {
    throwIfAborted(options.signal)
    try {
      await client.query(statement.text)
    } catch (error) {
      throwIfAborted(options.signal)
      if (!canBeLeftOut(statement, error)) throw statementFailure(statement, error)
      options.onWarning(`left out (${messageOf(error)}): ${firstLine(statement.text)}`)
      const rest = statement.kind === 'CreatePolicyStmt' ? await policyForOthers(client, statement) : undefined
      if (rest !== undefined) await client.query(rest)
    }
    options.onDone?.()
  }
}

/** A policy for those of its roles that are there; undefined when there is none of them. */
async function policyForOthers(client: pg.Client, { text: sql, node }: Statement): Promise<string | undefined> {
  const specs = (node as { roles?: { RoleSpec?: { rolename?: string } }[] }).roles ?? []
  const named = specs.flatMap(({ RoleSpec }) => RoleSpec?.rolename ?? [])
  const { rows } = await client.query<{ name: string }>(
    'SELECT rolname AS name FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)',
    [named],
  )
  const there = named.filter((name) => rows.some((row) => row.name === name))
  // pg_dump quotes names where they need it.
  const literally = (name: string): string => name.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
  const list = named.map((name) => `(?:${literally(name)}|${literally(quoteIdent(name))})`).join(', ')
  const to = new RegExp(` TO ${list}(?=\\s|$)`)
  return there.length === 0 || !to.test(sql)
    ? undefined
    : sql.replace(to, () => ` TO ${there.map(quoteIdent).join(', ')}`)
}

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

/** Statements that name the roles that they are for. */
const roleKinds = new Set(['CreatePolicyStmt', 'CreateUserMappingStmt'])

function canBeLeftOut(statement: Statement, error: unknown): boolean {
  const code = codeOf(error)
  // Around a GRANT that another role than the owner made: it is then granted by whoever restores.
  if (statement.kind === 'VariableSetStmt' && text(statement.node).includes('"name":"session_authorization"'))
    return code === '22023' || code === '42704' || code === '42501'
  if (roleKinds.has(statement.kind)) return code === '42704' && isAboutRole(error)
  if (rightsKinds.has(statement.kind)) {
    const isOwner = statement.kind !== 'AlterTableStmt' || /"AT_ChangeOwner"/.test(text(statement.node))
    return isOwner && (code === '42704' || code === '42501')
  }
  return describingKinds.has(statement.kind) && code === '42501'
}

/** `role "x" does not exist`, in whatever language: the server's source file for roles said it. */
const isAboutRole = (error: unknown): boolean =>
  typeof error === 'object' && error !== null && 'file' in error && error.file === 'acl.c'

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
