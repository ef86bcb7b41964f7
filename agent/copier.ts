import type { Logger } from 'pino'
import {
  copySource,
  damageError,
  messageOf,
  openTarget,
  type Repository,
  type Storage,
  WalbackError,
} from '../src/index.ts'
import type { Events } from './events.ts'
import { rest } from './rest.ts'

export interface CopierOptions {
  readonly repository: Repository
  readonly source: string
  /** The other repositories, which follow. */
  readonly targets: readonly Storage[]
  /** From the end of one copy to the next. */
  readonly every_ms: number
  readonly log: Logger
  readonly events: Events
  readonly signal: AbortSignal
}

/**
 * Brings other repositories up to the one that capture writes to, each by itself and in the background, until the signal
 * fires. They hold nothing back: what is confirmed to the server is what the first has. One that is away is told, and
 * tried at the next time.
 */
export async function copyRegularly(options: CopierOptions): Promise<void> {
  await Promise.all(options.targets.map((target) => follow(target, options)))
}

async function follow(target: Storage, options: CopierOptions): Promise<void> {
  const { every_ms, signal } = options
  while (!signal.aborted) {
    await copyOnce(target, options)
    await rest(every_ms, signal)
  }
}

async function copyOnce(target: Storage, options: CopierOptions): Promise<void> {
  const { repository, source, log, events, signal } = options
  const subject = target.url
  try {
    const { objects, bytes, damage } = await copySource(
      repository,
      await openTarget(repository, target, signal),
      source,
      { signal },
    )
    if (objects > 0) log.debug({ source, subject, objects, bytes }, 'copied')
    if (damage.length > 0) throw damageError(repository, damage)
    events.clear('repository-behind', { subject, message: `${subject} has what ${repository.storage.url} has` })
  } catch (error) {
    if (signal.aborted) return
    const known = error instanceof WalbackError ? error : undefined
    // A prune there lasts for a while, and the next copy comes after it.
    if (known?.code === 'locked') {
      log.info({ source, subject, hint: known.hint }, `not copied now: ${known.message}`)
      return
    }
    events.raise('repository-behind', {
      severity: 'warning',
      subject,
      message: `${subject} is behind: ${messageOf(error)}`,
      facts: { ...known?.facts, hint: known?.hint ?? null },
    })
  }
}
