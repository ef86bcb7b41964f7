/**
 * The two spellings of a connection string: `postgres://…` URIs and `key=value` pairs, parsed as libpq's `conninfo_uri_parse`
 * and `conninfo_parse` do (src/interfaces/libpq/fe-connect.c).
 *
 * No message shows a piece of the text. A password with an unquoted space or an unescaped `@` is read as something else (a
 * host, a port, a parameter name), so whatever is shown may be a part of one. Messages give positions instead.
 */
import { WalbackError } from '../base/errors.ts'
import { isParameter, type Parameter, parametersHint, type Settings } from './conninfo-parameters.ts'

const encodeHint =
  'percent-encode special characters, above all in the password: @ is %40, / is %2F, ? is %3F, # is %23, % is %25, a space is %20'
const quoteHint =
  "write key=value pairs, with single quotes around values with spaces: password='a b'; \\' and \\\\ inside quotes"

const malformed = (problem: string, hint: string): WalbackError =>
  new WalbackError('usage', `malformed connection string: ${problem}`, { hint })

export function parseConninfoText(text: string): Settings {
  const trimmed = text.trim() // a URI read from a file ends in a newline
  if (trimmed.includes('\0')) throw malformed('it contains a NUL character', encodeHint)
  if (/^postgres(ql)?:\/\//.test(trimmed)) return parseUri(trimmed)
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(trimmed))
    throw malformed('it is a URI of another kind', 'PostgreSQL URIs start with postgres:// or postgresql://')
  return parsePairs(text.trimStart()) // an escaped space at the end is a part of the value
}

function decode(encoded: string, what: string): string {
  if (/%(?![0-9a-f]{2})/i.test(encoded)) throw malformed(`bad percent-encoding in the ${what}`, encodeHint)
  if (encoded.includes('%00')) throw malformed(`%00 in the ${what}`, encodeHint)
  try {
    return decodeURIComponent(encoded)
  } catch {
    // libpq would take any bytes; PostgreSQL's own names and passwords reach us as UTF-8 or not at all.
    throw malformed(`the percent-encoded bytes of the ${what} are not UTF-8`, encodeHint)
  }
}

/** Splits at the first occurrence; the tail is undefined when there is none. */
function cut(text: string, at: number): readonly [string, string | undefined] {
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}

function parseUri(uri: string): Settings {
  const settings = new Map<Parameter, string>()
  const put = (parameter: Parameter, encoded: string | undefined, what: string): void => {
    if (encoded !== undefined && encoded !== '') settings.set(parameter, decode(encoded, what))
  }
  let rest = uri.slice(uri.indexOf('://') + 3)

  // As libpq: credentials end at the first @, if that comes before the first slash.
  const at = rest.search(/[@/]/)
  if (at >= 0 && rest[at] === '@') {
    const credentials = rest.slice(0, at)
    // libpq takes this for a user name; it is a query that lost its slash, and what it says of passwords would be shown as a user.
    if (/\?\w+=/.test(credentials)) throw malformed('a question mark before the @', encodeHint)
    const [user, password] = cut(credentials, credentials.indexOf(':'))
    put('user', user, 'user')
    put('password', password, 'password')
    rest = rest.slice(at + 1)
  }

  const pathAt = rest.search(/[/?]/)
  const authority = pathAt < 0 ? rest : rest.slice(0, pathAt)
  const tail = pathAt < 0 ? '' : rest.slice(pathAt)
  const [path, query] = cut(tail, tail.indexOf('?'))
  // libpq would look for a host or a database of this name. It is a password with a raw @ or / in it, nearly always.
  if (authority.includes('@') || path.includes('@')) throw malformed('an @ where no @ can be', encodeHint)

  const servers = splitAuthority(authority)
  put('host', servers.hosts, 'host')
  put('port', servers.ports, 'port')
  put('dbname', path.slice(1), 'database')
  if (query !== undefined) for (const [parameter, value] of parseQuery(query)) settings.set(parameter, value)
  return settings
}

/** `a:1,[::1]:2` as the comma-separated lists that `host` and `port` take. */
function splitAuthority(authority: string): { readonly hosts: string; readonly ports: string } {
  const hosts: string[] = []
  const ports: string[] = []
  for (const [index, server] of authority.split(',').entries()) {
    const match = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(.*))?$/.exec(server)
    if (!match) throw malformed(`host ${index + 1} is neither name, name:port nor [IPv6 address]:port`, encodeHint)
    if (match[1] === '') throw malformed(`the IPv6 address of host ${index + 1} is empty`, encodeHint)
    hosts.push(match[1] ?? match[2] ?? '')
    ports.push(match[3] ?? '')
  }
  // As in libpq, a single host without a port leaves it to PGPORT, but a list of hosts is a list of ports, empty for the default.
  return { hosts: hosts.join(','), ports: ports.join(',') }
}

function parseQuery(query: string): Settings {
  const settings = new Map<Parameter, string>()
  const pairs = query.replace(/(?<=[\s\S])&$/, '') // libpq lets the last pair end in one
  if (pairs === '') return settings
  for (const [index, pair] of pairs.split('&').entries()) {
    const parts = pair.split('=')
    if (parts.length !== 2) throw malformed(`query parameter ${index + 1} is not of the form name=value`, encodeHint)
    const name = decode(parts[0] ?? '', 'query')
    const value = decode(parts[1] ?? '', 'query')
    // JDBC's spelling, which libpq takes too.
    if (name === 'ssl' && value === 'true') settings.set('sslmode', 'require')
    else if (isParameter(name)) settings.set(name, value)
    else throw malformed(`query parameter ${index + 1} is unknown`, parametersHint)
  }
  return settings
}

const pairName = /\s*([^\s=]*)\s*/y
const quotedValue = /\s*'((?:\\[\s\S]|[^'\\])*)'/y
const bareValue = /\s*((?:\\[\s\S]|[^\s\\])*)\\?/y
const unescape = (value: string): string => value.replace(/\\([\s\S])/g, '$1')

function parsePairs(text: string): Settings {
  const settings = new Map<Parameter, string>()
  let position = 0
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = position
    const match = pattern.exec(text)
    if (match) position = pattern.lastIndex
    return match?.[1]
  }
  while (position < text.length) {
    const start = position
    const name = take(pairName) ?? ''
    if (text[position] !== '=') throw malformed(`no = after the name at character ${start + 1}`, quoteHint)
    position += 1
    if (!isParameter(name)) throw malformed(`unknown parameter at character ${start + 1}`, parametersHint)
    const valueAt = position
    const isQuoted = text.slice(position).trimStart().startsWith("'")
    const value = take(isQuoted ? quotedValue : bareValue)
    if (value === undefined) throw malformed(`the quote after character ${valueAt} is not closed`, quoteHint)
    settings.set(name, unescape(value))
    while (/\s/.test(text[position] ?? '')) position += 1
  }
  return settings
}
