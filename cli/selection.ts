import type { Command } from 'commander'
import {
  type BaseHead,
  everything,
  isEverything,
  type RestorePlan,
  type Selection,
  tablesOf,
  WalbackError,
} from '../src/index.ts'
import { firstOf, printable, shellWord } from './format.ts'

/** What a command line says about which tables are meant. */
export interface SelectionFlags {
  readonly table?: readonly string[]
  readonly schema?: readonly string[]
  readonly excludeTable?: readonly string[]
  readonly excludeSchema?: readonly string[]
  readonly schemaOnly?: boolean
}

const collect = (pattern: string, before: readonly string[] = []): readonly string[] => [...before, pattern]

/** The flags are pg_dump's. */
export const addSelectionFlags = (command: Command): Command =>
  command
    .option('-t, --table <pattern>', 'only these tables, as name or schema.name, with * (repeatable)', collect)
    .option('-n, --schema <pattern>', 'only the tables of these schemas (repeatable)', collect)
    .option('-T, --exclude-table <pattern>', 'all but these tables (repeatable)', collect)
    .option('-N, --exclude-schema <pattern>', 'all but the tables of these schemas (repeatable)', collect)
    .option('-s, --schema-only', 'no rows')

export function selectionOf(flags: SelectionFlags): Selection {
  const { table = [], schema = [], excludeTable = [], excludeSchema = [] } = flags
  if ([...table, ...schema, ...excludeTable, ...excludeSchema].includes('')) {
    throw new WalbackError('usage', 'an empty pattern means no table', { hint: 'give a name, or * for all' })
  }
  return {
    ...everything,
    tables: table,
    schemas: schema,
    excludeTables: excludeTable,
    excludeSchemas: excludeSchema,
    rows: flags.schemaOnly !== true,
  }
}

/** A selection as it is given. */
export function flagsOf({ tables, schemas, excludeTables, excludeSchemas, rows }: Selection): string {
  const flags = (flag: string, patterns: readonly string[]): string[] =>
    patterns.map((pattern) => `--${flag} ${shellWord(pattern)}`)
  return [
    ...flags('table', tables),
    ...flags('schema', schemas),
    ...flags('exclude-table', excludeTables),
    ...flags('exclude-schema', excludeSchemas),
    ...(rows ? [] : ['--schema-only']),
  ].join(' ')
}

/** The same of a base; null for one of all tables. */
export const selectionFlags = ({ selection }: Pick<BaseHead, 'selection'>): string | null =>
  selection === undefined ? null : flagsOf(selection)

const shown = 12

/** The lines of a plan about what was selected; none where that is everything. */
export function selectionInWords({ base, selected }: RestorePlan): string[] {
  if (selected === undefined || isEverything(selected.selection)) return []
  const { tables, selection, readsAll } = selected
  const known = tablesOf(base)
  const names = known.filter(({ oid }) => tables.has(oid)).map(({ schema, name }) => printable(`${schema}.${name}`))
  if (names.length === 0)
    return [`what was made since the base of that name: none of its ${known.length} tables has it`]
  return [
    `${names.length} of ${known.length} tables: ${firstOf(names, shown)}${selection.rows ? '' : ', without rows'}`,
    ...(readsAll === undefined ? [] : [`all rows are read, and those of other tables dropped: ${readsAll}`]),
  ]
}

export const selectionJson = ({ base, selected }: RestorePlan): Record<string, unknown> | null =>
  selected === undefined
    ? null
    : {
        tables: tablesOf(base)
          .filter(({ oid }) => selected.tables.has(oid))
          .map(({ schema, name }) => ({ schema, name })),
        rows: selected.selection.rows,
        reads_all: selected.readsAll ?? null,
      }
