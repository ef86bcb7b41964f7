import { randomBytes, randomInt } from 'node:crypto'
import path from 'node:path/posix'
import type { FileEntryWithStats } from 'ssh2'
import { throwIfAborted, unlessAborted } from '../base/abort.ts'
import { WalbackError } from '../base/errors.ts'
import { type ClaimStore, type ClaimTimes, claimTimes, ownPrefix, putUnderClaim } from './claims.ts'
import { cutParts, stopping } from './cut.ts'
import { type Piece, readOn } from './read-on.ts'
import { isPassing, sftpFailure, statusOf } from './sftp-failure.ts'
import { SftpSession } from './sftp-session.ts'
import { type Attempt, requestBytes, Upload } from './sftp-upload.ts'
import type { SftpLocation } from './sftp-url.ts'
import type { GetOptions, PutOptions, Storage, StoredObject } from './storage.ts'
import { trying } from './tries.ts'

type Signal = AbortSignal | undefined

/**
 * A folder of an SFTP server as a store. A write goes to a temporary file beside its key, is fsynced where the server
 * can, and is given its name in one step: by OpenSSH's extensions for link(2), which fails if the name exists, and for
 * rename(2). Where there is none for link(2), put-if-absent is by claims (docs/decisions/0012).
 */
export class SftpStorage implements Storage {
  readonly url: string
  private readonly location: SftpLocation
  private readonly claimTimes: ClaimTimes
  private readonly madeFolders = new Set<string>()
  private session: Promise<SftpSession> | undefined

  constructor(location: SftpLocation, options: { readonly claimTimes?: ClaimTimes } = {}) {
    this.url = location.url
    this.location = location
    this.claimTimes = options.claimTimes ?? claimTimes
  }

