/**
 * Whether a statement can be what touched or dropped these objects, by their names. The names of a statement are as its
 * author wrote them, perhaps without a schema; an object's identity is as `pg_identify_object` spells it.
 */
import type { DroppedObject, TouchedObject } from '../model/ddl-message.ts'
import { grantedType, makesTemporary, type Subject, subjectsOf, tagOf } from './ddl-kind.ts'

/** A statement as far as it takes to choose among many. */
export interface Outline {
  readonly text: string
  readonly kind: string
  /** Undefined of what fires no event trigger, and of what our parser does not understand. */
  readonly tag: string | undefined
  readonly subjects: readonly Subject[]
  /** As event triggers say what a GRANT is about: `TABLE`. */
  readonly grantsOn: string | undefined
  /** Temporary for certain, and hence not in the stream. */
  readonly isTemporary: boolean
}

export function outlineOf({ text, kind, node }: { text: string; kind: string; node: unknown }): Outline {
  const subjects = subjectsOf(kind, node)
  return {
    text,
    kind,
    tag: tagOf(kind, node),
    subjects,
    grantsOn: grantedType(kind, node),
    isTemporary: makesTemporary(node),
  }
}

type Touched = Pick<TouchedObject, 'type' | 'schema' | 'identity'>
type Dropped = Pick<DroppedObject, 'type' | 'schema' | 'name' | 'identity' | 'original'>

interface Names {
  readonly words: ReadonlySet<string>
  /** As the server folds what is longer or in another alphabet than our parser can know. */
  readonly loose: ReadonlySet<string>
  readonly args: readonly string[] | undefined
  /** A column or a constraint. */
  readonly isPart: boolean
}

/** What is known of the objects that a command touched and dropped. */
export interface Traces {
  /** Whether any of it is other than temporary. */
  readonly lasts: boolean
  readonly names: readonly Names[]
  /** Types of objects that have no name, as those of a GRANT. */
  readonly types: ReadonlySet<string>
}

/** Of a session's own schema: itself, or, as triggers, rules and defaults say it, the table that it is on. */
export function isTemporary({ schema, identity }: { schema: string | null; identity: string | null }): boolean {
  const unquoted = identity?.replace(/"(?:[^"]|"")*"/g, '""') ?? ''
  return schema === 'pg_temp' || /(?:^|^for | on )pg_temp(?:_\d+)?\./.test(unquoted)
}

/** Undefined where a command touched and dropped nothing. */
export function tracesOf(tag: string, objects: readonly Touched[], dropped: readonly Dropped[]): Traces | undefined {
  // Of what DROP OWNED takes away, only the objects are told.
  if (objects.length === 0 && dropped.length === 0 && tag !== 'DROP OWNED') return undefined
  const lasts = [...objects, ...dropped].some((object) => !isTemporary(object))
  const touched = objects.filter((object) => !lasts || !isTemporary(object))
  const lost = dropped.filter((object) => !lasts || !isTemporary(object))
  const named = touched.filter(({ identity }) => identity !== null)
  const originals = lost.filter(({ original }) => original)
  const gone = tag.startsWith('DROP ') || named.length === 0 ? (originals.length > 0 ? originals : lost) : []
  return {
    lasts: lasts || tag === 'DROP OWNED',
    names: [
      ...named.map(({ type, schema, identity }) => namesIn(type, identity ?? '', schema)),
      ...gone.map(({ type, schema, name, identity }) => namesIn(type, identity, schema, name)),
    ],
    types: new Set(touched.filter(({ identity }) => identity === null).map(({ type }) => type.toUpperCase())),
  }
}

/** How sure it is: names that fit; but other arguments; names that may fit; nothing to compare; other names. */
export const fits = { byName: 4, otherArguments: 3, loosely: 2, perhaps: 1, not: 0 } as const

export function fitOf(outline: Outline, traces: Traces): number {
  if (outline.isTemporary && traces.lasts) return fits.not
  if (traces.names.length === 0) {
    return outline.grantsOn === undefined || traces.types.size === 0 || traces.types.has(outline.grantsOn)
      ? fits.perhaps
      : fits.not
  }
  if (outline.subjects.length === 0) return fits.perhaps
  return Math.max(...outline.subjects.flatMap((subject) => traces.names.map((names) => fitOfNames(subject, names))))
}

function fitOfNames(subject: Subject, names: Names): number {
  const { prefix, isPart } = subject
  if (isPart !== undefined && isPart !== names.isPart) return fits.not
  if (prefix !== undefined) return [...names.words].some((word) => word.startsWith(prefix)) ? fits.byName : fits.not
  if (subject.words.every((word) => names.words.has(word))) {
    return subject.args && names.args && !sameArguments(subject.args, names.args) ? fits.otherArguments : fits.byName
  }
  return subject.words.every((word) => names.loose.has(loosen(word))) ? fits.loosely : fits.not
}

const sameArguments = (given: readonly (readonly string[])[], found: readonly string[]): boolean =>
  given.length === found.length &&
  given.every((type, index) => {
    const words = wordsIn(found[index] ?? '')
    return type.every((word) => words.includes(word))
  })

/** Names, keywords and operators in an identity, without their quotes. */
const wordsIn = (identity: string): string[] =>
  [...identity.matchAll(/"(?:[^"]|"")*"|[\p{L}_][\p{L}\p{N}\p{M}_$]*|[-+*/<>=~!@#%^&|`?]+/gu)].map(([word]) =>
    word.startsWith('"') ? word.slice(1, -1).replaceAll('""', '"') : word,
  )

/** Without case; and without what a database of another encoding than UTF-8 may cut elsewhere (63 bytes are the limit). */
export const loosen = (word: string): string => [...word.toLowerCase()].slice(0, 30).join('')

function namesIn(type: string, identity: string, ...more: (string | null)[]): Names {
  const words = [...wordsIn(identity), ...more.filter((name) => name !== null)]
  const list = /\(([^()]*)\)[^)]*$/.exec(identity)?.[1]
  return {
    words: new Set(words),
    loose: new Set(words.map(loosen)),
    isPart: / (?:column|constraint)$/.test(type),
    args: list === undefined ? undefined : list === '' ? [] : list.split(','),
  }
}
