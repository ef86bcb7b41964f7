import { WalbackError } from '../base/errors.ts'
import { isEverything, matchSelection, type Selection } from '../model/selection.ts'
import type { RecoveryTarget } from '../model/target.ts'
import { type BaseManifest, baseKind, inOrder, readManifests, referencesOf } from '../repository/base.ts'
import { basePrefix } from '../repository/layout.ts'
import type { Repository } from '../repository/repository.ts'
import { planRestore, type RestorePlan } from './plan.ts'
import { selectTables } from './selected.ts'

interface Options {
  /** The base to take; chosen, if not given. */
  readonly base?: string | undefined
  /** Of a base of some tables that would have done, and could not be used. */
  readonly onPassedOver?: ((base: string, error: WalbackError) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Plans a restore of what is selected. A base of some tables is taken where it has all rows that are needed, and is later
 * than the one of all tables that would be taken, or there is none. It is never needed where that one does: whatever is
 * wrong with it, the other is taken.
 */
export async function planSelected(
  repository: Repository,
  source: string,
  target: RecoveryTarget,
  selection: Selection,
  options: Options = {},
): Promise<RestorePlan> {
  const { base, signal } = options
  const all = await readManifests(repository, source, { of: 'any', signal })
  const named = base === undefined ? all : all.filter(({ id }) => id === base)
  if (base !== undefined) refuseUnfit(base, named[0], selection)
  const of = (kind: 'full' | 'partial'): BaseManifest[] => named.filter((one) => baseKind(one) === kind)
  const choose = (bases: readonly BaseManifest[]): Promise<RestorePlan> =>
    planRestore(repository, source, target, { bases, signal })
  const select = (plan: RestorePlan): Promise<RestorePlan> => selectTables(repository, plan, selection, { signal })
  const full = await choose(of('full')).then(select).catch(refusalOf)
  const partial = of('partial')
  let later = partial.filter((one) => mayHave(one, selection) && (!isPlan(full) || inOrder(full.base, one) < 0))
  let why: WalbackError | undefined
  for (let tried = 0; tried < mostTried && later.length > 0; tried++) {
    const chosen = await choose(later).catch(refusalOf)
    if (!isPlan(chosen)) break
    const some = await refuseIncomplete(repository, chosen.base, signal)
      .then(() => select(chosen))
      .catch(failureOf)
    if (isPlan(some)) return some
    why ??= some
    if (!refusals.has(some.code)) options.onPassedOver?.(chosen.base.id, some)
    later = later.filter(({ id }) => id !== chosen.base.id)
  }
  if (isPlan(full)) return full
  if (why !== undefined && !refusals.has(why.code)) throw why
  const isOfUse = full.code !== 'usage' && (!isEverything(selection) || of('full').length === 0)
  throw partial.length > 0 && isOfUse ? withPartial(full, partial, why) : full
}

function refuseUnfit(id: string, base: BaseManifest | undefined, selection: Selection): void {
  const hint = '`walback list` shows all; without --base the one that has least to be read is taken'
  if (base === undefined) throw new WalbackError('usage', `there is no base backup ${JSON.stringify(id)}`, { hint })
  if (isEverything(selection) && baseKind(base) === 'partial')
    throw new WalbackError('usage', `base ${id} is of some tables, and all are to be restored`, { hint })
}

/** An object of a base is gone: with another base nothing is the matter. */
async function refuseIncomplete(
  { storage }: Repository,
  base: BaseManifest,
  signal: AbortSignal | undefined,
): Promise<void> {
  const there = new Map<string, number>()
  for await (const { key, size_bytes } of storage.list(basePrefix(base.source, base.id), { signal }))
    there.set(key, size_bytes)
  const gone = referencesOf(base).find(({ key, size_bytes }) => there.get(key) !== size_bytes)
  if (gone !== undefined) throw new WalbackError('corrupt', `${gone.key} is missing, or not as long as it was`)
}

const isPlan = (outcome: RestorePlan | WalbackError): outcome is RestorePlan => !(outcome instanceof WalbackError)

/** So many bases of some tables are looked at more closely; who has more that may do has one of all tables too. */
const mostTried = 8

const refusals: ReadonlySet<string> = new Set(['outside_window', 'gap', 'usage'])

/** What one kind of base cannot give, the other may. */
function refusalOf(error: unknown): WalbackError {
  if (error instanceof WalbackError && refusals.has(error.code)) return error
  throw error
}

function failureOf(error: unknown): WalbackError {
  if (error instanceof WalbackError && error.code !== 'interrupted') return error
  throw error
}

/** By the names that tables had in it: whether all that is needed is there, only the plan tells. */
const mayHave = ({ leftOut = [] }: BaseManifest, selection: Selection): boolean =>
  !isEverything(selection) && (!selection.rows || !leftOut.some(matchSelection(selection)))

/** Says that there are such bases too, and why they do not do. */
function withPartial(
  error: WalbackError,
  partial: readonly BaseManifest[],
  why: WalbackError | undefined,
): WalbackError {
  const { code, message, hint, facts } = error
  const ids = partial.slice(-mostNamed).map(({ id }) => id)
  const more = partial.length > mostNamed ? ' and others' : ''
  const those = `of some tables only: ${ids.join(', ')}${more}; \`walback list\` shows which`
  const lines = [hint, why?.message, those].filter((line) => line !== undefined)
  return new WalbackError(code, message, { cause: error, hint: lines.join('\n'), facts })
}

const mostNamed = 3