  async put(key: string, body: Buffer | AsyncIterable<Buffer>, options: PutOptions = {}): Promise<boolean> {
    const { signal, ifAbsent = false } = options
    const attempt = this.attempts(key, signal)
    const target = this.path(key)
    const folder = path.dirname(target)
    const temporary = path.join(folder, `${temporaryPrefix}${randomBytes(8).toString('hex')}`)
    // Not only for speed: where there are no links, the answer for what is there since long needs no claim.
    if (ifAbsent && (await attempt('look at', (session) => session.stat(target))) !== undefined) return false
    await attempt('make the folder of', (session) => this.makeFolder(session, folder))
    const upload = new Upload(temporary, attempt)
    try {
      for await (const block of cutParts(stopping(body, signal), () => blockBytes)) await upload.write(block)
      await upload.finish()
      const done = ifAbsent
        ? await this.linkIfAbsent(key, temporary, target, signal)
        : await this.replace(key, temporary, target, signal)
      if (done) await attempt('write', (session) => syncFolder(session, folder))
      return done
    } finally {
      await this.discard(upload, temporary)
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Buffer> {
    const { signal, range } = options
    throwIfAborted(signal)
    if (range !== undefined && range.end <= range.start) return
    const attempt = this.attempts(key, signal)
    const open = (at: number, version: string | undefined): Promise<Piece | undefined> =>
      attempt('read', async (session) => {
        const handle = await session.openFile(this.path(key), 'r')
        const found = await session.fstat(handle)
        const end = Math.min(range?.end ?? found.size, found.size)
        const own = `${found.mtime} ${found.size}`
        if (at < end && (version === undefined || version === own))
          return { body: this.bytes(key, session, handle, { at, end, signal }), length_bytes: end - at, version: own }
        await session.closeFile(handle)
        if (at >= end) return undefined
        throw new WalbackError('storage', `${this.where(key)} was replaced while it was being read`, {
          retryable: true,
        })
      })
    yield* readOn({ start: range?.start ?? 0, signal, open, isPassing })
  }

  async size(key: string, options: { readonly signal?: Signal } = {}): Promise<number | undefined> {
    const found = await this.attempts(key, options.signal)('look at', (session) => session.stat(this.path(key)))
    return found?.isFile() ? found.size : undefined
  }

  async *list(prefix: string, options: { readonly signal?: Signal } = {}): AsyncGenerator<StoredObject> {
    // A prefix may end inside a name: the folder above it is walked, and names are compared whole.
    yield* this.walk(prefix.slice(0, prefix.lastIndexOf('/') + 1), prefix, options.signal)
  }

  async delete(key: string): Promise<void> {
    await this.attempts(key, undefined)('delete', async (session) => {
      await session.unlink(this.path(key))
      await syncFolder(session, path.dirname(this.path(key)))
    })
  }

  private async *walk(folder: string, prefix: string, signal: Signal): AsyncGenerator<StoredObject> {
    const found = await this.entries(folder, signal)
    // Sorted by what follows in the key, so that `a.b` and `a/c` come in the order of whole keys.
    const keyed = found.map(({ filename, attrs }) => ({
      attrs,
      key: `${folder}${filename}${attrs.isDirectory() ? '/' : ''}`,
      isTemporary: filename.startsWith(temporaryPrefix),
    }))
    keyed.sort((a, b) => (a.key < b.key ? -1 : 1))
    for (const { key, attrs, isTemporary } of keyed) {
      throwIfAborted(signal)
      if (attrs.isDirectory()) {
        if (key !== ownPrefix && (key.startsWith(prefix) || prefix.startsWith(key)))
          yield* this.walk(key, prefix, signal)
      } else if (attrs.isFile() && key.startsWith(prefix) && !isTemporary) yield { key, size_bytes: attrs.size }
    }
  }

  private entries(folder: string, signal: Signal): Promise<FileEntryWithStats[]> {
    return this.attempts(folder, signal)('list', (session) => session.readFolder(this.path(folder)))
  }

  /** The bytes of an open file, some requests ahead of the reader. */
  private async *bytes(
    key: string,
    session: SftpSession,
    handle: Buffer,
    { at, end, signal }: { readonly at: number; readonly end: number; readonly signal: Signal },
  ): AsyncGenerator<Buffer> {
    const ahead: Promise<Buffer>[] = []
    try {
      for (let next = at; next < end || ahead.length > 0; ) {
        for (; ahead.length < readsAhead && next < end; next += requestBytes) {
          const asked = session.read(handle, next, Math.min(requestBytes, end - next))
          // A failure is thrown when its turn comes; until then it is no unhandled one.
          asked.catch(() => undefined)
          ahead.push(asked)
        }
        yield await unlessAborted(ahead.shift() as Promise<Buffer>, signal)
      }
    } catch (error) {
      throwIfAborted(signal)
      throw isPassing(error) ? error : sftpFailure('read', this.where(key), error)
    } finally {
      // Not waited for: a server that is silent would hold up whoever has stopped reading.
      void session.closeFile(handle).catch(() => undefined)
    }
  }

  private async linkIfAbsent(key: string, temporary: string, target: string, signal: Signal): Promise<boolean> {
    let isUnsure = false
    const linked = await this.attempts(key, signal)('write', async (session) => {
      if (isUnsure && (await isSameFile(session, temporary, target))) return true
      try {
        return (await session.link(temporary, target)) || undefined
      } catch (error) {
        isUnsure ||= isPassing(error)
        // The protocol has no word of its own for a name that exists.
        if (isPassing(error) || (await session.stat(target)) === undefined) throw error
        return false
      }
    })
    return linked ?? (await this.renameUnderClaim(key, temporary, target, signal))
  }

  private async replace(key: string, temporary: string, target: string, signal: Signal): Promise<boolean> {
    let isUnsure = false
    return this.attempts(key, signal)('write', async (session) => {
      // Nobody else takes the temporary name away: the answer to an earlier request was lost.
      if (isUnsure && (await session.stat(temporary)) === undefined) return true
      isUnsure = true
      if (await session.renameOver(temporary, target)) return true
      if ((await session.stat(target)) === undefined) {
        await session.rename(temporary, target)
        return true
      }
      throw new WalbackError('storage', `the server cannot replace ${this.where(key)} in one step`, {
        hint: 'walback needs a server with posix-rename@openssh.com for this, such as OpenSSH',
      })
    })
  }

  private renameUnderClaim(key: string, temporary: string, target: string, signal: Signal): Promise<boolean> {
    const claims = `${ownPrefix}claims/`
    // All in one folder, since a folder for each key would be left behind.
    const flat = (claim: string): string => `${claims}${claim.slice(claims.length).replace('/', '!!')}`
    const attempt = this.attempts(key, signal)
    const store: ClaimStore = {
      put: (claim) =>
        attempt('claim', async (session) => {
          const file = this.path(flat(claim))
          await this.makeFolder(session, path.dirname(file))
          await session.closeFile(await session.openFile(file, 'w'))
        }),
      delete: (claim) => this.attempts(key, undefined)('release', (session) => session.unlink(this.path(flat(claim)))),
      exists: async (looked) => (await this.size(looked, { signal })) !== undefined,
      list: async (prefix) => {
        const found = (await this.entries(claims, signal)).filter(({ filename }) =>
          `${claims}${filename}`.startsWith(flat(prefix)),
        )
        const nameOf = (filename: string): string => `${claims}${filename.replace('!!', '/')}`
        return found.map(({ filename, attrs }) => ({ key: nameOf(filename), modified: new Date(attrs.mtime * 1000) }))
      },
    }
    const token = randomBytes(12).toString('hex')
    const write = async (inTime: AbortSignal): Promise<void> => {
      try {
        await this.replace(key, temporary, target, inTime)
      } catch (error) {
        // What was not sent yet must not be sent when the claim has gone stale.
        if (inTime.aborted) (await this.session?.catch(() => undefined))?.end('too slow')
        throw error
      }
    }
    return putUnderClaim(store, key, token, write, { signal, times: this.claimTimes })
  }

  /** Makes a folder and those above it, each durable in its parent. */
  private async makeFolder(session: SftpSession, folder: string): Promise<void> {
    if (this.madeFolders.has(folder)) return
    const { root } = this.location
    if ((await session.stat(folder)) === undefined) {
      if (path.dirname(folder) !== folder) await this.makeFolder(session, path.dirname(folder))
      try {
        await session.makeFolder(folder)
      } catch (error) {
        // Another writer may have made it meanwhile.
        if (!(await session.stat(folder))?.isDirectory()) throw error
      }
    }
    // Also when another write has just made it and not synced it yet. What lies above the repository is not ours to look into.
    if (folder === root || folder.startsWith(`${root}/`)) await syncFolder(session, path.dirname(folder))
    this.madeFolders.add(folder)
  }

  /** Takes the temporary file away, if the server answers soon; what is left is never listed. */
  private async discard(upload: Upload, temporary: string): Promise<void> {
    const removed = async (): Promise<void> => {
      await upload.close().catch(() => undefined)
      await (await this.connected()).unlink(temporary)
    }
    await unlessAborted(removed(), AbortSignal.timeout(discard_ms)).catch(() => undefined)
  }

  private attempts(key: string, signal: Signal): Attempt {
    return (doing, request) => {
      const failure = (error: unknown): Error => sftpFailure(doing, this.where(key), error)
      return trying(() => this.connected().then(request), { signal, isPassing, failure })
    }
  }

  private async connected(): Promise<SftpSession> {
    const current = this.session
    if (current !== undefined && (await current).isOpen) return current
    // Of several that find it closed at once, the first one opens another.
    if (this.session === current) {
      const opening = SftpSession.open(this.location)
      this.session = opening
      opening.catch(() => {
        if (this.session === opening) this.session = undefined
      })
    }
    return this.connected()
  }

  private path(key: string): string {
    return path.join(this.location.root, key)
  }

  private where(key: string): string {
    const { user, host, root } = this.location
    return `sftp://${user}@${host}${path.join('/', root, key)}`
  }
}

const temporaryPrefix = '.tmp-'
const blockBytes = 1 << 20
const readsAhead = 32
const discard_ms = 5_000

/**
 * Whether a name is a link to our file. The protocol shows no inode, but what is changed under one name shows under
 * the other: a time that nobody else would set.
 */
async function isSameFile(session: SftpSession, own: string, other: string): Promise<boolean> {
  const mark = randomInt(1, 2 ** 31)
  await session.setModified(own, mark)
  const found = await session.stat(other)
  await session.setModified(own, Math.floor(Date.now() / 1000))
  return found?.mtime === mark
}

/** Where the server opens folders and can fsync, as OpenSSH does; elsewhere there is no way to ask for it. */
async function syncFolder(session: SftpSession, folder: string): Promise<void> {
  let handle: Buffer
  try {
    handle = await session.openFile(folder, 'r')
  } catch (error) {
    if (isPassing(error) || statusOf(error) === undefined) throw error
    return
  }
  await session.fsync(handle)
  await session.closeFile(handle)
}
