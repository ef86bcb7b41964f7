/**
 * The thread in which `pg_dump`, compiled to WebAssembly, runs. Its reads and writes are synchronous callbacks, so the
 * thread stands still while the main one asks the server (`schema-dump-relay.ts`).
 */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { pgDump } from '@electric-sql/pglite-tools/pg_dump'
import { messageOf } from '../base/errors.ts'
import { MessageBoundaries } from './schema-dump-wire.ts'

export interface WorkerInput {
  readonly args: readonly string[]
  /** What the server says between a client's first packet and its first query. */
  readonly greeting: Uint8Array
  /** Where replies arrive. */
  readonly replies: MessagePort
  /** Counts the replies that were sent: what a thread that stands still can wait for. */
  readonly sent: Int32Array
}

export type WorkerOutput =
  | { readonly kind: 'query'; readonly bytes: Uint8Array }
  | { readonly kind: 'dumped'; readonly sql: string }
  | { readonly kind: 'failed'; readonly message: string }

/** SSLRequest and GSSENCRequest, to which the answer is a lone `N`: the main thread owns encryption. */
const encryptionRequests = new Set([80877103, 80877104])

/** What the client waits for an answer to: Query, Sync, FunctionCall, CopyDone, CopyFail. */
const asking = new Set(['Q', 'S', 'F', 'c', 'f'])

class Session {
  readonly #input: WorkerInput
  readonly #boundaries = new MessageBoundaries()
  #pending: Buffer[] = []
  #started = false

  constructor(input: WorkerInput) {
    this.#input = input
  }

  /** The answer to what libpq wrote; empty while it owes the rest of a message (it writes long ones in pieces). */
  answer(written: Uint8Array): Uint8Array {
    // A copy: the bytes lie in the module's memory, which the next call overwrites.
    this.#pending.push(Buffer.from(written))
    if (!this.#started) return this.#answerFirst()
    const last = this.#boundaries.push(written).at(-1)
    // Terminate is kept back: the main thread ends the session itself.
    if (!this.#boundaries.atBoundary || last === undefined || !asking.has(last)) return Buffer.alloc(0)
    return this.#ask(this.#take())
  }

  /** Packets before the session has begun carry no type: four bytes of length, four of a version or a code. */
  #answerFirst(): Uint8Array {
    const packet = Buffer.concat(this.#pending)
    if (packet.length < 8 || packet.length < packet.readUInt32BE(0)) return Buffer.alloc(0)
    this.#pending = []
    if (encryptionRequests.has(packet.readUInt32BE(4))) return Buffer.from('N')
    this.#started = true
    return this.#input.greeting
  }

  #take(): Buffer {
    const bytes = Buffer.concat(this.#pending)
    this.#pending = []
    return bytes
  }

  #ask(bytes: Uint8Array): Uint8Array {
    const { replies, sent } = this.#input
    const before = Atomics.load(sent, 0)
    tell({ kind: 'query', bytes })
    for (;;) {
      const reply = receiveMessageOnPort(replies) as { message: Uint8Array } | undefined
      if (reply) return reply.message
      // Returns at once if the reply came since `before` was read. The main thread ends this one if none ever comes.
      Atomics.wait(sent, 0, before)
    }
  }
}

const tell = (output: WorkerOutput): void => parentPort?.postMessage(output)

/** As much of PGlite's interface as `pgDump` uses: what libpq writes, and a search path to put back at the end. */
function fakePglite(session: Session): Parameters<typeof pgDump>[0]['pg'] {
  const pglite = {
    query: () => ({ rows: [{ search_path: '' }] }),
    exec: () => [],
    execProtocolRawStream(written: Uint8Array, options: { onRawData: (bytes: Uint8Array) => void }) {
      const answer = session.answer(written)
      if (answer.length > 0) options.onRawData(answer)
    },
  }
  return pglite as unknown as Parameters<typeof pgDump>[0]['pg']
}

async function run(input: WorkerInput): Promise<WorkerOutput> {
  try {
    const file = await pgDump({ pg: fakePglite(new Session(input)), args: [...input.args] })
    return { kind: 'dumped', sql: await file.text() }
  } catch (error) {
    return { kind: 'failed', message: messageOf(error) }
  }
}

// The name that the program gives itself in its messages; it would be this file's.
process.argv[1] = 'pg_dump'

tell(await run(workerData as WorkerInput))
