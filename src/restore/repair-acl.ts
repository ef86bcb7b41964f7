import { quoteIdent } from '../model/identifier.ts'
import type { Script } from './repair-script.ts'

/** One right that one role has from another. A grantee of null is PUBLIC. */
interface Right {
  readonly grantee: string | null
  readonly grantor: string
  /** The right's letter in an ACL (PostgreSQL manual, "Privileges"). */
  readonly letter: string
  readonly grantable: boolean
}

const words: Readonly<Record<string, string>> = {
  a: 'INSERT',
  r: 'SELECT',
  w: 'UPDATE',
  d: 'DELETE',
  D: 'TRUNCATE',
  x: 'REFERENCES',
  t: 'TRIGGER',
  m: 'MAINTAIN',
  X: 'EXECUTE',
  U: 'USAGE',
  C: 'CREATE',
}

/** How GRANT names a kind of object, and who may do what to it by default: the owner, and PUBLIC. */
const kinds: Readonly<Record<string, { readonly owner: string; readonly public: string }>> = {
  TABLE: { owner: 'arwdDxtm', public: '' },
  SEQUENCE: { owner: 'rwU', public: '' },
  ROUTINE: { owner: 'X', public: 'X' },
  TYPE: { owner: 'U', public: 'U' },
  LANGUAGE: { owner: 'U', public: 'U' },
  SCHEMA: { owner: 'UC', public: '' },
  'FOREIGN DATA WRAPPER': { owner: 'U', public: '' },
  'FOREIGN SERVER': { owner: 'U', public: '' },
  'LARGE OBJECT': { owner: 'rw', public: '' },
  COLUMN: { owner: '', public: '' },
}

/** Which of these a state's kind is; undefined where there are no rights. */
export function aclKind(kind: string): string | undefined {
  if (['table', 'partitioned table', 'foreign table', 'view', 'materialized view'].includes(kind)) return 'TABLE'
  if (['function', 'procedure', 'aggregate'].includes(kind)) return 'ROUTINE'
  if (['enum', 'domain', 'composite type', 'range', 'base type', 'shell type'].includes(kind)) return 'TYPE'
  if (kind === 'server') return 'FOREIGN SERVER'
  const upper = kind.toUpperCase()
  return upper in kinds ? upper : undefined
}

/** The rights that an absent ACL stands for, as its items. MAINTAIN is known from version 17 on. */
export function defaultAcl(kind: string, owner: string, serverVersion: number): string[] {
  const rights = kinds[kind] ?? { owner: '', public: '' }
  const own = serverVersion < 170_000 ? rights.owner.replace('m', '') : rights.owner
  const by = itemName(owner)
  return [
    ...(rights.public === '' ? [] : [`=${rights.public}/${by}`]),
    ...(own === '' ? [] : [`${by}=${own}/${by}`]),
  ].sort()
}

