/**
 * The process in which the built-in `pg_dump` runs: with many tables it takes more memory than everything else that
 * walback does, and none of it is given back before the process ends. `schema-dump-builtin.ts` starts it, tells it over
 * the channel between them what to dump, since anybody may read arguments, and takes the dump from its standard output.
 */
import { messageOf, WalbackError } from '../base/errors.ts'
import type { Conninfo } from './conninfo.ts'
import { relayPgDump } from './schema-dump-relay.ts'

export interface DumpOrder {
  readonly conninfo: Conninfo
  /** The arguments of each run. */
  readonly runs: readonly (readonly string[])[]
}

/** Why there is no dump; without a code it is what `pg_dump` complained of. */
export type DumpFailure = Pick<WalbackError, 'message'> &
  Partial<Pick<WalbackError, 'code' | 'hint' | 'retryable' | 'facts'>>

function failureOf(error: unknown): DumpFailure {
  if (!(error instanceof WalbackError)) return { message: messageOf(error) }
  const { code, message, hint, retryable, facts } = error
  return { code, message, hint, retryable, facts }
}

/** Each dump ends in a zero, which SQL never holds. */
async function dump({ conninfo, runs }: DumpOrder): Promise<void> {
  for (const args of runs) {
    const sql = await relayPgDump(conninfo, args)
    await new Promise<void>((written) => process.stdout.write(`${sql}\0`, () => written()))
  }
}

// What a terminal, or a supervisor, sends to all processes at once is for the one that started this one to act on.
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => undefined)

// The other end is gone, however that came about: nobody is left to dump for.
process.once('disconnect', () => process.exit(1))

process.once('message', (order: DumpOrder) => {
  dump(order).then(
    () => process.exit(0),
    (error: unknown) => process.send?.(failureOf(error), () => process.exit(1)),
  )
})
