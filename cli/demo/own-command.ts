/** Runs walback's own commands as a user would: in a process of their own, in a folder with a configuration. */
import { spawn } from 'node:child_process'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Env } from '../../src/config.ts'
import { throwIfAborted, WalbackError } from '../../src/index.ts'
import { shellWord } from '../format.ts'

export interface Ran {
  readonly command: string
  /** What a terminal would have shown: both streams, in their order. */
  readonly output: string
  readonly duration_ms: number
}

export interface Place {
  readonly folder: string
  readonly env: Env
  readonly signal: AbortSignal
}

/** Sources run through a loader, built files by themselves. */
const isSource = import.meta.url.endsWith('.ts')
const main = fileURLToPath(new URL(isSource ? '../main.ts' : '../main.js', import.meta.url))

/** The words that start this walback from anywhere. */
export const ownWords = (): readonly string[] =>
  isSource ? [process.execPath, '--import', import.meta.resolve('tsx'), main] : [process.execPath, main]

export const inShell = (words: readonly string[]): string => words.map(shellWord).join(' ')

/** Runs `walback WORDS`; anything but success is an error that shows what it said. */
export async function walback(words: readonly string[], { folder, env, signal }: Place): Promise<Ran> {
  throwIfAborted(signal)
  const command = inShell(['walback', ...words])
  const started = performance.now()
  const scratch = await mkdtemp(path.join(folder, '.output-'))
  const file = path.join(scratch, 'output')
  const target = await open(file, 'a')
  const [program = '', ...own] = ownWords()
  try {
    const status = await new Promise<number | string | null>((settle, fail) => {
      const child = spawn(program, [...own, ...words], {
        cwd: folder,
        env: withoutSteering(env),
        // One file for both keeps the order in which they were written, which two pipes do not.
        stdio: ['ignore', target.fd, target.fd],
      })
      const stop = (): void => void child.kill('SIGTERM')
      signal.addEventListener('abort', stop, { once: true })
      child.on('error', fail)
      child.on('close', (code, by) => {
        signal.removeEventListener('abort', stop)
        settle(code ?? by)
      })
    })
    throwIfAborted(signal)
    const output = await readFile(file, 'utf8')
    if (status !== 0)
      throw new WalbackError('failed', `\`${command}\` ended with ${status}`, { hint: output.trimEnd() })
    return { command, output, duration_ms: Math.round(performance.now() - started) }
  } finally {
    await target.close()
    await rm(scratch, { recursive: true, force: true })
  }
}

/** The environment without what would lead the commands to a database or repository of the user's own. */
function withoutSteering(env: Env): NodeJS.ProcessEnv {
  const kept = Object.entries(env).filter(([name]) => !/^(PG|WALBACK_)/.test(name))
  return { ...Object.fromEntries(kept), NO_COLOR: '1' }
}
