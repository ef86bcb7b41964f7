/** A plan for some of the tables, or for the schema alone: what of it is read, and why. */

import { ahead } from '../base/ahead.ts'
import { WalbackError } from '../base/errors.ts'
import type { QualifiedName } from '../model/catalog.ts'
import { parseLsn } from '../model/lsn.ts'
import { isEverything, meantWithBelow, noSuchTable, type Selection, unmatched } from '../model/selection.ts'
import { fullXid } from '../model/snapshot.ts'
import type { Statement } from '../postgres/split-sql.ts'
import { type BaseManifest, type BaseTable, tablesOf } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import type { SegmentTrailer, TransactionEntry } from '../repository/segment-format.ts'
import { readers, readSegment, type StoredSegment } from '../repository/segments.ts'
import { bytesOf, type RestorePlan } from './plan.ts'
import { loadStatements, type SchemaStatements } from './schema.ts'
import { type ForeignKey, foreignKeyIn, inheritanceIn, isUnderstood, tablesIn } from './schema-tables.ts'
import { replayedAfter } from './stream.ts'

/** What of a plan's base and stream is read. */
export interface Selected {
  readonly selection: Selection
  /** The base's tables that are meant, by their ids; where no rows are, those that it has no rows of too. */
  readonly tables: ReadonlySet<number>
  /** Tables of the base whose rows are not read, by their ids. */
  readonly without: ReadonlySet<number>
  /** Why all rows are read all the same, and those of other tables dropped at the end. */
  readonly readsAll: string | undefined
  /** Whether a statement makes a foreign key to rows that are not there. */
  readonly isCut: (statement: Statement) => boolean
}

/**
 * Narrows a plan: the rows of other tables, and the segments that only have such rows, are not read. Where the schema was
 * changed between base and target in a way that may give a table another name, or look at rows of other tables, all is
 * read all the same, and the other tables go at the end: the result is equal, only slower.
 */
