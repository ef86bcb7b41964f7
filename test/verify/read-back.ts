import { createHash } from 'node:crypto'
import type { RecoveryTarget } from '../../src/model/target.ts'
import { referencesOf } from '../../src/repository/base.ts'
import { readContainer } from '../../src/repository/container.ts'
import type { Repository } from '../../src/repository/repository.ts'
import { planRestore } from '../../src/restore/plan.ts'
import { readChanges } from '../../src/restore/stream.ts'

/**
 * All that a restore takes from an archive, as a hash: the plan, the base's objects and the changes. It reads by the
 * restore's own code, and leaves out the database. Sequences are left out too: where the stream does not go on after the
 * target, they are set by what the rows hold.
 */
export async function readBack(repository: Repository, target: RecoveryTarget): Promise<ReadBack> {
  const plan = await planRestore(repository, 'app', target)
  const digest = createHash('sha256')
  const { base, timeline, cut, reached } = plan
  digest.update(toText({ base, timeline, cut, reached }))
  for (const reference of referencesOf(base)) {
    for await (const part of readContainer(repository.storage, reference))
      if (part.kind === 'block') digest.update(part.raw)
  }
  for await (const changes of readChanges(repository, plan)) for (const change of changes) digest.update(toText(change))
  return { base: base.id, place: `${timeline.id} ${cut}`, content: digest.digest('hex') }
}

export interface ReadBack {
  readonly base: string
  readonly place: string
  /** Comparable where the base is the same: the same state is reached from several. */
  readonly content: string
}

const toText = (value: unknown): string =>
  JSON.stringify(value, (_, one: unknown) => (typeof one === 'bigint' || typeof one === 'symbol' ? String(one) : one))
