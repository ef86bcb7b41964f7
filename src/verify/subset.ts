import { createHash } from 'node:crypto'

/** The share of the objects that a run reads whole: of so many parts of about the same number of objects, this one. */
export interface ReadSubset {
  readonly part: number
  readonly of: number
}

export const whole: ReadSubset = { part: 1, of: 1 }

/** Parses `3/7`: the third of seven. */
export function parseSubset(text: string): ReadSubset | undefined {
  const match = /^([1-9]\d{0,3})\/([1-9]\d{0,3})$/.exec(text.trim())
  const [part, of] = [Number(match?.[1]), Number(match?.[2])]
  return match !== null && part <= of ? { part, of } : undefined
}

/** Whether an object belongs to it: its key decides, so that all parts together are all objects, now and later. */
export function isInSubset(key: string, { part, of }: ReadSubset): boolean {
  return of === 1 || createHash('sha256').update(key).digest().readUInt32BE(0) % of === part - 1
}

/** The part that follows, round and round. */
export const nextSubset = ({ part, of }: ReadSubset): ReadSubset => ({ part: (part % of) + 1, of })
