import { Option } from 'commander'
import pino from 'pino'
import { assertionsOf, type UnseenChangePolicy, unseenChangePolicies } from '../../src/config.ts'
import {
  formatTime,
  isEmptyPolicy,
  nowMicros,
  type OpeningPlace,
  openStorage,
  type RetentionPolicy,
  type RetentionSettings,
  WalbackError,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { openOthers } from '../copies.ts'

export const addAgent: AddCommand = (program, bind) => {
  program
    .command('agent')
    .description('capture continuously, in the foreground; SIGTERM stores what has been received and ends')
    .addOption(
      new Option(
        '--on-unseen-change <choice>',
        'when the schema was changed and the stream does not tell how: take a base, or only say so (default: backup)',
      ).choices(unseenChangePolicies),
    )
    .action(bind<Options>(agent))
}

interface Options {
  readonly onUnseenChange?: UnseenChangePolicy
}

async function agent(context: Context, options: Options): Promise<undefined> {
  const conninfo = await context.requireConninfo()
  const { config, settings } = await context.load()
  const { stream, backup, onUnseenChange, guard, retention, verify, rehearsal, copyEvery_ms } = settings
  const others = await openOthers(context)
  const [{ runAgent }, { outlastStore }] = await Promise.all([
    import('../../agent/agent.ts'),
    import('../../agent/outlast.ts'),
  ])
  const [log, { signal }] = [logger(context), context]
  const { repository, source } = await outlastStore(() => context.openSource(), { log, signal })
  await runAgent({
    conninfo,
    repository,
    source,
    stream,
    backup,
    guard,
    prune: pruningBy(retention),
    required: others.required,
    copies: { targets: others.all, every_ms: copyEvery_ms },
    verify,
    rehearsal,
    assertions: assertionsOf(config, source),
    compact: settings.compaction && { settings: settings.compaction, place: await placeOf(context) },
    onUnseenChange: options.onUnseenChange ?? onUnseenChange,
    log,
    signal,
  })
}

/** Where a process of the agent's finds the repository, and what opens it. */
async function placeOf(context: Context): Promise<OpeningPlace> {
  const [url, { env }] = [await context.requireRepositoryUrl(), context.world]
  return { url, env, access: await context.access(openStorage(url, env)) }
}

/** With `mode: external` a rule of the store removes, and not the agent. */
function pruningBy({
  policy,
  mode,
  pruneEvery_ms,
}: RetentionSettings): { policy: RetentionPolicy; every_ms: number } | undefined {
  if (pruneEvery_ms === undefined || mode === 'external') return undefined
  if (!isEmptyPolicy(policy)) return { policy, every_ms: pruneEvery_ms }
  throw new WalbackError('usage', 'retention.prune_every is set, and nothing says what is to be kept', {
    hint: 'add window, last, within, daily, weekly, monthly or yearly to retention',
  })
}

/** The agent's log is what it has to say, so it goes to stdout: JSON lines, or words on a terminal. */
function logger({ out, world }: Context): pino.Logger {
  const options: pino.LoggerOptions = {
    level: out.verbose ? 'debug' : out.quiet ? 'warn' : 'info',
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
  }
  if (!world.stdout.isTTY || out.json) return pino(options, world.stdout)
  return pino(options, { write: (line) => void world.stdout.write(inWords(line)) })
}

function inWords(line: string): string {
  const {
    level,
    time: _,
    msg,
    err,
    ...facts
  } = JSON.parse(line) as { level: number; time: string; msg?: string; err?: { message?: string } }
  const name = pino.levels.labels[level] ?? String(level)
  const rest = Object.entries(facts)
    .map(([key, value]) => ` ${key}=${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join('')
  return `${formatTime(nowMicros()).slice(0, 23)}Z ${name.padEnd(5)} ${msg ?? ''}${err?.message === undefined ? '' : `: ${err.message}`}${rest}\n`
}
