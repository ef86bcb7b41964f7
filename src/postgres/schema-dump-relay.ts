import type { Socket } from 'node:net'
import { MessageChannel, Worker } from 'node:worker_threads'
import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'
import { connect } from './connect.ts'
import type { Conninfo } from './conninfo.ts'
import { dumpSettings } from './schema-dump-environment.ts'
import { MessageBoundaries, message } from './schema-dump-wire.ts'
import type { WorkerInput, WorkerOutput } from './schema-dump-worker.ts'

/**
 * Runs the built-in `pg_dump` in a thread of this process and gives what it printed; its complaints are thrown as they
 * are.
 *
 * The session is opened by our own client, so that encryption, authentication, password files and services are those
 * of every other connection. Then the client's socket is lent to `pg_dump`, which is told that it may enter.
 */
export async function relayPgDump(conninfo: Conninfo, args: readonly string[]): Promise<string> {
  const client = await connect(conninfo, {
    application: 'walback schema',
    settings: { ...dumpSettings, idle_session_timeout: '0' },
  })
  try {
    const greeting = await greetingFrom(client)
    await using loan = new SocketLoan(client)
    return await runWorker({ args, greeting }, loan)
  } finally {
    // Awaited, since the session holds locks on every table until the server has seen it off.
    await client.end().catch(() => undefined)
  }
}

/** The settings that a server reports to a new client, from which libpq takes the version and the encodings. */
const reported = [
  'server_version',
  'server_encoding',
  'client_encoding',
  'standard_conforming_strings',
  'integer_datetimes',
  'is_superuser',
  'session_authorization',
  'DateStyle',
  'IntervalStyle',
  'TimeZone',
  'application_name',
]

/** AuthenticationOk, the session's settings, a key that cancels nothing (nobody asks for it), ReadyForQuery. */
async function greetingFrom(client: pg.Client): Promise<Buffer> {
  const result = await client.query<{ name: string; value: string }>(
    'SELECT name, pg_catalog.current_setting(name) AS value FROM pg_catalog.unnest($1::text[]) AS name',
    [reported],
  )
  return Buffer.concat([
    message('R', Buffer.alloc(4)),
    ...result.rows.map(({ name, value }) => message('S', Buffer.from(`${name}\0${value}\0`, 'utf8'))),
    message('K', Buffer.alloc(8)),
    message('Z', Buffer.from('I')),
  ])
}

/** Where an answer ends: ReadyForQuery, or CopyInResponse, after which the client speaks again. */
const endsAnswer = (type: string | undefined): boolean => type === 'Z' || type === 'G'

/** The socket under an idle client, with the bytes going past the client's own parser until the loan ends. */
class SocketLoan {
  readonly #socket: Socket
  readonly #listeners: ((bytes: Buffer) => void)[]
  readonly #boundaries = new MessageBoundaries()
  readonly #answer: Buffer[] = []
  #waiting: { resolve: (answer: Uint8Array<ArrayBuffer>) => void; reject: (error: Error) => void } | undefined

  constructor(client: pg.Client) {
    this.#socket = client.connection.stream as Socket
    this.#listeners = this.#socket.listeners('data') as ((bytes: Buffer) => void)[]
    for (const listener of this.#listeners) this.#socket.off('data', listener)
    this.#socket.on('data', this.#onData)
    this.#socket.on('close', this.#onClose)
  }

  /** Sends whole messages; gives the answer up to where the client is to speak again, in memory of its own. */
  ask(bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
      if (this.#socket.destroyed) this.#onClose()
      else this.#socket.write(bytes)
    })
  }

