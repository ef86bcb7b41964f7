import { spawn } from 'node:child_process'
import { chown, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { throwIfAborted } from '../base/abort.ts'
import { messageOf, WalbackError } from '../base/errors.ts'
import type { Account } from './embedded-account.ts'
import type { Binaries } from './embedded-binaries.ts'

/** What a cluster is made with, and for whom. */
export interface Means {
  readonly binaries: Binaries
  readonly account: Account | undefined
  readonly scratch: string
  readonly password: string | undefined
}

const initdbArguments = ['--auth=trust', '-U', 'postgres', '-E', 'UTF8', '--no-locale', '--no-instructions']

/** What the caller has said of the cluster (see `EmbeddedOptions`). */
export interface ClusterOptions {
  readonly directory?: string
  readonly initdb?: readonly string[]
  readonly signal?: AbortSignal
}

/** Makes a cluster in the folder, which is there and empty. */
export async function initdb(path: string, options: ClusterOptions, means: Means): Promise<void> {
  // A cluster in a temporary folder does not outlive this process, so nothing is gained by flushing it to disk.
  const sync = options.directory === undefined ? ['--no-sync'] : []
  const secret = await passwordArguments(means)
  const given = [...initdbArguments, ...secret, ...sync, ...(options.initdb ?? [])]
  const child = spawn(means.binaries.initdb, ['-D', path, ...given], {
    cwd: means.scratch,
    env: environment(),
    stdio: ['ignore', 'pipe', 'pipe'],
    ...means.account,
    ...(options.signal && { signal: options.signal }),
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
  const status = await new Promise<number | string | null>((settle) => {
    // An abort is an `error` too, but the process is still about; only one that never began has no pid.
    child.on('error', (error) => {
      if (child.pid === undefined) settle(messageOf(error))
    })
    child.on('close', (code, signal) => settle(code ?? signal))
  })
  throwIfAborted(options.signal)
  if (status !== 0) throw new WalbackError('database', `initdb failed (${status})`, { hint: lastLines(output) })
}

/** Of two answers to how sessions prove who they are, initdb takes the last. */
async function passwordArguments({ password, scratch, account }: Means): Promise<string[]> {
  if (password === undefined) return []
  const file = join(scratch, 'password')
  await writeFile(file, password, { mode: 0o600 })
  if (account) await chown(file, account.uid, account.gid)
  return ['--auth=scram-sha-256', `--pwfile=${file}`]
}

/** The environment without PGDATA, PGPORT and their like, which would steer a server meant for somebody else. */
export function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('PG')))
}

export const lastLines = (text: string): string => text.trimEnd().split('\n').slice(-12).join('\n')
