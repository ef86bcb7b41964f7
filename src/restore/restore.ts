import { throwIfAborted } from '../base/abort.ts'
import { codeOf, type ErrorCode, messageOf, WalbackError } from '../base/errors.ts'
import { explainLostSession } from '../postgres/replication-failure.ts'
import type { Repository } from '../repository/repository.ts'
import type { Interrupted } from './checkpoints.ts'
import { applyProperties } from './database-properties.ts'
import { type Destination, onServer, prepareDestination } from './destination.ts'
import type { RestorePlan } from './plan.ts'
import type { OnProgress } from './progress.ts'
import { underLease } from './reading-lease.ts'
import { Restoration } from './restoration.ts'
import type { RoleOptions } from './role-plan.ts'
import { explainedMissingRole } from './roles.ts'

export interface RestoreOptions {
  /** Connections that load and check tables side by side. */
  readonly jobs: number
  /** Net changes are applied whenever they hold about this much memory. */
  readonly memory_bytes?: number
  /** What to do about roles that the target lacks; left out and reported unless this says otherwise. */
  readonly roles?: RoleOptions
  readonly onProgress?: OnProgress
  /**
   * Lets another process go on with it where it was interrupted: what the caller was asked for, which it needs to make
   * the same plan again (`readRequest`). If not given, nothing is left of a restore that fails.
   */
  readonly request?: unknown
  /** Goes on with what was interrupted. */
  readonly resumed?: Interrupted | undefined
  /** How often it renews what it says to a prune; its default suits all but tests. */
  readonly lease_ms?: number
  readonly signal?: AbortSignal | undefined
}

export interface RestoreReport {
  readonly database: string
  readonly tables: number
  readonly rows: number
  readonly transactions: number
  readonly duration_ms: number
  /** What was read again from the target and found to be what the archive says. */
  readonly proven: { readonly tables: number; readonly rows: number }
  /** The other tables: they were made or changed since the base, and no hash of all of their rows is known. */
  readonly notCompared: readonly string[]
  /** The roles that were made, and what else was done about roles as asked, each in a line. */
  readonly roles: { readonly created: readonly string[]; readonly notes: readonly string[] }
  /** What was left out, each in a line. */
  readonly warnings: readonly string[]
  /** What else is to be said, and takes nothing from the restore. */
  readonly notes: readonly string[]
}

/**
 * Carries a plan out: schema, rows merged with net changes, indexes and constraints, sequences, proof; then the
 * database gets its name. If anything fails the server is left as it was.
 */
export async function restore(
  repository: Repository,
  plan: RestorePlan,
  destination: Destination,
  options: RestoreOptions,
): Promise<RestoreReport> {
  return underLease(
    repository,
    plan,
    async ({ signal, note }) => {
      const signals = [options.signal, signal].filter((one) => one !== undefined)
      const report = await carryOut(repository, plan, destination, { ...options, signal: AbortSignal.any(signals) })
      return note === undefined ? report : { ...report, notes: [note, ...report.notes] }
    },
    { interval_ms: options.lease_ms },
  )
}

async function carryOut(
  repository: Repository,
  plan: RestorePlan,
  destination: Destination,
  options: RestoreOptions,
): Promise<RestoreReport> {
  const started = performance.now()
  const source = { name: plan.source, database: plan.base.database }
  const workplace = await prepareDestination(destination, source, options.resumed)
  const work = new Restoration(repository, plan, destination.conninfo, workplace, options)
  const interrupt = (): void => void work.interrupt()
  options.signal?.addEventListener('abort', interrupt, { once: true })
  try {
    const { roles, ...outcome } = await work.run()
    throwIfAborted(options.signal)
    await work.close()
    await workplace.finish((client, database) => {
      const onWarning = (line: string): void => void work.warnings.push(line.replace(database, destination.database))
      return applyProperties(client, database, plan.base.database, { roles, onWarning })
    })
    await roles.settle((revoke) => onServer(destination, revoke))
    return {
      database: destination.database,
      transactions: plan.transactions,
      duration_ms: Math.round(performance.now() - started),
      ...outcome,
      roles: { created: roles.created, notes: roles.notes() },
      warnings: [...plan.unseen, ...work.warnings, ...roles.warnings()],
      notes: work.notes,
    }
  } catch (error) {
    await work.close()
    const mayPass = options.signal?.aborted === true || isPassing(error)
    if (work.isUntouched || (work.isResumable && mayPass)) {
      await workplace.leave?.()
      if (!mayPass) throw error
      throw interruptedAt(workplace.database, options.signal?.aborted ? interruption(options.signal) : error)
    }
    const discard = async (): Promise<void> => {
      await workplace.discard({ isDiskFull: isDiskFull(error) })
      // Only now is nothing theirs any more.
      await work.roles?.discard((drop) => onServer(destination, drop))
    }
    await discard().catch((second: unknown) => {
      throw new WalbackError(
        'failed',
        `the restore failed (${messageOf(error)}), and so did cleaning up after it (${messageOf(second)})`,
        {
          cause: error,
          hint: `drop by hand what is left: ${[`database ${workplace.database}`, ...(work.roles?.created ?? []).map((role) => `role ${role}`)].join(', ')}`,
        },
      )
    })
    throwIfAborted(options.signal)
    throw explainLostSession(explainedMissingRole(error))
  } finally {
    options.signal?.removeEventListener('abort', interrupt)
  }
}

function isDiskFull(error: unknown): boolean {
  return codeOf(error) === '53100' || (error instanceof WalbackError && isDiskFull(error.cause))
}

/**
 * Whether another attempt may do better with the same: nothing is wrong with what is restored. A full disk is none of
 * that, since others may need the room that what is kept would take.
 */
function isPassing(error: unknown): boolean {
  if (error instanceof WalbackError)
    return error.retryable || passing.has(error.code) || (error.code === 'database' && isPassing(error.cause))
  return !isDiskFull(error) && explainLostSession(error) !== error
}

const passing: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['interrupted', 'storage'])

function interruption(signal: AbortSignal): unknown {
  try {
    throwIfAborted(signal)
    return undefined
  } catch (error) {
    return error
  }
}

function interruptedAt(database: string, error: unknown): WalbackError {
  const known = error instanceof WalbackError ? error : new WalbackError('database', messageOf(error), { cause: error })
  return new WalbackError(known.code, `the restore was interrupted: ${known.message}`, {
    cause: error,
    facts: { ...known.facts, resumable: database },
    hint: `what is done is kept in database ${database}; go on with \`walback restore resume\`, or remove it with \`walback restore discard\` (--into-url as before)`,
  })
}
