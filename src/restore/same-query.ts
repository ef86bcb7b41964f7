/**
 * Whether two texts of a view's query, as servers before and from 16 on write them, are the same query. Both quote every
 * identifier. Before 16 a view's range table had entries for OLD and NEW, so that each column of a view of one table was
 * written with the table's name before it (`make_ruledef` and `get_query_def` of ruleutils.c); from 16 on it is not.
 */
export const isSameQuery = (a: string, b: string): boolean => a === b || withoutOnlyName(a) === withoutOnlyName(b)

/** The text without its one table's name before columns; unchanged where there are several, which all are named then. */
function withoutOnlyName(query: string): string {
  const tokens = query.match(/'(?:[^']|'')*'|"(?:[^"]|"")*"|\w+|[^\s\w]/g) ?? []
  const name = onlyName(tokens)
  return tokens
    .filter((token, place) => {
      const isQualifier = (at: number): boolean =>
        tokens[at] === name && tokens[at + 1] === '.' && tokens[at - 1] !== '.'
      return name === undefined || !(isQualifier(place) || (token === '.' && isQualifier(place - 1)))
    })
    .join(' ')
}

const afterFrom = new Set(['WHERE', 'GROUP', 'HAVING', 'WINDOW', 'ORDER', 'LIMIT', 'OFFSET', 'FETCH', 'FOR', ';'])

/** The name that the outermost query's one table goes by: its alias, else its own. */
function onlyName(tokens: readonly string[]): string | undefined {
  let depth = 0
  let isFrom = false
  const names: string[] = []
  for (const [place, token] of tokens.entries()) {
    if (token === '(') depth++
    else if (token === ')') depth--
    else if (depth > 0) continue
    else if (/^(UNION|INTERSECT|EXCEPT)$/.test(token)) return undefined
    else if (token === 'FROM' && names.length === 0) isFrom = true
    else if (isFrom && afterFrom.has(token)) isFrom = false
    else if (isFrom && (token === ',' || token === 'JOIN')) return undefined
    else if (isFrom && token === 'TABLESAMPLE') isFrom = false
    // The last part of a name with dots; the second name is the alias.
    else if (isFrom && token.startsWith('"') && tokens[place + 1] !== '.') names.push(token)
  }
  return names[1] ?? names[0]
}
