import type pg from 'pg'
import { z } from 'zod'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import type { Role } from '../model/catalog.ts'
import { quoteIdent } from '../model/identifier.ts'
import { replaceRoles, rolePlaces } from '../postgres/role-references.ts'
import type { Statement } from '../postgres/split-sql.ts'
import { createRoles, dropRoles, membershipsOf, takeBackRoles } from './create-roles.ts'
import {
  isAboutRights,
  planRoles,
  type RoleOptions,
  readTargetRoles,
  type Subject,
  subjectOf,
  type TargetRoles,
} from './role-plan.ts'

/**
 * How the source's roles are called where a restore puts them: for the base's schema, and for what changes it later. A
 * role that the base does not name has to be provided first (`Roles.provide`).
 */
export interface RoleMap {
  /** Undefined where the target has no such role: what would be its belongs to whoever restores. */
  nameOnTarget(role: string): string | undefined
  /**
   * A statement as it is to be run on the target: with the names that roles have there, and without those that it lacks.
   * Undefined when nothing is left of it, or it was asked to be left out; that is then counted for the report.
   */
  statementFor(statement: Statement): string | undefined
}

/** A statement for the target, and what notes for the report that it is run there, or left out. */
export interface Translated {
  readonly text: string | undefined
  readonly subject: Subject | undefined
  readonly count: () => void
}

/** What was done about roles: those that were made, by their names, with their ids; and what could not be as it was. */
export const rolesDone = z.object({
  made: z.record(z.string(), z.number()),
  troubles: z.array(z.string()),
  /** Those that the target had: what was left out for others stays left out. */
  there: z.array(z.string()),
})
type RolesDone = z.infer<typeof rolesDone>

/** What is left out when a role is not there, beside what statements give: ALTER ROLE … IN DATABASE … SET. */
type What = Exclude<Subject, 'revoke'> | 'setting'

/**
 * The roles of one restore: which there are, what they are called, which were made for it, and what had to be left out
 * because one is missing or whoever restores may not do it for it.
 */
export class Roles implements RoleMap {
  readonly options: RoleOptions
  private readonly recorded: Role[]
  private readonly target: TargetRoles
  private readonly there: Set<string>
  private readonly named = new Set<string>()
  /** Those that only the stream names: they are younger than the base. */
  private readonly younger = new Set<string>()
  private readonly made = new Map<string, number>()
  private readonly troubles: string[] = []
  private readonly missing = new Map<string, Map<What, number>>()
  private readonly refusals = new Map<string, { readonly because: string; readonly counts: Map<What, number> }>()
  private readonly skipped = { owners: 0, rights: 0 }

  private constructor(recorded: readonly Role[], target: TargetRoles, options: RoleOptions) {
    this.recorded = [...recorded]
    this.target = target
    this.options = options
    this.there = new Set(target.names)
  }

  static async open(client: pg.Client, recorded: readonly Role[], options: RoleOptions): Promise<Roles> {
    return new Roles(recorded, await readTargetRoles(client), options)
  }

  /** What an earlier attempt has done about roles. */
  recall({ made, troubles, there }: RolesDone): void {
    const before = new Set(there)
    for (const name of this.there) if (!before.has(name)) this.there.delete(name)
    for (const [name, oid] of Object.entries(made)) this.made.set(name, oid)
    this.troubles.push(...troubles)
  }

  get done(): RolesDone {
    return { made: Object.fromEntries(this.made), troubles: [...this.troubles], there: [...this.there] }
  }

  /**
   * Makes those of the named roles that are to be made and are not there yet. Refuses a map that cannot be meant. It
   * takes a transaction of its own on the session.
   */
  async provide(client: pg.Client, named: ReadonlySet<string>): Promise<void> {
    for (const role of named) this.named.add(role)
    const { create } = planRoles(this.recorded, this.named, this.there, this.options)
    if (create.size === 0) return
    for (const name of create.keys()) this.there.add(name)
    await createRoles(client, create, {
      target: this.target,
      nameFor: (role) => this.nameOnTarget(role),
      onWarning: (warning) => this.troubles.push(warning),
      onMade: (name, oid) => this.made.set(name, oid),
    })
  }

  /**
   * As `provide`, for roles that the stream names. Of one that is younger than the base only its name is known; it is
   * made with no more than that.
   */
  async provideLater(client: pg.Client, named: ReadonlySet<string>): Promise<void> {
    for (const role of named) {
      // The server's own roles come with its version, and cannot be made.
      if (role.startsWith('pg_') || this.named.has(role) || this.recorded.some(({ name }) => name === role)) continue
      this.younger.add(role)
      if (!this.options.create || this.nameOnTarget(role) !== undefined) continue
      this.recorded.push({ ...plainRole, name: role })
      this.troubles.push(
        `role ${this.options.map?.get(role) ?? role} was made with its name alone: the base, which is older, does not tell what else it is`,
      )
    }
    await this.provide(client, named)
  }

