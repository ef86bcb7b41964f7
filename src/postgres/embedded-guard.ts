/**
 * Sees to it that a server and its temporary folders do not outlive this process, however it ends. A handler for
 * `exit` is not enough: it does not run when a signal ends the process, as test runners and supervisors do. So a small
 * shell holds the other end of a pipe, and cleans up when the pipe closes without a word.
 */
import { spawn } from 'node:child_process'
import type { Socket } from 'node:net'

/**
 * $1 is the data directory or empty, the rest are folders to remove. `postmaster.pid` names the process; it may be left
 * over from a killed server, so where /proc can tell (PostgreSQL runs in its data directory) the process is checked.
 */
const script = `
trap '' HUP INT TERM
read -r word && exit 0
data=$1; shift
mine() {
  [ -n "$data" ] && [ -r "$data/postmaster.pid" ] && read -r pid < "$data/postmaster.pid" || return 1
  [ ! -e /proc/self/cwd ] || [ "$(readlink "/proc/$pid/cwd")" = "$data" ] || return 1
  kill -0 "$pid" 2>/dev/null
}
if mine; then
  kill -QUIT "$pid"
  tries=0
  while mine && [ $tries -lt 100 ]; do tries=$((tries + 1)); sleep 0.1; done
  if mine; then kill -KILL "$pid"; sleep 0.5; fi
fi
[ $# -eq 0 ] || rm -rf -- "$@"
`

export interface Guard {
  /** Everything is cleaned up: lets the guard go. */
  dismiss(): void
}

/** Guards the server in a data directory (resolved, if any) and the folders that go with this process. */
export function guard(dataDirectory: string | undefined, folders: readonly string[]): Guard {
  const shell = spawn('/bin/sh', ['-c', script, 'walback-guard', dataDirectory ?? '', ...folders], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  // Without a shell the server still works; only a killed process would then leave it behind.
  shell.on('error', () => undefined)
  const pipe = shell.stdin as Socket
  pipe.on('error', () => undefined)
  pipe.unref()
  shell.unref()
  return { dismiss: () => void pipe.end('done\n') }
}

/** Does at once, for what a killed process left, what its guard would have done; never fails. */
export async function cleanUpAfter(dataDirectory: string, folders: readonly string[]): Promise<void> {
  const shell = spawn('/bin/sh', ['-c', script, 'walback-guard', dataDirectory, ...folders], {
    cwd: '/',
    stdio: 'ignore',
  })
  await new Promise<void>((settle) => {
    shell.on('error', () => settle())
    shell.on('close', () => settle())
  })
}

const atExit = new Set<() => void>()

/** Runs synchronous `work` when the process exits of its own accord; returns how to call that off. */
export function onExit(work: () => void): () => void {
  if (atExit.size === 0) process.on('exit', runAtExit)
  atExit.add(work)
  return () => {
    atExit.delete(work)
    if (atExit.size === 0) process.off('exit', runAtExit)
  }
}

function runAtExit(): void {
  for (const work of atExit) work()
}
