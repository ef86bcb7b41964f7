import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import type { Readable } from 'node:stream'
import { throwIfAborted } from '../base/abort.ts'
import { receivedFailure, type SentFailure, startOwn } from '../base/own-process.ts'
import type { Conninfo } from './conninfo.ts'
import type { DumpOrder } from './schema-dump-process.ts'

/** What `@electric-sql/pglite-tools` carries; it dumps servers up to this major. */
export const builtinVersion = { major: 18, name: 'pg_dump 18.3 (built in)' }

/**
 * Runs the built-in `pg_dump` once for each list of arguments, in a process of its own as one of the machine's would
 * have, and gives what each printed; its complaints are thrown as they are.
 *
 * Abort ends the process, and with it the connection; a lock that the server waits for is given up when its timeout
 * passes. The process does not outlive this one, whatever ends it.
 */
export async function runBuiltinPgDump(
  conninfo: Conninfo,
  runs: readonly (readonly string[])[],
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<string[]> {
  const { signal } = options
  throwIfAborted(signal)
  const child = startOwn(import.meta.url, 'schema-dump-process')
  const kill = (): void => void child.kill('SIGKILL')
  signal?.addEventListener('abort', kill, { once: true })
  try {
    return await dumpFrom(child, { conninfo, runs })
  } catch (error) {
    throwIfAborted(signal)
    throw error
  } finally {
    signal?.removeEventListener('abort', kill)
    kill()
  }
}

async function dumpFrom(child: ChildProcess, order: DumpOrder): Promise<string[]> {
  let failure: SentFailure | undefined
  child.on('message', (message: SentFailure) => {
    failure = message
  })
  const [dumps, complaints, [code, by]] = await Promise.all([
    textOf(child.stdout),
    textOf(child.stderr, longestComplaint_chars),
    once(child, 'close') as Promise<[number | null, string | null]>,
    new Promise<void>((sent) => child.send(order, () => sent())),
  ])
  if (failure !== undefined) throw receivedFailure(failure)
  if (code !== 0) throw new Error(`its process ended with ${by ?? `code ${code}`}\n${complaints}`.trimEnd())
  return dumps.split('\0', order.runs.length)
}

/** All that a stream says, or the last of it. */
async function textOf(stream: Readable | null, longest_chars = Number.POSITIVE_INFINITY): Promise<string> {
  let text = ''
  for await (const chunk of stream?.setEncoding('utf8') ?? []) {
    text += chunk
    if (text.length > longest_chars) text = text.slice(-longest_chars)
  }
  return text
}

const longestComplaint_chars = 4096
