import type pg from 'pg'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import type { Membership, Role } from '../model/catalog.ts'
import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import type { TargetRoles } from './role-plan.ts'
import { settingFor, settingSql } from './settings.ts'

export interface RoleCreation {
  readonly target: TargetRoles
  /** The name that a role of the source has on the target, once those to be made are there. */
  readonly nameFor: (role: string) => string | undefined
  /** What could not be made as it was, each in a line. */
  readonly onWarning: (warning: string) => void
  /** Called within the transaction with the name and the id of each role that it makes. */
  readonly onMade: (name: string, oid: number) => void
}

/**
 * Makes roles without passwords, as far as whoever restores may, in one transaction: all of them or none. Roles that are
 * there are not changed, nor made members of anything.
 */
export async function createRoles(
  client: pg.Client,
  definitions: ReadonlyMap<string, Role>,
  creation: RoleCreation,
): Promise<void> {
  await client.query('BEGIN')
  try {
    const made = new Map<string, Role>()
    for (const [name, role] of definitions) if (await createRole(client, name, role)) made.set(name, role)
    for (const [name, role] of made) await describeRole(client, name, role, creation)
    await joinRoles(client, made, creation)
    if (!creation.target.isSuperuser) for (const name of made.keys()) await attempt(client, lend(name, creation))
    const { rows } = await client.query<{ name: string; oid: string }>(
      'SELECT rolname AS name, oid::text AS oid FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)',
      [[...made.keys()]],
    )
    for (const { name, oid } of rows) creation.onMade(name, Number(oid))
    await client.query('COMMIT')
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined)
    throw error
  }
}

/** Runs a statement that may fail, and gives the server's complaint. */
async function attempt(client: pg.Client, sql: string): Promise<unknown> {
  await client.query('SAVEPOINT attempt')
  try {
    await client.query(sql)
    await client.query('RELEASE SAVEPOINT attempt')
    return undefined
  } catch (error) {
    // Where the session is gone, this fails too, and with it the restore.
    await client.query('ROLLBACK TO SAVEPOINT attempt')
    return error
  }
}

/** Makes a role; false when somebody else just has. */
async function createRole(client: pg.Client, name: string, role: Role): Promise<boolean> {
  const parts = [
    `CREATE ROLE ${quoteIdent(name)}`,
    role.login ? 'LOGIN' : 'NOLOGIN',
    role.inherit ? 'INHERIT' : 'NOINHERIT',
    `CONNECTION LIMIT ${role.connectionLimit}`,
    ...(role.validUntil === null ? [] : [`VALID UNTIL ${quoteLiteral(role.validUntil)}`]),
  ]
  const error = await attempt(client, parts.join(' '))
  if (error === undefined) return true
  if (codeOf(error) === '42710' || codeOf(error) === '23505') return false
  throw new WalbackError('prerequisite', `cannot make role ${name}: ${messageOf(error)}`, {
    cause: error,
    hint:
      codeOf(error) === '42501'
        ? 'restore as a superuser or a role with CREATEROLE, or without --create-roles'
        : 'make it yourself, or put another in its place with --map-role',
  })
}

/** Attributes that not everybody may give. */
const attributes = [
  ['superuser', 'SUPERUSER'],
  ['createDatabase', 'CREATEDB'],
  ['createRole', 'CREATEROLE'],
  ['replication', 'REPLICATION'],
  ['bypassRls', 'BYPASSRLS'],
] as const

async function describeRole(client: pg.Client, name: string, role: Role, creation: RoleCreation): Promise<void> {
  const id = quoteIdent(name)
  const statements = [
    ...attributes.filter(([key]) => role[key]).map(([, word]) => [word, `ALTER ROLE ${id} ${word}`]),
    ...(role.comment === null ? [] : [['its comment', `COMMENT ON ROLE ${id} IS ${quoteLiteral(role.comment)}`]]),
    ...role.securityLabels.map(({ provider, label }) => [
      `a security label of ${provider}`,
      `SECURITY LABEL FOR ${quoteIdent(provider)} ON ROLE ${id} IS ${quoteLiteral(label)}`,
    ]),
    ...role.settings.map((setting) => [
      `setting ${setting}`,
      `ALTER ROLE ${id} ${settingSql(settingFor(setting, creation.nameFor))}`,
    ]),
    ...role.parameterGrants.map(({ parameter, privilege, grantable }) => [
      `${privilege} of parameter ${parameter}`,
      `GRANT ${privilege} ON PARAMETER ${quoteIdent(parameter)} TO ${id}${grantable ? ' WITH GRANT OPTION' : ''}`,
    ]),
  ] as const
  for (const [what, sql = ''] of statements) {
    const error = await attempt(client, sql)
    if (error !== undefined) creation.onWarning(`role ${name} was made without ${what} (${messageOf(error)})`)
  }
}

