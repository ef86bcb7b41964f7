/**
 * Statements of the change stream's DDL: which one a command was, and how it is replayed. Event triggers see what a
 * command did, not what it was called: the text around it may hold many statements, of which some were rolled back, did
 * nothing, or were run again and again. So several may be it, and the state after it, which travels with it, decides.
 */
import type { DdlCommand, DroppedObject } from '../model/ddl-message.ts'
import { quoteLiteral } from '../model/identifier.ts'
import { beginsWith, detachedAtOnce, detachedInSteps, withClause, withoutConcurrently } from './ddl-edit.ts'
import { OutlineIndex, type Placed } from './ddl-index.ts'
import { detachesInSteps, isWithoutData, namesVersion, providerOf, schemasGrantedOn } from './ddl-kind.ts'
import { isTemporary, outlineOf, tracesOf } from './ddl-match.ts'
import { hasEscapes, sourcesOf } from './ddl-source.ts'
import { parseQuery } from './split-sql.ts'

/** A command of the stream, with its texts in place of their ids, and with what it dropped. */
export interface CommandInput extends DdlCommand {
  readonly dropped: readonly DroppedObject[]
}

/** A statement that may be what ran. */
export interface DdlStatement {
  /** Exactly as in its source, without comments before it and the semicolon after it. */
  readonly text: string
  /** The name of the syntax tree's node; `unknown` of what our parser does not understand. */
  readonly kind: string
  readonly node: unknown
  /** Its place among the statements of its source, from 0. */
  readonly place: number
  /** It is in the script of an extension, or is what ran that script. */
  readonly isScript: boolean
}

/**
 * The statements that may have been this command, the likeliest first; empty if its text is not known, or it changed
 * nothing. Where several are equally likely, those that follow the one used last come first, for which the caller keeps
 * a cursor and tells it what was used (`StatementCursor.use`).
 */
export async function candidates(
  command: CommandInput,
  cursor = new StatementCursor(),
): Promise<readonly DdlStatement[]> {
  const { tag, objects, dropped } = command
  const traces = tracesOf(tag, objects, dropped)
  if (traces === undefined) return []
  const sources = await cursor.sourcesOf(command)
  const last = cursor.last(command)
  // What an extension's script makes is marked as such; what it drops is not.
  const mayBeScript = objects.every(({ extension }) => extension)
  const asCandidates = (placed: readonly Placed[], isScript: boolean): DdlStatement[] =>
    placed.map((one) => statementOf(one, isScript && mayBeScript, hasEscapes(command)))
  const fitting = sources.flatMap(({ index, only, isScript }) =>
    index.find(tag, traces, last, only).map((placed) => ({ placed, isScript })),
  )
  if (fitting.length > 0) {
    fitting.sort((a, b) => b.placed.fit - a.placed.fit)
    return fitting.flatMap(({ placed, isScript }) => asCandidates([placed], isScript))
  }
  // Up to 17, the statements of an extension's script have no frame: what runs the script stands for them.
  const scripts = sources.flatMap(({ index }) => index.ofKinds(['CreateExtensionStmt', 'AlterExtensionStmt']))
  if (mayBeScript && scripts.length > 0) return asCandidates(scripts, true)
  // Names may differ in a way that we do not know: the state after the command will tell.
  const tagged = sources.flatMap(({ index, only, isScript }) => asCandidates(index.ofTag(tag, last, only), isScript))
  return tagged.length > 0
    ? tagged
    : sources.flatMap(({ index, isScript }) => asCandidates(index.ofTag(tag, last), isScript))
}

/** Its tree is parsed when it is asked for: of many candidates, few are. */
const statementOf = (
  { outline: { text, kind }, place }: Placed,
  isScript: boolean,
  escapes: boolean,
): DdlStatement => ({
  text,
  kind,
  place,
  isScript,
  get node() {
    return parseQuery(text, escapes)?.[0]?.node
  },
})

interface IndexedSource {
  readonly index: OutlineIndex
  readonly only: number | undefined
  readonly isScript: boolean
}

