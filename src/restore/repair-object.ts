import { quoteIdent } from '../model/identifier.ts'
import { defaultPrivilegesBase, repairDefaultPrivileges } from './repair-acl.ts'
import { repairFiring } from './repair-parts.ts'
import { foreignOptions, isSame, literal, newForeignOptions, repairCommon, type Script } from './repair-script.ts'
import type { DefaultPrivilegesState, DefinedState, ExtensionState, PublicationState } from './repair-state.ts'
import { createExtension, createPublication, publicationOptions, publicationParts } from './state-sql.ts'

/** What is made anew when it is defined otherwise: operators, casts, collations, event triggers, foreign servers, … */
export function repairDefined(script: Script, want: DefinedState, have: DefinedState | undefined): void {
  let current = have
  if (have !== undefined && have.definition !== want.definition) {
    // A type that has been announced is made by the same command as one that has not.
    if (have.kind !== 'shell type') script.add(`DROP ${have.target}`)
    current = undefined
  }
  if (current === undefined) {
    const version = want.version === undefined ? '' : ` VERSION ${literal(want.version)}`
    // A server's type and version come before its wrapper.
    const definition = want.definition.replace(/(?= FOREIGN DATA WRAPPER "(?:[^"]|"")*"$)/, () => version)
    script.add(definition + newForeignOptions(want.fdwOptions))
    current = {
      kind: want.kind,
      target: want.target,
      definition: want.definition,
      fdwOptions: want.fdwOptions,
      version: want.version,
    }
  }
  const options = foreignOptions(want.fdwOptions, current.fdwOptions)
  if (options !== undefined) script.add(`ALTER ${want.target} ${options}`)
  if (want.version !== current.version) script.add(`ALTER ${want.target} VERSION ${literal(want.version)}`)
  repairFiring(script, `ALTER ${want.target}`, '', want, current)
  repairMapping(script, want, current)
  for (const { names } of (current.members ?? []).filter((member) => !has(want, member)))
    script.add(`ALTER ${want.target} DROP ${names}`)
  for (const { item } of (want.members ?? []).filter((member) => !has(current, member)))
    script.add(`ALTER ${want.target} ADD ${item}`)
  const isKept = current === have
  repairCommon(script, want, isKept ? have : undefined)
}

const has = (state: DefinedState | undefined, member: { readonly item: string }): boolean =>
  state?.members?.some(({ item }) => item === member.item) ?? false

/** Which dictionaries a text search configuration asks for which kind of word. */
function repairMapping(script: Script, want: DefinedState, have: DefinedState): void {
  const words = new Set([...Object.keys(want.mapping ?? {}), ...Object.keys(have.mapping ?? {})])
  for (const word of words) {
    const [wanted, had] = [want.mapping?.[word], have.mapping?.[word]]
    if (isSame(wanted, had)) continue
    const action = wanted === undefined ? 'DROP' : had === undefined ? 'ADD' : 'ALTER'
    const dictionaries = wanted === undefined ? '' : ` WITH ${wanted.join(', ')}`
    script.add(`ALTER ${want.target} ${action} MAPPING FOR ${quoteIdent(word)}${dictionaries}`)
  }
}

export function repairExtension(script: Script, want: ExtensionState, have: ExtensionState | undefined): void {
  if (have === undefined) script.add(createExtension(want))
  else {
    if (want.version !== have.version) script.add(`ALTER ${want.target} UPDATE TO ${literal(want.version)}`)
    if (want.schema !== have.schema) script.add(`ALTER ${want.target} SET SCHEMA ${quoteIdent(want.schema)}`)
  }
  // Its script has commented it.
  repairCommon(script, want, have ?? { ...want, comment: `${want.comment ?? ''}?` })
}

export function repairPublication(script: Script, want: PublicationState, have: PublicationState | undefined): void {
  const alter = `ALTER ${want.target}`
  let current = have
  if (have !== undefined && want.allTables !== have.allTables) {
    script.add(`DROP ${have.target}`)
    current = undefined
  }
  if (current === undefined) script.add(createPublication(want))
  else {
    if (publicationOptions(want) !== publicationOptions(current))
      script.add(
        `${alter} SET ${publicationOptions({ ...want, generatedColumns: want.generatedColumns ?? (current.generatedColumns && 'none') })}`,
      )
    const [wanted, had] = [publicationParts(want), publicationParts(current)]
    if (!isSame(wanted, had)) {
      if (wanted.length > 0) script.add(`${alter} SET ${wanted.join(', ')}`)
      else {
        const tables = (current.tables ?? []).map(({ table }) => `ONLY ${table}`)
        if (tables.length > 0) script.add(`${alter} DROP TABLE ${tables.join(', ')}`)
        for (const schema of current.schemas ?? []) script.add(`${alter} DROP TABLES IN SCHEMA ${quoteIdent(schema)}`)
      }
    }
  }
  repairCommon(script, want, current)
}

/** Absent default privileges are those that objects have anyway. */
export function repairPrivilegesToCome(
  script: Script,
  want: DefaultPrivilegesState | undefined,
  have: DefaultPrivilegesState | undefined,
): void {
  const state = want ?? have
  if (state === undefined) return
  const { role, schema, objects } = state
  const base = defaultPrivilegesBase(objects, role, schema, script.serverVersion)
  const where = schema === undefined ? '' : ` IN SCHEMA ${quoteIdent(schema)}`
  const prefix = `ALTER DEFAULT PRIVILEGES FOR ROLE ${quoteIdent(role)}${where}`
  repairDefaultPrivileges(script, prefix, objects, want?.acl ?? base, have?.acl ?? base)
}
