/**
 * The process in which the built-in `pg_dump` runs: with many tables it takes more memory than everything else that
 * walback does, and none of it is given back before the process ends. `schema-dump-builtin.ts` starts it, and takes the
 * dump from its standard output.
 */
import { setFlagsFromString } from 'node:v8'
import { takeOrder } from '../base/own-process.ts'
import type { Conninfo } from './conninfo.ts'
import { relayPgDump } from './schema-dump-relay.ts'

export interface DumpOrder {
  readonly conninfo: Conninfo
  /** The arguments of each run. */
  readonly runs: readonly (readonly string[])[]
}

// `pg_dump` waits for the server most of its time: to compile it a second time, for speed, takes more of the processor than
// it gives back, also with thousands of tables. A version of V8 that does not know the flag passes over it.
setFlagsFromString('--liftoff-only')

/** Each dump ends in a zero, which SQL never holds. */
async function dump({ conninfo, runs }: DumpOrder): Promise<void> {
  for (const args of runs) {
    const sql = await relayPgDump(conninfo, args)
    await new Promise<void>((written) => process.stdout.write(`${sql}\0`, () => written()))
  }
}

takeOrder(dump)
