import type { Statement } from '../postgres/split-sql.ts'
import type { Repository } from '../repository/repository.ts'
import { type Destination, onServer } from './destination.ts'
import { type DiskNeed, diskNeedOf } from './disk-need.ts'
import { contentsOf } from './empty-database.ts'
import { inDatabase } from './in-database.ts'
import type { RestorePlan } from './plan.ts'
import { planRoles, type RoleOptions, type RolePlan, rolesNamed } from './role-plan.ts'
import { loadStatements } from './schema.ts'
import { checkTarget, type TargetFinding } from './target-check.ts'
import { readTargetFacts, type TargetFacts } from './target-facts.ts'

/** What a target is to a plan. */
export interface TargetLook {
  readonly facts: TargetFacts
  readonly roles: RolePlan
  readonly need: DiskNeed
  readonly findings: readonly TargetFinding[]
}

export interface LookOptions extends RoleOptions {
  /** A database is made beside the one that is named, and takes its place, or gives it rows. */
  readonly isBeside?: boolean
  readonly signal?: AbortSignal | undefined
}

/** Looks at a target for a plan: what a restore would find missing, and make, and fail at. Changes nothing. */
export async function lookAtTarget(
  repository: Repository,
  plan: RestorePlan,
  destination: Destination,
  options: LookOptions,
): Promise<TargetLook> {
  const { base } = plan
  const { pre, post, last } = await loadStatements(repository, plan, options.signal)
  const facts = await onServer(destination, (client) => readTargetFacts(client, destination.database, base.database))
  const isNew = options.isBeside === true || facts.database === undefined
  const named = rolesNamed(base, [...pre, ...post, ...last], { ...options, isNewDatabase: isNew })
  const roles = planRoles(base.roles, named, facts.names, options)
  const need = diskNeedOf(plan)
  const contents = isNew ? undefined : await readContents(destination)
  const extensions = new Set(pre.flatMap(extensionMade))
  const laterExtensions = new Set(plan.madeExtensions.filter((name) => !extensions.has(name)))
  return {
    facts,
    roles,
    need,
    findings: checkTarget(base, { facts, roles, isNew, extensions, laterExtensions, need, contents }),
  }
}

const readContents = ({ conninfo, database }: Destination): Promise<string | undefined> =>
  inDatabase(conninfo, database, (client) => contentsOf(client, database))

function extensionMade({ kind, node }: Statement): string[] {
  if (kind !== 'CreateExtensionStmt') return []
  const { extname } = node as { readonly extname?: string }
  return extname === undefined ? [] : [extname]
}
