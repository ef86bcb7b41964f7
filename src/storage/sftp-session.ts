import { readFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import type { Client, ConnectConfig, FileEntryWithStats, OpenMode, SFTPWrapper, Stats } from 'ssh2'
import { messageOf, WalbackError } from '../base/errors.ts'
import { loadOptional } from './optional.ts'
import { ConnectionLost, sftpStatus, statusOf } from './sftp-failure.ts'
import { hostKeyJudge } from './sftp-host-key.ts'
import type { GivenSecret, SftpLocation } from './sftp-url.ts'

type Done<T> = (error: Error | null | undefined, value: T) => void

export interface SessionTimes {
  /** How long a server may be silent while it owes an answer. */
  readonly answer_ms: number
  /** How long a connection that nobody uses is kept. */
  readonly idle_ms: number
}

export const sessionTimes: SessionTimes = { answer_ms: 60_000, idle_ms: 30_000 }

/**
 * One connection, with requests as promises. It keeps the process alive only while it owes an answer, since stores are
 * not closed by those who use them; it ends itself when idle, and when the server falls silent.
 */
export class SftpSession {
  private readonly client: Client
  private readonly socket: Socket
  private readonly sftp: SFTPWrapper
  private readonly times: SessionTimes
  private readonly owed = new Set<(error: Error) => void>()
  private handles = 0
  private timer: NodeJS.Timeout | undefined
  private lost: ConnectionLost | undefined

  private constructor(client: Client, socket: Socket, sftp: SFTPWrapper, times: SessionTimes) {
    this.client = client
    this.socket = socket
    this.sftp = sftp
    this.times = times
    const end = (error?: Error): void => this.end(error?.message ?? 'the server closed the connection')
    client.on('error', end).on('close', () => end())
    sftp.on('error', end).on('close', () => end())
    this.rest()
  }

  static async open(location: SftpLocation, times: SessionTimes = sessionTimes): Promise<SftpSession> {
    const { client, socket, sftp } = await connectTo(location)
    return new SftpSession(client, socket, sftp, times)
  }

  get isOpen(): boolean {
    return this.lost === undefined
  }

  /** Ends the connection at once, and with it whatever was not sent yet. */
  end(why: string): void {
    if (this.lost !== undefined) return
    this.lost = new ConnectionLost(why)
    clearTimeout(this.timer)
    this.client.destroy()
    for (const fail of this.owed) fail(this.lost)
  }

  async openFile(path: string, mode: OpenMode): Promise<Buffer> {
    const handle = await this.ask<Buffer>((done) => this.sftp.open(path, mode, { mode: 0o600 }, done))
    this.handles++
    return handle
  }

  async closeFile(handle: Buffer): Promise<void> {
    this.handles--
    await this.ask<void>((done) => this.sftp.close(handle, done))
  }

  /** Fills the buffer as far as the file goes; a server may answer with fewer bytes than it was asked for. */
  async read(handle: Buffer, at: number, length: number): Promise<Buffer> {
    const into = Buffer.allocUnsafe(length)
    let filled = 0
    while (filled < length) {
      const [from, count] = [filled, length - filled]
      const read = await this.ask<number>((done) => this.sftp.read(handle, into, from, count, at + from, done))
      if (read === 0) break
      filled += read
    }
    return into.subarray(0, filled)
  }

  async write(handle: Buffer, bytes: Buffer, at: number): Promise<void> {
    await this.ask<void>((done) => this.sftp.write(handle, bytes, 0, bytes.length, at, done))
  }

  /** False where the server does not have it. */
  fsync(handle: Buffer): Promise<boolean> {
    return this.askIfThere((done) => this.sftp.ext_openssh_fsync(handle, done))
  }

  /** link(2), which fails where the name exists. False where the server does not have it. */
  link(from: string, to: string): Promise<boolean> {
    return this.askIfThere((done) => this.sftp.ext_openssh_hardlink(from, to, done))
  }

  /** rename(2), which replaces. False where the server does not have it. */
  renameOver(from: string, to: string): Promise<boolean> {
    return this.askIfThere((done) => this.sftp.ext_openssh_rename(from, to, done))
  }

  async rename(from: string, to: string): Promise<void> {
    await this.ask<void>((done) => this.sftp.rename(from, to, done))
  }

  async makeFolder(path: string): Promise<void> {
    await this.ask<void>((done) => this.sftp.mkdir(path, { mode: 0o700 }, done))
  }

  /** Of an absent file too it is done. */
  async unlink(path: string): Promise<void> {
    await orAbsent(this.ask<void>((done) => this.sftp.unlink(path, done)))
  }

  async setModified(path: string, seconds: number): Promise<void> {
    await this.ask<void>((done) => this.sftp.utimes(path, seconds, seconds, done))
  }

  stat(path: string): Promise<Stats | undefined> {
    return orAbsent(this.ask<Stats>((done) => this.sftp.stat(path, done)))
  }

  fstat(handle: Buffer): Promise<Stats> {
    return this.ask<Stats>((done) => this.sftp.fstat(handle, done))
  }

  /** Nothing for a folder that is not there. */
  async readFolder(path: string): Promise<FileEntryWithStats[]> {
    return (await orAbsent(this.ask<FileEntryWithStats[]>((done) => this.sftp.readdir(path, done)))) ?? []
  }

  private async askIfThere(request: (done: Done<void>) => void): Promise<boolean> {
    try {
      await this.ask(request)
      return true
    } catch (error) {
      // The package's own word, thrown before anything is sent.
      if (statusOf(error) === undefined && /^Server does not support/.test(messageOf(error))) return false
      throw error
    }
  }

  private async ask<T>(request: (done: Done<T>) => void): Promise<T> {
    if (this.lost !== undefined) throw this.lost
    let fail = (_error: Error): void => undefined
    try {
      return await new Promise<T>((resolve, reject) => {
        fail = reject
        this.owed.add(fail)
        if (this.owed.size === 1) this.watch()
        request((error, value) => (error ? reject(this.lost ?? asLost(error)) : resolve(value)))
      })
    } finally {
      this.owed.delete(fail)
      if (this.lost === undefined) {
        if (this.owed.size === 0) this.rest()
        else this.timer?.refresh()
      }
    }
  }

  private watch(): void {
    this.socket.ref()
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.end('the server does not answer'), this.times.answer_ms)
  }

  private rest(): void {
    this.socket.unref()
    clearTimeout(this.timer)
    this.timer = setTimeout(() => {
      if (this.handles === 0) this.end('idle')
    }, this.times.idle_ms).unref()
  }
}

