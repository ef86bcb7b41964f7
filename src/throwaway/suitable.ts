import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import type { Repository } from '../repository/repository.ts'
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

/** Refuses a base with extensions that the server does not have, by their names, before anything is made. */
export async function requireExtensions(
  client: pg.Client,
  repository: Repository,
  plan: RestorePlan,
  { kind, server, major }: Where,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { pre } = await loadStatements(repository, plan, signal)
  const wanted = pre.flatMap(({ kind: of, node }) =>
    of === 'CreateExtensionStmt' ? [String((node as { extname?: unknown }).extname)] : [],
  )
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