/** So much text is remembered (characters), but always the latest. */
const remembered = 16 << 20

/**
 * Remembers which statement of each text was used last, so that a text of many is gone through in order, and again; and
 * the text's statements, so that a long script is parsed once and not for each of its commands. A text that it has
 * forgotten begins at its start.
 */
export class StatementCursor {
  readonly #known = new Map<string, { last: number; readonly sources: readonly IndexedSource[] }>()
  #size = 0

  /** The place of what was used last of this command's text; -1 before the first. */
  last(command: CommandInput): number {
    return this.#known.get(keyOf(command))?.last ?? -1
  }

  /** Says that the command was this statement. */
  use(command: CommandInput, { place, isScript }: DdlStatement): void {
    const known = this.#known.get(keyOf(command))
    // What runs an extension's script is a command of its own, after those of the script.
    if (known && !isScript) known.last = place
  }

  /** The statements of this command's text. */
  async sourcesOf(command: CommandInput): Promise<readonly IndexedSource[]> {
    const key = keyOf(command)
    const known = this.#known.get(key)
    if (known) {
      this.#known.delete(key)
      this.#known.set(key, known)
      return known.sources
    }
    const sources = (await sourcesOf(command)).map(({ statements, only, isScript }) => ({
      index: new OutlineIndex(statements.map(outlineOf)),
      only,
      isScript,
    }))
    this.#known.set(key, { last: -1, sources })
    this.#size += key.length
    for (const oldest of this.#known.keys()) {
      if (this.#size <= remembered || oldest === key) break
      this.#known.delete(oldest)
      this.#size -= oldest.length
    }
    return sources
  }
}

/** The text itself, which is not copied for being a key. */
const keyOf = ({ query, context, functions }: CommandInput): string =>
  functions.length > 0 ? JSON.stringify([context, functions]) : context || query

/** How a statement is replayed: as this text; not at all, but its result is made from the recorded state; or left out. */
export type Replay =
  /** `alone`: a text that must run outside of any transaction block, and does what `text` does not wholly do. */
  | { readonly kind: 'run'; readonly text: string; readonly alone?: string }
  | { readonly kind: 'state'; readonly why: string }
  /** `report`: who restores should know of it. */
  | { readonly kind: 'skip'; readonly why: string; readonly report: boolean }

const skip = (why: string, report = false): Replay => ({ kind: 'skip', why, report })

/** Says how to replay a statement as this command, in a transaction block and without running any query of it. */
export function rewriteForReplay(statement: DdlStatement, command: CommandInput): Replay {
  const { tag, objects, dropped } = command
  const everything = [...objects, ...dropped]
  if (statement.isScript || (objects.length > 0 && objects.every(({ extension }) => extension))) {
    return skip('it belongs to the script of an extension')
  }
  if (everything.length > 0 && everything.every(isTemporary)) return skip('it is temporary')
  if (isOurs(statement, command)) return skip('it is about walback itself')
  switch (tag) {
    case 'CREATE TABLE AS':
    case 'SELECT INTO':
      return { kind: 'state', why: 'its query saw other rows' }
    case 'CREATE MATERIALIZED VIEW':
      if (isWithoutData(statement.node)) return { kind: 'run', text: statement.text }
      return { kind: 'state', why: 'its query saw other rows' }
    case 'DROP OWNED':
      return { kind: 'state', why: 'it would take rights away in the whole cluster' }
    case 'REFRESH MATERIALIZED VIEW':
      return skip('materialized views are filled at the end')
    case 'REINDEX':
      return skip('it changes nothing that can be seen')
    case 'CREATE SUBSCRIPTION':
    case 'ALTER SUBSCRIPTION':
      return skip('a restored database must not subscribe to anything', true)
    case 'DROP SUBSCRIPTION':
      return skip('there is none')
    case 'SECURITY LABEL':
      if (providerOf(statement.node) === undefined) return skip('it names no provider', true)
      return { kind: 'run', text: statement.text }
    case 'ALTER TABLE':
      if (detachesInSteps(statement.node)) return detached(statement.text, hasEscapes(command))
      return { kind: 'run', text: statement.text }
    default:
      return { kind: 'run', text: replayable(statement, command) }
  }
}

const detached = (text: string, escapes: boolean): Replay => ({
  kind: 'run',
  text: detachedAtOnce(text, escapes),
  alone: detachedInSteps(text, escapes),
})

/** The text as it can run in a transaction block, and as it gives the same again. */
function replayable({ text, kind, node }: DdlStatement, command: CommandInput): string {
  const escapes = hasEscapes(command)
  switch (command.tag) {
    case 'CREATE INDEX':
    case 'DROP INDEX':
      return withoutConcurrently(text, escapes)
    case 'CREATE EXTENSION':
    case 'ALTER EXTENSION': {
      // CREATE LANGUAGE can be of this kind too; ALTER EXTENSION … ADD, DROP, SET SCHEMA are of others.
      const isCreate = kind === 'CreateExtensionStmt' && beginsWith(text, ['create', 'extension'], escapes)
      const version = command.objects.find(({ type }) => type === 'extension')?.state?.['version']
      if (typeof version !== 'string' || namesVersion(node) || !(isCreate || kind === 'AlterExtensionStmt')) return text
      return withClause(text, `${isCreate ? 'VERSION' : 'TO'} ${quoteLiteral(version).trim()}`, escapes)
    }
    default:
      return text
  }
}

/** Whether everything that it touched is of walback's own making on the source. */
function isOurs({ node }: DdlStatement, { objects, dropped }: CommandInput): boolean {
  const named = [...objects, ...dropped.filter(({ original }) => original)].filter(({ identity }) => identity !== null)
  if (named.length > 0) {
    return named.every(({ type, schema, identity }) => {
      if (schema === 'walback' || (type === 'schema' && identity === 'walback')) return true
      return /^publication/.test(type) && /(?:^| in publication )"?walback_/.test(identity ?? '')
    })
  }
  const schemas = schemasGrantedOn(node)
  return schemas.length > 0 && schemas.every((schema) => schema === 'walback')
}

/** What neither reads rows nor changes the shape of a table that may have any, nor what a generated column calls. */
const quiet = new RegExp(
  `^(?:${[
    'ALTER DEFAULT PRIVILEGES|COMMENT|GRANT|REINDEX|REFRESH MATERIALIZED VIEW|REVOKE|SECURITY LABEL',
    '(?:ALTER|CREATE|DROP) (?:PUBLICATION|SUBSCRIPTION)',
    'CREATE (?:ACCESS METHOD|AGGREGATE|CAST|COLLATION|CONVERSION|DOMAIN|FOREIGN DATA WRAPPER|FOREIGN TABLE|FUNCTION)',
    'CREATE (?:OPERATOR|OPERATOR CLASS|OPERATOR FAMILY|PROCEDURE|SCHEMA|SEQUENCE|SERVER|STATISTICS|TABLE)',
    'CREATE (?:TEXT SEARCH [A-Z]+|TRANSFORM|TYPE|USER MAPPING|VIEW)',
  ].join('|')})$`,
)

/** What makes a quiet command loud: OR REPLACE of a function, INHERITS, PARTITION OF a table with rows in its default. */
const loudWords: Readonly<Record<string, RegExp>> = {
  'CREATE FOREIGN TABLE': /\b(?:inherits|partition)\b/i,
  'CREATE FUNCTION': /\breplace\b/i,
  'CREATE SCHEMA': /\b(?:inherits|partition)\b/i,
  'CREATE TABLE': /\b(?:inherits|partition)\b/i,
}

/** Whether changes of rows that come before the command must be applied before it is replayed. */
export function isBarrier({ tag, query, context, functions }: CommandInput): boolean {
  if (!quiet.test(tag)) return true
  const loud = loudWords[tag]
  if (loud === undefined) return false
  const texts = [query, context, ...functions.map(({ source }) => source)]
  return texts.every((text) => text === '') || texts.some((text) => loud.test(text))
}
