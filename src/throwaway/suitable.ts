import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { parseLsn } from '../model/lsn.ts'
import type { Repository } from '../repository/repository.ts'
import { readAhead } from '../repository/segments.ts'
import type { RestorePlan } from '../restore/plan.ts'
import { loadStatements } from '../restore/schema.ts'

interface Where {
  readonly kind: 'throwaway' | 'given'
  readonly major: number
  readonly server: string
}

/** Refuses a source that is newer than the server: its schema may say what an older one does not understand. */
export function requireMajor({ base }: Pick<RestorePlan, 'base'>, { major, server }: Where): void {
  const source = Math.floor(base.serverVersion / 10_000)
  if (source <= major) return
  throw new WalbackError('prerequisite', `the source is PostgreSQL ${source}, and ${server} is older`, {
    hint: `give --on postgres://… of a server with PostgreSQL ${source} or later; a temporary database is made there`,
    facts: { source_major: source, major },
  })
}

/** Refuses a source with extensions that the server does not have, by their names, before anything is made. */
export async function requireExtensions(
  client: pg.Client,
  repository: Repository,
  plan: RestorePlan,
  { kind, server, major }: Where,
  signal: AbortSignal | undefined,
): Promise<void> {
  const wanted = [
    ...new Set([...(await ofBase(repository, plan, signal)), ...(await ofStream(repository, plan, signal))]),
  ]
  if (wanted.length === 0) return
  const { rows } = await client.query<{ name: string }>(
    'SELECT name::text AS name FROM pg_catalog.pg_available_extensions',
  )
  const there = new Set(rows.map(({ name }) => name))
  const missing = wanted.filter((name) => !there.has(name)).sort()
  if (missing.length === 0) return
  throw new WalbackError(
    'prerequisite',
    `${server} lacks ${missing.length === 1 ? 'an extension' : 'extensions'} that the source has: ${missing.join(', ')}`,
    {
      hint:
        kind === 'throwaway'
          ? `give --on postgres://… of a server with PostgreSQL ${Math.floor(plan.base.serverVersion / 10_000)} or later that has ${missing.length === 1 ? 'it' : 'them'}; a temporary database is made there, and dropped`
          : `install ${missing.join(', ')} for PostgreSQL ${major} there, or give another server`,
      facts: { missing },
    },
  )
}

type Signal = AbortSignal | undefined

async function ofBase(repository: Repository, plan: RestorePlan, signal: Signal): Promise<string[]> {
  const { pre } = await loadStatements(repository, plan, signal)
  return pre.flatMap(({ kind, node }) =>
    kind === 'CreateExtensionStmt' ? [String((node as { extname?: unknown }).extname)] : [],
  )
}

/** Those that were made since the base: a replay leaves out what it cannot make, and so would all that needs them. */
async function ofStream(repository: Repository, { segments, cut }: RestorePlan, signal: Signal): Promise<string[]> {
  const names: string[] = []
  for await (const { summary } of readAhead(repository, segments, signal)) {
    for (const { end, ddl = [] } of summary?.trailer.transactions ?? []) {
      if (parseLsn(end) > cut) continue
      for (const { tag, object } of ddl) if (tag === 'CREATE EXTENSION' && object !== null) names.push(unquoted(object))
    }
  }
  return names
}

/** Identities are written as in SQL. */
const unquoted = (name: string): string => (name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name)
