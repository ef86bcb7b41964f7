/** The few calls of Google Cloud Storage's JSON API that walback makes, answered from memory, with faults on request. */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { CRC32C } from '@google-cloud/storage'

interface Stored {
  readonly bytes: Buffer
  readonly generation: string
  readonly metadata: Readonly<Record<string, string>>
}

interface Session {
  readonly name: string
  readonly metadata: Readonly<Record<string, string>>
  readonly ifAbsent: boolean
  held: Buffer
}

/** A status to answer with, or a connection cut before the request is carried out or before its answer is sent. */
export type GcsFault = number | 'cut' | 'cut after' | 'corrupt' | 'half' | undefined

export interface GcsServer extends AsyncDisposable {
  readonly url: string
  readonly objects: Map<string, Stored>
  /** Kinds of requests as they came: `list`, `look`, `read`, `put`, `begin`, `part`, `delete`. */
  readonly requests: string[]
  fault: (kind: string) => GcsFault
}

type Ask = { readonly url: URL; readonly request: IncomingMessage; readonly body: Buffer; readonly kind: string }

class Refusal extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

const pageSize = 7

export async function startGcsServer(): Promise<GcsServer> {
  const store = new Store()
  const server = createServer((request, response) => void answer(store, running, request, response))
  const running: GcsServer = {
    get url() {
      return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    },
    objects: store.objects,
    requests: [],
    fault: () => undefined,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return running
}

async function answer(store: Store, server: GcsServer, request: IncomingMessage, response: ServerResponse) {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const url = new URL(request.url ?? '', server.url)
  const kind = kindOf(url, request)
  server.requests.push(kind)
  const fault = server.fault(kind)
  if (fault === 'cut') return request.socket.destroy()
  try {
    if (typeof fault === 'number') throw new Refusal(fault, 'as the test wants it')
    const body = Buffer.concat(chunks)
    if (fault === 'corrupt' && body.length > 0) body.writeUInt8(body.readUInt8(body.length - 60) ^ 1, body.length - 60)
    const given = store.handle({ url, request, body, kind })
    if (fault === 'cut after') return request.socket.destroy()
    response.writeHead(given.status ?? 200, { 'content-type': 'application/json', ...given.headers })
    const bytes = given.bytes ?? Buffer.from(given.json === undefined ? '' : JSON.stringify(given.json))
    if (fault !== 'half') return response.end(bytes)
    response.write(bytes.subarray(0, bytes.length / 2), () => request.socket.destroy())
  } catch (error) {
    const status = error instanceof Refusal ? error.status : 500
    const { message } = error as Error
    response.writeHead(status, { 'content-type': kind === 'read' ? 'text/plain' : 'application/json' })
    response.end(kind === 'read' ? message : JSON.stringify({ error: { code: status, message } }))
  }
}

function kindOf(url: URL, request: IncomingMessage): string {
  const isUpload = url.pathname.startsWith('/upload/')
  switch (request.method) {
    case 'DELETE':
      return 'delete'
    case 'PUT':
      return 'part'
    case 'POST':
      return isUpload && url.searchParams.get('uploadType') === 'resumable' ? 'begin' : 'put'
    default:
      return url.pathname.endsWith('/o') ? 'list' : url.searchParams.get('alt') === 'media' ? 'read' : 'look'
  }
}

interface Given {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly json?: unknown
  readonly bytes?: Buffer
}

class Store {
  readonly objects = new Map<string, Stored>()
  private readonly sessions = new Map<string, Session>()
  private generations = 1000

  handle(ask: Ask): Given {
    const [, bucket, , encoded] = /\/b\/([^/]+)\/o(\/(.+))?$/.exec(ask.url.pathname) ?? []
    if (bucket !== 'walback') throw new Refusal(404, 'The specified bucket does not exist.')
    const name = decodeURIComponent(encoded ?? '')
    switch (ask.kind) {
      case 'list':
        return this.list(ask.url.searchParams)
      case 'put':
        return this.put(ask)
      case 'begin':
        return this.begin(ask)
      case 'part':
        return this.part(ask)
      case 'delete':
        this.found(name, null)
        this.objects.delete(name)
        return { status: 204 }
      case 'look':
        return { json: resource(name, this.found(name, null)) }
      default:
        return this.read(name, ask)
    }
  }

  private found(name: string, generation: string | null): Stored {
    const found = this.objects.get(name)
    if (found === undefined || (generation !== null && generation !== found.generation))
      throw new Refusal(404, `No such object: walback/${name}`)
    return found
  }

  private list(query: URLSearchParams): Given {
    const [prefix, after] = [query.get('prefix') ?? '', query.get('pageToken') ?? '']
    const names = [...this.objects.keys()].filter((name) => name.startsWith(prefix) && name > after).sort()
    const page = names.slice(0, pageSize)
    const items = page.map((name) => resource(name, this.found(name, null)))
    return { json: { items, ...(names.length > pageSize ? { nextPageToken: page.at(-1) } : {}) } }
  }

  private read(name: string, { url, request }: Ask): Given {
    const { bytes, generation } = this.found(name, url.searchParams.get('generation'))
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? []
    const [start, end] = [Number(first), Math.min(last ? Number(last) + 1 : bytes.length, bytes.length)]
    if (start >= bytes.length) throw new Refusal(416, 'The requested range cannot be satisfied.')
    return {
      status: 206,
      headers: {
        'content-type': 'application/octet-stream',
        'content-range': `bytes ${start}-${end - 1}/${bytes.length}`,
        'content-length': String(end - start),
        'x-goog-generation': generation,
        'x-goog-stored-content-encoding': 'identity',
      },
      bytes: bytes.subarray(start, end),
    }
  }

  private put({ url, request, body }: Ask): Given {
    const [, boundary] = /boundary="?([^";]+)"?/.exec(request.headers['content-type'] ?? '') ?? []
    const [head, start] = partOf(body, `--${boundary}`, 0)
    const described = JSON.parse(head.toString()) as {
      readonly metadata?: Record<string, string>
      readonly md5Hash?: string
    }
    const [bytes] = partOf(body, `--${boundary}`, start)
    if (described.md5Hash !== undefined && described.md5Hash !== md5(bytes))
      throw new Refusal(400, 'Provided MD5 hash does not match calculated MD5 hash.')
    return this.store(url.searchParams.get('name') ?? '', bytes, described.metadata ?? {}, isIfAbsent(url))
  }

  private begin({ url, body, request }: Ask): Given {
    const id = randomBytes(8).toString('hex')
    const { metadata = {} } = JSON.parse(body.toString() || '{}') as { readonly metadata?: Record<string, string> }
    const name = url.searchParams.get('name') ?? ''
    if (isIfAbsent(url) && this.objects.has(name)) throw preconditionFailed()
    this.sessions.set(id, { name, metadata, ifAbsent: isIfAbsent(url), held: Buffer.alloc(0) })
    return { headers: { location: `http://${request.headers.host}${url.pathname}?upload_id=${id}` } }
  }

  private part({ url, request, body }: Ask): Given {
    const session = this.sessions.get(url.searchParams.get('upload_id') ?? '')
    if (session === undefined) throw new Refusal(410, 'no such upload')
    const [, first, total] =
      /^bytes (?:(\d+)-(?:\d+|\*)|\*)\/(\d+|\*)$/.exec(request.headers['content-range'] ?? '') ?? []
    if (first !== undefined) {
      if (Number(first) > session.held.length) throw new Refusal(400, 'a gap')
      session.held = Buffer.concat([session.held.subarray(0, Number(first)), body])
    }
    if (total === '*' || Number(total) !== session.held.length) {
      const range = session.held.length === 0 ? {} : { range: `bytes=0-${session.held.length - 1}` }
      return { status: 308, headers: range }
    }
    return this.store(session.name, session.held, session.metadata, session.ifAbsent)
  }

  private store(name: string, bytes: Buffer, metadata: Readonly<Record<string, string>>, ifAbsent: boolean): Given {
    if (ifAbsent && this.objects.has(name)) throw preconditionFailed()
    const stored = { bytes: Buffer.from(bytes), metadata, generation: String(++this.generations) }
    this.objects.set(name, stored)
    return { json: resource(name, stored) }
  }
}

const isIfAbsent = (url: URL): boolean => url.searchParams.get('ifGenerationMatch') === '0'

const preconditionFailed = (): Refusal =>
  new Refusal(412, 'At least one of the pre-conditions you specified did not hold.')

const md5 = (bytes: Buffer): string => createHash('md5').update(bytes).digest('base64')

function resource(name: string, { bytes, generation, metadata }: Stored): unknown {
  const crc32c = new CRC32C()
  crc32c.update(bytes)
  const size = String(bytes.length)
  return { name, bucket: 'walback', generation, size, metadata, md5Hash: md5(bytes), crc32c: crc32c.toString() }
}

/** The next part of a multipart body from a position on, and where it ends. */
function partOf(body: Buffer, boundary: string, from: number): readonly [Buffer, number] {
  const start = body.indexOf('\r\n\r\n', body.indexOf(boundary, from)) + 4
  const end = body.indexOf(`\r\n${boundary}`, start)
  return [body.subarray(start, end), end]
}
