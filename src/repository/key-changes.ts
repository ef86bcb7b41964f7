import { WalbackError } from '../base/errors.ts'
import type { Storage } from '../storage/storage.ts'
import { fingerprintOf, type KeyRecord } from './key-record.ts'
import {
  isGenuine,
  type Recipient,
  type RecipientEntry,
  readRecipients,
  removeRecipient,
  writeRecipient,
} from './recipients.ts'
import { makeGeneration, type RepositoryKey, removeLeftovers, writeLater } from './repository-key.ts'

/** A recipient, and the generations that are wrapped for it. */
export interface ListedRecipient {
  readonly name: string
  readonly kind: RecipientEntry['kind']
  readonly access: RecipientEntry['access']
  readonly recipient: string
  readonly created: string
  readonly generations: readonly number[]
  /** False for one that somebody has put there who does not have the key. */
  readonly isGenuine: boolean
}

export interface ListedKey {
  readonly generations: readonly {
    readonly generation: number
    readonly created: string
    readonly fingerprint: string
  }[]
  readonly recipients: readonly ListedRecipient[]
}

export async function listKey(storage: Storage, key: RepositoryKey): Promise<ListedKey> {
  const recipients = new Map<string, ListedRecipient>()
  for (const { record, secrets } of key.fullSecrets()) {
    for (const entry of await readRecipients(storage, record)) {
      const { name, kind, access, recipient, created } = entry
      const known = recipients.get(name)
      recipients.set(name, {
        ...(known ?? { name, kind, access, recipient, created }),
        generations: [...(known?.generations ?? []), record.generation],
        isGenuine: isGenuine(entry, secrets.full) && known?.isGenuine !== false,
      })
    }
  }
  const generations = key.records.map((record) => ({
    generation: record.generation,
    created: record.created,
    fingerprint: fingerprintOf(record),
  }))
  return { generations, recipients: [...recipients.values()] }
}

/** Wraps every generation for one more recipient. No data is read or written. */
export async function addRecipient(storage: Storage, key: RepositoryKey, recipient: Recipient): Promise<void> {
  const all = key.fullSecrets()
  for (const { record } of all) {
    if (!(await readRecipients(storage, record)).some(({ name }) => name === recipient.name)) continue
    throw new WalbackError('refused', `the repository has a recipient ${recipient.name}`, {
      hint: `give another name, or remove that one first: walback key remove ${recipient.name}`,
    })
  }
  for (const { record, secrets } of all) await writeRecipient(storage, record, secrets, recipient)
}

/** Takes a recipient's copies of the key away, except from who has copied them; the newest generation's go first. */
export async function dropRecipient(storage: Storage, key: RepositoryKey, name: string): Promise<void> {
  const { recipients } = await listKey(storage, key)
  const meant = recipients.find((one) => one.name === name)
  if (meant === undefined) {
    throw new WalbackError('usage', `the repository has no recipient ${name}`, {
      hint: `it has ${recipients.map((one) => one.name).join(', ')}`,
    })
  }
  const newest = key.records.at(-1)?.generation ?? 0
  const canRead = (one: ListedRecipient): boolean =>
    one.access === 'full' && one.isGenuine && one.generations.includes(newest)
  if (!recipients.some((one) => one !== meant && canRead(one))) {
    throw new WalbackError('refused', `${name} is the last recipient that can read the repository`, {
      hint: 'add another first: `walback key add`; without one, everything in the repository is lost',
    })
  }
  for (const record of key.records.toReversed()) {
    const entry = (await readRecipients(storage, record)).find((one) => one.name === name)
    if (entry !== undefined) await removeRecipient(storage, record, entry)
  }
}

/** Makes a new generation for what is written from now on, for the same recipients. What is stored stays as it is. */
export async function rotateKey(storage: Storage, key: RepositoryKey): Promise<KeyRecord> {
  const newest = key.fullSecrets().at(-1)
  if (newest === undefined) throw new WalbackError('wrong_key', 'no generation of the key is open')
  const { record, secrets } = newest
  const entries = await readRecipients(storage, record)
  const strange = entries.find((entry) => !isGenuine(entry, secrets.full))
  if (strange !== undefined) {
    throw new WalbackError(
      'corrupt',
      `the recipient ${strange.name} was put there by somebody who does not have the key`,
      {
        hint: `look into who can write to the store; then walback key remove ${strange.name}, and rotate`,
      },
    )
  }
  const recipients = entries.map(
    ({ name, kind, access, recipient, scrypt }): Recipient => ({ name, kind, access, recipient, scrypt }),
  )
  const made = await makeGeneration(storage, recipients, newest)
  await writeLater(storage, made.record)
  await removeLeftovers(storage, [...key.records, made.record])
  return made.record
}
