import { Command, CommanderError } from 'commander'
import { version, WalbackError } from '../src/index.ts'
import type { Bind } from './command.ts'
import { commands } from './commands/all.ts'
import { type CommonFlags, Context, type World } from './context.ts'
import { report, usageError } from './errors.ts'
import { Output } from './output.ts'

/** Runs one command line; gives its exit status and never throws. */
export async function run(argv: readonly string[], world: World): Promise<number> {
  let output = outputFor(world, {
    json: argv.includes('--json'),
    verbose: argv.includes('-v') || argv.includes('--verbose'),
    color: !argv.includes('--no-color'),
  })
  let name = ''
  let exit = 0
  const bind: Bind =
    (work) =>
    async (...all) => {
      const command = all.at(-1) as Command
      const given = command.optsWithGlobals()
      // `--no-config` of a command and `--config FILE` of all share a name in commander.
      const flags = {
        ...given,
        config: program.opts<CommonFlags>().config,
        noConfig: command.opts()['config'] === false,
      } as CommonFlags
      name = command.name()
      output = outputFor(world, flags)
      exit = (await work(new Context(flags, world, output), flags as Parameters<typeof work>[1], command.args)) ?? 0
    }
  const program = programFor(world, bind)
  program.hook('preSubcommand', (_, command) => {
    name = command.name()
  })
  try {
    if (argv.length === 0) {
      world.stderr.write(program.helpInformation())
      return 2
    }
    await program.parseAsync([...argv], { from: 'user' })
    return exit
  } catch (error) {
    if (!(error instanceof CommanderError)) return report(interruption(error, world.signal), output)
    const complaint = usageError(error, name)
    return complaint === undefined ? 0 : report(complaint, output)
  }
}

/** What fails because it was interrupted was interrupted, whatever it says. */
function interruption(error: unknown, signal: AbortSignal): unknown {
  if (!signal.aborted || (error instanceof WalbackError && error.code === 'interrupted')) return error
  return new WalbackError('interrupted', 'interrupted', { cause: error })
}

function programFor(world: World, bind: Bind): Command {
  const program = new Command('walback')
    .description('Continuous backup and point-in-time recovery for PostgreSQL by logical replication')
    .version(version, '--version', 'show the version')
    .helpOption('-h, --help', 'show help')
    .helpCommand('help [command]', 'show help')
    .showSuggestionAfterError()
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => world.stdout.write(text),
      // Complaints are reported by us.
      writeErr: () => undefined,
    })
    .exitOverride()
    .option(
      '-c, --config <file>',
      'configuration file (default: walback.yaml here, in ~/.config/walback, in /etc/walback)',
    )
    .option('--source <name>', 'the source, where there are several')
    .option('--db <url>', 'the database: a libpq URI or key=value string (WALBACK_DB, PG*)')
    .option('--repo <url>', 'the repository: file:///path or a path (WALBACK_REPO)')
    .option('--key-file <file>', 'what opens an encrypted repository (WALBACK_KEY_FILE; or WALBACK_PASSPHRASE)')
    .option('--json', 'one JSON document on stdout')
    .option('-q, --quiet', 'data and errors only')
    .option('-v, --verbose', 'more words, and the stack of an error')
    .option('-y, --yes', 'do not ask')
    .option('--no-input', 'ask nothing, also on a terminal: what would be asked fails')
    .option('--no-color', 'no colour (also NO_COLOR)')
    .option('--tz <zone>', 'zone of times that name none, such as Europe/Berlin')
  for (const add of commands) add(program, bind)
  return program
}

function outputFor(world: World, flags: CommonFlags): Output {
  const { env, stdout, stderr } = world
  const colour = flags.color !== false && !env['NO_COLOR'] && env['TERM'] !== 'dumb'
  return new Output({
    stdout,
    stderr,
    json: flags.json === true,
    quiet: flags.quiet === true,
    verbose: flags.verbose === true,
    colour,
  })
}
