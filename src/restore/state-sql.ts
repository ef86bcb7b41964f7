import { createHash } from 'node:crypto'
import { quoteIdent } from '../model/identifier.ts'
import { literal, newForeignOptions, qualify, withOptions } from './repair-script.ts'
import type {
  ColumnState,
  CompositeState,
  ConstraintState,
  DomainState,
  EnumState,
  ExtensionState,
  PolicyState,
  PublicationState,
  RelationState,
  SequenceState,
} from './repair-state.ts'

/**
 * SQL that makes objects from their states: each alone, without owner, rights, comment and what else a second statement
 * says.
 */

/** Parameters as CREATE SEQUENCE, ALTER SEQUENCE and identity columns take them. */
export const sequenceParameters = (s: SequenceState): string =>
  `INCREMENT BY ${s.increment} MINVALUE ${s.minimum} MAXVALUE ${s.maximum} START WITH ${s.start} CACHE ${s.cache} ${s.cycle ? 'CYCLE' : 'NO CYCLE'}`

export const createSequence = (s: SequenceState, unless: '' | 'IF NOT EXISTS ' = ''): string =>
  `CREATE ${s.unlogged ? 'UNLOGGED ' : ''}SEQUENCE ${unless}${qualify(s)} AS ${s.type} ${sequenceParameters(s)}`

/** A column as CREATE TABLE and ADD COLUMN have it; `notNull` is its named constraint, known from 18 on. */
export function columnDefinition(column: ColumnState, notNull?: ConstraintState): string {
  return [
    quoteIdent(column.name),
    column.type,
    column.compression && `COMPRESSION ${column.compression}`,
    column.fdwOptions && newForeignOptions(column.fdwOptions).trim(),
    column.collation && `COLLATE ${column.collation}`,
    column.default !== undefined && `DEFAULT ${column.default}`,
    column.generated && `GENERATED ALWAYS AS (${column.expression}) ${column.generated.toUpperCase()}`,
    column.identity && identity(column),
    column.notNull && notNullClause(notNull),
  ]
    .filter((part) => typeof part === 'string')
    .join(' ')
}

/** A NOT NULL that is not valid, or not inherited, is added by itself. */
const notNullClause = (named: ConstraintState | undefined): string | undefined => {
  if (named === undefined) return 'NOT NULL'
  if (named.invalid) return undefined
  return `CONSTRAINT ${quoteIdent(named.name)} NOT NULL${/ NO INHERIT$/.test(named.definition) ? ' NO INHERIT' : ''}`
}

/** `GENERATED … AS IDENTITY (…)`, with its sequence's name and parameters where it has one of its own. */
export function identity(column: ColumnState): string {
  const sequence = column.sequences?.find(({ identityOf }) => identityOf !== undefined)
  const options = sequence && ` (SEQUENCE NAME ${qualify(sequence)} ${sequenceParameters(sequence)})`
  return `GENERATED ${column.identity?.toUpperCase()} AS IDENTITY${options ?? ''}`
}

export const notNullOf = (relation: RelationState, column: string): ConstraintState | undefined =>
  relation.constraints?.find((constraint) => constraint.type === 'not null' && constraint.column === column)

/** Made beside the table, and then owned by its column. */
const ownedSequences = (relation: RelationState): (readonly [ColumnState, SequenceState])[] =>
  relation.columns.flatMap((column) =>
    (column.sequences ?? [])
      .filter(({ ownedBy }) => ownedBy !== undefined)
      .map((sequence) => [column, sequence] as const),
  )

export const ownSequence = (sequence: SequenceState, relation: RelationState, column: string): string =>
  `ALTER SEQUENCE ${qualify(sequence)} OWNED BY ${qualify(relation)}.${quoteIdent(column)}`

export function createRelation(relation: RelationState): string[] {
  const using = relation.accessMethod ? ` USING ${quoteIdent(relation.accessMethod)}` : ''
  const name = qualify(relation)
  const query = (relation.definition ?? '').trim().replace(/;$/, '')
  if (relation.kind === 'view') return [`CREATE VIEW ${name}${withOptions(relation.options)} AS ${query}`]
  if (relation.kind === 'materialized view')
    return [`CREATE MATERIALIZED VIEW ${name}${using}${withOptions(relation.options)} AS ${query} WITH NO DATA`]
  const sequences = ownedSequences(relation)
  return [
    ...sequences.map(([, sequence]) => createSequence(sequence, 'IF NOT EXISTS ')),
    ...createTable(relation, using),
    ...sequences.map(([column, sequence]) => ownSequence(sequence, relation, column.name)),
  ]
}

/**
 * A table with its columns. The columns of parents come first, in their order, unless they came later; only a table
 * that it inherits from gives a column that is not its own. So such columns come from a passing parent, made and changed
 * as the columns must come, that goes when the real parents have taken its place.
 */
