/**
 * The one error class for failures that are expected, with a stable code, an exit status and a hint.
 * Assertions (`assert.ts`) are for bugs; everything a user, a server or a store can cause comes through here.
 */

/** Stable error codes and the exit status that each one gives the command line. */
export const exitStatus = {
  failed: 1,
  usage: 2,
  warnings: 3,
  no_repository: 10,
  locked: 11,
  wrong_key: 12,
  outside_window: 20,
  corrupt: 21,
  gap: 21,
  refused: 22,
  conflict: 23,
  database: 30,
  prerequisite: 30,
  storage: 31,
  interrupted: 130,
} as const

export type ErrorCode = keyof typeof exitStatus

export interface ErrorDetails {
  /** What to do about it, in one line; several lines where SQL is shown. */
  readonly hint?: string
  readonly cause?: unknown
  /** True when the same call may succeed later without anybody doing anything. */
  readonly retryable?: boolean
  /** Machine-readable facts for `--json`. */
  readonly facts?: Readonly<Record<string, unknown>>
}

export class WalbackError extends Error {
  override readonly name = 'WalbackError'
  readonly code: ErrorCode
  readonly hint: string | undefined
  readonly retryable: boolean
  readonly facts: Readonly<Record<string, unknown>>

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.hint = details.hint
    this.retryable = details.retryable ?? false
    this.facts = details.facts ?? {}
  }

  get exit(): number {
    return exitStatus[this.code]
  }
}

/** The message of anything that was thrown; an AggregateError (Node's for a host with several addresses) shows its parts. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return error.errors.map(messageOf).join('; ')
  return error instanceof Error ? error.message : String(error)
}

/** The `code` property that Node's and PostgreSQL's errors carry (`ENOENT`, `42P01`). */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}
