import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { type FauxqsServer, startFauxqs } from 'fauxqs'

/** What of `If-None-Match: *` the store honours: on all writes, on single puts only, nowhere, or it refuses it (501). */
export type Conditional = 'honoured' | 'on puts' | 'ignored' | 'refused'

export interface Seen {
  readonly method: string
  readonly key: string
  readonly query: URLSearchParams
  readonly headers: IncomingMessage['headers']
}

/**
 * - `slow down`, `internal`: refused with 503 or 500, and not carried out;
 * - `reset`: the connection is cut before the request is carried out;
 * - `lost answer`: carried out, and then the connection is cut;
 * - `cut body`: the answer's body ends halfway, with the connection;
 * - `short body`: the answer claims to be half as long as it should be, and is;
 * - an answer of one's own.
 */
export type Fault =
  | 'slow down'
  | 'internal'
  | 'reset'
  | 'lost answer'
  | 'cut body'
  | 'short body'
  | { readonly status: number; readonly code: string; readonly headers?: Readonly<Record<string, string>> }

interface Rule {
  readonly concerns: (seen: Seen) => boolean
  readonly fault: Fault
  left: number
}

/**
 * An S3 server for tests: fauxqs behind a proxy that adds what it lacks (conditional writes, lists in the order of
 * bytes), a delay like a network's, and faults.
 */
export class S3Proxy implements AsyncDisposable {
  latency_ms = 0
  /** The most keys in one page of a listing; S3 gives a thousand. */
  pageKeys = 1000
  conditional: Conditional = 'honoured'
  readonly seen: Seen[] = []
  /** Requests on their way now, and the most there were. */
  busy = 0
  mostBusy = 0
  private rules: Rule[] = []
  private buckets = 0
  private readonly inner: FauxqsServer
  private readonly server: Server
  private readonly locks = new Map<string, Promise<unknown>>()

  private constructor(inner: FauxqsServer) {
    this.inner = inner
    this.server = createServer((incoming, outgoing) => {
      this.serve(incoming, outgoing).catch(() => outgoing.destroy())
    })
  }

