/** Which tables are meant: what `--table`, `--schema` and their exclusions come to. */

export interface TableName {
  readonly schema: string
  readonly name: string
}

/** Patterns have `*` for any run of characters. Where nothing is named, all is meant but what is excluded. */
export interface Selection {
  /** `name` or `schema.name`. */
  readonly tables: readonly string[]
  readonly schemas: readonly string[]
  readonly excludeTables: readonly string[]
  readonly excludeSchemas: readonly string[]
  /** False for the schema alone. */
  readonly rows: boolean
}

export const everything: Selection = { tables: [], schemas: [], excludeTables: [], excludeSchemas: [], rows: true }

/** Whether it leaves tables out. */
export const isPartial = ({ tables, schemas, excludeTables, excludeSchemas }: Selection): boolean =>
  [tables, schemas, excludeTables, excludeSchemas].some((patterns) => patterns.length > 0)

export const isEverything = (selection: Selection): boolean => selection.rows && !isPartial(selection)

/** A matcher for table patterns. */
export function matchTables(patterns: readonly string[]): (table: TableName) => boolean {
  const expressions = patterns.map(expressionOf)
  return ({ schema, name }) =>
    expressions.some((expression) => expression.test(name) || expression.test(`${schema}.${name}`))
}

/** A table that is named or whose schema is, and not excluded. */
export function matchSelection(selection: Selection): (table: TableName) => boolean {
  const { tables, schemas } = selection
  const namesSome = tables.length + schemas.length > 0
  const [isNamed, isExcluded] = [matchTables(tables), matchExcluded(selection)]
  const inSchema = schemas.map(expressionOf)
  return (table) =>
    !isExcluded(table) && (!namesSome || isNamed(table) || inSchema.some((expression) => expression.test(table.schema)))
}

function matchExcluded({ excludeTables, excludeSchemas }: Selection): (table: TableName) => boolean {
  const isExcluded = matchTables(excludeTables)
  const inSchema = excludeSchemas.map(expressionOf)
  return (table) => isExcluded(table) || inSchema.some((expression) => expression.test(table.schema))
}

/** The tables that are meant, and those below them but for excluded ones: by their keys. */
export function meantWithBelow<T extends TableName>(
  tables: readonly T[],
  selection: Selection,
  { keyOf, below }: { readonly keyOf: (table: T) => string; readonly below: ReadonlyMap<string, readonly T[]> },
): ReadonlySet<string> {
  const isExcluded = matchExcluded(selection)
  const meant = new Set<string>()
  const pending = tables.filter(matchSelection(selection))
  for (let table = pending.pop(); table !== undefined; table = pending.pop()) {
    const key = keyOf(table)
    if (meant.has(key) || isExcluded(table)) continue
    meant.add(key)
    pending.push(...(below.get(key) ?? []))
  }
  return meant
}

const expressionOf = (pattern: string): RegExp =>
  new RegExp(
    `^${pattern
      .split('*')
      .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
      .join('.*')}$`,
    's',
  )
