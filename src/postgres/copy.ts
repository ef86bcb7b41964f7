import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type pg from 'pg'
import { from as copyFrom, to as copyTo } from 'pg-copy-streams'
import { throwIfAborted } from '../base/abort.ts'
import { assert } from '../base/assert.ts'

/** Runs `COPY … TO STDOUT` and yields its bytes as they come; chunks end anywhere. Leaving early ends the connection. */
export async function* copyOut(client: pg.Client, sql: string, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const stream = client.query(copyTo(sql))
  let finished = false
  try {
    for await (const chunk of stream) {
      throwIfAborted(signal)
      yield chunk as Buffer
    }
    finished = true
  } finally {
    // What is left of the stream stands between the session and its next command.
    if (!finished) client.end().catch(() => undefined)
  }
}

/** Runs `COPY … FROM STDIN` with the chunks, and gives the number of rows that the server took. */
export async function copyIn(
  client: pg.Client,
  sql: string,
  chunks: AsyncIterable<Buffer> | Iterable<Buffer>,
  signal?: AbortSignal,
): Promise<number> {
  const stream = client.query(copyFrom(sql))
  await pipeline(Readable.from(chunks, { objectMode: false }), stream, signal === undefined ? {} : { signal })
  return stream.rowCount
}

/** Gathers chunks into blocks of about a megabyte that end at the end of a line. */
export async function* wholeLines(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let parts: Buffer[] = []
  let length = 0
  for await (const chunk of chunks) {
    parts.push(chunk)
    length += chunk.length
    if (length < blockBytes) continue
    // A long row may need many chunks: only the last can hold a newline that those before did not.
    const newline = chunk.lastIndexOf(10)
    if (newline < 0) continue
    const rest = chunk.subarray(newline + 1)
    parts[parts.length - 1] = chunk.subarray(0, newline + 1)
    yield Buffer.concat(parts)
    parts = rest.length > 0 ? [rest] : []
    length = rest.length
  }
  if (length === 0) return
  assert(parts.at(-1)?.at(-1) === 10, 'COPY text ends with a newline')
  yield Buffer.concat(parts)
}

const blockBytes = 1 << 20
