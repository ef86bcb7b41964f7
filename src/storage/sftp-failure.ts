import { codeOf, messageOf, WalbackError } from '../base/errors.ts'

/** The answers of the protocol's version 3 that mean something to us (draft-ietf-secsh-filexfer-02, section 7). */
export const sftpStatus = {
  noSuchFile: 2,
  permissionDenied: 3,
  failure: 4,
  noConnection: 6,
  connectionLost: 7,
} as const

/** The number that the server answered with; undefined where none of its answers is behind the error. */
export function statusOf(error: unknown): number | undefined {
  const { code } = error as { code?: unknown }
  return typeof code === 'number' ? code : undefined
}

/** The connection, not the request, has failed: the next one may do better. */
export class ConnectionLost extends Error {
  override readonly name = 'ConnectionLost'
}

/** Whether a new connection and the same request may do. */
export function isPassing(error: unknown): boolean {
  if (error instanceof ConnectionLost) return true
  if (error instanceof WalbackError) return false
  const status = statusOf(error)
  if (status !== undefined) return status === sftpStatus.noConnection || status === sftpStatus.connectionLost
  const { level } = error as { level?: unknown }
  if (level === 'client-timeout' || level === 'protocol') return true
  return /^(EAI_AGAIN|ECONN\w+|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH)$/.test(codeOf(error) ?? '')
}

/** A failure in walback's words. */
export function sftpFailure(doing: string, where: string, error: unknown): WalbackError {
  if (error instanceof WalbackError) return error
  const status = statusOf(error)
  const hint = hintFor(status, error)
  return new WalbackError('storage', `cannot ${doing} ${where}: ${messageOf(error)}`, {
    cause: error,
    // `Failure` is all that a server says of a full disk, which others may make room on.
    retryable: isPassing(error) || status === sftpStatus.failure,
    facts: { absent: status === sftpStatus.noSuchFile, status },
    ...(hint === undefined ? {} : { hint }),
  })
}

const statusHints: Readonly<Record<number, string>> = {
  [sftpStatus.permissionDenied]: 'give the user in the repository URL read and write rights on the folder',
  [sftpStatus.failure]: 'the server does not say why: look whether its disk or a quota is full, or mounted read-only',
}

const codeHints: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'check host and port in the repository URL, and that the server can be reached from here',
  ENOTFOUND: 'no such host: check the repository URL, and DNS',
}

function hintFor(status: number | undefined, error: unknown): string | undefined {
  if (status !== undefined) return statusHints[status]
  if ((error as { level?: unknown }).level === 'client-authentication')
    return 'the server takes none of the logins it was shown: check the user, the key (is its public part in authorized_keys?) and the password'
  return codeHints[codeOf(error) ?? '']
}
