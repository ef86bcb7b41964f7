/**
 * An SSH server for tests: SFTP over the files of this machine, either by our own few requests, of which faults can be
 * made, or by a real `sftp-server`.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import ssh2, { type Connection, type ServerChannel } from 'ssh2'
import { data, Packet, requestNames, SftpFiles, word } from './sftp-files.ts'

const openSshExtensions = ['hardlink@openssh.com', 'posix-rename@openssh.com', 'fsync@openssh.com'] as const

export interface SftpServerOptions {
  /** Names of extensions that it does not have. */
  readonly without?: readonly (typeof openSshExtensions)[number][]
  /** A real sftp-server to hand the channel to. */
  readonly program?: { readonly path: string; readonly args: readonly string[] }
  readonly hostKey?: string
}

/** What to do about a request: cut the connection before it is carried out, or when it is and its answer is not sent. */
export type Fault = 'cut' | 'cut after' | 'silence' | undefined

export interface SftpServer extends AsyncDisposable {
  readonly port: number
  readonly hostKey: { readonly private: string; readonly public: string }
  /** A key that it lets in, beside the password `secret` of the user `walback`. */
  readonly login: { readonly private: string; readonly public: string }
  readonly connections: Set<Connection>
  /** How many came in all. */
  accepted: number
  fault: (request: string) => Fault | Promise<Fault>
}

type KeyOptions = { readonly passphrase: string; readonly cipher: string; readonly rounds: number }

/** A pair that can be read: of those that ssh2 1.17 makes, one in two hundred cannot. */
export function newKey(options?: KeyOptions): { private: string; public: string } {
  for (let tries = 0; tries < 100; tries++) {
    const pair = options
      ? ssh2.utils.generateKeyPairSync('ed25519', options)
      : ssh2.utils.generateKeyPairSync('ed25519')
    const parsed = [ssh2.utils.parseKey(pair.private, options?.passphrase), ssh2.utils.parseKey(pair.public)]
    if (!parsed.some((one) => one instanceof Error)) return pair
  }
  throw new Error('ssh2 makes no key that it can read')
}

export async function startSftpServer(options: SftpServerOptions = {}): Promise<SftpServer> {
  const [hostKey, login] = [newKey(), newKey()]
  const extensions = new Set<string>(openSshExtensions.filter((name) => !options.without?.includes(name)))
  const server = new ssh2.Server({ hostKeys: [options.hostKey ?? hostKey.private] })
  const running: SftpServer = {
    get port() {
      return (server.address() as AddressInfo).port
    },
    hostKey,
    login,
    connections: new Set(),
    accepted: 0,
    fault: () => undefined,
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close')
      server.close()
      for (const connection of running.connections) connection.end()
      await closed
    },
  }
  server.on('connection', (connection) => {
    running.connections.add(connection)
    running.accepted++
    connection.on('error', () => undefined)
    connection.on('close', () => running.connections.delete(connection))
    connection.on('authentication', (context) => {
      const allowed = ssh2.utils.parseKey(login.public)
      if (context.username !== 'walback' || allowed instanceof Error) return context.reject()
      if (context.method === 'password' && context.password === 'secret') return context.accept()
      if (context.method !== 'publickey' || !context.key.data.equals(allowed.getPublicSSH())) return context.reject()
      if (context.signature && context.blob && !allowed.verify(context.blob, context.signature, context.hashAlgo))
        return context.reject()
      context.accept()
    })
    connection.on('session', (accept) => {
      accept().on('subsystem', (acceptChannel, reject, { name }) => {
        if (name !== 'sftp') return reject()
        const channel: ServerChannel = acceptChannel()
        channel.on('error', () => undefined)
        if (options.program) pipe(channel, options.program)
        else void serve(channel, extensions, running, connection)
      })
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return running
}

function pipe(
  channel: ServerChannel,
  { path, args }: { readonly path: string; readonly args: readonly string[] },
): void {
  const child = spawn(path, [...args], { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.on('error', () => undefined)
  channel.pipe(child.stdin)
  child.stdout.pipe(channel)
  channel.on('close', () => child.kill())
}

async function serve(
  channel: ServerChannel,
  extensions: ReadonlySet<string>,
  server: SftpServer,
  connection: Connection,
): Promise<void> {
  const files = new SftpFiles(extensions)
  const send = (type: number, body: Buffer): void =>
    void channel.write(Buffer.concat([word(body.length + 1), Buffer.from([type]), body]))
  const cut = (): void => {
    const { _sock: socket } = connection as unknown as { readonly _sock: { destroy(): void } }
    socket.destroy()
  }
  try {
    for await (const bytes of packets(channel)) {
      const packet = new Packet(bytes)
      const type = packet.byte()
      if (type === 1) {
        send(2, Buffer.concat([word(3), ...[...extensions].flatMap((name) => [data(name), data('1')])]))
        continue
      }
      const id = packet.word()
      const name = type === 200 ? new Packet(bytes.subarray(5)).text() : (requestNames[type] ?? String(type))
      const fault = await server.fault(name)
      if (fault === 'silence') continue
      if (fault === 'cut') return cut()
      const answer = await files.answer(type, packet)
      if (fault === 'cut after') return cut()
      send(answer.type, Buffer.concat([word(id), answer.body]))
    }
  } catch {
    // The connection is gone, as it is meant to be.
  } finally {
    await files.close()
  }
}

async function* packets(channel: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let held = Buffer.alloc(0)
  for await (const chunk of channel) {
    held = Buffer.concat([held, chunk])
    while (held.length >= 4 && held.length >= 4 + held.readUInt32BE(0)) {
      const end = 4 + held.readUInt32BE(0)
      yield held.subarray(4, end)
      held = held.subarray(end)
    }
  }
}