  static async start(): Promise<S3Proxy> {
    const proxy = new S3Proxy(await startFauxqs({ port: 0, logger: false, host: '127.0.0.1' }))
    await new Promise<void>((resolve) => proxy.server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get endpoint(): string {
    const address = this.server.address()
    if (address === null || typeof address === 'string') throw new Error('not listening')
    return `http://127.0.0.1:${address.port}`
  }

  /** A new bucket, and the URL of a repository in it. */
  newBucket(): string {
    const name = `bucket-${++this.buckets}`
    this.inner.createBucket(name)
    return `s3://${name}/some/prefix?region=us-east-1&endpoint=${this.endpoint}`
  }

  /** The next `times` requests that are concerned fail. */
  fail(fault: Fault, concerns: (seen: Seen) => boolean, times = 1): void {
    this.rules.push({ concerns, fault, left: times })
  }

  /** Rules that were not used up. */
  get unused(): number {
    return this.rules.filter(({ left }) => left > 0).length
  }

  calm(): void {
    this.rules = []
    this.seen.length = 0
    this.latency_ms = 0
    this.pageKeys = 1000
    this.conditional = 'honoured'
    this.mostBusy = 0
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections()
    await new Promise<void>((resolve) => this.server.close(() => resolve()))
    await this.inner.stop()
  }

  private async serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const url = new URL(incoming.url ?? '/', 'http://proxy')
    const key = decodeURIComponent(url.pathname).split('/').slice(2).join('/')
    const seen = { method: incoming.method ?? '', key, query: url.searchParams, headers: incoming.headers }
    this.seen.push(seen)
    this.mostBusy = Math.max(this.mostBusy, ++this.busy)
    try {
      const body = await bytesOf(incoming)
      if (this.latency_ms > 0) await delay(this.latency_ms)
      const rule = this.rules.find(({ left, concerns }) => left > 0 && concerns(seen))
      if (rule) rule.left--
      await this.answer(rule?.fault, seen, url, body, outgoing)
    } finally {
      this.busy--
    }
  }

  private async answer(
    fault: Fault | undefined,
    seen: Seen,
    url: URL,
    body: Buffer,
    out: ServerResponse,
  ): Promise<void> {
    if (fault === 'reset') return void out.destroy()
    if (fault === 'slow down') return refuse(out, 503, 'SlowDown')
    if (fault === 'internal') return refuse(out, 500, 'InternalError')
    if (typeof fault === 'object') return refuse(out, fault.status, fault.code, fault.headers)
    const isWrite = seen.method === 'PUT' || (seen.method === 'POST' && seen.query.has('uploadId'))
    const given = isWrite
      ? await this.locked(url.pathname, () => this.write(seen, url, body))
      : seen.query.has('list-type')
        ? await this.list(url)
        : await this.pass(seen.method, `${url.pathname}${url.search}`, seen.headers, body)
    if (fault === 'lost answer') return void out.destroy()
    const half = given.body.subarray(0, given.body.length >> 1)
    const isShort = fault === 'short body'
    out.writeHead(given.status, { ...given.headers, ...(isShort ? { 'content-length': half.length } : {}) })
    if (fault === 'cut body') out.write(half, () => out.destroy())
    else out.end(isShort ? half : given.body)
  }

  private async write(seen: Seen, url: URL, body: Buffer): Promise<Answer> {
    const isUpload = seen.query.has('uploadId')
    if (seen.headers['if-none-match'] === '*') {
      if (this.conditional === 'refused') return complaint(501, 'NotImplemented')
      const honours = this.conditional === 'honoured' || (this.conditional === 'on puts' && !isUpload)
      if (honours && (await this.pass('HEAD', url.pathname, {}, Buffer.alloc(0))).status === 200)
        return complaint(412, 'PreconditionFailed')
    }
    return this.pass(seen.method, `${url.pathname}${url.search}`, seen.headers, body)
  }

  /** A listing in the order of bytes, and in pages. */
  private async list(url: URL): Promise<Answer> {
    const [after, most] = [url.searchParams.get('continuation-token'), this.pageKeys]
    const prefix = encodeURIComponent(url.searchParams.get('prefix') ?? '')
    const path = `${url.pathname}?list-type=2&max-keys=1000000&prefix=${prefix}`
    const given = await this.pass('GET', path, {}, Buffer.alloc(0))
    if (given.status !== 200) return given
    const found = [...given.body.toString().matchAll(/<Contents><Key>(.*?)<\/Key>.*?<\/Contents>/gs)]
      .map(([xml, key = '']) => ({ xml, key }))
      .filter(({ key }) => after === null || key > after)
      .sort((a, b) => (a.key < b.key ? -1 : 1))
    const page = found.slice(0, most)
    const more = found.length > most ? `<NextContinuationToken>${page.at(-1)?.key}</NextContinuationToken>` : ''
    const xml = `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><IsTruncated>${more !== ''}</IsTruncated>${more}${page.map(({ xml }) => xml).join('')}</ListBucketResult>`
    return { status: 200, headers: { 'content-type': 'application/xml' }, body: Buffer.from(xml) }
  }

  private pass(method: string, path: string, headers: IncomingMessage['headers'], body: Buffer): Promise<Answer> {
    const { connection, 'if-none-match': _, ...passed } = headers
    return new Promise((resolve, reject) => {
      const asked = request({ port: this.inner.port, host: '127.0.0.1', method, path, headers: passed }, (answer) => {
        bytesOf(answer).then(
          (bytes) => resolve({ status: answer.statusCode ?? 500, headers: answer.headers, body: bytes }),
          reject,
        )
      })
      asked.on('error', reject)
      asked.end(body)
    })
  }

  private async locked<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.locks.get(key)
    const mine = (async () => {
      await before?.catch(() => undefined)
      return work()
    })()
    this.locks.set(key, mine)
    return mine
  }
}

interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}

async function bytesOf(stream: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of stream) parts.push(part as Buffer)
  return Buffer.concat(parts)
}

const complaint = (status: number, code: string): Answer => ({
  status,
  headers: { 'content-type': 'application/xml' },
  body: Buffer.from(
    `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${code}, says the test</Message></Error>`,
  ),
})

function refuse(
  out: ServerResponse,
  status: number,
  code: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  const { body, headers: own } = complaint(status, code)
  out.writeHead(status, { ...own, ...headers })
  out.end(body)
}
