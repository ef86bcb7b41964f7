/** Edits of a statement's text at its tokens, so that what stands in strings, names and comments is left alone. */
import { type Token, tokensOf } from './split-sql.ts'

/** CREATE INDEX, DROP INDEX without CONCURRENTLY, which no transaction block allows. */
export function withoutConcurrently(text: string, escapes: boolean): string {
  const tokens = tokensOf(text, escapes) ?? []
  // The keyword cannot be the index's name, which comes later.
  const at = tokens.findIndex(isKeyword('index')) + 1
  const token = tokens[at]
  return at > 0 && token && isKeyword('concurrently')(token) ? cut(text, token) : text
}

/**
 * ALTER TABLE … DETACH PARTITION without CONCURRENTLY; and without FINALIZE, since what went before it failed, and is
 * not in the stream.
 */
export function detachedAtOnce(text: string, escapes: boolean): string {
  const last = tokensOf(text, escapes)?.at(-1)
  return last && (isKeyword('concurrently')(last) || isKeyword('finalize')(last)) ? cut(text, last) : text
}

/** The same as what DETACH … CONCURRENTLY does in two transactions, which leaves a CHECK on the partition. */
export const detachedInSteps = (text: string, escapes: boolean): string =>
  withClause(detachedAtOnce(text, escapes), 'CONCURRENTLY', escapes)

/** Puts a clause behind the last token, and so before a comment that may follow. */
export function withClause(text: string, clause: string, escapes: boolean): string {
  const last = tokensOf(text, escapes)?.at(-1)
  if (last === undefined) return text
  const bytes = Buffer.from(text, 'utf8')
  return `${bytes.toString('utf8', 0, last.end)} ${clause}${bytes.toString('utf8', last.end)}`
}

/** Whether it begins with these keywords: a statement may have another spelling with the same syntax tree. */
export const beginsWith = (text: string, keywords: readonly string[], escapes: boolean): boolean =>
  keywords.every((keyword, index) => tokensOf(text, escapes)?.[index]?.text === keyword)

const isKeyword =
  (keyword: string) =>
  (token: Token): boolean =>
    token.isKeyword && token.text === keyword

function cut(text: string, { start, end }: Token): string {
  const bytes = Buffer.from(text, 'utf8')
  return (bytes.toString('utf8', 0, start) + bytes.toString('utf8', end)).trim()
}
