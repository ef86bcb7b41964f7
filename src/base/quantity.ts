import { z } from 'zod'

/** Durations and sizes as people write them, with their units. */

const duration_ms: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** A duration such as `500ms`, `5s`, `1m` or `2h`, in milliseconds; undefined for anything else, bare numbers too. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,3})?) ?(ms|s|m|h|d)$/.exec(text.trim())
  return match === null ? undefined : Math.round(Number(match[1]) * (duration_ms[match[2] ?? ''] ?? Number.NaN))
}

const size_bytes: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 1 << 10,
  MiB: 1 << 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
}

/** A size such as `16MiB` (binary) or `20GB` (decimal), in bytes; undefined for anything else, bare numbers too. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,3})?) ?([kKMGT]?i?B)$/.exec(text.trim())
  const unit = size_bytes[match?.[2] ?? '']
  return match === null || unit === undefined ? undefined : Math.round(Number(match[1]) * unit)
}

export const duration = (least: string, most: string): z.ZodType<number> =>
  quantity('a duration', 'such as 500ms, 5s or 1m', parseDuration, least, most)
export const size = (least: string, most: string): z.ZodType<number> =>
  quantity('a size', 'such as 16MiB or 20MB', parseSize, least, most)

function quantity(
  what: string,
  example: string,
  parse: (text: string) => number | undefined,
  least: string,
  most: string,
): z.ZodType<number> {
  const [low, high] = [parse(least) ?? 0, parse(most) ?? 0]
  return z.unknown().transform((given, context): number => {
    const value = typeof given === 'string' ? parse(given) : undefined
    const problem =
      value === undefined
        ? `${what} with its unit is needed, ${example}${typeof given === 'number' ? '; a bare number is not taken' : ''}`
        : value < low || value > high
          ? `out of range: from ${least} to ${most}`
          : undefined
    if (problem !== undefined) context.addIssue({ code: 'custom', message: problem })
    return value ?? 0
  })
}
