import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import {
  type Access,
  type Credential,
  codeOf,
  type EncryptionSettings,
  makeRecipient,
  messageOf,
  type NewRecipient,
  type Recipient,
  Repository,
  recipientOfIdentity,
  type Storage,
  WalbackError,
  withFilesFrom,
} from '../../src/index.ts'
import type { Context } from '../context.ts'

export interface EncryptionOptions {
  readonly encrypt?: boolean
  readonly recipient?: readonly string[]
  readonly writeOnly?: boolean
}

/** Makes an encrypted repository, for the key that was given and for others; opens it with the former. */
export async function createEncrypted(
  context: Context,
  storage: Storage,
  options: EncryptionOptions,
): Promise<Repository> {
  const { key_file } = (await context.settings()).encryption
  const others = options.recipient ?? []
  if (options.writeOnly && others.length === 0) {
    throw new WalbackError('usage', '--write-only leaves nobody who could read the repository', {
      hint: 'give --recipient age1… for who restores',
    })
  }
  if (key_file !== undefined) await makeKeyFile(context, context.path(key_file))
  const access = await context.access(storage)
  const own = await ownRecipient(access, options.writeOnly ? 'write' : 'full')
  const recipients: Recipient[] = [own]
  for (const [n, recipient] of others.entries())
    recipients.push(await makeRecipient({ kind: 'age', recipient }, `recipient-${n + 1}`, 'full'))
  await Repository.createEncrypted(storage, recipients)
  const repository = await Repository.open(storage, access)
  const names = recipients.map(({ name, access: kind }) => (kind === 'full' ? name : `${name} (writes only)`))
  context.out.say(`encrypted for ${names.join(', ')}; key ${repository.key?.fingerprint}`)
  context.out.say(
    'keep copies of what opens it in other places: without any, nothing in the repository can be restored',
  )
  return repository
}

async function ownRecipient(access: Access | undefined, kind: 'full' | 'write'): Promise<Recipient> {
  const credential = access?.credential
  if (credential === undefined) {
    throw new WalbackError('usage', 'encrypt with what?', {
      hint: 'give --key-file FILE, which is made if it is not there, or WALBACK_PASSPHRASE or WALBACK_PASSPHRASE_FILE',
    })
  }
  return makeRecipient(await asNewRecipient(credential), ownNames[credential.kind], kind)
}

const ownNames: Readonly<Record<Credential['kind'], string>> = {
  passphrase: 'passphrase',
  file: 'key-file',
  age: 'age',
  secrets: 'secrets',
}

/** What of a credential a repository can be wrapped for. */
export async function asNewRecipient(credential: Credential): Promise<NewRecipient> {
  switch (credential.kind) {
    case 'passphrase':
    case 'file':
      return credential
    case 'age': {
      const [identity = ''] = credential.identities
      return { kind: 'age', recipient: await recipientOfIdentity(identity) }
    }
    case 'secrets':
      throw new WalbackError('usage', 'the key file holds the key of a repository, and no key of its own', {
        hint: 'give another file: it is made if it is not there',
      })
  }
}

/** Makes a key file, readable by its owner only; one that is there is used as it is. */
export async function makeKeyFile({ out }: Context, file: string): Promise<void> {
  try {
    await writeFile(file, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600, flag: 'wx' })
    out.say(`made the key file ${file}`)
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return
    throw new WalbackError('usage', `cannot make the key file ${file}: ${messageOf(error)}`, { cause: error })
  }
}

/** What a configuration says of the repository's key; a passphrase stays where it was given. */
export async function encryptionForConfig(
  context: Context,
  repository: Repository,
): Promise<EncryptionSettings | undefined> {
  if (repository.key === undefined) return undefined
  const { passphrase: _, ...files } = (await context.settings()).encryption
  return { ...withFilesFrom(context.path('.'), files), fingerprint: repository.key.fingerprint }
}
