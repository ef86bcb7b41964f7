import { quoteIdent } from '../model/identifier.ts'
import { parseQuery, type Token, tokensOf } from './split-sql.ts'

/** Who a command ran as: current_user and session_user. */
export interface Who {
  readonly current: string
  readonly session: string
}

/**
 * The statement with the names of roles that it takes from its session: CURRENT_USER and the like where a role is named;
 * whose default privileges are altered; and the schema that has the name of its owner. An expression may still ask for
 * them. Text that the parser does not understand stays as it is.
 */
export function withRolesNamed(text: string, who: Who, escapes: boolean): string {
  const statement = parseQuery(text, escapes)?.[0]
  const tokens = statement && tokensOf(text, escapes)
  if (statement === undefined || tokens === undefined) return text
  const edits = sessionRoles(statement.node).map(({ type, location }) => {
    const name = quoteIdent(type === 'ROLESPEC_SESSION_USER' ? who.session : who.current)
    return { at: tokens.find(({ start }) => start === location), name: `${name}`, isInstead: true }
  })
  const { kind, node } = statement as { kind: string; node: Node }
  const before = (keyword: string): Token | undefined =>
    tokens.find((token) => token.isKeyword && token.text === keyword)
  if (kind === 'AlterDefaultPrivilegesStmt' && !hasOption(node, 'roles')) {
    // ALTER DEFAULT PRIVILEGES …
    edits.push({ at: tokens[3], name: `FOR ROLE ${quoteIdent(who.current)} `, isInstead: false })
  } else if (kind === 'CreateSchemaStmt' && node['schemaname'] === undefined) {
    const owner = nameOf(node['authrole'], who)
    if (owner !== undefined)
      edits.push({ at: before('authorization'), name: `${quoteIdent(owner)} `, isInstead: false })
  }
  const bytes = Buffer.from(text, 'utf8')
  const parts: string[] = []
  let from = 0
  for (const { at, name, isInstead } of edits.sort((a, b) => (a.at?.start ?? 0) - (b.at?.start ?? 0))) {
    if (at === undefined) return text
    parts.push(bytes.toString('utf8', from, at.start), name)
    from = isInstead ? at.end : at.start
  }
  return parts.join('') + bytes.toString('utf8', from)
}

type Node = Readonly<Record<string, unknown>>

const isNode = (value: unknown): value is Node => typeof value === 'object' && value !== null

const sessionTypes = new Set(['ROLESPEC_CURRENT_USER', 'ROLESPEC_CURRENT_ROLE', 'ROLESPEC_SESSION_USER'])

/** Places at which a role stands that only the session knows. */
function sessionRoles(node: unknown): { type: string; location: number }[] {
  if (Array.isArray(node)) return node.flatMap(sessionRoles)
  if (!isNode(node)) return []
  const { roletype, location } = node
  if (typeof roletype !== 'string') return Object.values(node).flatMap(sessionRoles)
  return sessionTypes.has(roletype) ? [{ type: roletype, location: Number(location ?? 0) }] : []
}

function nameOf(spec: unknown, who: Who): string | undefined {
  if (!isNode(spec)) return undefined
  if (spec['roletype'] === 'ROLESPEC_SESSION_USER') return who.session
  return typeof spec['rolename'] === 'string' ? spec['rolename'] : who.current
}

const hasOption = (node: Node, name: string): boolean =>
  Array.isArray(node['options']) &&
  node['options'].some((option) => isNode(option) && isNode(option['DefElem']) && option['DefElem']['defname'] === name)
