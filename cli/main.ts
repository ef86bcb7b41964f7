#!/usr/bin/env node
import { WalbackError } from '../src/index.ts'
import { run } from './run.ts'

const abort = new AbortController()
const { env, stdin, stdout, stderr } = process

// The S3 SDK would print which Node its later versions need; walback pins its version, and a warning here mends nothing.
env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] ??= 'true'

// The first interrupt ends the work in good order, a second one at once.
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    if (abort.signal.aborted) process.exit(130)
    abort.abort(new WalbackError('interrupted', 'interrupted'))
  })
}

// A reader that has seen enough (`walback log | head`) is no error; the work itself goes on to its end.
for (const stream of [stdout, stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') process.exit(1)
    stream.write = (...words: unknown[]) => {
      const done = words.at(-1)
      if (typeof done === 'function') done()
      return true
    }
  })
}

const exit = await run(process.argv.slice(2), { env, cwd: process.cwd(), signal: abort.signal, stdin, stdout, stderr })
await Promise.all(
  [stdout, stderr].map(
    (stream) => new Promise<void>((flushed) => (stream.destroyed ? flushed() : stream.write('', () => flushed()))),
  ),
)
process.exit(exit)
