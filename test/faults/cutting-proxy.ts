import { connect, createServer, type Server, type Socket } from 'node:net'

export type Way = 'to server' | 'to client'
export type Purpose = 'stream' | 'session'

/** A TCP proxy before a server, whose connections can be cut, or go silent, at a chosen moment or by and by. */
export class CuttingProxy implements AsyncDisposable {
  /** Pieces that the server has sent, over all connections; each is what one read of the socket gave. */
  pieces = 0
  /** When a walsender last sent anything (monotonic, ms). */
  heardAt_ms = performance.now()
  cuts = 0
  /** Instead of passing this piece on, counted from 0, its connection is cut. */
  cutAt = Number.POSITIVE_INFINITY
  /**
   * Says of each piece whether it is lost on its way. The connection stays open at both ends: such is one that a firewall
   * has forgotten.
   */
  swallows: ((way: Way, purpose: Purpose, connection: number) => boolean) | undefined
  /** How long each piece takes to be passed on, in ms; what comes after it on the same way waits. */
  delay_ms = 0
  /** Asked before each connection is made to the server. */
  beforeConnect: ((n: number) => Promise<void>) | undefined
  /** Connections that have been made, which are counted from 0. */
  connected = 0
  private readonly target: number
  private readonly server: Server
  private readonly open = new Set<Socket>()

  private constructor(target: number) {
    this.target = target
    this.server = createServer({ allowHalfOpen: true }, (client) => void this.serve(client))
  }

  static async listen(target: number, { host = '127.0.0.1', port = 0 } = {}): Promise<CuttingProxy> {
    const proxy = new CuttingProxy(target)
    await new Promise<void>((resolve) => proxy.server.listen(port, host, resolve))
    return proxy
  }

  get url(): string {
    return this.urlOf('postgres')
  }

  get port(): number {
    const address = this.server.address()
    if (address === null || typeof address === 'string') throw new Error('not listening')
    return address.port
  }

  urlOf(database: string): string {
    return `postgres://postgres@127.0.0.1:${this.port}/${database}?sslmode=disable`
  }

  /** Cuts every connection that is open now. */
  cutAll(): void {
    for (const socket of this.open) socket.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cutAll()
    await new Promise<void>((resolve) => this.server.close(() => resolve()))
  }

  private async serve(client: Socket): Promise<void> {
    const held: Buffer[] = []
    client.on('data', (chunk: Buffer) => void held.push(chunk))
    client.on('error', () => undefined)
    const connection = this.connected++
    await this.beforeConnect?.(connection)
    const upstream = connect({ port: this.target, host: '127.0.0.1', allowHalfOpen: true })
    let purpose: Purpose | undefined
    const swallows = (way: Way): boolean => this.swallows?.(way, purpose ?? 'session', connection) === true
    for (const socket of [client, upstream]) {
      this.open.add(socket)
      const [other, way] = socket === client ? [upstream, 'to server' as const] : [client, 'to client' as const]
      socket.on('error', () => undefined)
      socket.on('end', () => swallows(way) || other.end())
      socket.on('close', () => {
        this.open.delete(socket)
        if (!swallows(way)) other.destroy()
      })
    }
    client.removeAllListeners('data')
    const forward = (chunk: Buffer): void => {
      // The first thing that a client sends is what it is for.
      purpose ??= chunk.includes('replication\0database') ? 'stream' : 'session'
      if (!swallows('to server')) this.pass(chunk, client, upstream)
    }
    for (const chunk of held) forward(chunk)
    client.on('data', forward)
    upstream.on('data', (chunk: Buffer) => {
      if (purpose === 'stream') this.heardAt_ms = performance.now()
      if (swallows('to client')) return
      if (this.pieces++ === this.cutAt) {
        this.cuts++
        upstream.destroy()
        client.destroy()
      } else this.pass(chunk, upstream, client)
    })
  }

  private pass(chunk: Buffer, from: Socket, to: Socket): void {
    const write = (): void => {
      if (to.write(chunk)) from.resume()
      else to.once('drain', () => from.resume())
    }
    from.pause()
    if (this.delay_ms > 0) setTimeout(write, this.delay_ms)
    else write()
  }
}
