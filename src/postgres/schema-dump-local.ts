import { execFile } from 'node:child_process'
import { readdir, realpath } from 'node:fs/promises'
import { basename, delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import type { Conninfo } from './conninfo.ts'
import { libpqEnvironment } from './schema-dump-environment.ts'

export interface LocalPgDump {
  readonly path: string
  readonly major: number
  /** As `pg_dump --version` says it, such as 17.2 or 18beta1. */
  readonly version: string
}

const run = promisify(execFile)

/** The programs of a machine do not change under a running process, and each costs a process to ask. */
let found: Promise<readonly LocalPgDump[]> | undefined

/** The newest `pg_dump` of this machine that can dump a server of this major: a newer one can, an older one refuses. */
export async function findLocalPgDump(serverMajor: number): Promise<LocalPgDump | undefined> {
  found ??= findAll()
  return (await found).find(({ major }) => major >= serverMajor)
}

async function findAll(): Promise<readonly LocalPgDump[]> {
  const onPath = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '')
  const folders = [...onPath, ...(await packagedFolders())]
  const paths = await Promise.all(folders.map((folder) => realpath(join(folder, 'pg_dump')).catch(() => undefined)))
  const programs = await Promise.all([...new Set(paths)].map((path) => (path ? versionOf(path) : undefined)))
  return programs.filter((program) => program !== undefined).sort(newestFirst)
}

const newestFirst = (a: LocalPgDump, b: LocalPgDump): number =>
  b.version.localeCompare(a.version, 'en', { numeric: true })

/** Where Debian's, Red Hat's and Homebrew's packages put each major version's programs, PATH or not. */
async function packagedFolders(): Promise<string[]> {
  const places = [
    { parent: '/usr/lib/postgresql', child: /^\d+$/ },
    { parent: '/usr', child: /^pgsql-\d+$/ },
    ...['/opt/homebrew/opt', '/usr/local/opt', '/home/linuxbrew/.linuxbrew/opt'].map((parent) => ({
      parent,
      child: /^(?:postgresql(?:@\d+)?|libpq)$/,
    })),
  ]
  const folders = places.map(async ({ parent, child }) => {
    const names = await readdir(parent).catch(() => [])
    return names.filter((name) => child.test(name)).map((name) => join(parent, name, 'bin'))
  })
  return (await Promise.all(folders)).flat()
}

async function versionOf(path: string): Promise<LocalPgDump | undefined> {
  // Debian's wrapper runs the pg_dump of some cluster's version; the programs behind it are found by themselves.
  if (basename(path) === 'pg_wrapper') return undefined
  const output = await run(path, ['--version'], { timeout: 10_000 }).catch(() => undefined)
  const version = /^pg_dump \(PostgreSQL\) ((\d+)\S*)/.exec(output?.stdout ?? '')
  return version ? { path, version: version[1] ?? '', major: Number(version[2]) } : undefined
}

/** Half a gigabyte: about a million tables, and near the longest string of Node's. */
const longestDump_bytes = 2 ** 29

/** Runs it once for each list of arguments and gives what each printed; what it complains about is thrown. Abort kills it. */
export async function runLocalPgDump(
  program: LocalPgDump,
  conninfo: Conninfo,
  runs: readonly (readonly string[])[],
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<string[]> {
  const { signal } = options
  const settings = {
    env: libpqEnvironment(conninfo, process.env),
    maxBuffer: longestDump_bytes,
    ...(signal && { signal }),
  }
  const run = (args: readonly string[]): Promise<string> =>
    new Promise((resolve, reject) => {
      execFile(program.path, args, settings, (error, stdout, stderr) => {
        if (error) reject(new Error(stderr || error.message, { cause: error }))
        else resolve(stdout)
      })
    })
  const dumps: string[] = []
  for (const args of runs) dumps.push(await run(args))
  return dumps
}
