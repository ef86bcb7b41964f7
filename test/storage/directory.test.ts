import { chmod, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DirectoryStorage } from '../../src/storage/directory.ts'
import { openStorage } from '../../src/storage/open.ts'
import { readAll } from '../../src/storage/storage.ts'
import { chunks, listed, storageContract } from './contract.ts'

const scratch = (): Promise<string> => mkdtemp(path.join(tmpdir(), 'walback-store-'))

storageContract('a folder', async () => {
  const folder = await scratch()
  // Not made yet: the first put makes it.
  const root = path.join(folder, 'deep', 'repository')
  return {
    storage: new DirectoryStorage(root),
    another: () => new DirectoryStorage(root),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
})

describe('a folder as a store', () => {
  let root = ''
  let storage: DirectoryStorage
  beforeEach(async () => {
    root = await scratch()
    storage = new DirectoryStorage(root)
  })
  afterEach(() => rm(root, { recursive: true, force: true }))

  const names = async (): Promise<string[]> =>
    (await readdir(root, { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isFile())
      .map((entry) => entry.name)

  test('leaves no temporary file behind, whatever becomes of a put', async () => {
    await storage.put('a/won', Buffer.from('x'), { ifAbsent: true })
    await storage.put('a/won', Buffer.from('y'), { ifAbsent: true })
    await storage.put('a/won', Buffer.from('z'))
    await Promise.all(Array.from({ length: 5 }, () => storage.put('a/raced', chunks('x', 'y'), { ifAbsent: true })))
    await storage.put('a/lost', Buffer.from('x'), { signal: AbortSignal.abort() }).catch(() => undefined)
    expect((await names()).sort()).toEqual(['raced', 'won'])
  })

  test('passes over what a crash left half written', async () => {
    await storage.put('a/b', Buffer.from('x'))
    await writeFile(path.join(root, 'a', '.tmp-0123456789abcdef'), 'half')
    await writeFile(path.join(root, '.tmp-fedcba9876543210'), 'half')
    expect((await listed(storage, '')).map(({ key }) => key)).toEqual(['a/b'])
    expect((await listed(storage, 'a/')).map(({ key }) => key)).toEqual(['a/b'])
    expect((await listed(storage, 'a/.tmp-')).map(({ key }) => key)).toEqual([])
  })

  test('shows a name only once the whole object is there', async () => {
    let release = (): void => undefined
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    async function* slow(): AsyncGenerator<Buffer> {
      yield Buffer.from('first ')
      await held
      yield Buffer.from('second')
    }
    const writing = storage.put('key', slow())
    expect(await storage.size('key')).toBeUndefined()
    expect(await listed(storage, '')).toEqual([])
    release()
    await writing
    expect((await readAll(storage.get('key'))).toString()).toBe('first second')
  })

  test('keeps others out of its files and folders', async () => {
    await storage.put('a/b', Buffer.from('x'))
    expect((await stat(path.join(root, 'a'))).mode & 0o077).toBe(0)
    expect((await stat(path.join(root, 'a', 'b'))).mode & 0o077).toBe(0)
  })

  test('says so when a part of the path is a file', async () => {
    await writeFile(path.join(root, 'file'), 'x')
    const below = new DirectoryStorage(path.join(root, 'file', 'repository'))
    const expected = { code: 'storage', retryable: false, hint: expect.stringContaining('is a file, not a folder') }
    await expect(below.put('a', Buffer.from('x'))).rejects.toMatchObject(expected)
    await expect(readAll(below.get('a'))).rejects.toMatchObject(expected)
    await expect(listed(below, '')).rejects.toMatchObject(expected)
  })

  // A symbolic link to itself is an error for everyone, root included: it stands for what no later try mends.
  test('hands on what the system says, as a failure of the store', async () => {
    await symlink('loop', path.join(root, 'loop'))
    const failure = storage.put('loop/a', Buffer.from('x'))
    await expect(failure).rejects.toMatchObject({ code: 'storage', message: expect.stringContaining('loop') })
  })

  const isRoot = process.getuid?.() === 0
  test.skipIf(isRoot)('says what rights it lacks (skipped as root, which lacks none)', async () => {
    await mkdir(path.join(root, 'closed'))
    await chmod(path.join(root, 'closed'), 0o500)
    await expect(storage.put('closed/a', Buffer.from('x'))).rejects.toMatchObject({
      code: 'storage',
      hint: expect.stringContaining('rights'),
    })
    await chmod(path.join(root, 'closed'), 0o700)
  })
})

describe('a repository URL', () => {
  test('is a file URL or a path', () => {
    for (const url of ['file:///var/backups/app', '/var/backups/app']) {
      expect(openStorage(url).url).toBe('file:///var/backups/app')
    }
    expect(openStorage('backups').url).toBe(pathToFileURL(path.resolve('backups')).href)
    expect(openStorage('file:///var/backups/with%20space').url).toBe('file:///var/backups/with%20space')
  })

  test.each(['', 'ftp://host/x', 'file://otherhost/x', 'https://user:secret@host/x'])('%j is refused', (url) => {
    expect(() => openStorage(url)).toThrow(expect.objectContaining({ code: 'usage' }))
  })

  test('that is refused is not repeated with its secrets', () => {
    expect(() => openStorage('gs://key:secret@bucket/x')).toThrow(
      expect.not.objectContaining({ message: expect.stringContaining('secret') }),
    )
  })
})