async function orAbsent<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (statusOf(error) === sftpStatus.noSuchFile) return undefined
    throw error
  }
}

/** The package's word for a request that was pending when the channel closed, and for one made after. */
const asLost = (error: Error): Error =>
  /^(No response from server|Not connected|Channel open failure)/.test(error.message)
    ? new ConnectionLost(error.message)
    : error

async function connectTo(
  location: SftpLocation,
): Promise<{ readonly client: Client; readonly socket: Socket; readonly sftp: SFTPWrapper }> {
  const { default: ssh2 } = await loadOptional('ssh2', '1', 'sftp://', () => import('ssh2'))
  const judge = await hostKeyJudge(location)
  const login = await loginConfig(location, (key, passphrase) => ssh2.utils.parseKey(key, passphrase))
  const client = new ssh2.Client()
  // A socket of our own, since whether it keeps the process alive is ours to say.
  const socket = connect({ host: location.host, port: location.port, noDelay: true })
  let refusal: WalbackError | undefined
  try {
    const sftp = await new Promise<SFTPWrapper>((resolve, reject) => {
      client
        .on('error', (error) => {
          // An agent that cannot be asked is passed over: the other logins follow.
          if ((error as { level?: unknown }).level !== 'agent') reject(refusal ?? error)
        })
        .on('close', () => reject(refusal ?? new ConnectionLost('the server closed the connection')))
        .on('ready', () => client.sftp((error, opened) => (error ? reject(error) : resolve(opened))))
        // How many servers ask for a password.
        .on('keyboard-interactive', (_name, _instructions, _language, prompts, finish) =>
          finish(prompts.map(({ echo }) => (echo === true ? '' : (login.password ?? '')))),
        )
        .connect({
          ...login,
          sock: socket,
          username: location.user,
          readyTimeout: connectTimeout_ms,
          hostVerifier: (key: Buffer) => {
            refusal = judge.refusal(key)
            return refusal === undefined
          },
          ...(judge.algorithms === undefined
            ? {}
            : { algorithms: { serverHostKey: judge.algorithms as NonNullable<ServerHostKeys> } }),
        })
    })
    return { client, socket, sftp }
  } catch (error) {
    client.destroy()
    socket.destroy()
    throw error
  }
}

type ServerHostKeys = Extract<NonNullable<ConnectConfig['algorithms']>['serverHostKey'], readonly unknown[]>

const connectTimeout_ms = 20_000

type ParseKey = (key: Buffer, passphrase?: string) => unknown

async function loginConfig({ login }: SftpLocation, parseKey: ParseKey): Promise<ConnectConfig> {
  const [password, passphrase] = await Promise.all([secretOf(login.password), secretOf(login.passphrase)])
  const config: ConnectConfig = {
    ...(login.agent === undefined ? {} : { agent: login.agent }),
    ...(password === undefined ? {} : { password, tryKeyboard: true }),
  }
  if (login.keyFile === undefined) return config
  const privateKey = await readGiven(login.keyFile, 'the key')
  const parsed = parseKey(privateKey, passphrase)
  if (parsed instanceof Error) {
    throw new WalbackError('usage', `cannot use the key in ${login.keyFile}: ${parsed.message}`, {
      hint: 'it is a private key as ssh-keygen makes it; a passphrase comes from WALBACK_SFTP_KEY_PASSPHRASE_FILE',
    })
  }
  return { ...config, privateKey, ...(passphrase === undefined ? {} : { passphrase }) }
}

async function secretOf({ text, file }: GivenSecret): Promise<string | undefined> {
  if (text !== undefined || file === undefined) return text
  return (await readGiven(file, 'the secret')).toString().replace(/\r?\n$/, '')
}

async function readGiven(file: string, what: string): Promise<Buffer> {
  try {
    return await readFile(file)
  } catch (error) {
    throw new WalbackError('usage', `cannot read ${what} in ${file}: ${messageOf(error)}`, { cause: error })
  }
}