function createTable(relation: RelationState, using: string): string[] {
  const define = (columns: readonly ColumnState[]): string =>
    `(${columns.map((column) => columnDefinition(column, notNullOf(relation, column.name))).join(', ')})`
  const kind = relation.kind === 'foreign table' ? 'FOREIGN TABLE' : relation.unlogged ? 'UNLOGGED TABLE' : 'TABLE'
  const tail = [
    relation.partitionKey && ` PARTITION BY ${relation.partitionKey}`,
    using,
    relation.kind === 'foreign table'
      ? ` SERVER ${quoteIdent(relation.server ?? '')}${newForeignOptions(relation.fdwOptions)}`
      : withOptions(relation.options),
  ].join('')
  const create = `CREATE ${kind} ${qualify(relation)}`
  if (!hasAdopted(relation)) return [`${create} ${define(relation.columns)}${tail}`]
  const [first = [], second = [], ...later] = runs(relation.columns)
  const passing = passingParent(relation)
  return [
    `CREATE TABLE ${passing} ${define(first)}`,
    `${create} ${define(second)} INHERITS (${passing})${tail}`,
    ...later.flatMap((run, place) =>
      run.map(
        (column) =>
          `ALTER TABLE ${place % 2 === 0 ? passing : qualify(relation)} ADD COLUMN ${columnDefinition(column, notNullOf(relation, column.name))}`,
      ),
    ),
    ...(relation.constraints ?? [])
      .filter(({ type, inherited }) => type === 'check' && inherited)
      .map((check) => `ALTER TABLE ${passing} ${addConstraint(check)}`),
  ]
}

/** Columns by turns: of parents, its own, of parents, … The first run may be empty. */
function runs(columns: readonly ColumnState[]): ColumnState[][] {
  const result: ColumnState[][] = [[]]
  for (const column of columns) {
    const isParents = (result.length - 1) % 2 === 0
    if (isParents !== (column.inherited === true)) result.push([])
    result.at(-1)?.push(column)
  }
  return result
}

export const hasAdopted = (relation: RelationState): boolean =>
  relation.parents !== undefined && relation.columns.some(({ inherited }) => inherited)

/** The parent that a table has until it has its own, under a name of fixed length. */
export const passingParent = (relation: RelationState): string =>
  qualify({
    schema: relation.schema,
    name: `walback ${createHash('md5').update(qualify(relation)).digest('hex')}`,
  })

/** The clause for ALTER TABLE and ALTER DOMAIN. */
export const addConstraint = (constraint: ConstraintState): string =>
  `ADD CONSTRAINT ${quoteIdent(constraint.name)} ${constraint.definition}`

export function createPolicy(policy: PolicyState, table: string): string {
  return [
    `CREATE POLICY ${quoteIdent(policy.name)} ON ${table}`,
    policy.restrictive ? 'AS RESTRICTIVE' : '',
    `FOR ${policy.command ?? 'ALL'}`,
    `TO ${policy.roles?.map(quoteIdent).join(', ') ?? 'PUBLIC'}`,
    policy.using === undefined ? '' : `USING (${policy.using})`,
    policy.check === undefined ? '' : `WITH CHECK (${policy.check})`,
  ]
    .filter((part) => part !== '')
    .join(' ')
}

export const createEnum = (type: EnumState): string =>
  `CREATE TYPE ${qualify(type)} AS ENUM (${type.values.map(literal).join(', ')})`

export const attributeDefinition = (column: ColumnState): string =>
  `${quoteIdent(column.name)} ${column.type}${column.collation ? ` COLLATE ${column.collation}` : ''}`

export const createComposite = (type: CompositeState): string =>
  `CREATE TYPE ${qualify(type)} AS (${type.columns.map(attributeDefinition).join(', ')})`

export const createDomain = (type: DomainState): string =>
  `CREATE DOMAIN ${qualify(type)} AS ${type.type}${type.collation ? ` COLLATE ${type.collation}` : ''}${type.default === undefined ? '' : ` DEFAULT ${type.default}`}`

export const createExtension = (extension: ExtensionState): string =>
  `CREATE EXTENSION ${quoteIdent(extension.name)} SCHEMA ${quoteIdent(extension.schema)} VERSION ${literal(extension.version)}`

/** What a publication publishes, as its CREATE and its SET have it. */
export const publicationOptions = (publication: PublicationState): string => {
  const options = [
    `publish = ${literal(publication.publish)}`,
    `publish_via_partition_root = ${publication.viaRoot ? 'true' : 'false'}`,
    ...(publication.generatedColumns ? [`publish_generated_columns = ${publication.generatedColumns}`] : []),
  ]
  return `(${options.join(', ')})`
}

const publicationTable = (table: NonNullable<PublicationState['tables']>[number]): string =>
  `ONLY ${table.table}${table.columns ? ` (${table.columns.map(quoteIdent).join(', ')})` : ''}${table.where === undefined ? '' : ` WHERE (${table.where})`}`

/** Up to 14 the word TABLE stands only before the first. */
export function publicationParts(publication: PublicationState): string[] {
  const tables = (publication.tables ?? []).map(publicationTable).join(', ')
  const schemas = (publication.schemas ?? []).map((schema) => `TABLES IN SCHEMA ${quoteIdent(schema)}`)
  return [...(tables === '' ? [] : [`TABLE ${tables}`]), ...schemas]
}

export function createPublication(publication: PublicationState): string {
  const parts = publicationParts(publication)
  const what = publication.allTables ? ' FOR ALL TABLES' : parts.length > 0 ? ` FOR ${parts.join(', ')}` : ''
  return `CREATE PUBLICATION ${quoteIdent(publication.name)}${what} WITH ${publicationOptions(publication)}`
}
