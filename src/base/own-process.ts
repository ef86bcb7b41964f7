/**
 * A module of walback's that is run as a process of its own, beside the one that starts it: what it takes of memory is
 * given back when it ends, and it can be told to yield. It is told over the channel between the two what to do, since
 * anybody may read arguments, and it does not outlive the one that started it, whatever ends that.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { messageOf, WalbackError } from './errors.ts'

/**
 * Starts the module that lies beside the one whose `import.meta.url` is given. Its source is TypeScript under tsx and
 * vitest, and what tsc made of it in an installed package.
 */
export function startOwn(beside: string, name: string): ChildProcess {
  const inSource = beside.endsWith('.ts')
  return fork(fileURLToPath(new URL(`./${name}.${inSource ? 'ts' : 'js'}`, beside)), {
    // By its place, for its name would be looked up from the working directory.
    execArgv: inSource ? ['--import', import.meta.resolve('tsx')] : [],
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    serialization: 'advanced',
  })
}

/** Tells it to end, as the signal of its order hears it. */
export function askToEnd(child: ChildProcess): void {
  if (child.connected) child.send(endWord, () => undefined)
}

const endWord = 'end'

/**
 * In such a process: carries out the one order that comes. Its signal fires when the process is asked to end, or when the
 * one that gave the order is gone; then it may take `grace_ms` for it.
 */
export function takeOrder<T>(carryOut: (order: T, signal: AbortSignal) => Promise<void>, grace_ms = 0): void {
  const stop = new AbortController()
  const end = (): void => stop.abort(new WalbackError('interrupted', 'interrupted'))
  // What a terminal, or a supervisor, sends to all processes at once is for the one that started this one to act on.
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => undefined)
  process.once('disconnect', () => {
    end()
    setTimeout(() => process.exit(1), grace_ms)
  })
  process.once('message', (order: T) => {
    process.once('message', end)
    carryOut(order, stop.signal).then(
      () => process.exit(0),
      (error: unknown) => process.send?.(sentFailure(error), () => process.exit(1)),
    )
  })
}

/** A failure on its way from one process to the other; without a code it is one that nobody expected. */
export type SentFailure = Pick<WalbackError, 'message'> &
  Partial<Pick<WalbackError, 'code' | 'hint' | 'retryable' | 'facts'>>

function sentFailure(error: unknown): SentFailure {
  if (!(error instanceof WalbackError)) return { message: messageOf(error) }
  const { code, message, hint, retryable, facts } = error
  return { code, message, hint, retryable, facts }
}

/** The same failure again, where it arrives. */
export function receivedFailure({ code, message, hint, retryable, facts }: SentFailure): Error {
  if (code === undefined) return new Error(message)
  return new WalbackError(code, message, {
    ...(hint === undefined ? {} : { hint }),
    ...(retryable === undefined ? {} : { retryable }),
    ...(facts === undefined ? {} : { facts }),
  })
}
