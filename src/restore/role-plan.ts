import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { nearest } from '../base/nearest.ts'
import type { Role } from '../model/catalog.ts'
import { rightsInAcl } from '../postgres/acl-item.ts'
import { rolePlaces } from '../postgres/role-references.ts'
import type { Statement } from '../postgres/split-sql.ts'
import type { BaseManifest } from '../repository/base.ts'
import { roleOfSetting } from './settings.ts'

/** What is to be done about the roles that a database names, on a server that may have others. Default: what there is. */
export interface RoleOptions {
  /** Makes those that are named and that the target lacks, without passwords. */
  readonly create?: boolean
  /** Roles of the source, and those of the target that take their place. */
  readonly map?: ReadonlyMap<string, string>
  /** Everything belongs to the role that restores. */
  readonly noOwner?: boolean
  /** No right is granted or revoked, and no default privilege is set. */
  readonly noPrivileges?: boolean
}

/** What a target has, and who restores there. */
export interface TargetRoles {
  readonly names: ReadonlySet<string>
  readonly restorer: string
  readonly isSuperuser: boolean
  readonly serverVersion: number
}

export interface RolePlan {
  /** Roles that the database names and for which the target will have none, by their names on the source. */
  readonly missing: readonly string[]
  /** Roles to be made, by their names on the target. */
  readonly create: ReadonlyMap<string, Role>
}

export async function readTargetRoles(client: pg.Client): Promise<TargetRoles> {
  const { rows } = await client.query<{ names: string[]; restorer: string; superuser: boolean; version: string }>(
    `SELECT ARRAY(SELECT rolname::text FROM pg_catalog.pg_roles) AS names, current_user AS restorer,
       (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS superuser,
       current_setting('server_version_num') AS version`,
  )
  const row = rows[0]
  return {
    names: new Set(row?.names),
    restorer: row?.restorer ?? '',
    isSuperuser: row?.superuser === true,
    serverVersion: Number(row?.version),
  }
}

/**
 * Decides which roles are made and which stay missing. Made are those that the database names, and the roles that these
 * are members of or become by a setting: what a restored object needs, and no others of the source's server. Pure;
 * refuses a map that cannot be meant.
 */
export function planRoles(
  recorded: readonly Role[],
  named: ReadonlySet<string>,
  there: ReadonlySet<string>,
  options: RoleOptions,
): RolePlan {
  const definitions = new Map(recorded.map((role) => [role.name, role]))
  checkMap(new Set([...definitions.keys(), ...named]), there, options)
  // Of several in whose place one is put, the first.
  const likeness = new Map([...(options.map ?? [])].reverse().map(([role, other]) => [other, role]))
  const create = new Map<string, Role>()
  const missing = new Set<string>()
  const queue = [...named]
  for (const role of queue) {
    const name = options.map?.get(role) ?? role
    if (there.has(name) || create.has(name) || missing.has(role)) continue
    const definition = definitions.get(name) ?? definitions.get(likeness.get(name) ?? role)
    if (options.create && definition !== undefined) {
      create.set(name, definition)
      queue.push(...definition.memberOf, ...definition.settings.flatMap((setting) => roleOfSetting(setting) ?? []))
    } else missing.add(role)
  }
  return { missing: [...missing].sort(), create }
}

function checkMap(known: ReadonlySet<string>, there: ReadonlySet<string>, { map, create }: RoleOptions): void {
  for (const [role, other] of map ?? []) {
    if (!known.has(role)) {
      const meant = nearest(role, known)
      throw new WalbackError('usage', `there is no role ${role} in this backup to put another in its place`, {
        hint: meant === undefined ? `it knows ${[...known].sort().join(', ')}` : `did you mean ${meant}?`,
        facts: { role },
      })
    }
    if (!there.has(other) && !create) {
      const meant = nearest(other, there)
      throw new WalbackError('prerequisite', `the target has no role ${other} to take the place of ${role}`, {
        hint: `${meant === undefined ? '' : `did you mean ${meant}? `}make it first, or have it made with --create-roles`,
        facts: { role: other },
      })
    }
  }
}

/** What statements and properties need of roles, unless it is left out as asked. */
export function rolesNamed(
  base: Pick<BaseManifest, 'database' | 'largeObjects' | 'roles' | 'tables'>,
  statements: readonly Statement[],
  options: RoleOptions & { readonly isNewDatabase: boolean },
): Set<string> {
  const { database, largeObjects } = base
  const { noOwner, noPrivileges, isNewDatabase } = options
  const isLeftOut = (statement: Statement): boolean => {
    const subject = subjectOf(statement)
    return (noOwner && subject === 'owner') || (noPrivileges && isAboutRights(subject)) || subject === 'revoke'
  }
  const names: (string | null | undefined)[] = statements
    .filter((statement) => !isLeftOut(statement))
    .flatMap((statement) => rolePlaces(statement).flatMap((place) => place.names))
  if (!noOwner) names.push(...largeObjects.objects.map(({ owner }) => owner))
  if (!noPrivileges)
    names.push(...largeObjects.objects.flatMap(({ acl }) => acl.flatMap(rightsInAcl).map(({ role }) => role)))
  if (isNewDatabase) {
    if (!noOwner) names.push(database.owner)
    if (!noPrivileges) names.push(...(database.grants ?? []).map(({ role }) => role))
    names.push(...database.roleSettings.map(({ role }) => role))
    const settings = [...database.settings, ...database.roleSettings.flatMap((of) => of.settings)]
    names.push(...settings.map(roleOfSetting))
  }
  // A column of type regrole or aclitem can hold any of them.
  if (options.create && base.tables.some(({ types }) => types?.some((type) => /^(?:4096|4097|1033|1034)\./.test(type))))
    names.push(...base.roles.map(({ name }) => name))
  return new Set(names.filter((name) => name !== undefined && name !== null))
}

/** What a statement gives to roles; undefined when it is about something else. */
export type Subject = 'owner' | 'grant' | 'revoke' | 'default privilege' | 'grantor' | 'policy' | 'user mapping'

export function subjectOf({ kind, node }: Statement): Subject | undefined {
  const fields = node as {
    cmds?: { AlterTableCmd?: { subtype?: string } }[]
    authrole?: unknown
    is_grant?: boolean
    name?: string
  }
  switch (kind) {
    case 'AlterOwnerStmt':
      return 'owner'
    case 'CreateSchemaStmt':
      return fields.authrole === undefined ? undefined : 'owner'
    case 'AlterTableStmt':
      return fields.cmds?.some(({ AlterTableCmd }) => AlterTableCmd?.subtype === 'AT_ChangeOwner') ? 'owner' : undefined
    case 'GrantStmt':
      return fields.is_grant ? 'grant' : 'revoke'
    case 'AlterDefaultPrivilegesStmt':
      return 'default privilege'
    case 'VariableSetStmt':
      return fields.name === 'session_authorization' ? 'grantor' : undefined
    case 'CreatePolicyStmt':
    case 'AlterPolicyStmt':
      return 'policy'
    case 'CreateUserMappingStmt':
    case 'AlterUserMappingStmt':
    case 'DropUserMappingStmt':
      return 'user mapping'
    default:
      return undefined
  }
}

export const isAboutRights = (subject: Subject | undefined): boolean =>
  subject === 'grant' || subject === 'revoke' || subject === 'default privilege' || subject === 'grantor'
