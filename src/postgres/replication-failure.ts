import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import { quoteLiteral } from '../model/identifier.ts'

/**
 * Turns the failure of a query into what a person can act on. A connection that broke, or a server that is stopping,
 * starting or full (SQLSTATE classes 08, 53 and 57), may be tried again; node-postgres gives broken connections no code.
 */
export function explainSessionFailure(error: unknown): WalbackError {
  if (error instanceof WalbackError) return error
  return new WalbackError('database', `the database did not answer: ${messageOf(error)}`, {
    cause: error,
    hint: 'see the server log for the reason',
    retryable: isPassingFailure(error),
  })
}

/** The same, if a session's end or want of room is what it is; all else (a mistake of ours, say) stays as it is. */
export function explainLostSession(error: unknown): unknown {
  const code = codeOf(error)
  const isLost =
    code === undefined
      ? /^(Connection terminated|Client (was closed|has encountered a connection error))/.test(messageOf(error))
      : /^((08|53|57)[0-9A-Z]{3}|ECONN[A-Z]+|EPIPE|ETIMEDOUT|E(HOST|NET)UNREACH)$/.test(code)
  return isLost ? explainSessionFailure(error) : error
}

function isPassingFailure(error: unknown): boolean {
  const code = codeOf(error)
  const isSqlState = code !== undefined && /^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]+$/.test(code)
  return isSqlState ? /^(08|53|57)/.test(code) : code !== undefined || /connection/i.test(messageOf(error))
}

/** Turns the server's refusal of a change stream, or the loss of one, into what a person can act on. */
export function explainReplicationFailure(
  error: unknown,
  stream: { readonly slot: string; readonly publications: readonly string[] },
): WalbackError {
  if (error instanceof WalbackError) return error
  const [code, message] = [codeOf(error), messageOf(error)]
  const failure = (
    kind: 'locked' | 'gap' | 'database' | 'prerequisite',
    what: string,
    hint: string,
    retryable = false,
  ) => new WalbackError(kind, what, { hint, cause: error, retryable })
  if (code === '55006') {
    return failure(
      'locked',
      `the replication slot ${stream.slot} is in use: ${message}`,
      'another walback agent is capturing this source; stop it first, or let it do the work',
      true,
    )
  }
  if (code === '42704' && publicationIn(message, stream)) return publicationWasGone(message, stream.slot, error)
  if (code === '42704') {
    return failure(
      'gap',
      `the replication slot is gone: ${message}`,
      'changes since its loss are not in the stream; run `walback init` to begin a new timeline, then `walback backup --full`',
    )
  }
  if (code === '55000' && /slot/.test(message)) {
    return failure(
      'gap',
      `the replication slot cannot be read any more: ${message}`,
      'the server has thrown away log that walback had not read; drop the slot with `walback uninstall`, run `walback init`, then `walback backup --full`',
    )
  }
  // A message is built in one piece of memory, which PostgreSQL bounds.
  if (code === '54000') {
    return new WalbackError('gap', `the change stream cannot go on: ${message}`, {
      cause: error,
      hint: `a row was written that takes 1 GiB or more as text, and the server cannot send it; only a new slot gets past it: SELECT pg_drop_replication_slot(${quoteLiteral(stream.slot)}), \`walback init\`, then \`walback backup --full\``,
      facts: { slotIsSpent: true },
    })
  }
  return failure('database', `the change stream was lost: ${message}`, 'see the server log for the reason', true)
}

/**
 * A warning by which the server says that it leaves changes out: from 18 on it passes over a publication that does not
 * exist where it reads, and goes on without its tables; before, that was an error.
 */
export function explainReplicationNotice(
  notice: { readonly code?: string | undefined; readonly message?: string | undefined },
  stream: { readonly slot: string; readonly publications: readonly string[] },
): WalbackError | undefined {
  const { code, message = '' } = notice
  return code === '55000' && publicationIn(message, stream)
    ? publicationWasGone(message, stream.slot, notice)
    : undefined
}

/** By its name, in whatever language the message is. */
const publicationIn = (message: string, { publications }: { readonly publications: readonly string[] }): boolean =>
  publications.some((name) => message.includes(`"${name}"`))

/**
 * The slot reads the log with the catalogs as they were at each place of it. Where the publication was gone, changes
 * cannot be read by it any more, also when it has been made again since; only a new slot gets past them.
 */
function publicationWasGone(message: string, slot: string, cause: unknown): WalbackError {
  return new WalbackError('gap', `a publication was dropped, and what changed while it was gone is lost: ${message}`, {
    cause,
    hint: `run \`walback init\`, which makes it and a new slot (or, if it is there again, first SELECT pg_drop_replication_slot(${quoteLiteral(slot)})), then \`walback backup --full\`; what is archived stays restorable`,
    facts: { slotIsSpent: true },
  })
}
