import { quoteIdent } from '../model/identifier.ts'
import { repairAcl } from './repair-acl.ts'
import {
  foreignOptions,
  isSame,
  literal,
  optionClauses,
  pair,
  qualify,
  repairComment,
  repairLabels,
  type Script,
} from './repair-script.ts'
import { repairSequence } from './repair-sequence.ts'
import type { ColumnState, RelationState, SequenceState } from './repair-state.ts'
import { columnDefinition, createSequence, identity, notNullOf, ownSequence } from './state-sql.ts'

/** What can be said of the rows of a column that the command has just added. */
export interface NewColumns {
  /** Names of columns that the command added. Every row has one value in each of them: the missing one. */
  readonly names: ReadonlySet<string>
  /** Names of the columns that there were before the command; undefined where that is not known. */
  readonly before?: ReadonlySet<string> | undefined
}

/** Makes the columns of a table what they should be, in names, order and definitions. */
export function repairTableColumns(script: Script, want: RelationState, have: RelationState, fresh: NewColumns): void {
  const table = qualify(want)
  const { columns, lost, renamed } = afterRenames(want, have)
  for (const [from, to] of renamed)
    script.add(`ALTER TABLE ${table} RENAME COLUMN ${quoteIdent(from)} TO ${quoteIdent(to)}`)
  for (const column of lost) {
    if (column.inherited)
      script.cannot(`column ${quoteIdent(column.name)} comes from its parent and should not be there`)
    else script.add(`ALTER TABLE ${table} DROP COLUMN ${quoteIdent(column.name)}`)
  }
  const { both, missing } = pair(want.columns, columns)
  for (const column of missing) addColumn(script, want, have, column, fresh)
  const order = [...columns.filter((column) => !lost.includes(column)), ...missing].map(({ name }) => name)
  for (const [wanted, had] of both) repairColumn(script, want, have, wanted, had, order)
  const names = want.columns.map(({ name }) => name)
  if (!isSame(order, names))
    script.cannot(`the order of its columns is ${order.join(', ')} and should be ${names.join(', ')}`)
  const filled = both.filter(([w, h]) => fresh.names.has(w.name) && w.missing !== undefined && w.missing !== h.missing)
  if (filled.length > 0) {
    const values = filled.map(([w]) => `${quoteIdent(w.name)} = ${literal(w.missing)}::${w.type}`)
    script.add(`UPDATE ONLY ${table} SET ${values.join(', ')}`)
  }
}

/**
 * Which columns are other columns under a new name. A column that is dropped and another that is added leave it at the
 * end; one that has another name where it stood was renamed. At the end the two look alike: that is dropped and added.
 */
function afterRenames(
  want: RelationState,
  have: RelationState,
): { columns: ColumnState[]; lost: ColumnState[]; renamed: [string, string][] } {
  const renamed: [string, string][] = []
  const has = (relation: RelationState, name: string): boolean =>
    relation.columns.some((column) => column.name === name)
  const columns = have.columns.map((column, place) => {
    const other = want.columns[place]
    const isLast = place === have.columns.length - 1
    if (other === undefined || isLast || have.columns.length > want.columns.length) return column
    if (has(want, column.name) || has(have, other.name) || column.type !== other.type || column.inherited) return column
    renamed.push([column.name, other.name])
    return { ...column, name: other.name }
  })
  return { columns, renamed, lost: columns.filter((column) => !has(want, column.name)) }
}

function addColumn(
  script: Script,
  want: RelationState,
  have: RelationState,
  column: ColumnState,
  fresh: NewColumns,
): void {
  const name = quoteIdent(column.name)
  if (column.inherited) {
    script.cannot(`column ${name} is not there; it comes from its parent`)
    return
  }
  for (const sequence of column.sequences ?? [])
    if (sequence.ownedBy !== undefined) script.add(createSequence(sequence))
  const notNull = notNullOf(want, column.name)
  const add = `ALTER TABLE ${qualify(want)} ADD COLUMN`
  if (column.missing !== undefined) {
    // Rows that are there have the missing value, whatever the default has become.
    const value = `${literal(column.missing)}::${column.type}`
    script.add(`${add} ${columnDefinition({ ...column, default: value }, notNull)}`)
    setDefault(script, want, column)
  } else {
    script.add(`${add} ${columnDefinition(column, notNull)}`)
    // What a command gave the rows of a column that it added, it computed from the default, or it is in the stream.
    const isNew = fresh.before !== undefined && !fresh.before.has(column.name)
    if (!have.empty && !isNew && column.generated === undefined)
      script.lose(`column ${name} was added, without the values that its rows had`)
  }
  for (const sequence of column.sequences ?? [])
    if (sequence.ownedBy !== undefined) giveSequence(script, sequence, want, have, column)
  repairColumnParts(script, want, column, { name: column.name, type: column.type })
  for (const sequence of column.sequences ?? []) repairSequence(script, sequence, undefined, { isOfColumn: true })
}