  /** Who restores. */
  get restorer(): string {
    return this.target.restorer
  }

  nameOnTarget(role: string): string | undefined {
    const name = this.options.map?.get(role) ?? role
    return this.there.has(name) ? name : undefined
  }

  statementFor(statement: Statement): string | undefined {
    const { text, count } = this.translate(statement)
    count()
    return text
  }

  /** As `statementFor`, but nothing is counted yet: the statement may not be the one that is run. */
  translate(statement: Statement): Translated {
    const subject = subjectOf(statement)
    const { noOwner, noPrivileges, map } = this.options
    const withoutOwner = noOwner === true && subject === 'owner'
    const places = rolePlaces(statement)
    const names = places.flatMap((place) => place.names.filter((name) => name !== undefined))
    const lacking = names.filter((name) => this.nameOnTarget(name) === undefined)
    const withoutRights = noPrivileges === true && isAboutRights(subject)
    const count = (): void => {
      if (withoutOwner) this.skipped.owners++
      else if (!withoutRights && subject !== undefined) this.miss(lacking, subject)
      else if (withoutRights && subject !== 'grantor') this.skipped.rights++
    }
    const leftOut = { text: undefined, subject, count }
    if (withoutRights || (withoutOwner && isOnlyOwner(statement))) return leftOut
    const isLost = places.some(
      ({ kind, names }) =>
        (kind === 'list' || subject === 'user mapping' || subject === 'grantor') &&
        names.every((name) => name !== undefined && lacking.includes(name)),
    )
    if (isLost || (lacking.length > 0 && subject === 'owner' && isOnlyOwner(statement))) return leftOut
    const isAsItWas = lacking.length === 0 && !withoutOwner && !names.some((name) => map?.has(name))
    const nameFor = (name: string): string | undefined => (withoutOwner ? undefined : this.nameOnTarget(name))
    return { text: isAsItWas ? statement.text : replaceRoles(statement, nameFor), subject, count }
  }

  /** Notes that an object belongs to whoever restores, because its owner is not there or as asked. */
  leaveOwner(role: string): void {
    if (this.options.noOwner) this.skipped.owners++
    else this.miss([role], 'owner')
  }

  /** Nothing in the database is the role's any more: what had been left out for it is no loss. */
  forget(role: string): void {
    this.missing.delete(role)
    this.refusals.delete(role)
  }

  /** Notes that the target refused a statement, if it gives something to a role; false when it does not. */
  isRefusal(statement: Statement, error: unknown): boolean {
    const subject = subjectOf(statement)
    const role = rolePlaces(statement)[0]?.names[0]
    if (subject === undefined || subject === 'revoke' || role === undefined) return false
    this.refuse(role, subject, error)
    return true
  }

  /**
   * Gives a role something by a statement that is made with its quoted name; null is PUBLIC. Left out, and reported,
   * where the role is missing, the server says that it is or does not let whoever restores do that, or as asked.
   */
  async give(
    client: pg.Client,
    what: 'owner' | 'grant' | 'setting',
    role: string | null,
    sql: (name: string) => string,
  ): Promise<void> {
    if (what === 'owner' && this.options.noOwner) this.skipped.owners++
    else if (what === 'grant' && this.options.noPrivileges) this.skipped.rights++
    else {
      const name = role === null ? undefined : this.nameOnTarget(role)
      if (role !== null && name === undefined) return this.miss([role], what)
      const statement = sql(name === undefined ? 'PUBLIC' : quoteIdent(name))
      try {
        await client.query(statement)
      } catch (error) {
        if (role === null || (codeOf(error) !== '42704' && codeOf(error) !== '42501')) throw error
        this.refuse(role, what, error)
      }
    }
  }

  /** The names of the roles that were made. */
  get created(): string[] {
    return [...this.made.keys()].sort()
  }

  /** What could not be as it was, a line for each role. */
  warnings(): string[] {
    return [
      ...this.troubles,
      ...[...this.missing].map(([role, counts]) => {
        const help = [
          ...(this.isKnown(role) && !this.options.create ? ['--create-roles makes it'] : []),
          // A map is checked against the base.
          ...(this.younger.has(role) ? [] : ['--map-role puts another in its place']),
          '--no-owner and --no-privileges leave such things out unasked',
        ]
        return `the target has no role ${role}; left out for it: ${inWords(counts)} (${help.join(', ')})`
      }),
      ...[...this.refusals].map(
        ([role, { because, counts }]) => `left out for role ${role}: ${inWords(counts)} (${because})`,
      ),
    ]
  }

