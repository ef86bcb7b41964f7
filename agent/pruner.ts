import type { Logger } from 'pino'
import {
  basesLacking,
  messageOf,
  Prune,
  type PruneReport,
  pruneAudited,
  type Repository,
  type RetentionPolicy,
  recorded,
  removesNothing,
  type Storage,
  WalbackError,
} from '../src/index.ts'
import type { Events } from './events.ts'
import { rest } from './rest.ts'

export interface PrunerOptions {
  readonly repository: Repository
  readonly source: string
  readonly policy: RetentionPolicy
  /** From the end of one prune to the next; the first comes after an hour at the latest, for agents that live shortly. */
  readonly every_ms: number
  /** Other repositories that have to have a base too before it takes the place of an older one. */
  readonly required?: readonly Storage[] | undefined
  readonly log: Logger
  readonly events: Events
  readonly signal: AbortSignal
}

/** Prunes now and then in the background, until the signal fires. A prune that fails is told, and tried at the next time. */
export async function pruneRegularly(options: PrunerOptions): Promise<void> {
  const { every_ms, signal } = options
  for (let wait_ms = Math.min(every_ms, 3_600_000); !signal.aborted; wait_ms = every_ms) {
    await rest(wait_ms, signal)
    if (signal.aborted) return
    await pruneOnce(options)
  }
}

async function pruneOnce(options: PrunerOptions): Promise<void> {
  const { repository, source, policy, required = [], log, events, signal } = options
  const lacking = () => basesLacking(repository, required, source, signal)
  try {
    await using prune = await Prune.begin(repository, source, policy, { lacking, signal })
    for (const warning of prune.plan.warnings) log.warn({ source }, warning)
    const { objects, bytes, spared } = await runRecorded(prune, options)
    events.clear('prune-failed', { message: 'a prune was done' })
    if (objects === 0) return
    const bases = prune.plan.bases.flatMap(({ base, isKept }) => (isKept ? [] : [base.id]))
    events.once('pruned', {
      severity: 'info',
      message: `pruned ${objects} objects, ${bytes} bytes`,
      facts: { objects, bytes, bases, segments: prune.plan.removal.segments, spared: spared.objects },
    })
  } catch (error) {
    if (signal.aborted) return
    const known = error instanceof WalbackError ? error : undefined
    // Another prune at work does what this one would have done.
    if (known?.code === 'locked') {
      log.warn({ source, hint: known.hint }, `not pruned now: ${known.message}`)
      return
    }
    events.raise('prune-failed', {
      severity: 'warning',
      message: `not pruned: ${messageOf(error)}`,
      facts: { hint: known?.hint ?? null },
    })
  }
}

/** Into the audit record goes a prune that removes something. */
async function runRecorded(prune: Prune, { repository, source, log, signal }: PrunerOptions): Promise<PruneReport> {
  const run = (): Promise<PruneReport> => prune.run({ signal })
  if (removesNothing(prune.plan)) return await run()
  const onNotRecorded = (why: string): void => log.warn({ source }, why)
  const { result } = await recorded(repository, source, pruneAudited(prune.plan), run, { onNotRecorded, signal })
  return result
}
