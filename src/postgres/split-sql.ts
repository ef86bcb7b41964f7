import { loadModule, parseSync, scanSync } from 'libpg-query'
import { messageOf } from '../base/errors.ts'

/** One SQL statement, without the comments before it and the semicolon after it. */
export interface Statement {
  readonly text: string
  /** The name of libpg-query's AST node, such as `CreateStmt`; `unknown` where the parser refused the text. */
  readonly kind: string
  /** The AST node itself; undefined when the kind is `unknown`. */
  readonly node: unknown
}

/**
 * Splits SQL into its statements with PostgreSQL's own parser, so that semicolons in function bodies, strings and
 * SQL-standard bodies split nothing.
 *
 * The parser is one release's; a dump of a newer server may use syntax that it does not know, and it refuses its input
 * as a whole. The text is then cut at the comment that `pg_dump` writes above every entry, and only an entry that the
 * parser refuses stays in one piece, as a statement (or several) of kind `unknown`.
 *
 * The parser is synchronous: about 0.75 s for each megabyte, in which nothing else of this thread runs.
 */
export async function splitStatements(sql: string): Promise<Statement[]> {
  await loadModule()
  const whole = parseStatements(sql)
  if (whole) return whole
  return entriesOf(sql).flatMap((entry) => parseStatements(entry) ?? [unparsed(entry)])
}

/** Loads the parser, which the functions below need. */
export const loadParser: () => Promise<void> = loadModule

/**
 * Splits what a client sent, or a function ran, into its statements. A server of another major version may have
 * understood what our parser does not: the text is then cut at its semicolons, and only what is refused by itself is of
 * kind `unknown`. `escapes`: backslashes escape in every string, as without `standard_conforming_strings`.
 */
export const splitQuery = (sql: string, escapes = false): Statement[] =>
  parseQuery(sql, escapes) ?? piecesOf(sql, escapes).flatMap((piece) => parseQuery(piece, escapes) ?? [unparsed(piece)])

/** As `splitQuery`, but undefined when the parser refuses the text. */
export const parseQuery = (sql: string, escapes = false): Statement[] | undefined =>
  parseStatements(maskEscapes(sql, escapes), sql)

/** A token of SQL, with its place in bytes of UTF-8. */
export interface Token {
  readonly start: number
  readonly end: number
  /** In lower case if it is a keyword, and not the quoted name that is spelled like one. */
  readonly text: string
  readonly isKeyword: boolean
}

/** The tokens without comments; undefined where even the lexer refuses. */
export function tokensOf(sql: string, escapes = false): Token[] | undefined {
  let scanned: ReturnType<typeof scanSync>
  try {
    scanned = scanSync(maskEscapes(sql, escapes))
  } catch {
    return undefined
  }
  return scanned.tokens
    .filter(({ tokenName }) => tokenName !== 'SQL_COMMENT' && tokenName !== 'C_COMMENT')
    .map(({ start, end, text, keywordKind }) => {
      const isKeyword = keywordKind !== 0
      return { start, end, isKeyword, text: isKeyword ? text.toLowerCase() : text }
    })
}

/** Cut at the semicolons that are in no parentheses and in no SQL-standard body, and without the comments before. */
function piecesOf(sql: string, escapes: boolean): string[] {
  const tokens = tokensOf(sql, escapes)
  if (tokens === undefined) return [sql]
  const bytes = Buffer.from(sql, 'utf8')
  const pieces: string[] = []
  let from: number | undefined
  let [depth, body] = [0, 0]
  for (const [index, { text, isKeyword, start }] of tokens.entries()) {
    if (text === ';' && depth === 0 && body === 0) {
      if (from !== undefined) pieces.push(bytes.toString('utf8', from, start))
      from = undefined
      continue
    }
    from ??= start
    if (text === '(') depth++
    else if (text === ')') depth--
    else if (isKeyword && text === 'begin' && tokens[index + 1]?.text === 'atomic') body++
    else if (isKeyword && body > 0 && text === 'case') body++
    else if (isKeyword && body > 0 && text === 'end') body--
  }
  return from === undefined ? pieces : [...pieces, bytes.toString('utf8', from)]
}

const quotation =
  /--[^\n]*|\/\*[\s\S]*?\*\/|"[^"]*"|\$([\p{L}_][\p{L}\p{N}_]*)?\$[\s\S]*?\$\1\$|'(?:[^'\\]|\\[\s\S]|'')*'/gu

/** The text as our parser has to see it, who knows standard strings only: as long, in bytes, as it was. */
const maskEscapes = (sql: string, escapes: boolean): string =>
  escapes && sql.includes('\\')
    ? sql.replace(quotation, (quoted) => (quoted.startsWith("'") ? quoted.replace(/\\[\\']/g, '..') : quoted))
    : sql

/** The statements, or undefined when the parser refuses the text, of which `original` is the spelling to give back. */
function parseStatements(sql: string, original = sql): Statement[] | undefined {
  if (isBlank(sql)) return []
  let parsed: ReturnType<typeof parseSync>
  try {
    parsed = parseSync(sql)
  } catch {
    return undefined
  }
  // The parser counts in bytes of UTF-8, JavaScript's strings in UTF-16 units.
  const bytes = Buffer.from(original, 'utf8')
  return (parsed.stmts ?? []).map(({ stmt, stmt_location = 0, stmt_len }) => {
    const end = stmt_len ? stmt_location + stmt_len : bytes.length
    const [kind = 'unknown', node] = Object.entries(stmt ?? {})[0] ?? []
    return { text: bytes.toString('utf8', stmt_location, end).trim(), kind, node: node as unknown }
  })
}

const unparsed = (entry: string): Statement => ({ text: entry.trim(), kind: 'unknown', node: undefined })

/** The comment above an entry: `_printTocEntry` of `pg_backup_archiver.c`, which keeps it on one line. */
const entryHeader = /^--\n-- (?:Data for )?Name: [^\n]*; Type: [^\n]*; Schema: [^\n]*; Owner: [^\n]*\n--\n/gm

/**
 * The dump in pieces, one for what comes before the first entry and one for each entry. Text that looks like an
 * entry's comment may stand in a function body or a quoted name: a piece that ends inside a quotation runs on.
 */
function entriesOf(sql: string): string[] {
  const starts = [...sql.matchAll(entryHeader)].map((match) => match.index)
  const entries: string[] = []
  let from = 0
  for (const end of [...starts, sql.length]) {
    const piece = sql.slice(from, end)
    if (end < sql.length && endsInQuotation(piece)) continue
    if (!isBlank(piece)) entries.push(piece)
    from = end
  }
  return entries
}

/** Asks the lexer, which knows quotations of every kind and does not mind syntax that is new to the parser. */
function endsInQuotation(sql: string): boolean {
  try {
    scanSync(sql)
    return false
  } catch (error) {
    // The binding takes the lexer's refusal ("unterminated dollar-quoted string") for JSON, and quotes its beginning.
    return messageOf(error).includes('unterminat')
  }
}

/** Whether the text holds nothing but space and whole-line comments, for which the parser has no statement. */
const isBlank = (sql: string): boolean => /^(?:\s|--[^\n]*(?:\n|$))*$/.test(sql)