  /** What was done as asked, each in a line. */
  notes(): string[] {
    const notes: string[] = []
    const { owners, rights } = this.skipped
    const { restorer } = this.target
    if (this.made.size > 0)
      notes.push(`made ${plural(this.made.size, 'role')} without passwords: ${this.created.join(', ')}`)
    for (const role of this.created) {
      const others = this.recorded.filter(
        (other) => !this.made.has(other.name) && membershipsOf(other).some((of) => this.nameOnTarget(of.role) === role),
      )
      if (others.length > 0)
        notes.push(`role ${role} had members that were not made so again: ${others.map(({ name }) => name).join(', ')}`)
    }
    if (this.options.noOwner)
      notes.push(`everything belongs to ${restorer}: left out as asked: ${plural(owners, 'owner')}`)
    if (this.options.noPrivileges)
      notes.push(`nobody else was granted anything: left out as asked: ${plural(rights, 'statement')} about rights`)
    return notes
  }

  /** Ends what was only for the time of the restore. The database is there by then: what fails is reported. */
  async settle(onServer: (work: (client: pg.Client) => Promise<void>) => Promise<void>): Promise<void> {
    if (this.target.isSuperuser || this.made.size === 0) return
    const names = this.created
    await onServer((client) => takeBackRoles(client, names)).catch((error: unknown) => {
      this.troubles.push(`${this.target.restorer} may still be a member of ${names.join(', ')} (${messageOf(error)})`)
    })
  }

  /** Removes the roles that were made; nothing may be theirs any more. */
  async discard(onServer: (work: (client: pg.Client) => Promise<void>) => Promise<void>): Promise<void> {
    if (this.made.size > 0) await onServer((client) => dropRoles(client, this.made.values(), this.target))
  }

  private isKnown(role: string): boolean {
    return this.younger.has(role) || this.recorded.some(({ name }) => name === role)
  }

  private miss(roles: readonly string[], subject: Subject | 'setting'): void {
    // A right that is revoked from nobody is no loss.
    if (subject === 'revoke') return
    for (const role of new Set(roles)) {
      const counts = this.missing.get(role) ?? new Map<What, number>()
      this.missing.set(role, counts.set(subject, (counts.get(subject) ?? 0) + 1))
    }
  }

  private refuse(role: string, what: What, error: unknown): void {
    const refusal = this.refusals.get(role) ?? { because: messageOf(error), counts: new Map<What, number>() }
    this.refusals.set(role, refusal)
    refusal.counts.set(what, (refusal.counts.get(what) ?? 0) + 1)
  }
}

/** What CREATE ROLE makes. */
const plainRole: Omit<Role, 'name'> = {
  superuser: false,
  inherit: true,
  createRole: false,
  createDatabase: false,
  login: false,
  replication: false,
  bypassRls: false,
  connectionLimit: -1,
  validUntil: null,
  memberOf: [],
  settings: [],
  comment: null,
  securityLabels: [],
  parameterGrants: [],
}

/** An error of a restore, in words where it comes of a row that names a role: a value of type regrole or aclitem. */
export function explainedMissingRole(error: unknown): unknown {
  const isOfRow = isAboutRole(error) || said(error, 'routine') === 'regrolein'
  if (error instanceof WalbackError || codeOf(error) !== '42704' || !isOfRow) return error
  return new WalbackError('prerequisite', `a row names a role that the target lacks: ${messageOf(error)}`, {
    cause: error,
    hint: 'make the role, or restore with --create-roles; rows are never changed',
  })
}

/** `role "x" does not exist`, in whatever language: the server's source file for roles said it. */
export const isAboutRole = (error: unknown): boolean => said(error, 'file') === 'acl.c'

/** Where in its source the server found an error. */
const said = (error: unknown, field: 'file' | 'routine'): unknown =>
  typeof error === 'object' && error !== null ? (error as Readonly<Record<string, unknown>>)[field] : undefined

/** Whether a statement that names an owner does nothing else. */
function isOnlyOwner({ kind, node }: Statement): boolean {
  const commands = (node as { cmds?: unknown[] }).cmds
  return kind === 'AlterOwnerStmt' || (kind === 'AlterTableStmt' && commands?.length === 1)
}

const plural = (n: number, word: string): string => `${n} ${n === 1 ? word : word.replace(/y$/, 'ie').concat('s')}`

const words: Readonly<Record<What, (n: number) => string>> = {
  owner: (n) => `owner of ${plural(n, 'object')}`,
  grant: (n) => plural(n, 'grant'),
  'default privilege': (n) => plural(n, 'default privilege'),
  grantor: (n) => `grantor ${n === 1 ? 'once' : `${n} times`}`,
  policy: (n) => plural(n, 'policy'),
  'user mapping': (n) => plural(n, 'user mapping'),
  setting: (n) => plural(n, 'setting'),
}

const inWords = (counts: ReadonlyMap<What, number>): string => [...counts].map(([what, n]) => words[what](n)).join(', ')
