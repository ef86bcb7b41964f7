/** The requests of SFTP's version 3 that walback makes, answered from the files of this machine. */
import { constants } from 'node:fs'
import { type FileHandle, link, lstat, mkdir, open, readdir, rename, rm, stat, unlink, utimes } from 'node:fs/promises'
import path from 'node:path'
import { codeOf } from '../../src/base/errors.ts'

export const requestNames: Readonly<Record<number, string>> = {
  1: 'init',
  3: 'open',
  4: 'close',
  5: 'read',
  6: 'write',
  8: 'fstat',
  9: 'setstat',
  11: 'opendir',
  12: 'readdir',
  13: 'remove',
  14: 'mkdir',
  17: 'stat',
  18: 'rename',
}

export class Packet {
  private readonly bytes: Buffer
  private at = 0

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  byte(): number {
    return this.bytes.readUInt8(this.at++)
  }

  word(): number {
    this.at += 4
    return this.bytes.readUInt32BE(this.at - 4)
  }

  long(): number {
    return this.word() * 2 ** 32 + this.word()
  }

  data(): Buffer {
    const length = this.word()
    this.at += length
    return this.bytes.subarray(this.at - length, this.at)
  }

  text(): string {
    return this.data().toString()
  }
}

export const word = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export const data = (value: Buffer | string): Buffer => {
  const bytes = Buffer.from(value)
  return Buffer.concat([word(bytes.length), bytes])
}

export interface Answer {
  readonly type: number
  readonly body: Buffer
}

const status = (code: number, message: string): Answer => ({
  type: 101,
  body: Buffer.concat([word(code), data(message), data('')]),
})
const ok = status(0, 'Success')
const endOfFile = status(1, 'End of file')

type Attributes = { size: number; mode: number; mtimeMs: number; atimeMs: number }

const attributes = ({ size, mode, mtimeMs, atimeMs }: Attributes): Buffer =>
  Buffer.concat([
    // Size, permissions, times.
    word(1 | 4 | 8),
    word(Math.floor(size / 2 ** 32)),
    word(size % 2 ** 32),
    word(mode),
    word(Math.floor(atimeMs / 1000)),
    word(Math.floor(mtimeMs / 1000)),
  ])

/** The handles of one connection. */
export class SftpFiles {
  private readonly extensions: ReadonlySet<string>
  private readonly files = new Map<string, FileHandle>()
  private readonly folders = new Map<string, { readonly path: string; isRead: boolean }>()
  private drawn = 0

  constructor(extensions: ReadonlySet<string>) {
    this.extensions = extensions
  }

  async close(): Promise<void> {
    for (const file of this.files.values()) await file.close()
    this.files.clear()
  }

  async answer(type: number, packet: Packet): Promise<Answer> {
    try {
      if (type === 200) return await this.extended(packet)
      const name = requestNames[type]
      switch (name) {
        case 'setstat':
          return await this.setTimes(packet)
        case 'stat':
          return { type: 105, body: attributes(await stat(packet.text())) }
        case 'mkdir':
          await mkdir(packet.text(), 0o700)
          return ok
        case 'remove':
          await unlink(packet.text())
          return ok
        case 'rename':
          await renameIfAbsent(packet.text(), packet.text())
          return ok
        default:
          return await this.onHandle(name, packet)
      }
    } catch (error) {
      const code = codeOf(error)
      // As OpenSSH's server tells errors (errno_to_portable).
      if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EBADF' || code === 'ELOOP')
        return status(2, 'No such file')
      return code === 'EACCES' || code === 'EPERM' ? status(3, 'Permission denied') : status(4, 'Failure')
    }
  }

  private async onHandle(name: string | undefined, packet: Packet): Promise<Answer> {
    const text = packet.text()
    const file = this.files.get(text)
    switch (name) {
      case 'open': {
        const handle = `f${++this.drawn}`
        this.files.set(handle, await open(text, flagsOf(packet.word()), 0o600))
        return { type: 102, body: data(handle) }
      }
      case 'opendir': {
        const handle = `d${++this.drawn}`
        await readdir(text)
        this.folders.set(handle, { path: text, isRead: false })
        return { type: 102, body: data(handle) }
      }
      case 'readdir':
        return this.readFolder(text)
      case 'close':
        this.files.delete(text)
        await file?.close()
        return this.folders.delete(text) || file ? ok : status(4, 'Failure')
      case 'fstat':
        return file ? { type: 105, body: attributes(await file.stat()) } : status(4, 'Failure')
      case 'read': {
        const [at, length] = [packet.long(), packet.word()]
        const found = await file?.read(Buffer.alloc(length), 0, length, at)
        if (found === undefined || found.bytesRead === 0) return endOfFile
        return { type: 103, body: data(found.buffer.subarray(0, found.bytesRead)) }
      }
      case 'write': {
        const [at, bytes] = [packet.long(), packet.data()]
        await file?.write(bytes, 0, bytes.length, at)
        return file ? ok : status(4, 'Failure')
      }
      default:
        return status(8, 'Operation unsupported')
    }
  }

  private async readFolder(handle: string): Promise<Answer> {
    const folder = this.folders.get(handle)
    if (folder === undefined || folder.isRead) return endOfFile
    folder.isRead = true
    const entries: Buffer[] = []
    for (const name of ['.', '..', ...(await readdir(folder.path))]) {
      const found = await lstat(path.join(folder.path, name)).catch(() => undefined)
      if (found !== undefined) entries.push(data(name), data(name), attributes(found))
    }
    return { type: 104, body: Buffer.concat([word(entries.length / 3), ...entries]) }
  }

  private async setTimes(packet: Packet): Promise<Answer> {
    const [file, flags] = [packet.text(), packet.word()]
    if (flags !== 8) return status(8, 'Operation unsupported')
    await utimes(file, packet.word(), packet.word())
    return ok
  }

  private async extended(packet: Packet): Promise<Answer> {
    const name = packet.text()
    if (!this.extensions.has(name)) return status(8, 'Operation unsupported')
    switch (name) {
      case 'hardlink@openssh.com':
        await link(packet.text(), packet.text())
        return ok
      case 'posix-rename@openssh.com':
        await rename(packet.text(), packet.text())
        return ok
      case 'fsync@openssh.com':
        await this.files.get(packet.text())?.sync()
        return ok
      default:
        return status(8, 'Operation unsupported')
    }
  }
}

function flagsOf(flags: number): number {
  const [read, write, append, create, truncate, exclusive] = [1, 2, 4, 8, 16, 32].map((bit) => (flags & bit) !== 0)
  const access = read && write ? constants.O_RDWR : write ? constants.O_WRONLY : constants.O_RDONLY
  return (
    access |
    (append ? constants.O_APPEND : 0) |
    (create ? constants.O_CREAT : 0) |
    (truncate ? constants.O_TRUNC : 0) |
    (exclusive ? constants.O_EXCL : 0)
  )
}

/** As version 3 says: it is an error if the new name exists. */
async function renameIfAbsent(from: string, to: string): Promise<void> {
  await link(from, to)
  await rm(from)
}
