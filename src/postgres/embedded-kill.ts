import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { waitFor } from '../base/abort.ts'
import { codeOf, WalbackError } from '../base/errors.ts'

interface Process {
  readonly pid: number
  readonly parent: number
  readonly zombie: boolean
}

/**
 * Kills a process and its children at one stroke, and waits until the children are gone. The parent is frozen first, so
 * that it neither forks nor reacts meanwhile. The children must be gone because PostgreSQL refuses to start on a data
 * directory while one of an earlier server's processes is attached to its shared memory.
 */
export async function killTree(pid: number): Promise<void> {
  signalIfThere(pid, 'SIGSTOP')
  const children = (await processes()).filter((process) => process.parent === pid)
  for (const child of children) signalIfThere(child.pid, 'SIGKILL')
  signalIfThere(pid, 'SIGKILL')
  const gone = await waitFor(async () => ((await anyAlive(children)) ? undefined : true), {
    timeout_ms: 30_000,
    interval_ms: 10,
  })
  if (!gone) throw new WalbackError('failed', 'killed processes of the embedded server do not end', { retryable: true })
}

function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (codeOf(error) !== 'ESRCH') throw error
  }
}

/** A zombie holds nothing any more, and may stay for ever in a container whose first process does not reap. */
async function anyAlive(wanted: readonly Process[]): Promise<boolean> {
  const pids = new Set(wanted.map((process) => process.pid))
  return (await processes()).some((process) => pids.has(process.pid) && !process.zombie)
}

/** All processes, from /proc where there is one (slim images lack `ps`), else from `ps`. */
async function processes(): Promise<Process[]> {
  if (process.platform !== 'linux') {
    const { stdout } = await promisify(execFile)('ps', ['-axo', 'pid=,ppid=,state='])
    return stdout.trim().split('\n').map(fromFields)
  }
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const found = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)))
  return found.filter((text) => text !== undefined).map(fromStat)
}

function fromFields(line: string): Process {
  const [pid, parent, state] = line.trim().split(/\s+/)
  return { pid: Number(pid), parent: Number(parent), zombie: state?.startsWith('Z') ?? false }
}

/** `/proc/PID/stat` is "pid (name) state ppid …", where the name may itself hold blanks and brackets: proc(5). */
function fromStat(text: string): Process {
  const [state, parent] = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return { pid: Number.parseInt(text, 10), parent: Number(parent), zombie: state === 'Z' }
}
