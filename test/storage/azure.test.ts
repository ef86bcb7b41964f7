/**
 * The contract on Azure's Blob Storage, or on its emulator: with `WALBACK_AZURE_URL=az://container/prefix?…` and a login
 * in the environment. The emulator, Azurite, is not among walback's packages:
 * `npx azurite-blob --inMemoryPersistence --skipApiVersionCheck` beside it, and then
 * `WALBACK_AZURE_URL='az://walback?account=devstoreaccount1&endpoint=http://127.0.0.1:10000/devstoreaccount1'`.
 */
import { randomBytes } from 'node:crypto'
import { ContainerClient, StorageSharedKeyCredential } from '@azure/storage-blob'
import { beforeAll, describe, expect, test } from 'vitest'
import { AzureStorage } from '../../src/storage/azure.ts'
import { parseAzureUrl } from '../../src/storage/azure-url.ts'
import { readAll } from '../../src/storage/storage.ts'
import { listed, storageContract } from './contract.ts'

const given = process.env['WALBACK_AZURE_URL'] ?? ''

describe.skipIf(given === '')("Azure's Blob Storage (skipped unless WALBACK_AZURE_URL is set)", () => {
  const partBytes = (): number => 1 << 20
  const fresh = (): AzureStorage => {
    const at = new URL(given)
    at.pathname = `${at.pathname}/${randomBytes(6).toString('hex')}`
    return new AzureStorage(parseAzureUrl(at.href, process.env), { partBytes })
  }

  beforeAll(async () => {
    const { login, container } = parseAzureUrl(given, process.env)
    if (login.kind !== 'key') return
    const credential = new StorageSharedKeyCredential(login.account, login.key)
    await new ContainerClient(`${login.endpoint}/${container}`, credential).createIfNotExists()
  })

  storageContract('Azure', async () => {
    const storage = fresh()
    return {
      storage,
      another: () => new AzureStorage(parseAzureUrl(storage.url, process.env), { partBytes }),
      [Symbol.asyncDispose]: async () => {
        for (const { key } of await listed(storage, '')) await storage.delete(key)
      },
    }
  })

  test('says that a container is not there, and an object in it', async () => {
    const nowhere = new AzureStorage(
      parseAzureUrl(given.replace(/az:\/\/[^/?]+/, 'az://no-such-container'), process.env),
    )
    const expected = { code: 'storage', facts: { absent: false }, hint: expect.stringContaining('makes no containers') }
    await expect(nowhere.size('key')).rejects.toMatchObject(expected)
    await expect(readAll(nowhere.get('key'))).rejects.toMatchObject(expected)
    await expect(readAll(fresh().get('key'))).rejects.toMatchObject({ facts: { absent: true } })
  })
})

describe('an Azure repository URL', () => {
  const env = { AZURE_STORAGE_KEY: 'key' }

  test('names container, prefix, account and endpoint', () => {
    expect(parseAzureUrl('az://backups/app/one?account=acme', env)).toEqual({
      container: 'backups',
      prefix: 'app/one/',
      login: { kind: 'key', endpoint: 'https://acme.blob.core.windows.net', account: 'acme', key: 'key' },
      url: 'az://backups/app/one?account=acme',
    })
  })

  test.each(['az://backups/app', 'az://UP/x?account=a', 'az://key:secret@backups?account=a', 'az://backups?acount=a'])(
    '%s is refused, without its secrets',
    (url) => {
      expect(() => parseAzureUrl(url, env)).toThrow(expect.objectContaining({ code: 'usage' }))
      expect(() => parseAzureUrl(url, env)).not.toThrow(/secret/)
    },
  )
})
