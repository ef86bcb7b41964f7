/**
 * The process in which the built-in `pg_dump` runs: with many tables it takes more memory than everything else that
 * walback does, and none of it is given back before the process ends. `schema-dump-builtin.ts` starts it, and takes the
 * dump from its standard output.
 */
import { takeOrder } from '../base/own-process.ts'
import type { Conninfo } from './conninfo.ts'
import { relayPgDump } from './schema-dump-relay.ts'

export interface DumpOrder {
  readonly conninfo: Conninfo
  /** The arguments of each run. */
  readonly runs: readonly (readonly string[])[]
}

/** Each dump ends in a zero, which SQL never holds. */
async function dump({ conninfo, runs }: DumpOrder): Promise<void> {
  for (const args of runs) {
    const sql = await relayPgDump(conninfo, args)
    await new Promise<void>((written) => process.stdout.write(`${sql}\0`, () => written()))
  }
}

takeOrder(dump)
