import type { Command } from 'commander'
import type { RoleOptions, RolePlan } from '../src/index.ts'
import { invalid } from './errors.ts'
import { printable } from './format.ts'

/** What a command line says about roles. */
export interface RoleFlags {
  readonly createRoles?: boolean
  readonly mapRole?: ReadonlyMap<string, string>
  /** False with --no-owner, --no-privileges. */
  readonly owner?: boolean
  readonly privileges?: boolean
}

/** The flags are pg_restore's where it has them. */
export const addRoleFlags = (command: Command): Command =>
  command
    .option('--create-roles', 'make the roles that the database names and the server lacks, without passwords')
    .option('--map-role <old=new>', 'put a role of the server in the place of one of the source (repeatable)', parseMap)
    .option('-O, --no-owner', 'everything belongs to the role that restores')
    .option('-x, --no-privileges', 'no rights are granted or revoked')

export const roleOptionsOf = ({ createRoles, mapRole, owner, privileges }: RoleFlags): RoleOptions => ({
  ...(createRoles ? { create: true } : {}),
  ...(mapRole ? { map: mapRole } : {}),
  ...(owner === false ? { noOwner: true } : {}),
  ...(privileges === false ? { noPrivileges: true } : {}),
})

/** `old=new`; a name with an equals sign, or one that begins with a quotation mark, in quotation marks as in SQL. */
function parseMap(text: string, before: ReadonlyMap<string, string> = new Map()): ReadonlyMap<string, string> {
  const name = `("(?:[^"]|"")+"|[^"=][^=]*)`
  const [, role, other] = new RegExp(`^${name}=${name}$`, 's').exec(text) ?? []
  if (role === undefined || other === undefined)
    return invalid('OLD=NEW is needed, a role of the source and one of the server.')
  const old = nameIn(role)
  if (before.has(old)) return invalid(`Role ${old} is mapped twice.`)
  return new Map([...before, [old, nameIn(other)]])
}

const nameIn = (word: string): string => (word.startsWith('"') ? word.slice(1, -1).replaceAll('""', '"') : word)

/** The lines of a plan about roles; none where all are there. */
export function rolesInWords(roles: RolePlan): string[] {
  const list = (names: Iterable<string>): string => [...names].map(printable).join(', ')
  const { missing, create } = roles
  return [
    ...(create.size === 0 ? [] : [`makes ${list(create.keys())}, without passwords`]),
    ...(missing.length === 0
      ? []
      : [
          `the server lacks ${list(missing)}: what is theirs is left out`,
          '(see --create-roles, --map-role, --no-owner, --no-privileges)',
        ]),
  ]
}

export const rolesJson = ({ missing, create }: RolePlan): Record<string, unknown> => ({
  looked_at: true,
  missing,
  create: [...create.keys()],
})
