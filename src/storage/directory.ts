import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, link, mkdir, open, opendir, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { throwIfAborted } from '../base/abort.ts'
import { codeOf, messageOf, WalbackError } from '../base/errors.ts'
import type { GetOptions, PutOptions, Storage, StoredObject } from './storage.ts'

/**
 * A folder as a store. A write goes to a temporary file beside its key, is fsynced, is given its name (by link(2),
 * which fails if the name exists, or by rename(2)), and the folder is fsynced: a name that can be seen names a whole
 * object, after a crash too.
 */
export class DirectoryStorage implements Storage {
  readonly url: string
  private readonly root: string
  private readonly durableFolders = new Set<string>()

  constructor(root: string) {
    this.root = path.resolve(root)
    this.url = pathToFileURL(this.root).href
  }

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options: PutOptions = {}): Promise<boolean> {
    const file = this.file(key)
    const folder = path.dirname(file)
    const temporary = path.join(folder, `${temporaryPrefix}${randomBytes(8).toString('hex')}`)
    let failedBody: { readonly error: unknown } | undefined
    try {
      await this.makeFolder(folder)
      if (options.ifAbsent && (await exists(file))) return false
      await writeDurably(temporary, body, options.signal, (error) => {
        failedBody = { error }
      })
      const done = options.ifAbsent
        ? await linkIfAbsent(temporary, file)
        : await rename(temporary, file).then(() => true)
      await syncFolder(folder)
      return done
    } catch (error) {
      // What the body's own source threw is not the store's failure.
      if (failedBody) throw failedBody.error
      throw this.failure('write', key, error)
    } finally {
      await rm(temporary, { force: true }).catch(() => undefined)
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Buffer> {
    let handle: FileHandle
    try {
      handle = await open(this.file(key), 'r')
    } catch (error) {
      throw this.failure('read', key, error)
    }
    try {
      const { start, end } = options.range ?? { start: 0, end: Number.MAX_SAFE_INTEGER }
      for (let at = start; at < end; ) {
        throwIfAborted(options.signal)
        const chunk = Buffer.allocUnsafe(Math.min(readChunkBytes, end - at))
        const { bytesRead } = await handle.read(chunk, 0, chunk.length, at)
        if (bytesRead === 0) return
        yield chunk.subarray(0, bytesRead)
        at += bytesRead
      }
    } catch (error) {
      throw this.failure('read', key, error)
    } finally {
      await handle.close()
    }
  }

  async size(key: string): Promise<number | undefined> {
    try {
      const found = await stat(this.file(key))
      return found.isFile() ? found.size : undefined
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined
      throw this.failure('look at', key, error)
    }
  }

  async *list(prefix: string): AsyncGenerator<StoredObject> {
    // A prefix may end inside a name: the folder above it is walked, and names are compared whole.
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1)
    for await (const key of this.walk(folder, prefix)) {
      const size_bytes = await this.size(key)
      if (size_bytes !== undefined) yield { key, size_bytes }
    }
  }

  private async *walk(folder: string, prefix: string): AsyncGenerator<string> {
    // Sorted by what follows in the key, so that `a.b` and `a/c` come in the order of whole keys.
    const names: string[] = []
    try {
      // Some at a time: all entries of a folder at once, of which it may have tens of thousands, take much more than names.
      const found = await opendir(path.join(this.root, folder), { bufferSize: entriesAtOnce })
      for await (const entry of found) names.push(entry.isDirectory() ? `${entry.name}/` : entry.name)
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || (codeOf(error) === 'ENOTDIR' && folder !== '')) return
      throw this.failure('list', folder, error)
    }
    for (const name of names.sort()) {
      const key = `${folder}${name}`
      if (name.endsWith('/')) {
        if (key.startsWith(prefix) || prefix.startsWith(key)) yield* this.walk(key, prefix)
      } else if (key.startsWith(prefix) && !name.startsWith(temporaryPrefix)) yield key
    }
  }

  async delete(key: string): Promise<void> {
    try {
      const file = this.file(key)
      await rm(file, { force: true })
      await syncFolder(path.dirname(file))
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw this.failure('delete', key, error)
    }
  }

  /** Makes a folder and those above it, each durable in its parent: a name in a lost folder would be lost with it. */
  private async makeFolder(folder: string): Promise<void> {
    if (this.durableFolders.has(folder)) return
    const first = await mkdir(folder, { recursive: true, mode: 0o700 })
    // Also when another write has just made it and not synced it yet. Above the repository only what was made here.
    const top = first === undefined || first.length > this.root.length ? this.root : first
    for (let made = folder; made.length >= top.length; made = path.dirname(made)) await syncFolder(path.dirname(made))
    this.durableFolders.add(folder)
  }

  private file(key: string): string {
    return path.join(this.root, key)
  }

  private failure(doing: string, key: string, error: unknown): unknown {
    if (error instanceof WalbackError) return error
    const code = codeOf(error)
    const hint = code === undefined ? undefined : hints[code]
    return new WalbackError('storage', `cannot ${doing} ${path.join(this.root, key)}: ${messageOf(error)}`, {
      cause: error,
      retryable: code !== undefined && passing.has(code),
      facts: { absent: code === 'ENOENT' },
      ...(hint === undefined ? {} : { hint }),
    })
  }
}

const temporaryPrefix = '.tmp-'
const readChunkBytes = 1 << 20
const entriesAtOnce = 1024

/** What somebody else's doing, or waiting, may mend. */
const passing = new Set([
  'EAGAIN',
  'EBUSY',
  'EDQUOT',
  'EINTR',
  'EIO',
  'EMFILE',
  'ENFILE',
  'ENOSPC',
  'ESTALE',
  'ETIMEDOUT',
])

const hints: Readonly<Record<string, string>> = {
  EACCES: 'give the user that runs walback read and write rights on the repository folder',
  EPERM: 'give the user that runs walback read and write rights on the repository folder',
  EROFS: 'the file system is mounted read-only',
  ENOSPC: 'free some space, or move the repository to a larger disk',
  EDQUOT: 'the quota of the user that runs walback is used up',
  ENOTDIR: 'a part of the repository path is a file, not a folder',
}

async function writeDurably(
  file: string,
  body: Buffer | AsyncIterable<Buffer>,
  signal: AbortSignal | undefined,
  onBodyFailure: (error: unknown) => void,
): Promise<void> {
  const handle = await open(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
  try {
    for await (const chunk of Buffer.isBuffer(body) ? [body] : watched(body, onBodyFailure)) {
      throwIfAborted(signal)
      await writeFully(handle, chunk)
    }
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function* watched(body: AsyncIterable<Buffer>, onFailure: (error: unknown) => void): AsyncGenerator<Buffer> {
  try {
    yield* body
  } catch (error) {
    onFailure(error)
    throw error
  }
}

/** write(2) may take only a part, as on a disk that is nearly full. */
async function writeFully(handle: FileHandle, chunk: Buffer): Promise<void> {
  for (let at = 0; at < chunk.length; ) {
    at += (await handle.write(chunk, at, chunk.length - at)).bytesWritten
  }
}

async function linkIfAbsent(temporary: string, file: string): Promise<boolean> {
  try {
    await link(temporary, file)
    return true
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false
    throw error
  }
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    (error: unknown) => {
      if (codeOf(error) === 'ENOENT') return false
      throw error
    },
  )
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
