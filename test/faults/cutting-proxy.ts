import { connect, createServer, type Server, type Socket } from 'node:net'

/** A TCP proxy before a server, whose connections can be cut at a chosen moment or by and by. */
export class CuttingProxy implements AsyncDisposable {
  /** Pieces that the server has sent, over all connections; each is what one read of the socket gave. */
  pieces = 0
  cuts = 0
  /** Instead of passing this piece on, counted from 0, its connection is cut. */
  cutAt = Number.POSITIVE_INFINITY
  /** Asked before each connection is made to the server. */
  beforeConnect: ((n: number) => Promise<void>) | undefined
  private connections = 0
  private readonly target: number
  private readonly server: Server
  private readonly open = new Set<Socket>()

  private constructor(target: number) {
    this.target = target
    this.server = createServer((client) => void this.serve(client))
  }

  static async listen(target: number): Promise<CuttingProxy> {
    const proxy = new CuttingProxy(target)
    await new Promise<void>((resolve) => proxy.server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get url(): string {
    const address = this.server.address()
    if (address === null || typeof address === 'string') throw new Error('not listening')
    return `postgres://postgres@127.0.0.1:${address.port}/postgres?sslmode=disable`
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
    await this.beforeConnect?.(this.connections++)
    const upstream = connect(this.target, '127.0.0.1')
    for (const socket of [client, upstream]) {
      this.open.add(socket)
      const other = socket === client ? upstream : client
      socket.on('error', () => undefined)
      socket.on('close', () => {
        this.open.delete(socket)
        other.destroy()
      })
    }
    client.removeAllListeners('data')
    for (const chunk of held) upstream.write(chunk)
    client.pipe(upstream)
    upstream.on('data', (chunk: Buffer) => {
      if (this.pieces++ === this.cutAt) {
        this.cuts++
        upstream.destroy()
        client.destroy()
      } else if (!client.write(chunk)) {
        upstream.pause()
        client.once('drain', () => upstream.resume())
      }
    })
  }
}
