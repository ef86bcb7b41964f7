/**
 * The oracle for "is this the same database?": `fingerprint.mjs`, run as a program of its own so that it shares no code
 * with what it judges.
 */
import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual, promisify } from 'node:util'

/** Every object's definition, every table's multiset hash and every sequence, in one snapshot. */
export interface Fingerprint {
  readonly version: number
  readonly at: { readonly time: string; readonly standby: boolean; readonly lsn: string }
  readonly objects: Readonly<Record<string, string>>
  readonly rows: Readonly<Record<string, string>>
  readonly sequences: Readonly<Record<string, { readonly next: string; readonly step: string }>>
}

interface Difference {
  readonly part: string
  readonly key: string
  readonly kind: string
  readonly golden?: string
  readonly actual?: string
}

const program = fileURLToPath(new URL('./fingerprint.mjs', import.meta.url))
// The program takes `pg` from the folder that it runs in.
const cwd = fileURLToPath(new URL('../..', import.meta.url))
const maxBuffer = 256 * 1024 * 1024

/** Takes a database's fingerprint. Flags: `--ignore-schema NAME`, `--no-owner`, `--no-acl`, `--data-only`, `--schema-only`. */
export async function fingerprint(url: string, flags: readonly string[] = []): Promise<Fingerprint> {
  const { stdout } = await promisify(execFile)(process.execPath, [program, 'take', url, ...flags], { cwd, maxBuffer })
  return JSON.parse(stdout) as Fingerprint
}

/** One line per difference, none when equal. The flags are those of `fingerprint` and `--ignore-object REGEX`. */
export function differences(golden: Fingerprint, actual: Fingerprint, flags: readonly string[] = []): string[] {
  if (isSame(golden, actual, flags)) return []
  const folder = mkdtempSync(join(tmpdir(), 'walback-fingerprint-'))
  try {
    const files = Object.entries({ golden, actual }).map(([name, print]) => {
      const file = join(folder, `${name}.json`)
      writeFileSync(file, JSON.stringify(print))
      return file
    })
    const argv = [program, 'diff', ...files, '--json', ...flags]
    const { status, stdout, stderr } = spawnSync(process.execPath, argv, { cwd, maxBuffer, encoding: 'utf8' })
    if (status !== 0 && status !== 1) throw new Error(`fingerprint.mjs diff failed: ${stderr}`)
    // The found differences are its first line, a summary the second.
    const found = JSON.parse(stdout.slice(0, stdout.indexOf('\n'))) as Difference[]
    return found.map((d) => `${d.kind} ${d.part} ${d.key}: golden ${brief(d.golden)}, actual ${brief(d.actual)}`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/**
 * Whether they are the same to the letter, but for objects that are ignored: then the program, whose start takes a fifth of
 * a second of the processor, has nothing to find. All else is for it to judge.
 */
function isSame(golden: Fingerprint, actual: Fingerprint, flags: readonly string[]): boolean {
  const ignored = flags.filter((_, at) => flags[at - 1] === '--ignore-object').map((pattern) => new RegExp(pattern))
  const kept = (part: Readonly<Record<string, string>>) =>
    Object.fromEntries(Object.entries(part).filter(([key]) => !ignored.some((pattern) => pattern.test(key))))
  const [one, other] = [golden, actual].map(({ objects, rows, sequences }) => [kept(objects), kept(rows), sequences])
  return isDeepStrictEqual(one, other)
}

const brief = (text: string | undefined): string => (text === undefined ? '-' : text.replace(/\s+/g, ' ').slice(0, 160))
