import { z } from 'zod'
import { throwIfAborted } from '../base/abort.ts'
import { messageOf } from '../base/errors.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { runQuery, type TextRow } from './query.ts'

/** What must hold in every restored database, in the user's own words: a SELECT of one value. */
export const assertionShape = z.strictObject({
  name: z.string().min(1, 'empty'),
  sql: z.string().min(1, 'empty'),
  /** What it must give; true if not said. Anything else than a boolean is compared as the server writes it. */
  expect: z.union([z.string(), z.number(), z.boolean(), z.null()]).default(true),
})
export type Assertion = z.infer<typeof assertionShape>

/** Runs an assertion, and gives why it does not hold; undefined if it does. */
export async function failureOf(
  conninfo: Conninfo,
  { sql, expect }: Pick<Assertion, 'sql' | 'expect'>,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const found: TextRow[] = []
  const reader = {
    columns: () => undefined,
    rows: (rows: readonly TextRow[]) => {
      found.push(...rows.slice(0, 2))
      return found.length < 2
    },
  }
  try {
    await runQuery(conninfo, sql, reader, signal)
  } catch (error) {
    throwIfAborted(signal)
    return messageOf(error)
  }
  const [row, second] = found
  if (row === undefined) return 'it gives no row'
  if (second !== undefined) return 'it gives more than one row'
  const value = row[0] ?? null
  const wanted = typeof expect === 'boolean' ? (expect ? 't' : 'f') : expect === null ? null : String(expect)
  return value === wanted ? undefined : `it gives ${shown(value)}, and not ${shown(wanted)}`
}

const shown = (value: string | null): string => (value === null ? 'NULL' : JSON.stringify(value))
