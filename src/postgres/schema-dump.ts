import { throwIfAborted } from '../base/abort.ts'
import { messageOf, WalbackError } from '../base/errors.ts'
import { quoteIdent } from '../model/identifier.ts'
import type { Conninfo } from './conninfo.ts'
import { builtinVersion, runBuiltinPgDump } from './schema-dump-builtin.ts'
import { explainPgDumpFailure } from './schema-dump-errors.ts'
import { findLocalPgDump, runLocalPgDump } from './schema-dump-local.ts'

/** A database's schema as `pg_dump` describes it, in the two parts between which the rows belong. */
export interface SchemaDump {
  /** Everything that must be there before rows: schemas, types, functions, tables. */
  readonly preData: string
  /** Everything that waits for the rows: indexes, constraints, triggers, rules, policies, publications. */
  readonly postData: string
  /** What dumped it: `pg_dump 18.3 (built in)` or `/usr/bin/pg_dump 17.2`. */
  readonly tool: string
}

export interface SchemaDumpOptions {
  /** A snapshot from `pg_export_snapshot()`, whose transaction stays open until the dump is done. */
  readonly snapshot: string
  /** The server's `server_version_num`, such as 180004. */
  readonly serverVersion: number
  /** Schemas to leave out with all they hold. What lies in no schema (event triggers, publications) stays in. */
  readonly excludeSchemas: readonly string[]
  /** How long to wait for the `ACCESS SHARE` locks on the tables. */
  readonly lockTimeout_ms: number
  /** Insists on one of the two tools, for tests. */
  readonly prefer?: 'local' | 'builtin'
  /** Abort ends `pg_dump` and its connection. */
  readonly signal?: AbortSignal
}

/**
 * Dumps the schema with owners and privileges, without rows, large objects and subscriptions (a restored subscription
 * would connect to its publisher).
 *
 * A local `pg_dump` that is new enough for the server comes first, since it may know a newer server than the built-in
 * one does. The text is SQL in UTF-8, whatever the database's encoding.
 */
export async function dumpSchema(conninfo: Conninfo, options: SchemaDumpOptions): Promise<SchemaDump> {
  throwIfAborted(options.signal)
  const tool = await chooseTool(conninfo, options)
  const plain = (dump: string | undefined, section: (typeof sections)[number]) =>
    plainSql(dump ?? '', options.serverVersion, section)
  try {
    const dumps = await tool.run(sections.map((name) => [`--section=${name}`, ...commonArguments(options)]))
    return { preData: plain(dumps[0], 'pre-data'), postData: plain(dumps[1], 'post-data'), tool: tool.name }
  } catch (error) {
    throwIfAborted(options.signal)
    if (error instanceof WalbackError) throw error
    throw explainPgDumpFailure(messageOf(error), { tool: tool.name, cause: error })
  }
}

const sections = ['pre-data', 'post-data'] as const

interface Tool {
  readonly name: string
  /** Runs it once for each list of arguments, one after the other, and gives what each printed. */
  run(runs: readonly (readonly string[])[]): Promise<readonly string[]>
}

async function chooseTool(conninfo: Conninfo, options: SchemaDumpOptions): Promise<Tool> {
  const { prefer, signal } = options
  const serverMajor = Math.floor(options.serverVersion / 10_000)
  const local = prefer === 'builtin' ? undefined : await findLocalPgDump(serverMajor)
  if (local) {
    return {
      name: `${local.path} ${local.version}`,
      run: (runs) => runLocalPgDump(local, conninfo, runs, { signal }),
    }
  }
  if (prefer === 'local' || serverMajor > builtinVersion.major) {
    throw new WalbackError('prerequisite', `no pg_dump here is new enough for PostgreSQL ${serverMajor}`, {
      hint: `install the client programs of PostgreSQL ${serverMajor} or newer (Debian: postgresql-client-${serverMajor})`,
    })
  }
  return { name: builtinVersion.name, run: (runs) => runBuiltinPgDump(conninfo, runs, { signal }) }
}

function commonArguments(options: SchemaDumpOptions): string[] {
  return [
    '--format=plain',
    '--no-password',
    '--encoding=UTF8',
    '--no-subscriptions',
    // Up to version 16 the empty large objects, their owners and rights are in the pre-data section. (`-B`, since the
    // long option has changed its name.)
    '-B',
    `--snapshot=${options.snapshot}`,
    `--lock-wait-timeout=${options.lockTimeout_ms}`,
    // A pattern, in which quotation marks turn off wildcards and folding to lower case.
    ...options.excludeSchemas.map((name) => `--exclude-schema=${quoteIdent(name)}`),
  ]
}

/**
 * Makes the text what any server at or above the dumped one's version runs as it is. What changes is in its head, before
 * the first entry, and at the very end:
 * - `\restrict` and `\unrestrict`, commands of psql's with a random key, around dumps since August 2025 (CVE-2025-8714),
 *   go;
 * - `SET transaction_timeout` goes, which `pg_dump` 17 and newer write for every server and older ones do not know;
 * - `pg_dump` 15 and newer say how the privileges of `public` differ from those that 15 gives it, so that on a 14, where
 *   everybody may create tables in it, a right that had been revoked would be back.
 */
export function plainSql(dump: string, serverVersion: number, section: 'pre-data' | 'post-data' = 'pre-data'): string {
  const headEnd = dump.search(/^--\n-- (?:Name: |PostgreSQL database dump complete)/m)
  let head = dump.slice(0, Math.max(headEnd, 0))
  let rest = dump.slice(head.length)
  const key = /^\\restrict (\w+)\n/m.exec(head)?.[1]
  if (key !== undefined) {
    head = head.replace(`\\restrict ${key}\n`, '')
    const closing = rest.lastIndexOf(`\\unrestrict ${key}\n`)
    if (closing >= 0) rest = rest.slice(0, closing)
  }
  if (serverVersion < 170_000) head = head.replace(/^SET transaction_timeout = 0;\n/m, '')
  // Once, since what is granted after it is granted in the first section.
  if (section === 'pre-data' && serverVersion < 150_000 && dumpedBy(head) >= 15)
    head += 'REVOKE CREATE ON SCHEMA public FROM PUBLIC;\n\n'
  return head + rest
}

/** The major version of the `pg_dump` that wrote this. */
const dumpedBy = (head: string): number => Number(/^-- Dumped by pg_dump version (\d+)/m.exec(head)?.[1] ?? 0)
