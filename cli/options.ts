import {
  nearest,
  type Operation,
  operations,
  parseDuration,
  parseSize,
  parseSubset,
  type ReadSubset,
} from '../src/index.ts'
import { invalid } from './errors.ts'

/** A whole number of connections. */
export const parseJobs = (text: string): number => wholeNumber(text, 1, 64)

export const parseLimit = (text: string): number => wholeNumber(text, 1, 1_000_000)

/** How many bases a rule of retention keeps. */
export const parseBases = (text: string): number => wholeNumber(text, 1, 100_000)

/** How long something may take, in milliseconds. */
export function parseTimeout(text: string): number {
  const duration_ms = parseDuration(text)
  const isFit = duration_ms !== undefined && duration_ms >= 1 && duration_ms <= 86_400_000
  return isFit ? duration_ms : invalid('A duration with its unit is needed, such as 500ms, 30s or 2m, at most a day.')
}

function wholeNumber(text: string, least: number, most: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
  return value >= least && value <= most ? value : invalid(`A whole number from ${least} to ${most} is needed.`)
}

/** `15m`, in milliseconds. */
export const parseSpan = (text: string): number =>
  positive(parseDuration(text)) ?? invalid('A duration with its unit is needed, such as 500ms, 30s or 15m.')

/** `20MB` or `20MB/s`, in bytes a second. */
export const parseRate = (text: string): number =>
  positive(parseSize(text.replace(/\/s$/, ''))) ?? invalid('A size with its unit is needed, such as 20MB or 16MiB.')

const positive = (value: number | undefined): number | undefined =>
  value !== undefined && value > 0 ? value : undefined

/** `delete,update`. */
export function parseOperations(text: string): Operation[] {
  return text.split(',').map((word) => {
    const wanted = word.trim().toLowerCase()
    const known = operations.find((operation) => operation === wanted)
    if (known !== undefined) return known
    const meant = nearest(wanted, operations)
    return invalid(
      `There is no operation ${JSON.stringify(word)}${meant === undefined ? `, only ${operations.join(', ')}` : `: did you mean ${meant}?`}.`,
    )
  })
}

/** `1/7`: the first of seven parts. */
export const parseShare = (text: string): ReadSubset =>
  parseSubset(text) ?? invalid('A part of a whole is needed, such as 1/7: the first of seven parts.')

/** An option that may be given several times, or with commas. */
export const parseList = (text: string, before: readonly string[] = []): readonly string[] => [
  ...before,
  ...text
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== ''),
]
