/** Which tables are meant: what `--table`, `--schema` and their exclusions come to. */

import { z } from 'zod'
import { WalbackError } from '../base/errors.ts'
import { nearest } from '../base/nearest.ts'

export interface TableName {
  readonly schema: string
  readonly name: string
}

/**
 * Patterns have `*` for any run of characters; what is in quotation marks, as SQL has names, stands for itself. Where
 * nothing is named, all is meant but what is excluded.
 */
export interface Selection {
  /** `name` or `schema.name`. */
  readonly tables: readonly string[]
  readonly schemas: readonly string[]
  readonly excludeTables: readonly string[]
  readonly excludeSchemas: readonly string[]
  /** False for the schema alone. */
  readonly rows: boolean
}

const patternsShape: z.ZodType<readonly string[]> = z.array(z.string())

/** A selection as documents have it. */
export const selectionShape: z.ZodType<Selection> = z.object({
  tables: patternsShape,
  schemas: patternsShape,
  excludeTables: patternsShape,
  excludeSchemas: patternsShape,
  rows: z.boolean(),
})

export const everything: Selection = { tables: [], schemas: [], excludeTables: [], excludeSchemas: [], rows: true }

/** Whether it leaves tables out. */
export const isPartial = ({ tables, schemas, excludeTables, excludeSchemas }: Selection): boolean =>
  [tables, schemas, excludeTables, excludeSchemas].some((patterns) => patterns.length > 0)

export const isEverything = (selection: Selection): boolean => selection.rows && !isPartial(selection)

/** The same, however it was given. */
export const inOneOrder = ({ tables, schemas, excludeTables, excludeSchemas, rows }: Selection): Selection => {
  const sorted = (patterns: readonly string[]): string[] => [...new Set(patterns)].sort()
  return {
    tables: sorted(tables),
    schemas: sorted(schemas),
    excludeTables: sorted(excludeTables),
    excludeSchemas: sorted(excludeSchemas),
    rows,
  }
}

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

/** A table by its id, with those that it is a partition of or inherits from. */
export interface Descendant extends TableName {
  readonly oid: string
  /** Their ids. */
  readonly parents: readonly string[]
}

/** The same, of tables as the catalogs have them: their ids. */
export function meantTables(all: readonly Descendant[], selection: Selection): ReadonlySet<string> {
  const below = new Map<string, Descendant[]>()
  for (const table of all)
    for (const parent of table.parents) {
      const known = below.get(parent)
      if (known) known.push(table)
      else below.set(parent, [table])
    }
  return meantWithBelow(all, selection, { keyOf: ({ oid }) => oid, below })
}

/** None of the tables that `where` has is meant. */
export function noSuchTable(known: readonly TableName[], { tables, schemas }: Selection, where: string): WalbackError {
  const asked = [...tables, ...schemas]
  const all = [...new Set(known.map(({ schema, name }) => `${schema}.${name}`))]
  const candidates =
    tables.length === 0
      ? known.map(({ schema }) => schema)
      : tables[0]?.includes('.')
        ? all
        : known.map(({ name }) => name)
  const meant = nearest(asked[0] ?? '', candidates)
  const shown = all.slice(0, 8).join(', ')
  return new WalbackError('usage', `no table is left${asked.length > 0 ? ` of ${asked.join(', ')}` : ''}`, {
    hint:
      meant !== undefined
        ? `did you mean ${meant}?`
        : all.length === 0
          ? `${where} has no tables`
          : `${where} has ${shown}${all.length > 8 ? ', …' : ''}`,
  })
}

/** Of those patterns that name tables or schemas, the ones that none of these has a part in. */
export function unmatched(known: readonly TableName[], { tables, schemas }: Selection): string[] {
  const names = [...new Set(known.map(({ schema }) => schema))]
  return [
    ...tables.filter((pattern) => !known.some(matchTables([pattern]))),
    ...schemas.filter((pattern) => !names.some((name) => expressionOf(pattern).test(name))),
  ]
}

/** A name may have quotation marks in it, so a pattern with such is both. */
function expressionOf(pattern: string): RegExp {
  const words = quotedWords.test(pattern) ? pattern.match(/"(?:[^"]|"")*"|[^".]+/g) : null
  const quoted = words?.map((word) =>
    word.startsWith('"') ? literal(word.slice(1, -1).replaceAll('""', '"')) : globbed(word),
  )
  return new RegExp(`^(?:${[globbed(pattern), ...(quoted ? [quoted.join('\\.')] : [])].join('|')})$`, 's')
}

/** One name, or two with a dot between, of which one at least is in quotation marks. */
const quotedWords = /^(?=.*")(?:(?:"(?:[^"]|"")*"|[^".]+)\.)?(?:"(?:[^"]|"")*"|[^".]+)$/s

const literal = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

const globbed = (pattern: string): string => pattern.split('*').map(literal).join('.*')
