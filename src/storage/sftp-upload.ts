import { createHash } from 'node:crypto'
import { WalbackError } from '../base/errors.ts'
import type { SftpSession } from './sftp-session.ts'

/** Does a request on a connection, and again on a new one when the connection failed. */
export type Attempt = <T>(doing: string, request: (session: SftpSession) => Promise<T>) => Promise<T>

/**
 * A body on its way into a temporary file. A connection that breaks off in the middle is no end of it: the file is
 * opened again and gone on with. What was acknowledged before is then read back first, because the server may have been
 * restarted meanwhile, and what was not fsynced yet lost.
 */
export class Upload {
  private readonly path: string
  private readonly attempt: Attempt
  private readonly written = createHash('sha256')
  private length = 0
  private isBegun = false
  private open: { readonly session: SftpSession; readonly handle: Buffer } | undefined

  constructor(path: string, attempt: Attempt) {
    this.path = path
    this.attempt = attempt
  }

  async write(block: Buffer): Promise<void> {
    await this.attempt('write', async (session) => {
      const handle = await this.opened(session)
      const sent: Promise<void>[] = []
      for (let at = 0; at < block.length; at += requestBytes)
        sent.push(session.write(handle, block.subarray(at, at + requestBytes), this.length + at))
      const failed = (await Promise.allSettled(sent)).find(({ status }) => status === 'rejected')
      if (failed?.status === 'rejected') throw failed.reason
    })
    this.written.update(block)
    this.length += block.length
  }

  /** Ends the file, on the server's disk where the server can say that it is. */
  async finish(): Promise<void> {
    await this.attempt('end the writing of', async (session) => {
      const handle = await this.opened(session)
      await session.fsync(handle)
      this.open = undefined
      await session.closeFile(handle)
    })
  }

  /** Lets go of the file, which stays. */
  async close(): Promise<void> {
    const { open } = this
    this.open = undefined
    if (open?.session.isOpen) await open.session.closeFile(open.handle)
  }

  private async opened(session: SftpSession): Promise<Buffer> {
    if (this.open?.session === session) return this.open.handle
    // The name is drawn at random: what has it is ours, also when the answer to an earlier request was lost.
    const handle = await session.openFile(this.path, this.length === 0 && !this.isBegun ? 'w' : 'r+')
    this.isBegun = true
    this.open = { session, handle }
    await this.readBack(session, handle)
    return handle
  }

  private async readBack(session: SftpSession, handle: Buffer): Promise<void> {
    const found = createHash('sha256')
    for (let at = 0; at < this.length; ) {
      const bytes = await session.read(handle, at, Math.min(readBackBytes, this.length - at))
      if (bytes.length === 0) break
      found.update(bytes)
      at += bytes.length
    }
    if (found.digest().equals(this.written.copy().digest())) return
    throw new WalbackError('storage', `the server has lost a part of what it had taken of ${this.path}`, {
      retryable: true,
    })
  }
}

/** What every server takes in one request. */
export const requestBytes = 32 << 10
const readBackBytes = 1 << 20
