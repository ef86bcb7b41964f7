import { WalbackError } from '../base/errors.ts'
import type { RelationMessage, RowMessage, Tuple } from '../model/pgoutput.ts'
import type { Change } from '../repository/change-reader.ts'
import { changesFor, isSameShape, type NetChanges } from './net-changes.ts'

/** What a run of the stream does to one table. */
export interface Folded {
  /** The relation that the rows were sent under, without the columns that the server computes. */
  readonly relation: RelationMessage
  readonly changes: NetChanges
}

interface FoldOptions {
  /** Relations that the stream may name, and whose rows are none of ours. */
  readonly isIgnored: (oid: number) => boolean
  /** A table's generated columns: from 18 on the stream may have them, and neither a base nor COPY takes them. */
  readonly generatedColumns: (sent: RelationMessage) => ReadonlySet<string>
  readonly budget_bytes: number
}

/** A relation of the stream, and where in its rows the columns are that take values. */
interface Form {
  readonly sent: RelationMessage
  readonly relation: RelationMessage
  readonly places: readonly number[] | undefined
}

/** Folds the stream into net changes per table, until they hold so much memory that they have to be applied. */
export class Fold {
  private readonly options: FoldOptions
  private readonly folded = new Map<number, { form: Form; readonly changes: NetChanges }>()
  private held = 0
  private mustApply = false

  constructor(options: FoldOptions) {
    this.options = options
  }

  /** True when what is held should be applied before more is added. */
  get isFull(): boolean {
    return this.held >= this.options.budget_bytes || this.mustApply
  }

  get isEmpty(): boolean {
    return this.folded.size === 0
  }

  /** Adds a change of rows; false when what is held has to be applied first, and then the change offered again. */
  add(change: Extract<Change, { kind: 'row' | 'truncate' }>): boolean {
    if (change.kind === 'truncate') {
      const all = change.relations
        .filter((relation) => !this.options.isIgnored(relation.oid))
        .map((relation) => this.for(relation)?.changes)
      if (all.some((changes) => changes === undefined)) return false
      for (const changes of all) this.account(changes as NetChanges, () => changes?.truncate())
      return true
    }
    if (this.options.isIgnored(change.relation.oid)) return true
    const found = this.for(change.relation)
    if (found === undefined) return false
    this.account(found.changes, () => found.changes.add(projected(change.row, found.form.places)))
    return true
  }

  /** Hands over what is held of the tables that are asked for, by table. */
  take(isAsked: (oid: number) => boolean): Map<number, Folded> {
    const taken = new Map<number, Folded>()
    for (const [oid, { form, changes }] of this.folded) {
      if (!isAsked(oid)) continue
      taken.set(oid, { relation: form.relation, changes })
      this.folded.delete(oid)
      this.held -= changes.held_bytes
    }
    this.mustApply = false
    return taken
  }

  /** What is held of a relation is of no interest any more: it is gone, or has other rows. */
  forget(oid: number): void {
    this.held -= this.folded.get(oid)?.changes.held_bytes ?? 0
    this.folded.delete(oid)
  }

  private account(changes: NetChanges, work: () => void): void {
    const before = changes.held_bytes
    work()
    this.held += changes.held_bytes - before
  }

  /** The table's net changes; undefined when its form has changed and the old ones have to be applied first. */
  private for(sent: RelationMessage): { readonly form: Form; readonly changes: NetChanges } | undefined {
    const known = this.folded.get(sent.oid)
    if (known?.form.sent === sent) return known
    const form = formOf(sent, this.options.generatedColumns(sent))
    if (known === undefined) {
      const made = { form, changes: changesFor(form.relation) }
      this.folded.set(sent.oid, made)
      return made
    }
    if (!isSameShape(known.form.relation, form.relation)) {
      this.mustApply = true
      return undefined
    }
    known.form = form
    return known
  }
}

function formOf(sent: RelationMessage, generated: ReadonlySet<string>): Form {
  if (generated.size === 0) return { sent, relation: sent, places: undefined }
  const places = sent.columns.flatMap((column, place) => (generated.has(column.name) ? [] : [place]))
  const columns = sent.columns.filter((column) => !generated.has(column.name))
  return { sent, relation: { ...sent, columns }, places }
}

function projected(row: RowMessage, places: readonly number[] | undefined): RowMessage {
  if (places === undefined) return row
  const pick = (values: Tuple): Tuple => places.map((place) => values[place] ?? null)
  const old = (values: { readonly kind: 'key' | 'full'; readonly values: Tuple }): typeof values => ({
    kind: values.kind,
    values: pick(values.values),
  })
  if (row.kind === 'insert') return { ...row, row: pick(row.row) }
  if (row.kind === 'delete') return { ...row, old: old(row.old) }
  return { ...row, old: row.old && old(row.old), row: pick(row.row) }
}

/**
 * The relation that rows were sent under must be the table as it is: with another name or other columns they would mean
 * something else, and a command that is not in the stream has changed it. `same order`: of the columns, too.
 */
export function checkForm(
  relation: RelationMessage,
  table:
    | {
        readonly schema: string
        readonly name: string
        readonly columns: readonly string[]
        readonly types?: readonly string[] | undefined
      }
    | undefined,
  order: 'same order' | 'any order',
): void {
  const name = `${relation.schema}.${relation.name}`
  if (table === undefined) throw notFollowed(`table ${name} was made`)
  if (table.name !== relation.name || table.schema !== relation.schema)
    throw notFollowed(`table ${table.schema}.${table.name} was renamed to ${name}`)
  const columns = relation.columns.map((column) => column.name)
  const isThere =
    order === 'same order'
      ? (column: string, place: number): boolean => column === table.columns[place]
      : (column: string): boolean => table.columns.includes(column)
  if (columns.length !== table.columns.length || !columns.every(isThere))
    throw notFollowed(`the columns of table ${name} were changed`)
  const changed = relation.columns.find(
    ({ typeOid, typeModifier }, place) => table.types && table.types[place] !== `${typeOid}.${typeModifier}`,
  )
  if (changed) throw notFollowed(`the type of column ${changed.name} of table ${name} was changed`)
}

const notFollowed = (what: string): WalbackError =>
  new WalbackError('refused', `${what} after the base backup, and how is not in the stream`, {
    hint: 'take a base after changing the schema (`walback backup --full`); a target before the change, or after the next base, restores. `walback check` says why the change was not followed',
  })