/** A sequence must have the owner that the table has at this moment. */
function giveSequence(
  script: Script,
  sequence: SequenceState,
  want: RelationState,
  have: RelationState,
  column: ColumnState,
): void {
  if (have.owner !== undefined) script.add(`ALTER ${sequence.target} OWNER TO ${quoteIdent(have.owner)}`)
  script.add(ownSequence(sequence, want, column.name))
}

function setDefault(script: Script, want: RelationState, column: ColumnState): void {
  const action = column.default === undefined ? 'DROP DEFAULT' : `SET DEFAULT ${column.default}`
  script.add(`ALTER ${tableOrView(want)} ALTER COLUMN ${quoteIdent(column.name)} ${action}`)
}

/** How ALTER names a relation whose columns it changes, not those of its children. */
const tableOrView = (relation: RelationState): string =>
  relation.kind === 'table' || relation.kind === 'partitioned table' || relation.kind === 'foreign table'
    ? `TABLE ONLY ${qualify(relation)}`
    : relation.target

function repairColumn(
  script: Script,
  want: RelationState,
  have: RelationState,
  wanted: ColumnState,
  had: ColumnState,
  order: readonly string[],
): void {
  const table = `ALTER TABLE ${qualify(want)}`
  const name = quoteIdent(wanted.name)
  const column = `${table} ALTER COLUMN ${name}`
  let current = had
  if (wanted.generated !== had.generated || wanted.expression !== had.expression) {
    if (wanted.generated === had.generated && script.serverVersion >= 170_000) {
      script.add(`${column} SET EXPRESSION AS (${wanted.expression})`)
    } else if (wanted.generated === undefined && had.generated === 'stored') {
      script.add(`${column} DROP EXPRESSION`)
      current = { ...current, default: undefined }
    } else if (wanted.generated !== undefined && order.at(-1) === wanted.name && !wanted.inherited) {
      // Its values are computed, so nothing is lost with them.
      script.add(
        `${table} DROP COLUMN ${name}`,
        `${table} ADD COLUMN ${columnDefinition(wanted, notNullOf(want, wanted.name))}`,
      )
      current = { name: wanted.name, type: wanted.type, notNull: wanted.notNull, generated: wanted.generated }
    } else script.cannot(`column ${name} is generated otherwise`)
  }
  if (wanted.type !== current.type || wanted.collation !== current.collation) {
    if (current.default !== undefined) script.add(`${column} DROP DEFAULT`)
    current = { ...current, default: undefined }
    const collate = wanted.collation ? ` COLLATE ${wanted.collation}` : ''
    const using = wanted.generated === undefined ? ` USING ${name}::${wanted.type}` : ''
    script.add(`${column} TYPE ${wanted.type}${collate}${using}`)
    if (!have.empty && wanted.type !== had.type)
      script.lose(`values of column ${name} were cast from ${had.type} to ${wanted.type}`)
  }
  if (wanted.identity !== current.identity) repairIdentity(script, column, wanted, current)
  if (wanted.default !== current.default && wanted.generated === undefined) setDefault(script, want, wanted)
  // A named constraint, from 18 on, is the constraints' business.
  const isNamed = notNullOf(want, wanted.name) !== undefined || notNullOf(have, had.name) !== undefined
  if (wanted.notNull !== current.notNull && !isNamed)
    script.add(`${column} ${wanted.notNull ? 'SET' : 'DROP'} NOT NULL`)
  if (wanted.inherited !== had.inherited) {
    const isToCome = want.partitionOf !== have.partitionOf || !isSame(want.parents, have.parents)
    if (!isToCome)
      script.cannot(`column ${name} ${wanted.inherited ? 'is its own' : 'comes from its parent'} and should not`)
  }
  repairColumnParts(script, want, wanted, current)
  repairColumnSequences(script, want, have, wanted, current)
}

