import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { chosenRelations, readTransaction, type TransactionChange } from '../history/changes.ts'
import type { FoundTransaction } from '../history/find-transaction.ts'
import type { RelationMessage } from '../model/pgoutput.ts'
import type { Repository } from '../repository/repository.ts'
import type { Layers } from './fill-old.ts'
import { Reversals } from './reversals.ts'
import { isSourceOf } from './session.ts'
import { StagedTable } from './staged-table.ts'
import { findTable } from './target-table.ts'

export interface StageOptions {
  /** Patterns as `log` takes them; undefined: all. */
  readonly tables?: readonly string[] | undefined
  /** Reversals are brought to the server whenever they hold about this much memory. */
  readonly memory_bytes: number
  readonly onRows?: ((rows: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/** Refuses what no undo can bring back: rows that a TRUNCATE took are not in the stream. */
export function refuseTruncated(found: FoundTransaction, tables: readonly string[] | undefined): void {
  const { segment, entry } = found
  const chosen = chosenRelations(found, tables)
  const truncated = entry.counts.flatMap(([place, , , , truncates]) => {
    const table = segment.trailer.tables[place]
    return truncates > 0 && table && chosen.has(table.oid) ? [`${table.schema}.${table.name}`] : []
  })
  if (truncated.length > 0) {
    throw new WalbackError(
      'refused',
      `transaction ${entry.xid} truncated ${truncated.join(', ')}: the rows that were in it are not in the stream`,
      {
        hint: `an undo cannot bring them back: restore to before it (\`walback restore --before-tx ${entry.xid}\`) and copy them. To undo what it did to other tables, name them with --table`,
        facts: { truncated },
      },
    )
  }
  if (tables === undefined && (entry.ddlCount ?? 0) > 0) {
    const [first] = entry.ddl ?? []
    const what = first === undefined ? '' : ` (${first.tag}${first.object === null ? '' : ` ${first.object}`})`
    throw new WalbackError(
      'refused',
      `transaction ${entry.xid} also changed the schema${what}: an undo brings back rows only`,
      {
        hint: `name the tables whose rows are to be undone with --table, or restore to before it: \`walback restore --before-tx ${entry.xid}\``,
      },
    )
  }
}

/** Reads transactions, oldest first, and brings what undoes them to the server. Gives the tables that they touched. */
export class Staging {
  readonly tables: StagedTable[] = []
  private readonly client: pg.Client
  private readonly options: StageOptions
  private readonly byForm = new Map<string, StagedTable>()
  private held = new Map<StagedTable, Reversals>()
  private layer = 0
  isSource = false

  constructor(client: pg.Client, options: StageOptions) {
    this.client = client
    this.options = options
  }

  /** Gives the layers that the transaction takes: it is undone from the last to the first. */
  async add(repository: Repository, found: FoundTransaction): Promise<Layers> {
    const { tables, signal } = this.options
    const { encoding } = found.timeline
    refuseTruncated(found, tables)
    this.isSource = await isSourceOf(this.client, found.timeline)
    const chosen = chosenRelations(found, tables)
    const from = this.layer
    let [count, bytes] = [0, 0]
    for await (const block of readTransaction(repository, found, { isWanted: (oid) => chosen.has(oid), signal })) {
      for (const change of block) {
        refuseAltered(change, chosen, found)
        if (change.kind !== 'row') continue
        const reversals = this.held.get(await this.tableOf(change.relation)) as Reversals
        const before = reversals.held_bytes
        reversals.add(change.row)
        bytes += reversals.held_bytes - before
        count++
      }
      this.options.onRows?.(count)
      count = 0
      if (bytes < this.options.memory_bytes) continue
      await this.flush(encoding)
      bytes = 0
    }
    await this.flush(encoding)
    return { from, to: this.layer }
  }

  async finish(): Promise<void> {
    for (const table of this.tables) await table.finish(this.client)
  }

  private async flush(encoding: string): Promise<void> {
    for (const [table, reversals] of this.held)
      await table.load(this.client, this.layer, reversals.take(), { encoding, signal: this.options.signal })
    this.layer++
    this.held = new Map()
  }

  /** The same table under another form, as an earlier transaction may have seen it, is staged by itself. */
  private async tableOf(relation: RelationMessage): Promise<StagedTable> {
    const form = this.forms.get(relation) ?? formOf(relation)
    this.forms.set(relation, form)
    const table = this.byForm.get(form) ?? (await this.create(relation))
    this.byForm.set(form, table)
    if (!this.held.has(table)) this.held.set(table, new Reversals(relation, table.keyPlaces))
    return table
  }

  private readonly forms = new WeakMap<RelationMessage, string>()

  private async create(relation: RelationMessage): Promise<StagedTable> {
    const found = await findTable(this.client, relation, { isSource: this.isSource })
    const table = await StagedTable.create(this.client, found, this.tables.length)
    this.tables.push(table)
    return table
  }
}

const formOf = ({ oid, identity, columns }: RelationMessage): string =>
  JSON.stringify([oid, identity, columns.map(({ name, isKey }) => [name, isKey])])

/** A table whose rows are to be undone must have been the same throughout the transaction. */
function refuseAltered(change: TransactionChange, chosen: ReadonlySet<number>, { entry }: FoundTransaction): void {
  if (change.kind !== 'ddl' || change.message.kind !== 'ddl') return
  const { tag, objects, rewritten } = change.message
  const altered =
    objects.find((object) => object.class === 'pg_class' && chosen.has(object.oid))?.identity ??
    rewritten.find(({ oid }) => chosen.has(oid))?.oid
  if (altered === undefined) return
  throw new WalbackError(
    'refused',
    `transaction ${entry.xid} also changed the schema of ${altered} (${tag}): an undo brings back rows only`,
    {
      hint: `leave that table out with --table, or restore to before it: \`walback restore --before-tx ${entry.xid}\``,
    },
  )
}
