import { Option } from 'commander'
import {
  askServerHistory,
  connect,
  describeConninfo,
  openStorage,
  planSetup,
  Repository,
  type SetupPlan,
  type Storage,
  setUp,
  WalbackError,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { plural } from '../format.ts'
import { parseList } from '../options.ts'
import { type ConfigWriting, writeConfig } from '../write-config.ts'
import { createEncrypted, type EncryptionOptions, encryptionForConfig } from './init-encryption.ts'

interface Options extends EncryptionOptions {
  readonly replicaIdentity: 'full' | 'skip'
  readonly printSql?: boolean
  readonly noConfig?: boolean
  readonly successor?: boolean
}

export const addInit: AddCommand = (program, bind) => {
  program
    .command('init')
    .description('set a source up: replica identities, publication, replication slot, repository')
    .addOption(
      new Option(
        '--replica-identity <choice>',
        'for tables without a key: give them FULL, or skip their updates and deletes',
      )
        .choices(['full', 'skip'])
        .default('full'),
    )
    .option('--encrypt', 'make the repository encrypted, for --key-file (made if it is not there) or a passphrase')
    .option('--recipient <age1…>', 'with --encrypt: who else can read it; several with commas', parseList)
    .option('--write-only', 'with --encrypt: the key given here may write and not read; a --recipient can')
    .option('--print-sql', 'print the SQL for somebody else to run, and change nothing')
    .option('--no-config', 'write no walback.yaml')
    .option('--successor', 'this database has taken the place of the one that was captured: begin a new timeline')
    .action(bind<Options>(init))
}

async function init(context: Context, options: Options): Promise<undefined> {
  const { out, signal } = context
  await context.load({ mayBeNew: true })
  const conninfo = await context.requireConninfo()
  const settings = await context.settings()
  const source = settings.source ?? settings.suggested ?? 'source'
  const setup = {
    source,
    replicaIdentity: options.replicaIdentity,
    isSuccessor: options.successor === true,
    onStep: (step: string) => out.say(`  making  ${step}`),
  }
  const url = options.printSql ? undefined : await context.requireRepositoryUrl()
  const storage = url === undefined ? undefined : openStorage(url, context.world.env)
  // Looks before the database is asked, so that a store that cannot be is said before anything is made.
  if (!options.encrypt && (options.recipient || options.writeOnly))
    throw new WalbackError('usage', '--recipient and --write-only belong to --encrypt', { hint: 'give --encrypt too' })
  const found = storage && (await lookFor(context, storage, options))
  const client = await connect(conninfo, { application: 'walback init', signal })
  try {
    const repositoryId = found?.id
    const plan = await planSetup(client, {
      ...setup,
      mustBeReady: storage !== undefined,
      ...(repositoryId === undefined ? {} : { repositoryId }),
    })
    if (storage === undefined) {
      printSql(context, source, plan)
      return
    }
    out.say(`source ${source}: ${describeConninfo(conninfo)} to ${storage.url}`)
    const repository = found ?? (await create(context, storage, options))
    const server = await askServerHistory(conninfo, signal)
    const { timeline, done } = await setUp(client, repository, { ...setup, server })
    const made = found === undefined ? ['repository', ...done] : done
    const encryption = await encryptionForConfig(context, repository)
    const content = { source, url: settings.url, repositoryUrl: storage.url, encryption }
    const config = await configure(context, content, options)
    out.say(
      made.length === 0
        ? `${source} is already set up (timeline ${timeline.id}, slot ${timeline.slot})`
        : `set up: ${made.join(', ')}`,
    )
    sayConfig(context, config)
    if (made.length > 0) sayNext(context, config)
    out.document({
      source,
      repository: storage.url,
      encryption: repository.key === undefined ? null : { fingerprint: repository.key.fingerprint },
      database: describeConninfo(conninfo),
      timeline: timeline.id,
      slot: timeline.slot,
      publications: timeline.publications,
      done: made,
      already: made.length === 0,
      config: config === undefined || config.kind === 'different' ? null : config.file,
    })
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** A repository that is there; what is said of its encryption must be so. */
async function lookFor(context: Context, storage: Storage, options: Options): Promise<Repository | undefined> {
  if (!(await Repository.exists(storage))) return undefined
  const found = await Repository.find(storage, await context.access(storage))
  if (!options.encrypt || found?.key !== undefined) return found
  throw new WalbackError('refused', `the repository at ${storage.url} is there, and is not encrypted`, {
    hint: 'encryption is chosen when a repository is made: give --repo another place',
  })
}

async function create(context: Context, storage: Storage, options: Options): Promise<Repository> {
  if (options.encrypt) return createEncrypted(context, storage, options)
  return Repository.create(storage, await context.access(storage))
}

function printSql({ out }: Context, source: string, plan: SetupPlan): void {
  if (plan.steps.length === 0) out.say(`nothing is missing for source ${source}: the database needs no SQL`)
  const steps = plan.steps.map(({ title, sql }) => `-- ${title}\n${sql.trim().replace(/;?$/, ';')}\n`)
  const head = `-- walback init: what source ${source} needs, in this order. Each statement is a transaction of its own;\n-- the replication slot keeps log on the server from here on, so make it last and start the agent soon.\n`
  if (steps.length > 0) out.data(`${head}\n${steps.join('\n')}`)
  out.document({ source, slot: plan.slot, publications: plan.publications, steps: plan.steps })
}

async function configure(
  context: Context,
  content: Parameters<typeof writeConfig>[1],
  options: Options,
): Promise<ConfigWriting | undefined> {
  if (options.noConfig) return undefined
  const { env } = context.world
  const { config } = await context.load()
  const file = context.path(config?.file ?? context.flags.config ?? (env['WALBACK_CONFIG'] || 'walback.yaml'))
  try {
    return await writeConfig(file, content, env)
  } catch (error) {
    if (!(error instanceof WalbackError)) throw error
    // The source is set up; a configuration is a convenience.
    context.out.warn(`no configuration was written: ${error.message}`)
    return undefined
  }
}

function sayConfig({ out }: Context, config: ConfigWriting | undefined): void {
  if (config?.kind === 'written') out.say(`wrote ${config.file}`)
  if (config?.kind !== 'different') return
  const lines = plural(config.add.trimEnd().split('\n').length, 'line')
  out.say(
    `${config.file} is there and was left as it is; to use it for this source, bring these ${lines} into it:\n${config.add.replace(/^/gm, '  ').trimEnd()}`,
  )
}

function sayNext(context: Context, config: ConfigWriting | undefined): void {
  const flags = config?.kind === 'written' && context.flags.config === undefined ? '' : ' with the same flags'
  context.out.say(
    `next${flags}:\n  walback backup --full   take the first base backup: nothing can be restored before it\n  walback agent           keep capturing (or run \`walback backup --incremental\` from cron)`,
  )
}