export async function selectTables(
  repository: Repository,
  plan: RestorePlan,
  selection: Selection,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<RestorePlan> {
  if (isEverything(selection)) return plan
  const { base } = plan
  const known = tablesOf(base)
  const statements = await loadStatements(repository, plan, options.signal)
  const kept = keptOf(known, [...statements.pre, ...statements.post], selection)
  const touched = await readTouched(repository, plan, options.signal)
  const commands = [...touched.values()].flatMap((segment) => segment.commands)
  if (kept.size === 0 && !commands.some(({ tag }) => tag === undefined || mayName.test(tag)))
    throw noSuchTable(known, selection, 'the base')
  const readsAll = selection.rows ? whyAll(statements, commands) : undefined
  const isMeant = (table: QualifiedName): boolean => kept.has(keyOf(table))
  const isRead = (table: QualifiedName): boolean => readsAll !== undefined || (selection.rows && isMeant(table))
  const lacking = base.leftOut?.find(isRead)
  if (lacking !== undefined) throw notInIt(base, lacking, readsAll)
  const without = new Set(known.filter((table) => !isRead(table)).map(({ oid }) => oid))
  const isNeeded = ({ key }: StoredSegment): boolean => {
    const segment = touched.get(key)
    if (segment === undefined || segment.commands.length > 0) return true
    return selection.rows && segment.tables.some((oid) => !without.has(oid))
  }
  const stored = [...plan.earlier, ...plan.segments]
  const cutKey = (statement: Statement): ForeignKey | undefined => {
    const key = readsAll === undefined && selection.rows ? foreignKeyIn(statement) : undefined
    return key !== undefined && kept.has(keyOf(key.to)) ? undefined : key
  }
  const missed = statements.post.flatMap((statement) => {
    const key = cutKey(statement)
    if (key === undefined || !kept.has(keyOf(key.from))) return []
    return `foreign key ${key.name} of ${inWords(key.from)}, since ${inWords(key.to)} is not restored`
  })
  const absent = unmatched([...known, ...tablesIn(statements.pre)], selection).map(
    (pattern) => `anything of ${pattern}, unless it was made since the base: no table of that has such a name`,
  )
  return {
    ...plan,
    unneeded: new Set(stored.filter((segment) => !isNeeded(segment)).map(({ key }) => key)),
    bytes: {
      base: base.tables.filter(isRead).reduce((sum, table) => sum + storedOf(table), 0),
      segments: bytesOf(stored.filter(isNeeded)),
    },
    selected: {
      selection,
      tables: new Set(known.filter(isMeant).map(({ oid }) => oid)),
      without,
      readsAll,
      isCut: (statement) => cutKey(statement) !== undefined,
    },
    notRestored: [...plan.notRestored, ...missed, ...absent],
  }
}

const storedOf = ({ pieces }: BaseTable): number => pieces.reduce((sum, { size_bytes }) => sum + size_bytes, 0)

const keyOf = ({ schema, name }: QualifiedName): string => JSON.stringify([schema, name])

const inWords = ({ schema, name }: QualifiedName): string => `${schema}.${name}`

/** The base's tables that are meant, with those below them: whoever names a partitioned table means its rows. */
function keptOf(
  tables: readonly QualifiedName[],
  statements: readonly Statement[],
  selection: Selection,
): ReadonlySet<string> {
  const below = new Map<string, QualifiedName[]>()
  for (const { parent, child } of inheritanceIn(statements))
    below.set(keyOf(parent), [...(below.get(keyOf(parent)) ?? []), child])
  return meantWithBelow<QualifiedName>([...tables, ...tablesIn(statements)], selection, { keyOf, below })
}

interface Command {
  /** Undefined where the index of changes does not name it. */
  readonly tag: string | undefined
  readonly isUnsure: boolean
}

/** What a segment has changes of. */
interface Touched {
  readonly tables: readonly number[]
  /** Each kind once. */
  readonly commands: readonly Command[]
}

/**
 * Of all segments, from their trailers, of which none is kept. Commands are those between base and target: a segment also
 * has what the base saw, and what comes after the target, such as the migration that it is the moment before.
 */
async function readTouched(
  repository: Repository,
  plan: RestorePlan,
  signal: AbortSignal | undefined,
): Promise<Map<string, Touched>> {
  const isReplayedAt = replayedAfter(plan)
  const isReplayed = ({ end, xid }: TransactionEntry): boolean => isReplayedAt(fullXid(BigInt(xid)), parseLsn(end))
  const all = [...new Map([...plan.earlier, ...plan.segments].map((segment) => [segment.key, segment])).values()]
  const load = async (segment: StoredSegment, stop: AbortSignal) => {
    const { key, trailer } = await readSegment(repository, segment, stop)
    return {
      key,
      touched: { tables: changedTables(trailer), commands: commandsOf(trailer.transactions.filter(isReplayed)) },
    }
  }
  const found = new Map<string, Touched>()
  for await (const { key, touched } of ahead(all, load, { most: readers, signal })) found.set(key, touched)
  return found
}

function changedTables({ tables, transactions }: SegmentTrailer): number[] {
  const places = new Set(transactions.flatMap(({ counts }) => counts.map(([place]) => place)))
  return [...places].map((place) => tables[place]?.oid ?? 0)
}

function commandsOf(transactions: readonly TransactionEntry[]): Command[] {
  const kinds = new Map<string, Command>()
  for (const { ddl = [], ddlCount = 0 } of transactions) {
    for (const { tag, unsure } of ddl) kinds.set(`${tag} ${unsure}`, { tag, isUnsure: unsure !== undefined })
    if (ddlCount > ddl.length) kinds.set('', { tag: undefined, isUnsure: true })
  }
  return [...kinds.values()]
}

const mayName = /TABLE|SCHEMA|SELECT INTO/

/** Commands that give no table another name, and do not depend on the rows of others. */
const harmless = new Set([
  ...['TABLE', 'INDEX', 'SEQUENCE', 'VIEW', 'MATERIALIZED VIEW', 'FUNCTION', 'PROCEDURE', 'TRIGGER', 'TYPE'].flatMap(
    (object) => [`CREATE ${object}`, `DROP ${object}`],
  ),
  ...['CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'CREATE POLICY', 'CREATE STATISTICS'],
  ...['COMMENT', 'GRANT', 'REVOKE', 'ALTER SEQUENCE', 'ALTER FUNCTION', 'REFRESH MATERIALIZED VIEW', 'REINDEX'],
])

/** Why the rows of all tables have to be read, if so. */
function whyAll({ pre, post, last }: SchemaStatements, commands: readonly Command[]): string | undefined {
  if (![...pre, ...post, ...last].every(isUnderstood)) return 'the schema has statements that are not understood'
  const grave = commands.find(({ tag, isUnsure }) => isUnsure || tag === undefined || !harmless.has(tag))
  return grave && `the schema was changed between base and target (${grave.tag ?? 'many commands'})`
}

/** It is a base of some tables, and not of this one, whose rows are needed. */
const notInIt = (base: BaseManifest, table: QualifiedName, readsAll: string | undefined): WalbackError =>
  new WalbackError(
    'outside_window',
    `base ${base.id} has no rows of ${inWords(table)}${readsAll === undefined ? '' : `, which are needed: ${readsAll}`}`,
    { hint: 'it is of some tables only; `walback backup --full` takes one of all, for what comes after it' },
  )
