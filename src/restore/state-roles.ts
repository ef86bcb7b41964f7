import type { ObjectAddress, ObjectState } from '../model/ddl-message.ts'
import { replaceRoles } from '../postgres/role-references.ts'
import { parseQuery } from '../postgres/split-sql.ts'
import { aclKind, canonicalAcl, defaultAcl, renamedAcl, rolesInAcl } from './repair-acl.ts'
import { isSame } from './repair-script.ts'

/** How the source's roles are called on the target. */
export interface NamesOnTarget {
  /** Undefined where the target has no such role. */
  readonly role: (role: string) => string | undefined
  /** Who owns there what this role owns: whoever restores, where it is missing. */
  readonly owner: (role: string) => string
  /** Rights are left out. */
  readonly noPrivileges: boolean
  /** Of the source, as server_version_num. */
  readonly serverVersion: number
}

type Json = Record<string, unknown>

const isJson = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)
const listOf = (value: unknown): Json[] => (Array.isArray(value) ? value.filter(isJson) : [])
const textsOf = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((item) => typeof item === 'string') : []

/**
 * A state of the source's as it is to be on the target: with the names that roles have there, and without what the
 * target lacks a role for. Null: it is left out altogether, as a policy all of whose roles are missing.
 */
export function stateOnTarget(state: ObjectState, names: NamesOnTarget): ObjectState | null {
  const kind = String(state['kind'])
  if (kind === 'policy') return policyOnTarget(state, names) ?? null
  const { owner } = state
  const renamed: ObjectState = { ...state, ...owned(state, aclKind(kind), names) }
  if (Array.isArray(state['columns'])) {
    renamed['columns'] = listOf(state['columns']).map((column) => ({
      ...column,
      ...owned({ ...column, owner }, 'COLUMN', names, ['acl']),
      ...(Array.isArray(column['sequences'])
        ? { sequences: listOf(column['sequences']).map((one) => ({ ...one, ...owned(one, 'SEQUENCE', names) })) }
        : {}),
    }))
  }
  if (Array.isArray(state['statistics']))
    renamed['statistics'] = listOf(state['statistics']).map((one) => ({ ...one, ...owned(one, undefined, names) }))
  if (Array.isArray(state['policies'])) {
    const policies = listOf(state['policies']).flatMap((policy) => policyOnTarget(policy, names) ?? [])
    renamed['policies'] = policies.length > 0 ? policies : undefined
  }
  return { ...renamed, ...definedFor(state, names) }
}

/** A state of the target's without what is not to be compared. */
export function comparedState(state: ObjectState, { noPrivileges }: Pick<NamesOnTarget, 'noPrivileges'>): ObjectState {
  if (!noPrivileges) return state
  const bare = (part: Json): Json => ({ ...part, acl: undefined })
  const columns = listOf(state['columns']).map((column) => {
    const sequences = Array.isArray(column['sequences']) ? { sequences: listOf(column['sequences']).map(bare) } : {}
    return { ...bare(column), ...sequences }
  })
  return { ...bare(state), ...(Array.isArray(state['columns']) ? { columns } : {}) }
}

/** The address on the target of an object that is named after a role; undefined where the role is missing. */
export function addressOnTarget(address: ObjectAddress, names: Pick<NamesOnTarget, 'role'>): ObjectAddress | undefined {
  const [role, ...rest] = address.names
  const isRoles = address.type === 'default acl' || (address.type === 'user mapping' && role !== 'public')
  if (!isRoles || role === undefined) return address
  const name = names.role(role)
  return name === undefined ? undefined : { ...address, names: [name, ...rest] }
}

/** The roles that a state names as owners, and those that it gives rights, mappings or policies. */
export function rolesInState(state: ObjectState): { readonly owners: string[]; readonly others: string[] } {
  const columns = listOf(state['columns'])
  const parts = [state, ...columns.flatMap(({ sequences }) => listOf(sequences)), ...listOf(state['statistics'])]
  return {
    owners: parts.flatMap(({ owner }) => (typeof owner === 'string' ? [owner] : [])),
    others: [...parts, ...columns].flatMap(({ acl }) => rolesInAcl(textsOf(acl))),
  }
}

/** The roles of the policies that a state tells of. */
export const rolesOfPolicies = (state: ObjectState): string[] =>
  [...(state['kind'] === 'policy' ? [state] : []), ...listOf(state['policies'])].flatMap(({ roles }) => textsOf(roles))

/** Owner and rights. */
function owned(
  part: Json,
  kind: string | undefined,
  names: NamesOnTarget,
  keys: readonly ('owner' | 'acl')[] = ['owner', 'acl'],
): Json {
  const renamed: Json = {}
  const source = typeof part['owner'] === 'string' ? part['owner'] : undefined
  const owner = source === undefined ? '' : names.owner(source)
  if (keys.includes('owner') && source !== undefined) renamed['owner'] = owner
  if (!Array.isArray(part['acl'])) return renamed
  if (names.noPrivileges) return { ...renamed, acl: undefined }
  const items = canonicalAcl(textsOf(part['acl']))
  // What a role that is missing has granted, the owner has.
  const acl = renamedAcl(
    items,
    (role) => (role === source ? owner : names.role(role)),
    (role) => (role === source ? owner : (names.role(role) ?? owner)),
  )
  // Where all that was given is left out, nothing is given there, and the server notes no rights at all.
  const isDefault = kind !== undefined && isSame(acl, canonicalAcl(defaultAcl(kind, owner, names.serverVersion)))
  const isLess = items.some((item) => rolesInAcl([item]).some((role) => role !== source && !names.role(role)))
  return { ...renamed, acl: isDefault && isLess ? undefined : acl }
}

function policyOnTarget<T extends Json>(policy: T, names: NamesOnTarget): T | undefined {
  if (!Array.isArray(policy['roles'])) return policy
  const roles = new Set(textsOf(policy['roles']).flatMap((role) => names.role(role) ?? []))
  if (roles.size === 0) return undefined
  return { ...policy, roles: [...roles].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))) }
}

/** Of what is defined by SQL that names a role: a user mapping, and a function that sets one. */
function definedFor(state: ObjectState, names: NamesOnTarget): Json {
  const { kind, definition, target } = state
  const isMapping = kind === 'user mapping'
  const mayName = isMapping || kind === 'function' || kind === 'procedure'
  if (!mayName || typeof definition !== 'string') return {}
  const rename = (sql: string): string => {
    const [statement] = parseQuery(sql) ?? []
    return statement === undefined ? sql : replaceRoles({ ...statement, text: sql }, (role) => names.role(role) ?? role)
  }
  if (!isMapping) return /\bset\b/i.test(definition) ? { definition: rename(definition) } : {}
  return { definition: rename(definition), target: rename(`DROP ${String(target)}`).slice('DROP '.length) }
}
