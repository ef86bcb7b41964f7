import { quoteIdent, quoteLiteral } from '../model/identifier.ts'
import { aclKind, repairAcl } from './repair-acl.ts'
import type { CommonState } from './repair-state.ts'

/** What a repair is: SQL to run in this order, and what SQL cannot make equal. */
export class Script {
  readonly statements: string[] = []
  readonly unresolved: string[] = []
  readonly lost: string[] = []
  /** As server_version_num, of the target. */
  readonly serverVersion: number
  /** How messages name the object. */
  readonly what: string

  constructor(what: string, serverVersion: number) {
    this.what = what
    this.serverVersion = serverVersion
  }

  add(...statements: readonly string[]): void {
    this.statements.push(...statements)
  }

  cannot(difference: string): void {
    this.unresolved.push(`${this.what}: ${difference}`)
  }

  /** What no state shows: that rows are not what they were. */
  lose(difference: string): void {
    this.cannot(difference)
    this.lost.push(`${this.what}: ${difference}`)
  }
}

export const literal = (text: string | undefined): string => (text === undefined ? 'NULL' : quoteLiteral(text).trim())

export const qualify = (object: { readonly schema: string; readonly name: string }): string =>
  `${quoteIdent(object.schema)}.${quoteIdent(object.name)}`

export const isSame = (a: unknown, b: unknown): boolean => {
  if (a === b) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (Array.isArray(a) !== Array.isArray(b)) return false
  const [left, right] = [a as Record<string, unknown>, b as Record<string, unknown>]
  // A parsed state may have a key whose value is undefined, which is the same as none.
  const keys = new Set([...Object.keys(left), ...Object.keys(right)])
  return [...keys].every((key) => isSame(left[key], right[key]))
}

/** Pairs by name: what both have, what only one has. */
export function pair<T extends { readonly name: string }>(
  want: readonly T[] | undefined,
  have: readonly T[] | undefined,
): { readonly both: (readonly [T, T])[]; readonly missing: T[]; readonly extra: T[] } {
  const [wanted, had] = [new Map((want ?? []).map((t) => [t.name, t])), new Map((have ?? []).map((t) => [t.name, t]))]
  const both: (readonly [T, T])[] = []
  const missing: T[] = []
  for (const item of wanted.values()) {
    const other = had.get(item.name)
    if (other === undefined) missing.push(item)
    else both.push([item, other])
  }
  return { both, missing, extra: [...had.values()].filter(({ name }) => !wanted.has(name)) }
}

const optionParts = (option: string): [string, string] => {
  const at = option.indexOf('=')
  return at < 0 ? [option, ''] : [option.slice(0, at), option.slice(at + 1)]
}

/** Storage parameters as SET and RESET clauses; `prefix` is `toast.` for those of the TOAST table. */
export function optionClauses(
  want: readonly string[] | undefined,
  have: readonly string[] | undefined,
  prefix = '',
): string[] {
  const [wanted, had] = [new Map((want ?? []).map(optionParts)), new Map((have ?? []).map(optionParts))]
  const set = [...wanted].filter(([name, value]) => had.get(name) !== value)
  const reset = [...had.keys()].filter((name) => !wanted.has(name))
  return [
    ...(set.length > 0 ? [`SET (${optionList(set, prefix)})`] : []),
    ...(reset.length > 0 ? [`RESET (${reset.map((name) => prefix + quoteIdent(name)).join(', ')})`] : []),
  ]
}

const optionList = (options: readonly (readonly [string, string])[], prefix: string): string =>
  options.map(([name, value]) => `${prefix}${quoteIdent(name)} = ${literal(value)}`).join(', ')

/** ` WITH (…)`, or nothing. */
export const withOptions = (options: readonly string[] | undefined): string =>
  options === undefined || options.length === 0 ? '' : ` WITH (${optionList(options.map(optionParts), '')})`

/** `OPTIONS (…)` for what foreign data wrappers take, from one list to another; undefined where they are the same. */
export function foreignOptions(
  want: readonly string[] | undefined,
  have: readonly string[] | undefined,
): string | undefined {
  const [wanted, had] = [new Map((want ?? []).map(optionParts)), new Map((have ?? []).map(optionParts))]
  const changes = [
    ...[...had.keys()].filter((name) => !wanted.has(name)).map((name) => `DROP ${quoteIdent(name)}`),
    ...[...wanted]
      .filter(([name, value]) => had.get(name) !== value)
      .map(([name, value]) => `${had.has(name) ? 'SET' : 'ADD'} ${quoteIdent(name)} ${literal(value)}`),
  ]
  return changes.length === 0 ? undefined : `OPTIONS (${changes.join(', ')})`
}

