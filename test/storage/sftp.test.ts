/**
 * The contract on SFTP servers: ours, with and without OpenSSH's extensions; OpenSSH's own `sftp-server`, where it is
 * installed or `WALBACK_SFTP_SERVER` names it; and the server that `WALBACK_SFTP_URL=sftp://user@host/path?…` names,
 * with a login from the environment.
 */
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe } from 'vitest'
import { openStorage } from '../../src/storage/open.ts'
import { fingerprintOf } from '../../src/storage/sftp-host-key.ts'
import { listed, storageContract } from './contract.ts'
import { type SftpServer, type SftpServerOptions, startSftpServer } from './sftp-server.ts'

function contractOn(name: string, options: SftpServerOptions): void {
  let server: SftpServer
  beforeAll(async () => {
    server = await startSftpServer(options)
  })
  afterAll(() => server[Symbol.asyncDispose]())

  storageContract(name, async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'walback-sftp-'))
    const key = Buffer.from(server.hostKey.public.split(' ')[1] ?? '', 'base64')
    const url = `sftp://walback@127.0.0.1:${server.port}${folder}/deep/repository?fingerprint=${fingerprintOf(key)}`
    const fresh = () => openStorage(url, { WALBACK_SFTP_PASSWORD: 'secret' })
    return {
      storage: fresh(),
      another: fresh,
      [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
    }
  })
}

describe('SFTP, with the extensions of OpenSSH', () => contractOn('SFTP', {}))
describe('SFTP without links and fsync', () =>
  contractOn('SFTP with claims', { without: ['hardlink@openssh.com', 'fsync@openssh.com'] }))

const program = ['/usr/lib/openssh/sftp-server', process.env['WALBACK_SFTP_SERVER'] ?? ''].find(existsSync)
describe.skipIf(program === undefined)('SFTP, as OpenSSH has it (skipped unless its sftp-server is there)', () => {
  if (program === undefined) return
  contractOn("OpenSSH's sftp-server", { program: { path: program, args: [] } })
  contractOn("OpenSSH's sftp-server without links", { program: { path: program, args: ['-P', 'hardlink'] } })
})

const given = process.env['WALBACK_SFTP_URL'] ?? ''
describe.skipIf(given === '')('a server of yours (skipped unless WALBACK_SFTP_URL is set)', () => {
  storageContract('SFTP there', async () => {
    const at = new URL(given)
    at.pathname = `${at.pathname}/${randomBytes(6).toString('hex')}`
    const fresh = () => openStorage(at.href, process.env)
    const storage = fresh()
    return {
      storage,
      another: fresh,
      [Symbol.asyncDispose]: async () => {
        for (const { key } of await listed(storage, '')) await storage.delete(key)
      },
    }
  })
})