  readonly #onData = (bytes: Buffer): void => {
    this.#answer.push(bytes)
    const ended = this.#boundaries.push(bytes)
    // A notice or a changed setting outside an answer waits here for the next one, as it would in libpq's buffer.
    if (!this.#boundaries.atBoundary || !endsAnswer(ended.at(-1))) return
    const answer = new Uint8Array(this.#answer.reduce((sum, part) => sum + part.length, 0))
    let at = 0
    for (const part of this.#answer.splice(0)) {
      answer.set(part, at)
      at += part.length
    }
    this.#waiting?.resolve(answer)
    this.#waiting = undefined
  }

  readonly #onClose = (): void => {
    const lastWords = Buffer.concat(this.#answer)
      .toString('utf8')
      .match(/\0M([^\0]+)\0/)?.[1]
    this.#waiting?.reject(new Error(`the server closed the connection${lastWords ? `: ${lastWords}` : ''}`))
    this.#waiting = undefined
  }

  /** Gives the socket back. In the middle of an answer the client could make nothing of the rest: it is closed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.off('data', this.#onData)
    this.#socket.off('close', this.#onClose)
    for (const listener of this.#listeners) this.#socket.on('data', listener)
    if (this.#waiting) this.#socket.destroy()
  }
}

async function runWorker(input: Pick<WorkerInput, 'args' | 'greeting'>, loan: SocketLoan): Promise<string> {
  const { port1: replies, port2: workerReplies } = new MessageChannel()
  const sent = new Int32Array(new SharedArrayBuffer(4))
  const workerData: WorkerInput = { ...input, replies: workerReplies, sent }
  const worker = startWorker(workerData)
  const reply = (bytes: Uint8Array<ArrayBuffer>): void => {
    refuseLossyDefinitions(bytes)
    // Handed over and not copied: of many tables an answer has tens of megabytes.
    replies.postMessage(bytes, [bytes.buffer])
    Atomics.add(sent, 0, 1)
    Atomics.notify(sent, 0)
  }
  try {
    return await new Promise<string>((resolve, reject) => {
      worker.on('error', reject)
      worker.on('exit', (code) => reject(new Error(`its thread ended with code ${code}`)))
      worker.on('message', (output: WorkerOutput) => {
        if (output.kind === 'query') loan.ask(output.bytes).then(reply).catch(reject)
        else if (output.kind === 'dumped') resolve(output.sql)
        else reject(new Error(output.message))
      })
    })
  } finally {
    replies.close()
    await worker.terminate()
  }
}

/** The thread's source is TypeScript under tsx and vitest, and what tsc made of it in an installed package. */
function startWorker(workerData: WorkerInput): Worker {
  const inSource = import.meta.url.endsWith('.ts')
  const file = new URL(inSource ? './schema-dump-worker.ts' : './schema-dump-worker.js', import.meta.url)
  return new Worker(file, {
    workerData,
    transferList: [workerData.replies],
    execArgv: inSource ? ['--import', typescriptLoader()] : [],
  })
}

/** Loads tsx by its place, for its name would be looked up from the working directory; `--import tsx` skips threads. */
function typescriptLoader(): string {
  const api = import.meta.resolve('tsx/esm/api')
  return `data:text/javascript,${encodeURIComponent(`import { register } from ${JSON.stringify(api)}; register()`)}`
}

/**
 * The package drops every line that begins with `\restrict` or `\unrestrict`, to rid the dump of psql's commands. Such a
 * line in a function's body would be lost without a word, so it is refused.
 */
function refuseLossyDefinitions({ buffer }: Uint8Array<ArrayBuffer>): void {
  const answer = Buffer.from(buffer)
  // Piece by piece, each with so much of the next that what begins in it is seen whole; as bytes, so that none is cut.
  for (let at = 0; at < answer.length; at += pieceBytes) {
    const found = lossyLine.exec(answer.toString('latin1', at, at + pieceBytes + 32))
    if (found === null || found.index >= pieceBytes) continue
    throw new WalbackError('database', 'a definition in this database has a line that begins with \\restrict', {
      hint: 'the built-in pg_dump would lose that line: install the PostgreSQL client programs (pg_dump) on this machine',
    })
  }
}

const pieceBytes = 1 << 20
/** A line ends in what JavaScript ends one by, U+2028 and U+2029 too. */
const lossyLine = /(?:[\n\r]|\xe2\x80[\xa8\xa9])\\(?:un)?restrict\b/i