/** ` OPTIONS (…)` of a new object, or nothing. */
export const newForeignOptions = (options: readonly string[] | undefined): string =>
  options === undefined || options.length === 0
    ? ''
    : ` OPTIONS (${options
        .map(optionParts)
        .map(([name, value]) => `${quoteIdent(name)} ${literal(value)}`)
        .join(', ')})`

export function repairComment(
  script: Script,
  on: string,
  want: { readonly comment?: string | undefined },
  have: { readonly comment?: string | undefined } | undefined,
): void {
  if (want.comment !== have?.comment) script.add(`COMMENT ON ${on} IS ${literal(want.comment)}`)
}

type Labelled = { readonly labels?: { readonly provider: string; readonly label: string }[] | undefined }

export function repairLabels(script: Script, on: string, want: Labelled, have: Labelled | undefined): void {
  const [wanted, had] = [want.labels ?? [], have?.labels ?? []]
  for (const { provider, label } of wanted) {
    if (had.some((other) => other.provider === provider && other.label === label)) continue
    script.add(`SECURITY LABEL FOR ${quoteIdent(provider)} ON ${on} IS ${literal(label)}`)
  }
  for (const { provider } of had) {
    if (!wanted.some((other) => other.provider === provider))
      script.add(`SECURITY LABEL FOR ${quoteIdent(provider)} ON ${on} IS NULL`)
  }
}

/** Only some kinds can depend on an extension without being part of it. */
export function repairNeeds(
  script: Script,
  target: string,
  want: { readonly needs?: readonly string[] | undefined },
  have: { readonly needs?: readonly string[] | undefined } | undefined,
): void {
  const [wanted, had] = [want.needs ?? [], have?.needs ?? []]
  for (const name of had.filter((name) => !wanted.includes(name)))
    script.add(`ALTER ${target} NO DEPENDS ON EXTENSION ${quoteIdent(name)}`)
  for (const name of wanted.filter((name) => !had.includes(name)))
    script.add(`ALTER ${target} DEPENDS ON EXTENSION ${quoteIdent(name)}`)
}

/** Owner, rights, comment, labels and extensions: the same for all kinds. True if a right was revoked. */
export function repairCommon(script: Script, want: CommonState, have: CommonState | undefined): boolean {
  const target = want.target
  if (target === undefined) return false
  if (want.owner !== undefined && want.owner !== have?.owner) {
    if (want.kind === 'extension') {
      if (have !== undefined) script.cannot(`owner is ${have.owner} and should be ${want.owner}`)
    } else script.add(`ALTER ${target} OWNER TO ${quoteIdent(want.owner)}`)
  }
  if (want.extension !== have?.extension) {
    if (have?.extension !== undefined) script.add(`ALTER EXTENSION ${quoteIdent(have.extension)} DROP ${target}`)
    if (want.extension !== undefined) script.add(`ALTER EXTENSION ${quoteIdent(want.extension)} ADD ${target}`)
  }
  repairNeeds(script, target, want, have)
  const kind = aclKind(want.kind)
  const isRevoked =
    kind !== undefined &&
    !isSame(want.acl, have?.acl) &&
    repairAcl(script, {
      kind,
      on: grantName(kind, want),
      wantOwner: want.owner ?? '',
      haveOwner: have?.owner ?? want.owner ?? '',
      want: want.acl,
      have: have?.acl,
      serverVersion: script.serverVersion,
    })
  repairComment(script, target, want, have)
  repairLabels(script, target, want, have)
  return isRevoked
}

/** GRANT takes no ORDER BY, `*` or names of arguments, and says FOREIGN SERVER. */
function grantName(kind: string, want: CommonState & { readonly types?: unknown }): string {
  const name = quoteIdent(want.name ?? '')
  const full = want.schema === undefined ? name : `${quoteIdent(want.schema)}.${name}`
  if (kind === 'ROUTINE') return `ROUTINE ${full}(${String(want.types ?? '')})`
  return kind === 'LARGE OBJECT' ? (want.target ?? '') : `${kind} ${full}`
}
