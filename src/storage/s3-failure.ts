import { codeOf, messageOf, WalbackError } from '../base/errors.ts'

/** What the SDK's errors say, as far as they say it; an answer to HEAD has a status and no code. */
export interface S3Complaint {
  readonly status: number | undefined
  /** S3's own word (`NoSuchBucket`), or Node's for a connection that failed (`ECONNREFUSED`). */
  readonly code: string
  readonly attempts: number
}

export function complaintOf(error: unknown): S3Complaint {
  const { name, $metadata } = error as { name?: unknown; $metadata?: { httpStatusCode?: number; attempts?: number } }
  // Behind the SDK's names for its own troubles lies the system's code.
  const code = codeOf(error) ?? (typeof name === 'string' ? name : '')
  return { status: $metadata?.httpStatusCode, code, attempts: $metadata?.attempts ?? 1 }
}

/** Whether the store, or the way to it, may be well again by itself. */
export function isPassing(error: unknown): boolean {
  const { status, code } = complaintOf(error)
  if (passingCodes.has(code)) return true
  return status !== undefined && (status >= 500 || status === 429 || status === 408) && status !== 501
}

const passingCodes = new Set([
  'EAI_AGAIN',
  'ECONNABORTED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EPIPE',
  'ERR_STREAM_PREMATURE_CLOSE',
  'ETIMEDOUT',
  'InternalError',
  'OperationAborted',
  'RequestTimeout',
  'ServiceUnavailable',
  'SlowDown',
  'ThrottlingException',
  'TimeoutError',
])

/**
 * A failure in walback's words. The SDK's own error is not handed on: it holds the request, and so the signature and the
 * session's token, which a log would show.
 */
export function s3Failure(doing: string, where: string, error: unknown): WalbackError {
  if (error instanceof WalbackError) return error
  const { status, code } = complaintOf(error)
  const said = messageOf(error).split('\n')[0]
  const named = [code, said === code || said === 'UnknownError' ? '' : said].filter(Boolean).join(': ')
  const hint = hintFor(code, status, error)
  return new WalbackError('storage', `cannot ${doing} ${where}: ${status === undefined ? '' : `${status} `}${named}`, {
    cause: new Error(named),
    retryable: isPassing(error),
    facts: { absent: code === 'NoSuchKey' || code === 'NotFound', status },
    ...(hint === undefined ? {} : { hint }),
  })
}

const credentialsHint =
  'give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run where there is an instance or task role'
const skewHint = "this machine's clock is wrong: set it (NTP), since signatures are good for minutes only"
const renewHint = 'the session has ended: renew it (aws sso login), or use credentials that renew themselves'
const startHint = 'check the endpoint in the repository URL, and that the store runs and can be reached from here'

const hints: Readonly<Record<string, string>> = {
  AccessDenied:
    'the credentials lack a right on this bucket or prefix: s3:ListBucket on the bucket, s3:GetObject, s3:PutObject and s3:AbortMultipartUpload on its objects (docs/stores.md has a policy)',
  AuthorizationHeaderMalformed: "give the bucket's region: add ?region=… to the repository URL",
  CredentialsProviderError: credentialsHint,
  ECONNREFUSED: startHint,
  ENOTFOUND: 'no such host: check the endpoint and region in the repository URL, and DNS',
  EntityTooLarge: 'the store takes no object or part as large as this: its limits are lower than those of S3',
  ExpiredToken: renewHint,
  ExpiredTokenException: renewHint,
  InvalidAccessKeyId:
    'the store does not know this access key: check AWS_ACCESS_KEY_ID or the profile, and the endpoint',
  InvalidBucketName: 'check the bucket in the repository URL',
  NoSuchBucket:
    'walback makes no buckets: make it, or check its name, the region and the endpoint in the repository URL',
  RequestTimeTooSkewed: skewHint,
  SignatureDoesNotMatch: 'the secret key is another than the one of this access key: check AWS_SECRET_ACCESS_KEY',
  SlowDown: 'the store asks for fewer requests: it is overloaded, or a limit of the account is reached',
  TimeoutError: 'the store does not answer in time: check the network to it, and its load',
  TokenRefreshRequired: renewHint,
  CERT_HAS_EXPIRED: "the store's certificate has expired",
  DEPTH_ZERO_SELF_SIGNED_CERT: 'the certificate is signed by itself: name its authority with NODE_EXTRA_CA_CERTS',
  SELF_SIGNED_CERT_IN_CHAIN: 'name the authority of the certificate with NODE_EXTRA_CA_CERTS',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'name the authority of the certificate with NODE_EXTRA_CA_CERTS',
}

function hintFor(code: string, status: number | undefined, error: unknown): string | undefined {
  if (code === 'PermanentRedirect' || status === 301) {
    const { $response } = error as { $response?: { headers?: Readonly<Record<string, string>> } }
    const region = $response?.headers?.['x-amz-bucket-region']
    return `the bucket is in another region: set region=${region ?? '…'} in the repository URL`
  }
  if (/^Region is missing/.test(messageOf(error))) return 'add ?region=… to the repository URL, or set AWS_REGION'
  const known = hints[code]
  if (known !== undefined) return known
  return status === 403 ? hints['AccessDenied'] : undefined
}
