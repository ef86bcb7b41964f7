import type { Repository } from '../repository/repository.ts'
import { type Destination, onServer } from './destination.ts'
import type { RestorePlan } from './plan.ts'
import { planRoles, type RoleOptions, type RolePlan, readTargetRoles, rolesNamed } from './role-plan.ts'
import { loadStatements } from './schema.ts'

/** Looks at a target for a plan: what a restore would find missing and make. Changes nothing. */
export async function lookAtRoles(
  repository: Repository,
  plan: RestorePlan,
  destination: Destination,
  options: RoleOptions & { readonly signal?: AbortSignal | undefined },
): Promise<RolePlan> {
  return await onServer(destination, async (client) => {
    const { rows } = await client.query('SELECT FROM pg_catalog.pg_database WHERE datname = $1', [destination.database])
    const { pre, post, last } = await loadStatements(repository, plan, options.signal)
    const named = rolesNamed(plan.base, [...pre, ...post, ...last], { ...options, isNewDatabase: rows.length === 0 })
    return planRoles(plan.base.roles, named, (await readTargetRoles(client)).names, options)
  })
}
