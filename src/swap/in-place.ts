import { messageOf, WalbackError } from '../base/errors.ts'
import { formatLsn } from '../model/lsn.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import type { Repository } from '../repository/repository.ts'
import { onServer } from '../restore/destination.ts'
import type { RestorePlan } from '../restore/plan.ts'
import { type RestoreOptions, type RestoreReport, restore } from '../restore/restore.ts'
import { databasesBefore, datedName } from './names.ts'
import { openDatabase, requireSwappable, type SwapReport, swapDatabases } from './swap.ts'

export interface InPlaceOptions extends RestoreOptions {
  readonly onStep?: (step: string) => void
  /** How long the last of the old database may take to be stored, while nobody can connect. */
  readonly patience_ms?: number
}

export interface InPlaceReport {
  readonly restored: RestoreReport
  readonly swapped: SwapReport
}

/**
 * Restores beside the database in use, and puts the result in its place. The old one is kept under a dated name, and all
 * of it is in the archive: what came after the target is a branch of its history, and is not erased.
 */
export async function restoreInPlace(
  repository: Repository,
  plan: RestorePlan,
  conninfo: Conninfo,
  options: InPlaceOptions,
): Promise<InPlaceReport> {
  const { database } = conninfo
  if (plan.selected !== undefined)
    throw new WalbackError('usage', 'in place a database is restored whole, and not some of its tables', {
      hint: 'put tables back into it with --merge, or beside with --as; or restore them into a new database with --into',
    })
  const now = new Date()
  const [successor, keptAs] = [datedName(database, 'restored', now), datedName(database, 'before', now)]
  await onServer({ conninfo, database }, (admin) => requireSwappable(admin, { conninfo, keptAs }))
  const restored = await restore(repository, plan, { conninfo, database: successor }, options)
  try {
    const swapped = await swapDatabases({
      ...options,
      conninfo,
      repository,
      source: plan.source,
      successor,
      keptAs,
      reason: `${database} was restored in place to ${formatLsn(plan.reached)}, and the one before is ${keptAs}`,
    })
    return { restored: { ...restored, database }, swapped }
  } catch (error) {
    const known = error instanceof WalbackError ? error : new WalbackError('failed', messageOf(error))
    if (known.facts['isSwapped'] === true) throw known
    throw new WalbackError(
      known.code,
      `${database} is restored as ${successor}, but not in its place: ${messageOf(error)}`,
      {
        cause: error,
        facts: { ...known.facts, restored: successor },
        hint: `${known.hint ?? ''}\nto put it in its place: walback restore rollback --to ${successor}`.trim(),
      },
    )
  }
}

export interface RollbackOptions {
  readonly conninfo: Conninfo
  readonly repository: Repository
  readonly source: string
  /** The database to bring back; the newest that a restore in place has put aside, if not given. */
  readonly to?: string | undefined
  readonly onStep?: (step: string) => void
  readonly signal?: AbortSignal | undefined
}

/** What a rollback would do; `opens`: a restore in place was interrupted while the database was closed, and no more. */
export type RollbackPlan =
  | { readonly kind: 'open' }
  | { readonly kind: 'swap'; readonly to: string; readonly keptAs: string }

export async function planRollback({ conninfo, to }: Pick<RollbackOptions, 'conninfo' | 'to'>): Promise<RollbackPlan> {
  const { database } = conninfo
  return onServer({ conninfo, database }, async (admin) => {
    const { rows } = await admin.query<{ open: boolean }>(
      'SELECT datallowconn AS open FROM pg_catalog.pg_database WHERE datname = $1',
      [database],
    )
    if (rows[0]?.open === false) return { kind: 'open' }
    const [newest] = await databasesBefore(admin, database)
    const chosen = to ?? newest
    if (chosen === undefined)
      throw new WalbackError('refused', `no restore in place of ${database} has left a database to go back to`, {
        hint: `it would be called ${datedName(database, 'before', new Date()).slice(0, -16)}…; name another with --to`,
      })
    const keptAs = datedName(database, 'undone', new Date())
    await requireSwappable(admin, { conninfo, successor: chosen, keptAs })
    return { kind: 'swap', to: chosen, keptAs }
  })
}

/** Swaps back. What the restored database has had since is in the archive, and in the database that is kept. */
export async function rollBack(plan: RollbackPlan, options: RollbackOptions): Promise<SwapReport | undefined> {
  const { conninfo } = options
  if (plan.kind === 'open') {
    await openDatabase(conninfo)
    return undefined
  }
  const reason = `${conninfo.database} was swapped for ${plan.to}, and the one before is ${plan.keptAs}`
  return swapDatabases({ ...options, successor: plan.to, keptAs: plan.keptAs, reason })
}
