import { WalbackError } from '../base/errors.ts'
import { isEverything, matchSelection, type Selection } from '../model/selection.ts'
import type { RecoveryTarget } from '../model/target.ts'
import { type BaseHead, type BaseManifest, inOrder, readBaseHeads } from '../repository/base.ts'
import type { Repository } from '../repository/repository.ts'
import { planRestore, type RestorePlan } from './plan.ts'
import { selectTables } from './selected.ts'

interface Options {
  readonly base?: string
  readonly signal?: AbortSignal | undefined
}

/**
 * Plans a restore of what is selected. A base of some tables is taken where it has all rows that are needed, and is a
 * later one than the last of all tables, or there is none of those that does.
 */
export async function planSelected(
  repository: Repository,
  source: string,
  target: RecoveryTarget,
  selection: Selection,
  options: Options = {},
): Promise<RestorePlan> {
  const { signal } = options
  const plan = async (from: object): Promise<RestorePlan> =>
    selectTables(repository, await planRestore(repository, source, target, { ...options, ...from }), selection, {
      signal,
    })
  const full = await orRefusal(plan({}))
  if (isEverything(selection) && !(full instanceof WalbackError)) return full
  const partial = await readBaseHeads(repository, source, { of: 'partial', signal })
  const some =
    partial.length === 0 || isEverything(selection)
      ? undefined
      : await orRefusal(plan({ of: 'partial', mayDo: (base: BaseManifest) => mayHave(base, selection) }))
  if (isPlan(some) && (!isPlan(full) || inOrder(full.base, some.base) < 0)) return some
  if (isPlan(full)) return full
  throw partial.length === 0 || full.code === 'usage'
    ? full
    : withPartial(full, partial, isPlan(some) ? undefined : some)
}

const isPlan = (outcome: RestorePlan | WalbackError | undefined): outcome is RestorePlan =>
  outcome !== undefined && !(outcome instanceof WalbackError)

/** Says that there are such bases too, and why they do not do. */
function withPartial(error: WalbackError, partial: readonly BaseHead[], why: WalbackError | undefined): WalbackError {
  const { code, message, hint, facts } = error
  const those = `of some tables only: ${partial.map(({ id }) => id).join(', ')}; \`walback info BASE\` shows which each has`
  const lines = [hint, why?.message === message ? undefined : why?.message, those].filter((line) => line !== undefined)
  return new WalbackError(code, message, { cause: error, hint: lines.join('\n'), facts })
}

/** What cannot be had from one kind of base may be had from the other; all else is a failure of both. */
async function orRefusal(plan: Promise<RestorePlan>): Promise<RestorePlan | WalbackError> {
  try {
    return await plan
  } catch (error) {
    if (error instanceof WalbackError && refusals.has(error.code)) return error
    throw error
  }
}

const refusals: ReadonlySet<string> = new Set(['outside_window', 'gap', 'usage'])

/** By the names that tables had in it: whether all that is needed is there, only the plan tells. */
function mayHave({ tables, leftOut = [] }: BaseManifest, selection: Selection): boolean {
  const isMeant = matchSelection(selection)
  return !selection.rows || (tables.some(isMeant) && !leftOut.some(isMeant))
}
