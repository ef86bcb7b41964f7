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

/** The statements, or undefined when the parser refuses the text. */
function parseStatements(sql: string): Statement[] | undefined {
  if (isBlank(sql)) return []
  let parsed: ReturnType<typeof parseSync>
  try {
    parsed = parseSync(sql)
  } catch {
    return undefined
  }
  // The parser counts in bytes of UTF-8, JavaScript's strings in UTF-16 units.
  const bytes = Buffer.from(sql, 'utf8')
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
