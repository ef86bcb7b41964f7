import { codeOf } from '../base/errors.ts'
import type { DdlCommand, ObjectAddress, ObjectState, TouchedObject } from '../model/ddl-message.ts'
import { hasEscapes } from '../postgres/ddl-source.ts'
import { withRolesNamed } from '../postgres/explicit-roles.ts'
import { rolePlaces } from '../postgres/role-references.ts'
import { parseQuery, type Statement } from '../postgres/split-sql.ts'
import { isAboutRights, subjectOf } from './role-plan.ts'
import type { Roles, Translated } from './roles.ts'
import {
  addressOnTarget,
  comparedState,
  type NamesOnTarget,
  rolesInState,
  rolesOfPolicies,
  stateOnTarget,
} from './state-roles.ts'

type Touched = Pick<TouchedObject, 'class' | 'oid' | 'state'> & { readonly address: ObjectAddress }

/** Replayed changes of the schema with the roles of the target: what is theirs that it lacks is left out and counted. */
export class ReplayRoles {
  private readonly roles: Roles
  private readonly provide: (named: ReadonlySet<string>) => Promise<void>
  private readonly sourceVersion: number
  private readonly provided = new Set<string>()
  /** Objects whose missing owner is counted, with that owner; and those that the server did not let have theirs. */
  private readonly counted = new Set<string>()
  private readonly refused = new Set<string>()

  /** `provide` makes roles, on another session than the one that replays, which is in a transaction. */
  constructor(roles: Roles, provide: (named: ReadonlySet<string>) => Promise<void>, sourceVersion: number) {
    this.roles = roles
    this.provide = provide
    this.sourceVersion = sourceVersion
  }

  /** Who is to run a command; undefined for whoever restores. */
  runner(command: Pick<DdlCommand, 'role'>): string | undefined {
    return this.roles.options.noOwner ? undefined : this.roles.nameOnTarget(command.role)
  }

  /** To be called before a command is replayed: provides the roles of its states, and counts owners that are missing. */
  async begin(command: DdlCommand): Promise<void> {
    const { noOwner, noPrivileges } = this.roles.options
    const states = command.objects.map(({ state }) => state).filter((state) => state !== null)
    const named = states.flatMap((state) => {
      const { owners, others } = rolesInState(state)
      return [...(noOwner ? [] : owners), ...(noPrivileges ? [] : others), ...rolesOfPolicies(state)]
    })
    await this.provideAll(named)
    this.countOwners(command.objects.filter(({ tag }) => /^(?:CREATE|SELECT INTO|IMPORT)/.test(tag)))
  }

  /** A command's text as it is to be run; `count` is to be called once it has been, or is left out. */
  async translate(text: string, command: DdlCommand): Promise<Translated> {
    const escapes = hasEscapes(command)
    const explicit = withRolesNamed(text, { current: command.role, session: command.session }, escapes)
    const parsed = parseQuery(explicit, escapes)?.[0]
    if (parsed === undefined) return { text: explicit, subject: undefined, count: () => undefined }
    const statement = { ...parsed, text: explicit }
    if (!this.isLeftOut(statement)) await this.provideAll(rolePlaces(statement).flatMap(({ names }) => names))
    const translated = this.roles.translate(statement)
    // An owner is counted once for each object.
    return translated.subject === 'owner'
      ? { ...translated, count: () => this.countOwners(command.objects) }
      : translated
  }

  /** What an object is to be on the target, and where; undefined for one that it cannot have, since it lacks the role. */
  onTarget({ class: catalog, oid, state, address }: Touched): Pick<Touched, 'state' | 'address'> | undefined {
    const names = this.names(`${catalog} ${oid}`)
    const found = addressOnTarget(address, names)
    if (found === undefined) return undefined
    return { address: found, state: state && stateOnTarget(state, names) }
  }

  /** A state of the target's as far as it is to be compared. */
  compared(state: ObjectState): ObjectState {
    return comparedState(state, { noPrivileges: this.roles.options.noPrivileges === true })
  }

  /** Notes that the server does not let an object have its owner; false when it refused something else. */
  isRefusedOwner({ class: catalog, oid }: Pick<Touched, 'class' | 'oid'>, sql: string, error: unknown): boolean {
    const statement = codeOf(error) === '42501' ? parseQuery(sql)?.[0] : undefined
    if (statement === undefined || subjectOf(statement) !== 'owner') return false
    this.refused.add(`${catalog} ${oid}`)
    return this.roles.isRefusal(statement, error)
  }

  /** Notes that the server does not let whoever restores give something to a role; false when it refused otherwise. */
  isRefusedRight(sql: string, error: unknown): boolean {
    const statement = codeOf(error) === '42501' ? parseQuery(sql)?.[0] : undefined
    return statement !== undefined && this.roles.isRefusal(statement, error)
  }

  /** The roles that a DROP OWNED names, as the target calls those that it has. */
  dropped(text: string, command: DdlCommand): string[] {
    const escapes = hasEscapes(command)
    const explicit = withRolesNamed(text, { current: command.role, session: command.session }, escapes)
    const statement = parseQuery(explicit, escapes)?.[0]
    const names = (statement ? rolePlaces(statement) : []).flatMap((place) => place.names)
    return names.flatMap((role) => {
      if (role === undefined) return []
      this.roles.forget(role)
      return this.roles.nameOnTarget(role) ?? []
    })
  }

  private names(object: string): NamesOnTarget {
    const { noOwner, noPrivileges } = this.roles.options
    const role = (name: string): string | undefined => this.roles.nameOnTarget(name)
    const isRestorers = noOwner || this.refused.has(object)
    return {
      role,
      owner: (name) => (isRestorers ? undefined : role(name)) ?? this.roles.restorer,
      noPrivileges: noPrivileges === true,
      serverVersion: this.sourceVersion,
    }
  }

  private countOwners(objects: DdlCommand['objects']): void {
    for (const { class: catalog, oid, state } of objects) {
      const owner = state?.['owner']
      if (typeof owner !== 'string' || (!this.roles.options.noOwner && this.roles.nameOnTarget(owner))) continue
      const key = `${catalog} ${oid} ${owner}`
      if (!this.counted.has(key)) this.roles.leaveOwner(owner)
      this.counted.add(key)
    }
  }

  private isLeftOut(statement: Statement): boolean {
    const { noOwner, noPrivileges } = this.roles.options
    const subject = subjectOf(statement)
    return (
      (noOwner === true && subject === 'owner') ||
      (noPrivileges === true && isAboutRights(subject)) ||
      subject === 'revoke'
    )
  }

  private async provideAll(names: readonly (string | undefined)[]): Promise<void> {
    const fresh = new Set(names.filter((name) => name !== undefined && !this.provided.has(name))) as Set<string>
    if (fresh.size === 0) return
    for (const name of fresh) this.provided.add(name)
    await this.provide(fresh)
  }
}
