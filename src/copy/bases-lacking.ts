import { WalbackError } from '../base/errors.ts'
import { readRemoved } from '../repository/pruned.ts'
import type { Repository } from '../repository/repository.ts'
import { readTimelines } from '../repository/timeline.ts'
import type { Storage } from '../storage/storage.ts'
import { basesOf } from './survey.ts'
import { findTarget } from './target.ts'

/**
 * The bases of a source that not every one of these copies has whole, by id, with the copies that lack them. What a copy
 * has removed by its own retention it does not lack. Fails where one cannot be looked at: nothing is known of it then.
 */
export async function basesLacking(
  repository: Repository,
  copies: readonly Storage[],
  source: string,
  signal?: AbortSignal,
): Promise<Map<string, string[]>> {
  const lacking = new Map<string, string[]>()
  for (const storage of copies) {
    for (const id of await lackingIn(repository, storage, source, signal))
      lacking.set(id, [...(lacking.get(id) ?? []), storage.url])
  }
  return lacking
}

async function lackingIn(
  repository: Repository,
  storage: Storage,
  source: string,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const ids: string[] = []
  try {
    const copy = await findTarget(repository, storage)
    const removed = copy === undefined ? new Set<string>() : await basesRemoved(copy, source, signal)
    const sides = { from: repository.storage, to: copy?.storage }
    for await (const { id, differs } of basesOf(sides, source, signal)) if (differs && !removed.has(id)) ids.push(id)
    return ids
  } catch (error) {
    if (!(error instanceof WalbackError) || error.code === 'interrupted') throw error
    const { code, message, retryable, facts } = error
    throw new WalbackError(code, `which bases the required repository ${storage.url} has is not known: ${message}`, {
      cause: error,
      hint: 'nothing is removed before it is; `--repo` names one repository alone, and then nothing else is required',
      retryable,
      facts,
    })
  }
}

/** Ids of bases that the retention of a repository has removed. */
export async function basesRemoved(repository: Repository, source: string, signal?: AbortSignal): Promise<Set<string>> {
  const removed = new Set<string>()
  for (const timeline of await readTimelines(repository, source, signal))
    for (const id of (await readRemoved(repository, timeline, signal)).bases) removed.add(id)
  return removed
}
