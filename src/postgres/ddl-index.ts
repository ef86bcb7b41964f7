import { fitOf, fits, loosen, type Outline, type Traces } from './ddl-match.ts'
import { tokensOf } from './split-sql.ts'

/** A statement of a source that may be a command. */
export interface Placed {
  readonly outline: Outline
  /** Its place among the statements of the source, from 0. */
  readonly place: number
  readonly fit: number
}

/** So many are given at most: past them it is cheaper to make what the command did from the state after it. */
const placedAtMost = 64

/**
 * The statements of one source, by tag and by the names of what they are about: a migration's script may be long, and is
 * asked for each of its commands.
 */
export class OutlineIndex {
  readonly #outlines: readonly Outline[]
  readonly #places = new Map<string, number[]>()
  readonly #unread: readonly number[]

  constructor(outlines: readonly Outline[]) {
    this.#outlines = outlines
    this.#unread = outlines.flatMap(({ kind }, place) => (kind === 'unknown' ? [place] : []))
    for (const [place, { tag, subjects }] of outlines.entries()) {
      if (tag === undefined) continue
      // One name of each object will do to find it; without names, it may be anything.
      const names = subjects.length === 0 ? [''] : subjects.map(({ words }) => loosen(words.at(-1) ?? ''))
      for (const key of new Set([keyOf(tag), ...names.map((name) => keyOf(tag, name))])) {
        const places = this.#places.get(key)
        if (places) places.push(place)
        else this.#places.set(key, [place])
      }
    }
  }

  /** Those with this tag whose names can be of what the command touched; in the order of the source, from behind `last`. */
  find(tag: string, traces: Traces, last: number, only?: number): Placed[] {
    const keys =
      traces.names.length === 0
        ? [keyOf(tag)]
        : [keyOf(tag, ''), ...traces.names.flatMap(({ loose }) => [...loose].map((name) => keyOf(tag, name)))]
    const unread = this.#unread.filter((place) => mayBe(this.#outlines[place]?.text ?? '', tag))
    const places = new Set([...keys.flatMap((key) => this.#places.get(key) ?? []), ...unread])
    const found: Placed[] = []
    let sure = 0
    for (const { outline, place } of this.#behind(last, [...places], only)) {
      const fit = fitOf(outline, traces)
      if (fit === fits.not) continue
      found.push({ outline, place, fit })
      if (fit === fits.byName && ++sure === placedAtMost) break
    }
    return found.sort((a, b) => b.fit - a.fit).slice(0, placedAtMost)
  }

  /** Those with this tag, whatever their names, in the same order. */
  ofTag(tag: string, last: number, only?: number): Placed[] {
    return this.#behind(last, this.#places.get(keyOf(tag)) ?? [], only).slice(0, placedAtMost)
  }

  ofKinds(kinds: readonly string[]): Placed[] {
    const places = this.#outlines.flatMap(({ kind }, place) => (kinds.includes(kind) ? [place] : []))
    return this.#behind(-1, places)
  }

  /** The statements at these places, or at the one of them that alone can be, in order from behind `last`, and around. */
  #behind(last: number, places: readonly number[], only?: number): Placed[] {
    const some = only === undefined ? places : places.filter((place) => place === only)
    const inOrder = some.toSorted((a, b) => Number(a <= last) - Number(b <= last) || a - b)
    return inOrder.flatMap((place) => {
      const outline = this.#outlines[place]
      return outline === undefined ? [] : [{ outline, place, fit: fits.not }]
    })
  }
}

const keyOf = (tag: string, name?: string): string => (name === undefined ? tag : `${tag}\n${name}`)

/** Whether a text that our parser does not understand may have this tag, by its first word. */
function mayBe(text: string, tag: string): boolean {
  const first = tokensOf(text)?.[0]?.text
  return first === undefined || tag.startsWith(first.toUpperCase())
}