const itemName = (name: string): string => (/^[a-zA-Z0-9_]+$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`)

/** Items in one spelling and order. Which names are quoted depends on the version and the locale. */
export const canonicalAcl = (items: readonly string[]): string[] => grouped(items.flatMap(rightsOf)).sort()

/** Rights of a version without MAINTAIN: those who had every right, and have this one too, are to have it. */
export function withMaintain(want: readonly string[], have: readonly string[]): string[] {
  const wanted = want.flatMap(rightsOf)
  const more = have.flatMap(rightsOf).filter((right) => {
    const all = 'arwdDxt'.split('').map((letter) => ({ ...right, letter }))
    return right.letter === 'm' && all.every((one) => wanted.some((other) => isSame(one, other)))
  })
  return grouped([...wanted, ...more]).sort()
}

/** The items with other names; the rights of a grantee for whom there is none are left out. */
export function renamedAcl(
  items: readonly string[],
  grantee: (role: string) => string | undefined,
  grantor: (role: string) => string,
): string[] {
  const rights = items.flatMap(rightsOf).flatMap((right) => {
    const name = right.grantee === null ? null : grantee(right.grantee)
    return name === undefined ? [] : [{ ...right, grantee: name, grantor: grantor(right.grantor) }]
  })
  return grouped(rights).sort()
}

/** Roles that the items name. */
export const rolesInAcl = (items: readonly string[]): string[] =>
  items.flatMap(rightsOf).flatMap(({ grantee, grantor }) => (grantee === null ? [grantor] : [grantee, grantor]))

function grouped(rights: readonly Right[]): string[] {
  const items = new Map<string, Map<string, boolean>>()
  for (const { grantee, grantor, letter, grantable } of rights) {
    const key = `${grantee === null ? '' : itemName(grantee)}=%/${itemName(grantor)}`
    const letters = items.get(key) ?? new Map<string, boolean>()
    items.set(key, letters.set(letter, grantable || letters.get(letter) === true))
  }
  return [...items].map(([key, letters]) => {
    const sorted = [...letters].sort(([a], [b]) => (a < b ? -1 : 1))
    return key.replace('=%/', () => `=${sorted.map(([letter, star]) => (star ? `${letter}*` : letter)).join('')}/`)
  })
}

/** `alice=r*w/bob`, as aclitemout writes it: a name that is not plain is in quotes, an empty one is PUBLIC. */
function rightsOf(item: string): Right[] {
  const match = /^("(?:[^"]|"")*"|[^="]*)=([a-zA-Z*]*)\/(.*)$/s.exec(item)
  if (match === null) return []
  const [, grantee = '', letters = '', grantor = ''] = match
  const bare = (name: string): string => (name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name)
  return [...letters.matchAll(/([a-zA-Z])(\*?)/g)].map(([, letter = '', star]) => ({
    grantee: grantee === '' ? null : bare(grantee),
    grantor: bare(grantor),
    letter,
    grantable: star === '*',
  }))
}

export interface AclOf {
  /** As in `kinds`. */
  readonly kind: string
  /** What GRANT names: `TABLE "s"."t"`. */
  readonly on: string
  /** Of a column, its name. */
  readonly column?: string
  readonly wantOwner: string
  /** Who owned it before; whoever owns it from others' grants is the new owner then. */
  readonly haveOwner: string
  readonly want: readonly string[] | undefined
  readonly have: readonly string[] | undefined
  /** Of the target. */
  readonly serverVersion: number
  /** Says that a right was taken away from the table, and with it those on its columns. */
  readonly isTouched?: boolean
}

/** Grants and revokes what makes the rights equal. True if something was revoked. */
export function repairAcl(script: Script, acl: AclOf): boolean {
  const { kind, wantOwner, haveOwner, serverVersion } = acl
  const moved = (name: string | null): string | null => (name === haveOwner ? wantOwner : name)
  const want = (acl.want ?? defaultAcl(kind, wantOwner, serverVersion)).flatMap(rightsOf)
  const have = acl.have
    ? acl.have.flatMap(rightsOf).map((right) => ({
        ...right,
        grantee: moved(right.grantee),
        grantor: moved(right.grantor) ?? right.grantor,
      }))
    : defaultAcl(kind, wantOwner, serverVersion).flatMap(rightsOf)
  const lost = have.filter((right) => !want.some((other) => isSame(right, other) && atLeast(other, right)))
  let missing = want.filter((right) => !have.some((other) => isSame(right, other) && atLeast(other, right)))
  for (const right of lost) {
    // What the role has granted on goes with it; what is to stay is granted again below.
    const keeps = want.some((other) => isSame(right, other))
    const revoke = `REVOKE ${keeps ? 'GRANT OPTION FOR ' : ''}${privilege(right, acl.column)} ON ${acl.on} FROM ${role(right.grantee)}${right.grantable ? ' CASCADE' : ''}`
    script.add(as(right.grantor, wantOwner, revoke))
  }
  // An explicit ACL that says what the default says is made by granting it.
  const isExplicit = acl.want !== undefined && acl.have === undefined
  if (lost.some(({ grantable }) => grantable) || acl.isTouched || (isExplicit && missing.length === 0)) missing = want
  for (const grants of inOrder(missing, want, wantOwner)) {
    const [first] = grants
    if (first === undefined) continue
    const list = grants.map((right) => privilege(right, acl.column)).join(', ')
    const grant = `GRANT ${list} ON ${acl.on} TO ${role(first.grantee)}${first.grantable ? ' WITH GRANT OPTION' : ''}`
    script.add(as(first.grantor, wantOwner, grant))
  }
  return lost.length > 0
}

const isSame = (a: Right, b: Right): boolean =>
  a.grantee === b.grantee && a.grantor === b.grantor && a.letter === b.letter
const atLeast = (a: Right, b: Right): boolean => a.grantable || !b.grantable

const role = (name: string | null): string => (name === null ? 'PUBLIC' : quoteIdent(name))

function privilege({ letter }: Right, column?: string): string {
  const word = words[letter] ?? letter
  return column === undefined ? word : `${word} (${quoteIdent(column)})`
}

/** A superuser's GRANT is the owner's; another grantor has to speak for itself. */
const as = (grantor: string, owner: string, sql: string): string =>
  grantor === owner ? sql : `SET LOCAL ROLE ${quoteIdent(grantor)}; ${sql}; SET LOCAL ROLE NONE`

/** Grants together by who has them from whom, those first whose grantors have them already. */
function inOrder(rights: readonly Right[], all: readonly Right[], owner: string): Right[][] {
  const groups = new Map<string, Right[]>()
  for (const right of rights) {
    const key = JSON.stringify([right.grantor, right.grantee, right.grantable])
    groups.set(key, [...(groups.get(key) ?? []), right])
  }
  const depths = new Map<string, number>([[owner, 0]])
  const depth = (name: string, seen: readonly string[]): number => {
    const known = depths.get(name)
    if (known !== undefined) return known
    if (seen.includes(name)) return 0
    const from = all.filter(({ grantee, grantable }) => grantee === name && grantable)
    const value =
      1 + Math.min(...from.map(({ grantor }) => depth(grantor, [...seen, name])), from.length === 0 ? 0 : 1e6)
    depths.set(name, value)
    return value
  }
  return [...groups.values()].sort((a, b) => depth(a[0]?.grantor ?? owner, []) - depth(b[0]?.grantor ?? owner, []))
}

/** Changes of ALTER DEFAULT PRIVILEGES from one ACL to another; an absent one is `defaults`. */
export function repairDefaultPrivileges(
  script: Script,
  prefix: string,
  objects: string,
  want: readonly string[],
  have: readonly string[],
): void {
  const [wanted, had] = [want.flatMap(rightsOf), have.flatMap(rightsOf)]
  for (const right of had) {
    if (wanted.some((other) => isSame(right, other) && atLeast(other, right))) continue
    const keeps = wanted.some((other) => isSame(right, other))
    script.add(
      `${prefix} REVOKE ${keeps ? 'GRANT OPTION FOR ' : ''}${privilege(right)} ON ${objects} FROM ${role(right.grantee)}`,
    )
  }
  for (const right of wanted) {
    if (had.some((other) => isSame(right, other) && atLeast(other, right))) continue
    script.add(
      `${prefix} GRANT ${privilege(right)} ON ${objects} TO ${role(right.grantee)}${right.grantable ? ' WITH GRANT OPTION' : ''}`,
    )
  }
}

/** What default privileges start from: those of all objects from the kind's default, those of a schema from none. */
export function defaultPrivilegesBase(
  objects: string,
  role: string,
  schema: string | undefined,
  serverVersion: number,
): string[] {
  if (schema !== undefined) return []
  const kind = { TABLES: 'TABLE', SEQUENCES: 'SEQUENCE', FUNCTIONS: 'ROUTINE', TYPES: 'TYPE', SCHEMAS: 'SCHEMA' }[
    objects
  ]
  return defaultAcl(kind ?? 'LARGE OBJECT', role, serverVersion)
}
