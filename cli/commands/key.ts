import {
  type Access,
  addRecipient,
  dropRecipient,
  fingerprintOf,
  type ListedKey,
  listKey,
  makeRecipient,
  type NewRecipient,
  type Repository,
  type RepositoryKey,
  readKeyFile,
  readPassphraseFile,
  rotateKey,
  WalbackError,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { plural, printable, table } from '../format.ts'
import { asNewRecipient, makeKeyFile } from './init-encryption.ts'

export const addKey: AddCommand = (program, bind) => {
  const key = program.command('key').description('who can open an encrypted repository')
  key.command('list').description('the generations of the key, and for whom it is wrapped').action(bind(list))
  key
    .command('add')
    .description('let somebody else open the repository; no data is read or written')
    .argument('<name>', 'what to call the recipient')
    .option('--recipient <age1…>', 'a recipient of age')
    .option('--new-key-file <file>', 'a key file, made if it is not there')
    .option('--new-passphrase-file <file>', 'a file whose first line is a passphrase (or WALBACK_NEW_PASSPHRASE)')
    .option('--write-only', 'it may write, and read names and counts, but no row')
    .action(bind<AddOptions>(add))
  key
    .command('remove')
    .description('take a recipient away; then rotate, since it may have kept the key')
    .argument('<name>', 'as `walback key list` shows it')
    .action(bind(remove))
  key
    .command('rotate')
    .description('a new key for what is written from now on; what is stored stays as it is')
    .action(bind(rotate))
}

interface AddOptions {
  readonly recipient?: string
  readonly newKeyFile?: string
  readonly newPassphraseFile?: string
  readonly writeOnly?: boolean
}

async function openKey(context: Context): Promise<{ readonly repository: Repository; readonly key: RepositoryKey }> {
  const repository = await context.openRepository()
  if (repository.key !== undefined) return { repository, key: repository.key }
  throw new WalbackError('refused', `the repository at ${repository.storage.url} is not encrypted`, {
    hint: 'encryption is chosen when a repository is made: walback init --encrypt --repo another place',
  })
}

async function list(context: Context): Promise<undefined> {
  const { repository, key } = await openKey(context)
  const listed = await listKey(repository.clear, key)
  context.out.data(inWords(listed))
  context.out.document({
    repository: repository.storage.url,
    generations: listed.generations,
    recipients: listed.recipients.map(({ isGenuine, ...one }) => ({ ...one, genuine: isGenuine })),
  })
}

function inWords({ generations, recipients }: ListedKey): string {
  const all = generations.length
  const ages = generations.map(({ generation, created, fingerprint }) => [String(generation), created, fingerprint])
  const lines = recipients.map((one) => [
    one.name,
    one.kind,
    one.access === 'full' ? 'reads and writes' : 'writes only',
    one.generations.length === all ? 'all' : one.generations.join(', '),
    one.created,
    `${one.recipient.slice(0, 20)}…${one.isGenuine ? '' : '  NOT GENUINE: put there without the key'}`,
  ])
  const head = ['RECIPIENT', 'KIND', 'MAY', 'GENERATIONS', 'ADDED', 'AGE RECIPIENT']
  return `${table([['GENERATION', 'MADE', 'FINGERPRINT'], ...ages])}\n\n${table([head, ...lines])}`
}

async function add(context: Context, options: AddOptions, [name = '']: readonly string[]): Promise<undefined> {
  const { repository, key } = await openKey(context)
  const access = options.writeOnly ? 'write' : 'full'
  const recipient = await makeRecipient(await newcomer(context, options), name, access)
  await addRecipient(repository.clear, key, recipient)
  context.out.say(`${printable(name)} can ${access === 'full' ? 'read and write' : 'write'} the repository now`)
  context.out.document({ repository: repository.storage.url, added: name, access, recipient: recipient.recipient })
}

async function newcomer(context: Context, options: AddOptions): Promise<NewRecipient> {
  const { recipient, newKeyFile, newPassphraseFile } = options
  const passphrase = context.world.env['WALBACK_NEW_PASSPHRASE'] || undefined
  const given = [recipient, newKeyFile, newPassphraseFile, passphrase].filter((one) => one !== undefined)
  if (given.length !== 1) {
    throw new WalbackError('usage', given.length === 0 ? 'whom to add?' : 'one recipient is added at a time', {
      hint: 'give one of --recipient age1…, --new-key-file FILE, --new-passphrase-file FILE, WALBACK_NEW_PASSPHRASE',
    })
  }
  if (recipient !== undefined) return { kind: 'age', recipient }
  if (newKeyFile !== undefined) {
    await makeKeyFile(context, context.path(newKeyFile))
    return asNewRecipient(await readKeyFile(context.path(newKeyFile)))
  }
  const text = passphrase ?? (await readPassphraseFile(context.path(newPassphraseFile ?? '')))
  return { kind: 'passphrase', passphrase: text }
}

async function remove(context: Context, _: unknown, [name = '']: readonly string[]): Promise<undefined> {
  const { repository, key } = await openKey(context)
  await context.confirm(`Remove the recipient ${printable(name)}?`)
  await dropRecipient(repository.clear, key, name)
  context.out.say(`${printable(name)} was removed; it may have kept the key, so rotate: walback key rotate`)
  context.out.document({ repository: repository.storage.url, removed: name })
}

async function rotate(context: Context): Promise<undefined> {
  const { repository, key } = await openKey(context)
  const record = await rotateKey(repository.clear, key)
  const fingerprint = fingerprintOf(record)
  context.out.say(
    `generation ${record.generation}, ${fingerprint}: for ${plural(key.records.length, 'older generation')} the repository stays as it is`,
  )
  context.out.say(
    'agents that are running follow within a minute; those whose key only writes go on with the one before: start them again',
  )
  context.out.document({ repository: repository.storage.url, generation: record.generation, fingerprint })
}

/** How a repository is encrypted, for people. */
export function encryptionInWords(key: RepositoryKey | undefined, access?: Access): string {
  if (key === undefined) return 'none: whoever can read the store can read the data'
  const may = key.mayRead ? '' : '; the key that was given may write and not read'
  const pinned = access?.fingerprint === undefined ? '' : ' (pinned)'
  return `AES-256-GCM, key ${key.fingerprint}${pinned}, generation ${key.newest.number}${may}`
}

export const encryptionJson = (key: RepositoryKey | undefined): Record<string, unknown> | null =>
  key === undefined ? null : { fingerprint: key.fingerprint, generation: key.newest.number, access: key.accessKind }
