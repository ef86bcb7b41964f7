import { WalbackError } from '../base/errors.ts'
import type { RelationMessage } from '../model/pgoutput.ts'
import type { BaseTable } from '../repository/base.ts'
import { changesFor, isSameShape, type NetChanges } from './net-changes.ts'
import type { Change } from './stream.ts'

/** Folds the stream into net changes per table, until they hold so much memory that they have to be applied. */
export class Fold {
  private readonly tables: ReadonlyMap<number, BaseTable>
  private readonly ignored: ReadonlySet<number>
  private readonly budget_bytes: number
  private readonly folded = new Map<number, { relation: RelationMessage; changes: NetChanges }>()
  private held = 0
  private mustApply = false

  /** `ignored`: tables that the stream may name, and whose rows are none of ours. */
  constructor(tables: readonly BaseTable[], ignored: readonly number[], budget_bytes: number) {
    this.tables = new Map(tables.map((table) => [table.oid, table]))
    this.ignored = new Set(ignored)
    this.budget_bytes = budget_bytes
  }

  /** True when what is held should be applied before more is added. */
  get isFull(): boolean {
    return this.held >= this.budget_bytes || this.mustApply
  }

  /** Adds a change; false when what is held has to be applied first, and then the change offered again. */
  add(change: Change): boolean {
    if (change.kind === 'truncate') {
      const all = change.relations
        .filter((relation) => !this.ignored.has(relation.oid))
        .map((relation) => this.for(relation))
      if (all.some((changes) => changes === undefined)) return false
      for (const changes of all) this.account(changes as NetChanges, () => changes?.truncate())
      return true
    }
    if (this.ignored.has(change.relation.oid)) return true
    const changes = this.for(change.relation)
    if (changes === undefined) return false
    this.account(changes, () => changes.add(change.row))
    return true
  }

  /** Hands over what is held, by table, and starts anew. */
  take(): Map<number, NetChanges> {
    const taken = new Map([...this.folded].map(([oid, { changes }]) => [oid, changes]))
    this.folded.clear()
    this.held = 0
    this.mustApply = false
    return taken
  }

  private account(changes: NetChanges, work: () => void): void {
    const before = changes.held_bytes
    work()
    this.held += changes.held_bytes - before
  }

  /** The table's net changes; undefined when its replica identity has changed and the old ones have to be applied first. */
  private for(relation: RelationMessage): NetChanges | undefined {
    const known = this.folded.get(relation.oid)
    if (known?.relation === relation) return known.changes
    this.check(relation)
    if (known) {
      if (isSameShape(known.relation, relation)) {
        known.relation = relation
        return known.changes
      }
      this.mustApply = true
      return undefined
    }
    const changes = changesFor(relation)
    this.folded.set(relation.oid, { relation, changes })
    return changes
  }

  /** The stream's relation must be the base's table: with other columns its rows would mean something else. */
  private check(relation: RelationMessage): void {
    const table = this.tables.get(relation.oid)
    const name = `${relation.schema}.${relation.name}`
    const refuse = (what: string): WalbackError =>
      new WalbackError('refused', `${what} after the base backup, and changes of the schema are not carried yet`, {
        hint: 'take a base after changing the schema (`walback backup --full`); a target before the change, or after the next base, restores',
      })
    if (table === undefined) throw refuse(`table ${name} was made`)
    if (table.name !== relation.name || table.schema !== relation.schema)
      throw refuse(`table ${table.schema}.${table.name} was renamed to ${name}`)
    const columns = relation.columns.map((column) => column.name)
    if (columns.length !== table.columns.length || columns.some((column, place) => column !== table.columns[place])) {
      throw refuse(`the columns of table ${name} were changed`)
    }
    const changed = relation.columns.find(
      ({ typeOid, typeModifier }, place) => table.types && table.types[place] !== `${typeOid}.${typeModifier}`,
    )
    if (changed) throw refuse(`the type of column ${changed.name} of table ${name} was changed`)
  }
}
