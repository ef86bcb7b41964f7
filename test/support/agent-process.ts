/** Runs the agent as a process of its own, reads its log, and ends it in good order or by SIGKILL. */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { waitFor } from '../../src/base/abort.ts'
import type { CompactSettings } from '../../src/config.ts'
import { compiled } from './compiled.ts'
import type { StoreFaults } from './flaky.ts'

export interface AgentSetting {
  readonly url: string
  readonly repository: string
  /** Another repository that has to have what is confirmed. SIGUSR2 then stalls this one. */
  readonly required?: string | undefined
  readonly source: string
  readonly segmentBytes: number
  readonly segmentAge_ms: number
  readonly heartbeat_ms: number
  readonly controlPatience_ms?: number
  /** How often it says how much memory it has. */
  readonly memory_ms?: number
  readonly backup?: { readonly maxRate?: number; readonly maxSnapshotAge_ms?: number }
  /** When it compacts, by a process that opens the repository itself. */
  readonly compact?: CompactSettings & { readonly niceness?: number }
  /** Makes its store flap. */
  readonly storeFaults?: StoreFaults
}

export interface AgentLine {
  readonly level: number
  readonly msg: string
  readonly [fact: string]: unknown
}

export interface AgentProcess extends AsyncDisposable {
  readonly pid: number
  readonly lines: readonly AgentLine[]
  /** How it ended: its exit status or the signal; undefined while it runs. */
  readonly ended: number | string | undefined
  /** Resolves with the n-th line (from 1) whose message matches; rejects when the time is up, with the log. */
  logged(message: RegExp, options?: { readonly times?: number; readonly timeout_ms?: number }): Promise<AgentLine>
  /** SIGTERM; gives how it ended. */
  stop(): Promise<number | string>
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>
  signal(name: NodeJS.Signals): void
}

const cwd = fileURLToPath(new URL('../..', import.meta.url))

export function startAgent(setting: AgentSetting): AgentProcess {
  const child = spawn(process.execPath, [compiled('test/faults/agent.ts'), JSON.stringify(setting)], {
    cwd,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  const lines: AgentLine[] = []
  const errors: string[] = []
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(JSON.parse(line) as AgentLine))
  createInterface({ input: child.stderr }).on('line', (line) => errors.push(line))
  child.stdin.on('error', () => undefined)
  let ended: number | string | undefined
  const gone = new Promise<number | string>((resolve) => {
    child.on('close', (code, signal) => {
      ended = code ?? signal ?? 'unknown'
      resolve(ended)
    })
  })
  const end = async (signal: NodeJS.Signals): Promise<number | string> => {
    child.kill(signal)
    return gone
  }
  return {
    pid: child.pid ?? 0,
    lines,
    get ended() {
      return ended
    },
    logged: async (message, { times = 1, timeout_ms = 30_000 } = {}) => {
      const probe = async (): Promise<AgentLine | undefined> => {
        const found = lines.filter((line) => message.test(line.msg))[times - 1]
        if (found === undefined && ended !== undefined)
          throw new Error(`the agent ended (${ended})\n${logOf(lines, errors)}`)
        return found
      }
      const found = await waitFor(probe, { timeout_ms, interval_ms: 20 })
      if (found === undefined) throw new Error(`the agent has not said ${message}\n${logOf(lines, errors)}`)
      return found
    },
    stop: () => end('SIGTERM'),
    kill: async () => void (await end('SIGKILL')),
    signal: (name) => void child.kill(name),
    [Symbol.asyncDispose]: async () => {
      if (ended === undefined) await end('SIGKILL')
    },
  }
}

const logOf = (lines: readonly AgentLine[], errors: readonly string[]): string =>
  [...lines.slice(-30).map((line) => JSON.stringify(line)), ...errors.slice(-30)].join('\n')
