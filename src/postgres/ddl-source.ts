/**
 * Where the text of a command of the stream is: in the whole string that the client sent, in the frames of functions
 * around the command, or in the source of a SQL function. The frames are PG_CONTEXT's, innermost first, and quote
 * nothing in what they show.
 */
import type { DdlCommand } from '../model/ddl-message.ts'
import { loadParser, parseQuery, type Statement, splitQuery } from './split-sql.ts'

/** Statements of which one is the command, as far as a source can tell. */
export interface Source {
  readonly statements: readonly Statement[]
  /** The only one that can be it, counted from 0, where the frame says so. */
  readonly only?: number
  /** Run by the script of an extension. */
  readonly isScript: boolean
}

export type CommandText = Pick<DdlCommand, 'query' | 'context' | 'functions' | 'settings'>

/** Without `standard_conforming_strings`, backslashes escape in every string. */
export const hasEscapes = ({ settings }: Pick<CommandText, 'settings'>): boolean =>
  settings['standard_conforming_strings'] === 'off'

/** The sources, the likeliest first. */
export async function sourcesOf(command: CommandText): Promise<Source[]> {
  const { query, context } = command
  const escapes = hasEscapes(command)
  await loadParser()
  if (context.startsWith(statementFrame)) return quotedSources(context.slice(statementFrame.length), escapes)
  if (context.startsWith('SQL function "')) return functionSources(command, escapes)
  const foreign = foreignFrame.exec(context)
  const translated = foreign ? foreignSources(context.slice(foreign[0].length), escapes) : []
  if (translated.length > 0) return translated
  // Code in C can run a command without any frame: then the text is that of its caller, and nothing in it fits.
  return query === '' ? [] : [{ statements: splitQuery(query, escapes), isScript: false }]
}

const statementFrame = 'SQL statement "'

/** The same in another language, as `SQL-Anweisung »`: who may not set lc_messages gets frames in the server's. */
const foreignFrame = /^(?!PL\/|SQL (?:function|expression) ")[^\n"»«“„「]*["»«“„「]\s?/

/** The text is what stands before a closing quote and is a statement. */
function foreignSources(quoted: string, escapes: boolean): Source[] {
  const ends = [...quoted.matchAll(/\s?["»«”“」][^"»«”“」\n]{0,40}(?=\n|$)/g)].map(({ index }) => index)
  return readable(quoted, ends, escapes)
}

/** What can follow the end of a quoted text: the frame of what ran it. */
const frame =
  /^\n(?:SQL (?:function|statement|expression) "|PL\/pgSQL (?:function|expression|assignment) |PL\/\w+ (?:function "|anonymous code block)|extension script file "|COPY |processing remote data |(?:portal "|unnamed portal )|while )/

const scriptFrame = /\nextension script file "[^"\n]*", near line \d+(?:\n|$)/

/** More than one end is tried, but not every one of a long text that is full of them. */
const endsTried = 200
const moreEndsTried = 8

/**
 * The text from the frame's quote to the one that ends it. It may hold quotes, newlines, and what looks like a frame, so
 * the shortest that is a statement comes first, and then longer ones.
 */
function quotedSources(quoted: string, escapes: boolean): Source[] {
  const ends = [...quoted.matchAll(/"(?=\n|$)/g)].map(({ index }) => index)
  const framed = ends.filter((end) => end === quoted.length - 1 || frame.test(quoted.slice(end + 1, end + 80)))
  for (const candidates of [framed, ends]) {
    const sources = readable(quoted, candidates, escapes)
    if (sources.length > 0) return sources
  }
  const end = framed[0] ?? ends[0]
  if (end === undefined) return []
  return [{ statements: splitQuery(quoted.slice(0, end), escapes), isScript: isScriptAfter(quoted, end) }]
}

function readable(quoted: string, ends: readonly number[], escapes: boolean): Source[] {
  const sources: Source[] = []
  let left = endsTried
  for (const end of ends) {
    if (left-- === 0) break
    const statements = parseQuery(quoted.slice(0, end), escapes)
    if (statements === undefined || statements.length === 0) continue
    sources.push({ statements, isScript: isScriptAfter(quoted, end) })
    left = Math.min(left, moreEndsTried)
  }
  return sources
}

/** Whether the frames after a quoted text say that a script of an extension ran it. */
const isScriptAfter = (quoted: string, end: number): boolean => scriptFrame.test(quoted.slice(end + 1))

/** The frame names the function without its schema and arguments, and says which of its statements it was. */
function functionSources({ context, functions }: CommandText, escapes: boolean): Source[] {
  const sources: Source[] = []
  for (const { name, source } of functions) {
    const start = `SQL function "${name}" statement `
    if (!context.startsWith(start)) continue
    const ordinal = /^\d+/.exec(context.slice(start.length))?.[0]
    if (ordinal === undefined) continue
    sources.push({
      statements: splitQuery(source, escapes),
      only: Number(ordinal) - 1,
      isScript: scriptFrame.test(context),
    })
  }
  return sources
}
