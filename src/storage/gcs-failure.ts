import { codeOf, messageOf, WalbackError } from '../base/errors.ts'

/** What the SDK's errors say: the status, as a number or as text, or Node's code (`ECONNREFUSED`). */
export function complaintOf(error: unknown): { readonly status: number | undefined; readonly code: string } {
  const { code, status: own, cause } = error as { code?: unknown; status?: unknown; cause?: unknown }
  const status = [code, own].map(Number).find((number) => number >= 100 && number < 600)
  return { status, code: status === undefined ? (codeOf(error) ?? codeOf(cause) ?? '') : '' }
}

export function isPassing(error: unknown): boolean {
  if (error instanceof WalbackError) return false
  const { status, code } = complaintOf(error)
  if (status !== undefined) return status >= 500 || status === 429 || status === 408
  return passing.test(code) || (code === '' && /socket hang up|Premature close|network timeout/.test(messageOf(error)))
}

const passing = /^(EAI_AGAIN|ECONN\w+|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ERR_STREAM_PREMATURE_CLOSE|UND_ERR_\w+)$/

const credentialsHint =
  'set GOOGLE_APPLICATION_CREDENTIALS to the file of a key, run `gcloud auth application-default login`, or run where there is a service account'

const hints: Readonly<Record<string, string>> = {
  400: 'what arrived was not what was sent, or the store does not take such a request',
  401: credentialsHint,
  403: 'the service account needs storage.objects.create, .get and .list on the bucket, and .delete for removing (docs/stores.md)',
  429: 'the store asks for fewer requests',
  ECONNREFUSED: 'check the endpoint in the repository URL, and that the store can be reached from here',
  ENOTFOUND: 'no such host: check the endpoint in the repository URL, and DNS',
}

const isBucketMissing = (error: unknown): boolean => /bucket does not exist/i.test(messageOf(error))

/** A failure in walback's words, without the request: its headers hold a token. */
export function gcsFailure(doing: string, where: string, error: unknown): WalbackError {
  if (error instanceof WalbackError) return error
  const { status, code } = complaintOf(error)
  const { cause } = error as { cause?: unknown }
  // Behind `fetch failed` lies the system's own word.
  const said = (messageOf(cause instanceof Error ? cause : error).split('\n')[0] ?? '').slice(0, 300)
  const named = [status ?? code, said].filter(Boolean).join(' ')
  const hint = isBucketMissing(error)
    ? 'walback makes no buckets: make it, or check its name in the repository URL'
    : /default credentials|invalid_grant/i.test(said)
      ? credentialsHint
      : hints[status ?? code]
  return new WalbackError('storage', `cannot ${doing} ${where}: ${named}`, {
    cause: new Error(named),
    retryable: isPassing(error),
    facts: { absent: status === 404 && !isBucketMissing(error), status },
    ...(hint === undefined ? {} : { hint }),
  })
}
