import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { throwIfAborted, WalbackError } from '../src/index.ts'
import type { World } from './context.ts'

/**
 * Asks for a passphrase on the terminal, which shows nothing of what is typed; empty when that was ended without one.
 * The terminal passes each key on meanwhile, so an interrupt is a key too.
 */
export async function askPassphrase({ stdin, stderr, signal }: World, question: string): Promise<string> {
  throwIfAborted(signal)
  const unseen = new Writable({ write: (_chunk, _encoding, done) => done() })
  const reader = createInterface({ input: stdin, output: unseen, terminal: true, historySize: 0 })
  let stop = (): void => undefined
  try {
    return await new Promise<string>((settle, fail) => {
      stop = () => fail(new WalbackError('interrupted', 'interrupted', { cause: signal.reason }))
      signal.addEventListener('abort', stop, { once: true })
      reader.once('SIGINT', stop)
      reader.once('close', () => settle(''))
      reader.once('line', settle)
      // Only now: what is typed before the terminal has stopped showing it would be seen.
      stderr.write(question)
    })
  } finally {
    signal.removeEventListener('abort', stop)
    reader.close()
    stderr.write('\n')
  }
}
