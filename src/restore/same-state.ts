import type { ObjectState } from '../model/ddl-message.ts'
import { aclKind, canonicalAcl, defaultAcl, defaultPrivilegesBase, withMaintain } from './repair-acl.ts'
import { isSame } from './repair-script.ts'
import { isSameQuery } from './same-query.ts'

/** As server_version_num. */
export interface Versions {
  readonly source: number
  readonly target: number
}

/**
 * Whether an object of the target is what it was on the source. What no command can make equal, and no query can tell,
 * is no difference:
 * - an ACL that says what its absence says;
 * - how ACL items are spelled, and in what order;
 * - rows: whether there are any, whether a materialized view is filled (that is done at the end), and the value that
 *   older rows have in a column, unless `before` (the target's state before the command) shows that the command added it;
 * - whether what was recorded may be stale.
 *
 * And where the target is of a newer version, what that version says otherwise:
 * - 15: the sequences of an unlogged table are unlogged too;
 * - 16: a view of one table does not name it before each column; locales of ICU are spelled in one way;
 * - 17: the right MAINTAIN is part of ALL; a partition has its parent's identity columns; a domain's NOT NULL is a
 *   constraint with a name;
 * - 18: a table's NOT NULL is one too.
 * Keywords are none of these, since `describe` quotes every identifier.
 */
export const sameState = (
  want: ObjectState | null,
  have: ObjectState | null,
  versions: Versions,
  before?: ObjectState | null,
): boolean => stateDifferences(want, have, versions, before).length === 0

/** What differs, a line each, such as `columns "a" type: integer, should be bigint`. */
export function stateDifferences(
  want: ObjectState | null,
  have: ObjectState | null,
  versions: Versions,
  before?: ObjectState | null,
): string[] {
  if (want === null || have === null) {
    if (want === have) return []
    return [want === null ? 'should not be there' : 'is not there']
  }
  const fresh = newColumns(have, before)
  const [wanted, had] = align(want, have, versions).map((state) => withoutMissing(state, fresh.names))
  return differences('', wanted, had)
}

/**
 * Columns that a command added to a table that was there before: of another name, or with another value for older rows.
 * Only those rows that were there have that value, so it says something while no row was written since.
 */
export function newColumns(
  have: ObjectState,
  before: ObjectState | null | undefined,
): { names: Set<string>; before?: Set<string> } {
  if (before === null || before === undefined) return { names: new Set() }
  const old = new Map(listOf(before['columns']).map((column) => [column['name'], column['missing']]))
  const added = listOf(have['columns']).filter(
    ({ name, missing }) => !old.has(name) || (missing !== undefined && old.get(name) !== missing),
  )
  return { names: new Set(added.map(({ name }) => String(name))), before: new Set([...old.keys()].map(String)) }
}

function withoutMissing(state: ObjectState, but: ReadonlySet<string>): ObjectState {
  if (!Array.isArray(state['columns'])) return state
  const columns = listOf(state['columns']).map(({ missing, ...column }) =>
    but.has(String(column['name'])) ? { ...column, missing } : column,
  )
  return { ...state, columns }
}

/** Both states such that what is no difference does not differ. */
export function align(want: ObjectState, have: ObjectState, versions: Versions): [ObjectState, ObjectState] {
  const wanted: ObjectState = { ...want, stale: undefined, empty: have['empty'], populated: have['populated'] }
  const had: ObjectState = { ...have, stale: undefined }
  alignRights(wanted, had, aclKind(String(want['kind'])), versions)
  if (Array.isArray(want['columns']) && Array.isArray(have['columns'])) {
    const columns = new Map(listOf(have['columns']).map((column) => [column['name'], { ...column }]))
    had['columns'] = [...columns.values()]
    wanted['columns'] = listOf(want['columns']).map((column) => {
      const other = columns.get(column['name'])
      const copy = { ...column }
      if (other !== undefined) alignColumn(copy, other, have, versions)
      return copy
    })
  }
  if (versions.source < 150_000 && versions.target >= 150_000 && want['kind'] === 'sequence')
    wanted['unlogged'] = have['unlogged']
  if (versions.source < 160_000 && versions.target >= 160_000) alignDefinition(wanted, had)
  alignNotNull(wanted, had, versions)
  return [wanted, had]
}

type Json = Record<string, unknown>

const listOf = (value: unknown): Json[] => (Array.isArray(value) ? (value as Json[]) : [])

