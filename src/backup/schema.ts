import type pg from 'pg'
import { throwIfAborted } from '../base/abort.ts'
import { definitionsStamp } from '../postgres/catalog.ts'
import { connect } from '../postgres/connect.ts'
import type { Conninfo } from '../postgres/conninfo.ts'
import { dumpSchema, type SchemaDump } from '../postgres/schema-dump.ts'
import { type Catalogs, readCatalogs } from './catalogs.ts'
import type { LockWatch } from './lock-watch.ts'
import type { HeldSnapshot } from './snapshot.ts'

/** The definitions of a database, as they are in a base. */
export interface Schema {
  readonly dump: SchemaDump
  readonly catalogs: Catalogs
}

/**
 * The schema as the snapshot sees it; undefined when DDL committed while it was read, since parts of it are read as of
 * now, or when it was given up for somebody who waited for the locks that pg_dump takes.
 */
export async function readSchema(
  conninfo: Conninfo,
  around: {
    readonly leader: pg.Client
    readonly held: HeldSnapshot
    readonly watch: LockWatch
    readonly serverVersion: number
    readonly lockTimeout_ms: number
    readonly signal?: AbortSignal | undefined
  },
): Promise<Schema | undefined> {
  const { leader, held, watch, serverVersion, lockTimeout_ms, signal } = around
  const signalled = signal === undefined ? {} : { signal }
  const inSnapshot = await definitionsStamp(leader)
  const endedBefore = watch.count
  let outcome: { readonly schema: Schema } | { readonly error: unknown }
  try {
    const options = { snapshot: held.exported, serverVersion, excludeSchemas: ['walback'], lockTimeout_ms }
    const dump = await dumpSchema(conninfo, { ...options, ...signalled })
    outcome = { schema: { dump, catalogs: await readCatalogs(leader, serverVersion) } }
  } catch (error) {
    throwIfAborted(signal)
    await watch.settled()
    if (watch.count > endedBefore) return undefined
    outcome = { error }
  }
  const fresh = await connect(conninfo, { settings: { search_path: '', jit: 'off' }, ...signalled })
  try {
    // What is dropped under it makes pg_dump fail, or what reads the catalogs as they are now.
    if ((await definitionsStamp(fresh)) !== inSnapshot) return undefined
  } finally {
    await fresh.end().catch(() => undefined)
  }
  if ('error' in outcome) throw outcome.error
  return outcome.schema
}
