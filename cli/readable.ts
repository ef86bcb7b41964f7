import { messageOf, type RepositoryPlace, WalbackError } from '../src/index.ts'
import type { Context, OpenedSource } from './context.ts'
import { printable } from './format.ts'

/** A repository that could not serve, and why. */
export interface PassedOver {
  readonly repository: string
  readonly reason: string
}

/** What was read, from where, and who could not serve it. */
export interface FirstReadable<T> extends OpenedSource {
  readonly value: T
  readonly passedOver: readonly PassedOver[]
}

/** What another repository may serve although one cannot: it is away, or empty, or damaged, or lacks the target. */
const elsewhere = ['storage', 'no_repository', 'corrupt', 'outside_window', 'gap', 'wrong_key'] as const

/**
 * Reads from the first repository, in the order of the configuration, that answers and has what is asked for; those that
 * were passed over are said. If none has it, the first one's word counts.
 */
export async function readFirst<T>(
  context: Context,
  read: (opened: OpenedSource) => Promise<T>,
): Promise<FirstReadable<T>> {
  const places = await context.requirePlaces()
  const passedOver: PassedOver[] = []
  let first: unknown
  for (const place of places) {
    try {
      const opened = await context.openSource(place.url)
      const value = await read(opened)
      if (passedOver.length > 0) context.out.say(`read from ${nameOf(place)}`)
      return { ...opened, value, passedOver }
    } catch (error) {
      const mayBeElsewhere = error instanceof WalbackError && elsewhere.some((code) => code === error.code)
      if (places.length === 1 || !mayBeElsewhere || context.signal.aborted) throw error
      first ??= error
      passedOver.push({ repository: nameOf(place), reason: messageOf(error) })
      context.out.warn(`passed over ${nameOf(place)}: ${printable(messageOf(error))}`)
    }
  }
  throw first
}

const nameOf = ({ name, url }: RepositoryPlace): string => printable(name === undefined ? url : `${name} (${url})`)

/** For `--json`; nothing where the first has served. */
export const passedOverJson = (passedOver: readonly PassedOver[]): Record<string, unknown> =>
  passedOver.length === 0 ? {} : { passed_over: passedOver }
