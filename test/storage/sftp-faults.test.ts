import { createHmac } from 'node:crypto'
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openStorage } from '../../src/storage/open.ts'
import { fingerprintOf, knownKeys } from '../../src/storage/sftp-host-key.ts'
import { readAll, type Storage } from '../../src/storage/storage.ts'
import { chunks, listed } from './contract.ts'
import { type Fault, newKey, type SftpServer, startSftpServer } from './sftp-server.ts'

describe('a store on an SFTP server', () => {
  let server: SftpServer
  let folder = ''
  beforeEach(async () => {
    server = await startSftpServer()
    folder = await mkdtemp(path.join(tmpdir(), 'walback-sftp-'))
  })
  afterEach(async () => {
    await server[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })

  const password = { WALBACK_SFTP_PASSWORD: 'secret' }
  const keyOf = (publicKey: string): Buffer => Buffer.from(publicKey.split(' ')[1] ?? '', 'base64')
  const pinned = (): string => `fingerprint=${fingerprintOf(keyOf(server.hostKey.public))}`
  const open = (query = pinned(), env: Readonly<Record<string, string>> = password): Storage =>
    openStorage(`sftp://walback@127.0.0.1:${server.port}${folder}/repository?${query}`, env)
  const names = async (): Promise<string[]> =>
    (await readdir(folder, { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isFile())
      .map(({ name }) => name)
  const given = async (name: string, text: string): Promise<string> => {
    const file = path.join(folder, name)
    await writeFile(file, text, { mode: 0o600 })
    return file
  }
  /** The fault at the first such requests, counted from 0. */
  const faultAt = (wanted: string, fault: Fault, from = 0, count = 1): void => {
    let seen = 0
    server.fault = (request) => {
      if (request !== wanted) return undefined
      seen++
      return seen > from && seen <= from + count ? fault : undefined
    }
  }

  describe('whose connection breaks off', () => {
    const body = Buffer.from(Array.from({ length: 5 << 20 }, (_, i) => (i * 31 + (i >> 8)) & 255))
    async function* pieces(): AsyncGenerator<Buffer> {
      for (let at = 0; at < body.length; at += 300_000) yield body.subarray(at, at + 300_000)
    }

    test.each([
      ['write', 'cut', 70],
      ['write', 'cut after', 33],
      ['open', 'cut after', 0],
      ['fsync@openssh.com', 'cut after', 1],
      ['close', 'cut after', 1],
      ['hardlink@openssh.com', 'cut', 0],
      ['hardlink@openssh.com', 'cut after', 0],
      ['mkdir', 'cut after', 0],
    ] as const)('at %s (%s) in a put: it is gone on with, and the answer is true', async (request, fault, from) => {
      const storage = open()
      faultAt(request, fault, from)
      expect(await storage.put('a/key', pieces(), { ifAbsent: true })).toBe(true)
      expect(server.accepted).toBe(2)
      expect((await readAll(storage.get('a/key'))).equals(body)).toBe(true)
      expect(await names()).toEqual(['key'])
    })

    test('at a link that another writer then wins: the answer is false', async () => {
      const storage = open()
      server.fault = async (request) => {
        if (request !== 'hardlink@openssh.com') return undefined
        server.fault = () => undefined
        await openStorage(`${folder}/repository`).put('key', Buffer.from('theirs'), { ifAbsent: true })
        return 'cut'
      }
      expect(await storage.put('key', Buffer.from('mine'), { ifAbsent: true })).toBe(false)
      expect((await readAll(storage.get('key'))).toString()).toBe('theirs')
    })

    test('at a rename whose answer is lost: it is known for done', async () => {
      const storage = open()
      await storage.put('key', Buffer.from('old'))
      faultAt('posix-rename@openssh.com', 'cut after')
      expect(await storage.put('key', Buffer.from('new'))).toBe(true)
      expect((await readAll(storage.get('key'))).toString()).toBe('new')
    })

    test('in a read: it goes on at its byte', async () => {
      const storage = open()
      await storage.put('key', body)
      faultAt('read', 'cut', 60, 2)
      const range = { start: 1000, end: body.length - 7 }
      expect((await readAll(storage.get('key', { range }))).equals(body.subarray(range.start, range.end))).toBe(true)
      expect(server.accepted).toBeGreaterThan(1)
    })

    test('for good: a failure that may pass, after some tries', async () => {
      const storage = open()
      server.fault = (request) => (request === 'write' ? 'cut' : undefined)
      await expect(storage.put('key', Buffer.from('x'))).rejects.toMatchObject({ code: 'storage', retryable: true })
      expect(await names()).toEqual([])
    })

    test('and has forgotten what it had taken: nothing is stored', async () => {
      const storage = open()
      let writes = 0
      server.fault = async (request) => {
        if (request !== 'write' || ++writes !== 70) return undefined
        const repository = path.join(folder, 'repository')
        const [temporary] = await readdir(repository)
        await writeFile(path.join(repository, temporary as string), Buffer.alloc(2 << 20))
        return 'cut'
      }
      await expect(storage.put('key', pieces())).rejects.toMatchObject({
        retryable: true,
        message: expect.stringContaining('has lost a part'),
      })
      expect(await names()).toEqual([])
    })
  })

  test('that is silent does not hold up whoever stops', async () => {
    const storage = open()
    const controller = new AbortController()
    server.fault = (request) => {
      if (request !== 'write') return undefined
      controller.abort()
      return 'silence'
    }
    const { signal } = controller
    await expect(storage.put('key', chunks('x'), { signal })).rejects.toMatchObject({ code: 'interrupted' })
  })

  test('lists no leftovers', async () => {
    const storage = open()
    await storage.put('a/b', Buffer.from('x'))
    await writeFile(path.join(folder, 'repository/a/.tmp-0123456789abcdef'), 'half')
    expect((await listed(storage, '')).map(({ key }) => key)).toEqual(['a/b'])
  })

  describe('shows its key', () => {
    const refused = async (query: string, message: RegExp): Promise<void> => {
      const failure = open(query).size('key')
      await expect(failure).rejects.toMatchObject({ code: 'storage', retryable: false, hint: expect.any(String) })
      await expect(failure).rejects.toThrow(message)
    }
    const hostLine = (hosts: string, publicKey = server.hostKey.public): string => `${hosts} ${publicKey}\n`

    test('which is in a file of known hosts', async () => {
      const where = `[127.0.0.1]:${server.port}`
      const salt = Buffer.from('some salt')
      const hash = createHmac('sha1', salt).update(where).digest('base64')
      for (const hosts of [where, `other.example,${where}`, `|1|${salt.toString('base64')}|${hash}`]) {
        const file = await given('hosts', `# known\n\n${hostLine(hosts)}`)
        expect(await open(`known_hosts=${file}`).size('key')).toBeUndefined()
      }
    })

    test('which is another than the known one, unknown, or revoked', async () => {
      const where = `[127.0.0.1]:${server.port}`
      const other = newKey().public
      await refused(
        `fingerprint=${fingerprintOf(keyOf(other))}`,
        /its key is ssh-ed25519 SHA256:\S+, and known is SHA256:/,
      )
      await refused(`known_hosts=${await given('a', hostLine(where, other))}`, /and known is SHA256:/)
      await refused(`known_hosts=${await given('b', hostLine('127.0.0.1'))}`, /is not in .*\/b/)
      await refused(`known_hosts=${await given('c', hostLine(`@revoked ${where}`))}`, /is revoked in/)
      await refused(`known_hosts=${folder}/no-such-file`, /is not in/)
    })
  })

  test('is logged in to by a key, with or without a passphrase, or by a password in a file', async () => {
    const keyFile = await given('key', server.login.private)
    expect(await open(`${pinned()}&key_file=${keyFile}`, {}).size('x')).toBeUndefined()
    const passwordFile = await given('password', 'secret\n')
    expect(await open(pinned(), { WALBACK_SFTP_PASSWORD_FILE: passwordFile }).size('x')).toBeUndefined()
  })

  test('says which login it does not take, and shows none', async () => {
    const other = await given('other', newKey().private)
    const locked = await given('locked', newKey({ passphrase: 'p', cipher: 'aes256-cbc', rounds: 4 }).private)
    await expect(open(`${pinned()}&key_file=${other}`, {}).size('x')).rejects.toMatchObject({
      code: 'storage',
      retryable: false,
      hint: expect.stringContaining('authorized_keys'),
    })
    await expect(open(pinned(), { WALBACK_SFTP_PASSWORD: 'wr0ng' }).size('x')).rejects.toThrow(
      expect.not.objectContaining({ message: expect.stringContaining('wr0ng') }),
    )
    await expect(open(`${pinned()}&key_file=${locked}`, {}).size('x')).rejects.toMatchObject({ code: 'usage' })
    await expect(open(`${pinned()}&key_file=/no/such/key`, {}).size('x')).rejects.toMatchObject({ code: 'usage' })
    await expect(open(pinned(), { SSH_AUTH_SOCK: '/no/such/agent' }).size('x')).rejects.toMatchObject({
      hint: expect.stringContaining('authorized_keys'),
    })
  })

  test('that does not run is a failure that may pass', async () => {
    const storage = open()
    await server[Symbol.asyncDispose]()
    await expect(storage.size('key')).rejects.toMatchObject({ code: 'storage', retryable: true })
    server = await startSftpServer()
  })

  const isRoot = process.getuid?.() === 0
  test.skipIf(isRoot)('says what rights it lacks (skipped as root, which lacks none)', async () => {
    await chmod(folder, 0o500)
    await expect(open().put('a/b', Buffer.from('x'))).rejects.toMatchObject({
      retryable: false,
      hint: expect.stringContaining('rights'),
    })
    await chmod(folder, 0o700)
  })

  test('says so when a part of the path is a file', async () => {
    await writeFile(path.join(folder, 'repository'), 'x')
    await expect(open().put('a', Buffer.from('x'))).rejects.toMatchObject({ code: 'storage' })
    expect(await readFile(path.join(folder, 'repository'), 'utf8')).toBe('x')
  })
})

test('patterns of known hosts are those of sshd(8)', () => {
  const { public: key } = newKey()
  const found = (hosts: string, where: string): number => knownKeys(`${hosts} ${key}`, where).length
  expect(found('*.example.com', 'backup.example.com')).toBe(1)
  expect(found('*.example.com', 'backupXexample.com')).toBe(0)
  expect(found('*.example.com,!old.example.com', 'old.example.com')).toBe(0)
  expect(found('host?', 'host1')).toBe(1)
  expect(found('host', 'Host')).toBe(1)
  expect(found('host', '[host]:2222')).toBe(0)
  expect(found('@cert-authority *', 'host')).toBe(0)
})

describe('an SFTP repository URL', () => {
  const env = { WALBACK_SFTP_PASSWORD: 's3cret', HOME: '/home/me' }

  test('has one spelling', () => {
    expect(openStorage('sftp://me@host:22//srv/app/', env).url).toBe('sftp://me@host/srv/app')
    expect(openStorage('sftp://me@host:2222/~/app', env).url).toBe('sftp://me@host:2222/~/app')
    const fingerprint = `SHA256:${'a+/'.repeat(14)}x`
    expect(openStorage(`sftp://me@host/a?fingerprint=${fingerprint}`, env).url).toContain(fingerprint)
  })

  test.each([
    'sftp://host/x',
    'sftp://me@/x',
    'sftp://me@host',
    'sftp://me@host/',
    'sftp://me@host/~/',
    'sftp://me:s3cret@host/x',
    'sftp://me@host/x?password=s3cret',
    'sftp://me@host/x?fingerprint=MD5:00',
    'sftp://me@host:0x/x',
    'sftp://me@host/%zz',
    'sftp://me@host/x#y',
  ])('%s is refused, without its secrets', (url) => {
    expect(() => openStorage(url, env)).toThrow(expect.objectContaining({ code: 'usage', hint: expect.any(String) }))
    expect(() => openStorage(url, env)).not.toThrow(/s3cret/)
  })

  test('needs a login, and a key of the server to hold to', () => {
    expect(() => openStorage('sftp://me@host/x', { HOME: '/home/me' })).toThrow(/no login/)
    expect(() => openStorage('sftp://me@host/x', { SSH_AUTH_SOCK: '/a' })).toThrow(/what is the server's key/)
  })
})
