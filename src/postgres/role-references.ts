import { unreachable } from '../base/assert.ts'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import { parseQuery, type Statement } from './split-sql.ts'

/**
 * A place in a statement at which one role is named, or a list of them.
 *
 * - `role`: an owner, the user of a mapping, one who grants;
 * - `list`: grantees, a policy's roles, those whose default privileges they are;
 * - `session`: SET SESSION AUTHORIZATION and SET ROLE, as a statement or as a function's setting.
 *
 * An expression names none: PostgreSQL allows no constant of type regrole in what it stores.
 */
export interface RolePlace {
  readonly kind: 'role' | 'list' | 'session'
  /** Undefined for PUBLIC, CURRENT_USER and the like. */
  readonly names: readonly (string | undefined)[]
  /** Offsets of each name in the statement's UTF-8 text. */
  readonly spans: readonly { readonly start: number; readonly end: number }[]
}

/** Where a statement names roles, in the order of its text; nothing where the parser did not understand the statement. */
export function rolePlaces(statement: Pick<Statement, 'text' | 'node'>): RolePlace[] {
  // The statement was parsed among others, whose text its locations count; most name no role and are not parsed again.
  if (collect(statement.node).length === 0) return []
  const text = Buffer.from(statement.text, 'utf8').toString('latin1')
  const parsed = parseQuery(statement.text) ?? parseQuery(statement.text, true) ?? []
  return collect(parsed.map(({ node }) => node))
    .map(({ kind, names }) => ({
      kind,
      names: names.map(({ name }) => name),
      spans: names.map(({ location }) => ({ start: location, end: endOfToken(text, location) })),
    }))
    .sort((a, b) => (a.spans[0]?.start ?? 0) - (b.spans[0]?.start ?? 0))
}

/**
 * The statement with other names at its places: `nameFor` is asked for each. A name for which it has none goes from a
 * list; elsewhere it is an owner that becomes CURRENT_USER, or is left as it is. Nothing else of the text changes.
 */
export function replaceRoles(
  statement: Pick<Statement, 'text' | 'node'>,
  nameFor: (role: string) => string | undefined,
): string {
  const bytes = Buffer.from(statement.text, 'utf8')
  const parts: Buffer[] = []
  let from = 0
  for (const place of rolePlaces(statement)) {
    const [first, last] = [place.spans[0], place.spans.at(-1)]
    if (first === undefined || last === undefined || last.end <= first.start) continue
    parts.push(bytes.subarray(from, first.start), Buffer.from(textAt(place, bytes, nameFor), 'utf8'))
    from = last.end
  }
  return Buffer.concat([...parts, bytes.subarray(from)]).toString('utf8')
}

function textAt(place: RolePlace, bytes: Buffer, nameFor: (role: string) => string | undefined): string {
  const items = place.names.flatMap((name, n) => {
    const { start, end } = place.spans[n] as RolePlace['spans'][number]
    const asItWas = bytes.toString('utf8', start, end)
    if (name === undefined) return asItWas
    const other = nameFor(name)
    switch (place.kind) {
      case 'list':
        return other === undefined ? [] : quoteIdent(other)
      case 'role':
        return other === undefined ? 'CURRENT_USER' : quoteIdent(other)
      case 'session':
        return other === undefined || other === name ? asItWas : quoteLiteral(other).trim()
      default:
        return unreachable(place.kind)
    }
  })
  return [...new Set(items)].join(', ')
}

interface Found {
  readonly kind: RolePlace['kind']
  readonly names: readonly { readonly name: string | undefined; readonly location: number }[]
}

type Node = Readonly<Record<string, unknown>>

const isNode = (value: unknown): value is Node => typeof value === 'object' && value !== null

/** The places below a node of the parser's tree. */
function collect(node: unknown): Found[] {
  if (Array.isArray(node)) {
    const specs = node.flatMap((item) => (isNode(item) && isNode(item['RoleSpec']) ? [item['RoleSpec']] : []))
    return specs.length > 0 ? [{ kind: 'list', names: specs.map(roleOf) }] : node.flatMap(collect)
  }
  if (!isNode(node)) return []
  if (typeof node['roletype'] === 'string') {
    return node['rolename'] === undefined ? [] : [{ kind: 'role', names: [roleOf(node)] }]
  }
  const constant = sessionConstant(node)
  return constant === undefined ? Object.values(node).flatMap(collect) : [constant]
}

const roleOf = (spec: Node): Found['names'][number] => ({
  name: typeof spec['rolename'] === 'string' ? spec['rolename'] : undefined,
  location: Number(spec['location'] ?? 0),
})

/** The string of an A_Const, and where it stands. */
function stringOf(value: unknown): { name: string; location: number } | undefined {
  const constant = isNode(value) ? value['A_Const'] : undefined
  const sval = isNode(constant) ? constant['sval'] : undefined
  if (!isNode(constant) || !isNode(sval) || typeof sval['sval'] !== 'string') return undefined
  return { name: sval['sval'], location: Number(constant['location'] ?? 0) }
}

function sessionConstant(node: Node): Found | undefined {
  if (node['kind'] !== 'VAR_SET_VALUE' || (node['name'] !== 'role' && node['name'] !== 'session_authorization'))
    return undefined
  const value = stringOf(Array.isArray(node['args']) ? node['args'][0] : undefined)
  // SET ROLE none is no role.
  return value === undefined || value.name === 'none' ? undefined : { kind: 'session', names: [value] }
}

/** Names and constants of any spelling. The text has one character for each byte. */
const tokens = [
  /[uU]&"(?:[^"]|"")*"(?:\s+UESCAPE\s+'[^']*')?/iy,
  /[uU]&'(?:[^']|'')*'(?:\s+UESCAPE\s+'[^']*')?/iy,
  /"(?:[^"]|"")*"/y,
  /[eE]'(?:[^'\\]|\\[\s\S]|'')*'/y,
  /'(?:[^']|'')*'/y,
  /\$([^$]*)\$[\s\S]*?\$\1\$/y,
  /[A-Za-z_\x80-\xff][\w$\x80-\xff]*/y,
]

function endOfToken(text: string, start: number): number {
  for (const token of tokens) {
    token.lastIndex = start
    if (token.test(text)) return token.lastIndex
  }
  return start
}
