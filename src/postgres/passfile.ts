/**
 * The password file, `~/.pgpass` (PostgreSQL manual, "The Password File"). node-postgres finds it by itself only through the
 * process environment, with a deprecation warning, and prints its own warnings; hence this reader.
 */
import { readFile, stat } from 'node:fs/promises'
import { codeOf, messageOf } from '../base/errors.ts'

export type PassfileAnswer =
  | { readonly kind: 'password'; readonly password: string }
  | { readonly kind: 'none' }
  /** The file is there but is not believed, or cannot be read; `why` is for the hint of a failed login. */
  | { readonly kind: 'ignored'; readonly why: string }

export interface PassfileKey {
  readonly host: string
  readonly port: number
  readonly database: string
  readonly user: string
}

export async function lookUpPassword(path: string, key: PassfileKey): Promise<PassfileAnswer> {
  try {
    const status = await stat(path)
    if (!status.isFile()) return { kind: 'ignored', why: `${path} is not a plain file` }
    // As libpq: what others can read is no secret, and using it would hide that.
    if (process.platform !== 'win32' && (status.mode & 0o077) !== 0) {
      return { kind: 'ignored', why: `${path} is ignored because group or others may read it: chmod 600 ${path}` }
    }
    const password = findPassword(await readFile(path, 'utf8'), key)
    return password === undefined ? { kind: 'none' } : { kind: 'password', password }
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return { kind: 'none' }
    return { kind: 'ignored', why: `cannot read ${path}: ${messageOf(error)}` }
  }
}

/** The password of the first line `host:port:database:user:password` that fits; `*` fits anything, `\` escapes `:` and `\`. */
export function findPassword(text: string, key: PassfileKey): string | undefined {
  // A socket in a default directory is written `localhost` in the file, as in libpq.
  const host = key.host === '/var/run/postgresql' || key.host === '/tmp' ? 'localhost' : key.host
  const wanted = [host, String(key.port), key.database, key.user]
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith('#')) continue
    const match = /^((?:\\.|[^:\\])*):((?:\\.|[^:\\])*):((?:\\.|[^:\\])*):((?:\\.|[^:\\])*):(.*)$/.exec(line)
    if (!match) continue
    const [, ...fields] = match
    if (!wanted.every((value, index) => fields[index] === '*' || unescape(fields[index] ?? '') === value)) continue
    return unescape(fields[4] ?? '') || undefined
  }
  return undefined
}

const unescape = (field: string): string => field.replace(/\\(.)/g, '$1')
