import type { Logger } from 'pino'
import { messageOf, type RepositoryKey, WalbackError } from '../src/index.ts'
import type { Events } from './events.ts'
import { rest } from './rest.ts'

export interface KeyWatchOptions {
  readonly key: RepositoryKey
  readonly source: string
  /** From one look to the next; each asks the store for one object. */
  readonly every_ms: number
  readonly log: Logger
  readonly events: Events
  readonly signal: AbortSignal
}

/**
 * Looks now and then whether the key of the repository was rotated, until the signal fires. A new generation that can be
 * trusted is written with from then on; any other is told, and what is written stays as it was: that is readable for
 * whoever could read it before, and a capture that ended for it would lose more.
 */
export async function watchKey(options: KeyWatchOptions): Promise<void> {
  const { every_ms, signal } = options
  while (!signal.aborted) {
    await rest(every_ms, signal)
    if (!signal.aborted) await lookOnce(options)
  }
}

async function lookOnce({ key, source, log, events, signal }: KeyWatchOptions): Promise<void> {
  try {
    const news = await key.refresh(signal)
    const facts = { generation: key.newest.number, fingerprint: key.fingerprint }
    if (news === 'left') {
      events.raise('key-not-followed', {
        severity: 'warning',
        message:
          'the key of the repository was rotated, and an agent whose key only writes goes on with the generation before: compare the fingerprint with `walback key list`, and start it again',
        facts,
      })
      return
    }
    events.clear('key-not-followed', { message: 'the key of the repository is followed', facts })
    if (news === 'followed') {
      const message = `the key of the repository was rotated: what is stored from now on is sealed to generation ${facts.generation}`
      events.once('key-rotated', { severity: 'info', message, facts })
    }
  } catch (error) {
    if (signal.aborted) return
    const known = error instanceof WalbackError ? error : undefined
    if (known?.code !== 'wrong_key' && known?.code !== 'corrupt') {
      log.debug({ source, err: error }, 'could not look whether the key was rotated; trying again')
      return
    }
    events.raise('key-not-followed', {
      severity: 'error',
      message: `KEY NOT FOLLOWED: ${messageOf(error)}; what is stored is sealed to the generation before`,
      facts: { hint: known.hint ?? null },
    })
  }
}