interface Join {
  readonly member: string
  readonly role: string
  readonly grantor: string | undefined
  readonly options: Membership
}

/** Makes the new roles members of what they were members of, by the same grantors where they are there. */
async function joinRoles(client: pg.Client, made: ReadonlyMap<string, Role>, creation: RoleCreation): Promise<void> {
  const joins: Join[] = []
  for (const [member, definition] of made) {
    for (const options of membershipsOf(definition)) {
      const role = creation.nameFor(options.role)
      if (role === undefined) creation.onWarning(`role ${member} is no member of ${options.role}, which is not there`)
      else if (role !== member && canBeSaid(member, options, creation))
        joins.push({
          member,
          role,
          grantor: options.grantor === null ? undefined : creation.nameFor(options.grantor),
          options,
        })
    }
  }
  // Who grants must first have been granted the admin option, so they are tried in rounds, as pg_dumpall sorts them.
  let pending = joins.filter(({ grantor }) => grantor !== undefined)
  for (let before = Number.POSITIVE_INFINITY; pending.length > 0 && pending.length < before; ) {
    before = pending.length
    const left: Join[] = []
    for (const join of pending) {
      const by = ` GRANTED BY ${quoteIdent(join.grantor as string)}`
      if ((await attempt(client, grantRole(join, creation) + by)) !== undefined) left.push(join)
    }
    pending = left
  }
  for (const join of [...pending, ...joins.filter(({ grantor }) => grantor === undefined)]) {
    const error = await attempt(client, grantRole(join, creation))
    if (error !== undefined)
      creation.onWarning(`role ${join.member} could not be made a member of ${join.role} (${messageOf(error)})`)
  }
}

/** Bases of walback 0.1 have names only. */
export const membershipsOf = (role: Role): readonly Membership[] =>
  role.memberships ??
  role.memberOf.map((name) => ({ role: name, grantor: null, admin: false, inherit: null, set: null }))

const hasOptions = ({ target }: RoleCreation): boolean => target.serverVersion >= 160000

/** Before 16, every member may become the role: a membership that did not allow it would be more than it was. */
function canBeSaid(member: string, { role, set, inherit }: Membership, creation: RoleCreation): boolean {
  if (hasOptions(creation) || set !== false) return true
  creation.onWarning(
    `role ${member} is no member of ${role}: it was one without SET${inherit ? '' : ' and INHERIT'}, which this server cannot say`,
  )
  return false
}

function grantRole({ member, role, options }: Join, creation: RoleCreation): string {
  const said = [
    ...(options.admin ? ['ADMIN OPTION'] : []),
    ...(hasOptions(creation) && options.inherit !== null ? [`INHERIT ${options.inherit ? 'TRUE' : 'FALSE'}`] : []),
    ...(hasOptions(creation) && options.set !== null ? [`SET ${options.set ? 'TRUE' : 'FALSE'}`] : []),
  ]
  return `GRANT ${quoteIdent(role)} TO ${quoteIdent(member)}${said.length > 0 ? ` WITH ${said.join(', ')}` : ''}`
}

/** Only a member may give a role objects, and later see to them: whoever restores is one as long as that takes. */
const lend = (name: string, creation: RoleCreation): string =>
  `GRANT ${quoteIdent(name)} TO CURRENT_USER${hasOptions(creation) ? ' WITH INHERIT TRUE, SET TRUE' : ''}`

/** Takes back what `createRoles` had lent to whoever restores. */
export async function takeBackRoles(client: pg.Client, names: Iterable<string>): Promise<void> {
  for (const name of names) await client.query(`REVOKE ${quoteIdent(name)} FROM CURRENT_USER`)
}

/** Removes roles that were made, by their ids: one of the same name that somebody else has made since is theirs. */
export async function dropRoles(client: pg.Client, oids: Iterable<number>, target: TargetRoles): Promise<void> {
  const ids = [...oids]
  if (target.serverVersion >= 150000) {
    const { rows } = await client.query<{ revoke: string }>(
      `SELECT pg_catalog.format('REVOKE ALL ON PARAMETER %I FROM %I CASCADE', p.parname, r.rolname) AS revoke
       FROM pg_catalog.pg_parameter_acl p, pg_catalog.aclexplode(p.paracl) a, pg_catalog.pg_roles r
       WHERE r.oid = a.grantee AND r.oid = ANY ($1::oid[])`,
      [ids],
    )
    for (const { revoke } of rows) await client.query(revoke)
  }
  const { rows } = await client.query<{ name: string }>(
    'SELECT rolname AS name FROM pg_catalog.pg_roles WHERE oid = ANY ($1::oid[])',
    [ids],
  )
  // In one statement, since they may have made one another members.
  if (rows.length > 0) await client.query(`DROP ROLE ${rows.map(({ name }) => quoteIdent(name)).join(', ')}`)
}
