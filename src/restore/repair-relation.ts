import { quoteIdent } from '../model/identifier.ts'
import { type NewColumns, repairColumnParts, repairColumnRights, repairTableColumns } from './repair-columns.ts'
import {
  attachIndexes,
  isForeignKey,
  repairAllStatistics,
  repairConstraints,
  repairIndexes,
  repairPolicies,
  repairRules,
  repairTriggers,
  retireParts,
} from './repair-parts.ts'
import { foreignOptions, isSame, optionClauses, qualify, repairCommon, type Script } from './repair-script.ts'
import type { ColumnState, ConstraintState, RelationState } from './repair-state.ts'
import { createRelation, hasAdopted, passingParent } from './state-sql.ts'

/**
 * Makes a relation what it should be, with all that hangs on it. The order is what PostgreSQL demands: what depends on
 * columns goes before they go; a table has its parent's columns, checks and indexes before it becomes a child; policies,
 * triggers and rules come last, since rows may have to be changed on the way.
 */
export function repairRelation(
  script: Script,
  want: RelationState,
  have: RelationState | undefined,
  fresh: NewColumns,
): void {
  let current = have
  if (current === undefined) {
    script.add(...createRelation(want))
    current = asCreated(want)
  } else {
    current = retireParts(script, want, current)
    if (isView(want)) current = repairView(script, want, current)
  }
  if (isView(want)) repairViewColumns(script, want, current)
  else repairTable(script, want, current, fresh)
  repairIndexes(script, want, current)
  if (!isView(want)) {
    repairForeignKeys(script, want, current)
    repairParents(script, want, current)
    attachIndexes(script, want, current)
    repairReplicaIdentity(script, want, current)
  }
  repairAllStatistics(script, want, current)
  repairTriggers(script, want, current)
  repairRules(script, want, current)
  repairPolicies(script, want, current)
  if (want.rowSecurity !== current.rowSecurity)
    script.add(`ALTER ${want.target} ${want.rowSecurity ? 'ENABLE' : 'DISABLE'} ROW LEVEL SECURITY`)
  if (want.forceRowSecurity !== current.forceRowSecurity)
    script.add(`ALTER ${want.target} ${want.forceRowSecurity ? 'FORCE' : 'NO FORCE'} ROW LEVEL SECURITY`)
  const isRevoked = repairCommon(script, want, current)
  repairColumnRights(script, want, current, isRevoked)
}

const isView = ({ kind }: RelationState): boolean => kind === 'view' || kind === 'materialized view'

/** What `createRelation` makes of a state. */
function asCreated(want: RelationState): RelationState {
  const made = (want.constraints ?? []).filter(({ type, invalid }) => type === 'not null' && !invalid)
  const adopted = hasAdopted(want)
  const columns = want.columns.map((column): ColumnState => {
    const named = want.constraints?.find(({ type, column: of }) => type === 'not null' && of === column.name)
    return {
      name: column.name,
      type: column.type,
      collation: column.collation,
      compression: column.compression,
      fdwOptions: column.fdwOptions,
      default: isView(want) ? undefined : column.default,
      generated: column.generated,
      expression: column.expression,
      identity: column.identity,
      notNull: named?.invalid ? undefined : column.notNull,
      inherited: adopted ? column.inherited : undefined,
      sequences: column.sequences?.map((sequence) => ({
        ...sequence,
        owner: undefined,
        acl: undefined,
        comment: undefined,
        labels: undefined,
      })),
    }
  })
  const { kind, target, schema, name, unlogged, accessMethod, options, definition, partitionKey, server, fdwOptions } =
    want
  return {
    ...{ kind, target, schema, name, unlogged, accessMethod, options, definition, partitionKey, server, fdwOptions },
    columns,
    parents: adopted ? [passingParent(want)] : undefined,
    empty: true,
    constraints: [
      ...made.map(({ comment, ...constraint }) => constraint),
      ...(adopted ? checks(want).filter(({ inherited }) => inherited) : []).map(({ comment, ...check }) => check),
    ],
  }
}

const checks = (relation: RelationState): ConstraintState[] =>
  (relation.constraints ?? []).filter(({ type }) => type === 'check')

/** A view's query. Columns may only be added at the end; anything else needs another view. */
function repairView(script: Script, want: RelationState, have: RelationState): RelationState {
  if (want.definition === have.definition) return have
  const shape = (columns: readonly ColumnState[]) =>
    columns.map(({ name, type, collation }) => ({ name, type, collation }))
  const isLonger = isSame(shape(want.columns.slice(0, have.columns.length)), shape(have.columns))
  const [create = ''] = createRelation(want)
  if (want.kind === 'view' && isLonger) {
    script.add(create.replace(/^CREATE VIEW/, 'CREATE OR REPLACE VIEW'))
    return { ...have, options: want.options }
  }
  script.add(`DROP ${have.target}`, create)
  return asCreated(want)
}

function repairViewColumns(script: Script, want: RelationState, have: RelationState): void {
  repairStorage(script, want, have)
  const had = new Map(have.columns.map((column) => [column.name, column]))
  for (const column of want.columns) {
    const other = had.get(column.name) ?? { name: column.name, type: column.type }
    if (column.default !== other.default) {
      const action = column.default === undefined ? 'DROP DEFAULT' : `SET DEFAULT ${column.default}`
      script.add(`ALTER ${want.target} ALTER COLUMN ${quoteIdent(column.name)} ${action}`)
    }
    repairColumnParts(script, want, column, other)
  }
}

