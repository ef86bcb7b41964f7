import { codeOf, messageOf, WalbackError } from '../base/errors.ts'

/** What the SDK's errors say: Azure's own word (`ContainerNotFound`) or Node's (`ECONNREFUSED`), and the status. */
export function complaintOf(error: unknown): { readonly status: number | undefined; readonly code: string } {
  const { statusCode, name } = error as { statusCode?: unknown; name?: unknown }
  return {
    status: typeof statusCode === 'number' ? statusCode : undefined,
    code: codeOf(error) ?? (typeof name === 'string' ? name : ''),
  }
}

export function isPassing(error: unknown): boolean {
  const { status, code } = complaintOf(error)
  if (status !== undefined) return status >= 500 || status === 429 || status === 408
  return /^(EAI_AGAIN|ECONN\w+|EPIPE|ETIMEDOUT|EHOSTUNREACH|REQUEST_SEND_ERROR|ERR_STREAM_PREMATURE_CLOSE)$/.test(code)
}

const hints: Readonly<Record<string, string>> = {
  AuthenticationFailed: 'check AZURE_STORAGE_KEY, the token or the connection string, and that this clock is right',
  AuthorizationFailure: 'the account does not let this network or this login in: check its firewall and the token',
  AuthorizationPermissionMismatch: 'the token needs the rights to read, create, write, delete and list',
  ContainerNotFound: 'walback makes no containers: make it, or check its name in the repository URL',
  ECONNREFUSED: 'check the endpoint in the repository URL, and that the store can be reached from here',
  ENOTFOUND: 'no such host: check the account in the repository URL, and DNS',
}

/** A failure in walback's words, without the request: its headers and its URL may hold a token. */
export function azureFailure(doing: string, where: string, error: unknown): WalbackError {
  if (error instanceof WalbackError) return error
  const { status, code } = complaintOf(error)
  const said = (messageOf(error).split('\n')[0] ?? '').replace(/\?\S*/g, '?…')
  const named = [code, said === code ? '' : said].filter(Boolean).join(': ')
  const hint = hints[code]
  return new WalbackError('storage', `cannot ${doing} ${where}: ${status === undefined ? '' : `${status} `}${named}`, {
    cause: new Error(named),
    retryable: isPassing(error),
    facts: { absent: status === 404 && code !== 'ContainerNotFound', status },
    ...(hint === undefined ? {} : { hint }),
  })
}
