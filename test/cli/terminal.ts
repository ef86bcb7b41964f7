import { PassThrough } from 'node:stream'
import type { World } from '../../cli/context.ts'
import { run } from '../../cli/run.ts'

/** A terminal, as far as it is asked: whether it shows what is typed, and what is written to it. */
class Terminal extends PassThrough {
  readonly isTTY = true
  isRaw = false

  setRawMode(raw: boolean): this {
    this.isRaw = raw
    return this
  }
}

export interface OnTerminal {
  readonly cwd: string
  /** What asks. */
  readonly prompt: RegExp
  readonly types?: string
  readonly env?: Readonly<Record<string, string>>
  readonly isTTY?: boolean
  readonly interrupt?: boolean
}

/** Runs a command on a terminal; what is typed is typed once it asks, and goes nowhere else. */
export async function onTerminal(args: readonly string[], given: OnTerminal) {
  const { cwd, prompt, types, env = {}, isTTY = true, interrupt } = given
  const [stdin, stdout, stderr] = [new Terminal(), new PassThrough(), new Terminal()]
  const abort = new AbortController()
  let shown = ''
  let wasRaw: boolean | undefined
  stderr.on('data', (chunk) => {
    shown += chunk
    if (wasRaw !== undefined || !prompt.test(String(chunk))) return
    wasRaw = stdin.isRaw
    if (types !== undefined) stdin.write(types)
    if (interrupt) abort.abort()
  })
  const streams = { stdin: isTTY ? stdin : new PassThrough(), stdout, stderr }
  const world = { env: { HOME: cwd, ...env }, cwd, signal: abort.signal, ...streams }
  const exit = await run([...args], world as unknown as World)
  return { exit, shown, stdout: String(stdout.read() ?? ''), wasRaw, isRaw: stdin.isRaw }
}