const alterTable = (relation: RelationState): string => `ALTER TABLE ${qualify(relation)}`

/** Options that cannot be altered are told; the rest in the order in which each needs the one before. */
function repairTable(script: Script, want: RelationState, have: RelationState, fresh: NewColumns): void {
  if (want.partitionKey !== have.partitionKey)
    script.cannot(
      `it is partitioned by ${have.partitionKey ?? 'nothing'} and should be by ${want.partitionKey ?? 'nothing'}`,
    )
  if (want.server !== have.server) script.cannot(`its server is ${have.server} and should be ${want.server}`)
  const options = foreignOptions(want.fdwOptions, have.fdwOptions)
  if (options !== undefined) script.add(`ALTER ${want.target} ${options}`)
  if (have.ofType !== undefined && want.ofType !== have.ofType) script.add(`${alterTable(want)} NOT OF`)
  repairStorage(script, want, have)
  repairTableColumns(script, want, have, fresh)
  repairTableConstraints(script, want, have, (constraint) => !isForeignKey(constraint))
  if (want.ofType !== undefined && want.ofType !== have.ofType) script.add(`${alterTable(want)} OF ${want.ofType}`)
}

/** Foreign keys come when their table has its own keys, since they may refer to those. */
const repairForeignKeys = (script: Script, want: RelationState, have: RelationState): void =>
  repairTableConstraints(script, want, have, isForeignKey)

function repairTableConstraints(
  script: Script,
  want: RelationState,
  have: RelationState,
  when: (constraint: ConstraintState) => boolean,
): void {
  repairConstraints(script, alterTable(want), want.constraints?.filter(when), have.constraints?.filter(when), {
    on: qualify(want),
    isChildToBe: !isSame([want.partitionOf, want.parents], [have.partitionOf, have.parents]),
  })
}

function repairStorage(script: Script, want: RelationState, have: RelationState): void {
  const alter = `ALTER ${want.target}`
  if (want.unlogged !== have.unlogged) script.add(`${alter} SET ${want.unlogged ? 'UNLOGGED' : 'LOGGED'}`)
  if (want.accessMethod !== have.accessMethod)
    script.add(
      `${alter} SET ACCESS METHOD ${want.accessMethod === undefined ? 'DEFAULT' : quoteIdent(want.accessMethod)}`,
    )
  if (want.tablespace !== have.tablespace)
    script.add(`${alter} SET TABLESPACE ${quoteIdent(want.tablespace ?? 'pg_default')}`)
  for (const clause of optionClauses(want.options, have.options)) script.add(`${alter} ${clause}`)
  for (const clause of optionClauses(want.toastOptions, have.toastOptions, 'toast.')) script.add(`${alter} ${clause}`)
}

function repairParents(script: Script, want: RelationState, have: RelationState): void {
  const table = alterTable(want)
  const isMoved = want.partitionOf !== have.partitionOf || want.bound !== have.bound
  if (have.partitionOf !== undefined && isMoved)
    script.add(`ALTER TABLE ${have.partitionOf} DETACH PARTITION ${qualify(want)}`)
  if (want.partitionOf !== undefined && isMoved)
    script.add(`ALTER TABLE ${want.partitionOf} ATTACH PARTITION ${qualify(want)} ${want.bound}`)
  if (want.detaching !== have.detaching) script.cannot(`it is being detached from ${want.detaching ?? have.detaching}`)
  const [wanted, had] = [want.parents ?? [], have.parents ?? []]
  // Their order decides whose columns come first, so from the first that differs on all are set anew.
  const same = wanted.findIndex((parent, place) => parent !== had[place])
  const kept = same < 0 ? Math.min(wanted.length, had.length) : same
  const [moved, gone] = [
    had.slice(kept).filter((parent) => wanted.includes(parent)),
    had.slice(kept).filter((parent) => !wanted.includes(parent)),
  ]
  // A column whose last parent leaves becomes the table's own, so those to come come first; all or none of it.
  const statements = [
    ...moved.map((parent) => `${table} NO INHERIT ${parent}`),
    ...wanted.slice(kept).map((parent) => `${table} INHERIT ${parent}`),
    ...gone.map((parent) => `${table} NO INHERIT ${parent}`),
    ...gone.filter((parent) => parent === passingParent(want)).map((parent) => `DROP TABLE ${parent}`),
  ]
  if (statements.length > 0) script.add(statements.join('; '))
}

function repairReplicaIdentity(script: Script, want: RelationState, have: RelationState): void {
  const index = (relation: RelationState) => relation.indexes?.find(({ replicaIdentity }) => replicaIdentity)?.name
  if (want.replicaIdentity === have.replicaIdentity && index(want) === index(have)) return
  const name = index(want)
  if (want.replicaIdentity !== 'index')
    script.add(`ALTER TABLE ONLY ${qualify(want)} REPLICA IDENTITY ${want.replicaIdentity?.toUpperCase() ?? 'DEFAULT'}`)
  else if (name === undefined) script.cannot('its replica identity is an index that was dropped')
  else script.add(`ALTER TABLE ONLY ${qualify(want)} REPLICA IDENTITY USING INDEX ${quoteIdent(name)}`)
}