function alignColumn(want: Json, have: Json, table: ObjectState, versions: Versions): void {
  alignRights(want, have, 'COLUMN', versions)
  const crosses = (version: number): boolean => versions.source < version && versions.target >= version
  if (crosses(170_000) && table['partitionOf'] !== undefined && want['identity'] === undefined) {
    want['identity'] = have['identity']
  }
  const sequences = new Map(listOf(have['sequences']).map((sequence) => [sequence['name'], { ...sequence }]))
  if (sequences.size > 0) have['sequences'] = [...sequences.values()]
  if (!Array.isArray(want['sequences'])) return
  want['sequences'] = listOf(want['sequences']).map((sequence) => {
    const other = sequences.get(sequence['name'])
    const copy = { ...sequence }
    if (other === undefined) return copy
    alignRights(copy, other, 'SEQUENCE', versions)
    if (crosses(150_000)) copy['unlogged'] = other['unlogged']
    return copy
  })
}

function alignRights(want: Json, have: Json, kind: string | undefined, versions: Versions): void {
  const isToCome = want['kind'] === 'default privileges'
  if (kind === undefined && !isToCome) return
  const items = (state: Json): string[] | undefined =>
    Array.isArray(state['acl']) ? canonicalAcl(state['acl'] as string[]) : undefined
  const base = (state: Json): string[] =>
    canonicalAcl(
      isToCome
        ? defaultPrivilegesBase(
            String(state['objects']),
            String(state['role']),
            state['schema'] as string | undefined,
            versions.target,
          )
        : defaultAcl(kind ?? '', String(state['owner'] ?? ''), versions.target),
    )
  const had = items(have)
  let wanted = items(want)
  if (wanted !== undefined && versions.source < 170_000 && versions.target >= 170_000)
    wanted = withMaintain(wanted, had ?? base(have))
  // What is said as by default cannot be unsaid.
  if (wanted === undefined && had !== undefined && isSame(had, base(have))) wanted = had
  if (kind === 'COLUMN') {
    want['acl'] = wanted?.length === 0 ? undefined : wanted
    have['acl'] = had?.length === 0 ? undefined : had
  } else {
    want['acl'] = wanted
    have['acl'] = had
  }
}

function alignDefinition(want: Json, have: Json): void {
  const [wanted, had] = [want['definition'], have['definition']]
  if (typeof wanted !== 'string' || typeof had !== 'string') return
  const isQuery = want['kind'] === 'view' || want['kind'] === 'materialized view'
  // ICU's own spelling of a locale is the server's to find; the language is the first thing in each.
  const language = (definition: string): string => definition.replace(/ locale = '([a-zA-Z]+)[^']*'/, ' locale = $1')
  const isLocale = want['kind'] === 'collation' && wanted.includes('provider = icu')
  if ((isQuery && isSameQuery(wanted, had)) || (isLocale && language(wanted) === language(had)))
    want['definition'] = had
}

/** The names that a newer version gives to what has none on the source. */
function alignNotNull(want: ObjectState, have: ObjectState, versions: Versions): void {
  const since = want['kind'] === 'domain' ? 170_000 : 180_000
  if (versions.source >= since || versions.target < since) return
  const isNotNull = (name: unknown): boolean =>
    want['kind'] === 'domain'
      ? want['notNull'] === true
      : listOf(want['columns']).some((column) => column['name'] === name && column['notNull'] === true)
  const names = listOf(have['constraints']).filter(({ type, column }) => type === 'not null' && isNotNull(column))
  if (names.length === 0) return
  const all = [...listOf(want['constraints']), ...names]
  want['constraints'] = all.sort((a, b) =>
    Buffer.compare(Buffer.from(String(a['name'])), Buffer.from(String(b['name']))),
  )
}

function differences(path: string, want: unknown, have: unknown): string[] {
  if (isSame(want, have)) return []
  if (isNamedList(want) && isNamedList(have)) {
    const names = new Set([...want, ...have].map(({ name }) => name))
    const parts = [...names].flatMap((name) => {
      const [wanted, had] = [want, have].map((list) => list.find((part) => part.name === name))
      return differences(`${path} ${JSON.stringify(name)}`, wanted, had)
    })
    return parts.length > 0 ? parts : [`${path}: in another order`]
  }
  if (isObject(want) && isObject(have)) {
    const keys = new Set([...Object.keys(want), ...Object.keys(have)])
    return [...keys].flatMap((key) => differences(`${path} ${key}`.trim(), want[key], have[key]))
  }
  return [`${path}: ${brief(have)}, should be ${brief(want)}`]
}

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)
const isNamedList = (value: unknown): value is { name: string }[] =>
  Array.isArray(value) && value.every((part) => isObject(part) && typeof part['name'] === 'string')

function brief(value: unknown): string {
  const text = value === undefined ? 'none' : typeof value === 'string' ? value : JSON.stringify(value)
  return text.length > 200 ? `${text.slice(0, 199)}…` : text
}