function repairIdentity(script: Script, column: string, want: ColumnState, have: ColumnState): void {
  if (want.identity === undefined) script.add(`${column} DROP IDENTITY`)
  else if (have.identity !== undefined) script.add(`${column} SET GENERATED ${want.identity.toUpperCase()}`)
  else {
    if (have.default !== undefined) script.add(`${column} DROP DEFAULT`)
    // Identity wants NOT NULL first, under whatever name it has then.
    if (!have.notNull) script.add(`${column} SET NOT NULL`)
    script.add(`${column} ADD ${identity(want)}`)
  }
}

function repairColumnSequences(
  script: Script,
  want: RelationState,
  have: RelationState,
  wanted: ColumnState,
  had: ColumnState,
): void {
  const { both, missing, extra } = pair(wanted.sequences, had.sequences)
  for (const sequence of missing) {
    if (sequence.identityOf !== undefined) {
      // Of an identity that stays, under another name; a new identity has brought it.
      const other = had.identity && extra.find(({ identityOf }) => identityOf !== undefined)
      if (other) script.add(`ALTER SEQUENCE ${qualify(other)} RENAME TO ${quoteIdent(sequence.name)}`)
      repairSequence(script, sequence, other || sequence, { isOfColumn: true })
    } else {
      script.add(createSequence(sequence, 'IF NOT EXISTS '))
      giveSequence(script, sequence, want, have, wanted)
    }
  }
  for (const sequence of extra)
    if (sequence.ownedBy !== undefined) script.add(`ALTER SEQUENCE ${qualify(sequence)} OWNED BY NONE`)
  for (const [w, h] of both) repairSequence(script, w, h, { isOfColumn: true })
}

/** What a column has besides its definition; views and composite types share some of it. */
export function repairColumnParts(script: Script, want: RelationState, wanted: ColumnState, had: ColumnState): void {
  const name = quoteIdent(wanted.name)
  const alter = `ALTER ${tableOrView(want)} ALTER COLUMN ${name}`
  if (wanted.storage !== had.storage) script.add(setStorage(script, alter, wanted))
  if (wanted.compression !== had.compression) script.add(`${alter} SET COMPRESSION ${wanted.compression ?? 'default'}`)
  if (wanted.statistics !== had.statistics) script.add(`${alter} SET STATISTICS ${wanted.statistics ?? -1}`)
  for (const clause of optionClauses(wanted.options, had.options)) script.add(`${alter} ${clause}`)
  const options = foreignOptions(wanted.fdwOptions, had.fdwOptions)
  if (options !== undefined) script.add(`ALTER FOREIGN TABLE ONLY ${qualify(want)} ALTER COLUMN ${name} ${options}`)
  const on = `COLUMN ${qualify(want)}.${name}`
  repairComment(script, on, wanted, had)
  repairLabels(script, on, wanted, had)
}

/** Only from 16 on can the type's own way of storage be asked for by name. */
function setStorage(script: Script, alter: string, column: ColumnState): string {
  if (column.storage !== undefined || script.serverVersion >= 160_000)
    return `${alter} SET STORAGE ${column.storage ?? 'DEFAULT'}`
  const ways = `CASE typstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END`
  const sql = `SELECT ${literal(`${alter} SET STORAGE `)} || ${ways} FROM pg_catalog.pg_type WHERE oid = ${literal(column.type)}::pg_catalog.regtype`
  return `DO ${literal(`BEGIN EXECUTE (${sql}); END`)}`
}

/** After the rights on the whole relation: what is revoked there is revoked on its columns too. */
export function repairColumnRights(script: Script, want: RelationState, have: RelationState, isTouched: boolean): void {
  const had = new Map(have.columns.map((column) => [column.name, column]))
  for (const column of want.columns) {
    const acl = had.get(column.name)?.acl
    if (isSame(column.acl ?? [], acl ?? []) && !(isTouched && column.acl)) continue
    repairAcl(script, {
      kind: 'COLUMN',
      on: `TABLE ${qualify(want)}`,
      column: column.name,
      wantOwner: want.owner ?? '',
      haveOwner: have.owner ?? want.owner ?? '',
      want: column.acl ?? [],
      have: acl ?? [],
      serverVersion: script.serverVersion,
      isTouched,
    })
  }
}
