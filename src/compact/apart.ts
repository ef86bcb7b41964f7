import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { throwIfAborted } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { askToEnd, receivedFailure, type SentFailure, startOwn } from '../base/own-process.ts'
import type { BaseHead } from '../repository/base.ts'
import type { Access } from '../repository/repository-key.ts'
import type { StorageEnv } from '../storage/open.ts'

/** Where a repository is and what opens it, for a process that does that by itself. */
export interface OpeningPlace {
  readonly url: string
  readonly env: StorageEnv
  readonly access: Access | undefined
}

export interface CompactionOrder {
  readonly place: OpeningPlace
  readonly source: string
  /** See `CompactOptions`. */
  readonly memory_bytes: number
  readonly maxRate: number | undefined
  /** Whether to make a base also where it cannot go past a change of the schema. */
  readonly evenIfStopped: boolean
  /** How far the process yields to others, as `nice` has it. */
  readonly niceness: number
}

export type CompactionOutcome =
  | {
      readonly kind: 'made'
      readonly base: BaseHead
      readonly transactions: number
      /** The change of the schema that it ends at; undefined if it ends at the newest moment that can be had. */
      readonly stoppedBy: string | undefined
      /** The most memory that the process has held. */
      readonly peak_bytes: number
    }
  | {
      readonly kind: 'none'
      readonly why: string
      /** Whether only a base from the source gets any further. */
      readonly isStuck: boolean
      readonly stoppedBy: string | undefined
    }

/**
 * Compacts in a process of its own, up to the newest moment that can be had: folding takes memory and processor time
 * that a capture must not wait for.
 *
 * Abort lets it remove what it has written, for some seconds, and then ends it; what is left the next one removes.
 */
export async function compactApart(
  order: CompactionOrder,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<CompactionOutcome> {
  const { signal } = options
  throwIfAborted(signal)
  const child = startOwn(import.meta.url, 'compact-process')
  let timer: NodeJS.Timeout | undefined
  const end = (): void => {
    askToEnd(child)
    timer = setTimeout(() => child.kill('SIGKILL'), grace_ms)
  }
  signal?.addEventListener('abort', end, { once: true })
  try {
    return await outcomeOf(child, order)
  } catch (error) {
    throwIfAborted(signal)
    throw error
  } finally {
    signal?.removeEventListener('abort', end)
    clearTimeout(timer)
    child.kill('SIGKILL')
  }
}

async function outcomeOf(child: ChildProcess, order: CompactionOrder): Promise<CompactionOutcome> {
  let said: { readonly outcome: CompactionOutcome } | SentFailure | undefined
  let complaints = ''
  child.on('message', (message: typeof said) => {
    said = message
  })
  child.stdout?.resume()
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaints = `${complaints}${text}`.slice(-longestComplaint_chars)
  })
  const [[code, by]] = await Promise.all([
    once(child, 'close') as Promise<[number | null, string | null]>,
    new Promise<void>((sent) => child.send(order, () => sent())),
  ])
  if (said === undefined)
    throw new WalbackError('failed', `the process of the compaction ended with ${by ?? `code ${code}`}`, {
      ...(complaints === '' ? {} : { hint: complaints.trimEnd() }),
      retryable: true,
    })
  if ('outcome' in said) return said.outcome
  throw receivedFailure(said)
}

const longestComplaint_chars = 4096
/** A little more than the process takes for itself, once it was told. */
const grace_ms = 12_000
