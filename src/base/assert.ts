/** Assertions state what must hold if the code is right; one that fails is a bug in walback, never in its input. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed (a bug in walback): ${message}`)
}

/** Ends a `switch` over a discriminated union: the compiler proves that every kind is handled. */
export function unreachable(value: never): never {
  throw new Error(`unreachable (a bug in walback): ${JSON.stringify(value)}`)
}

/** The value, which the surrounding logic says is there. */
export function present<T>(value: T | null | undefined, what: string): T {
  assert(value !== null && value !== undefined, `${what} is absent`)
  return value
}
