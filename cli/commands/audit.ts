import { type AuditBreak, type AuditedAction, type AuditTrail, readAudit, WalbackError } from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { duration, plural, printable } from '../format.ts'
import { parseLimit } from '../options.ts'
import { passedOverJson, readFirst } from '../readable.ts'

interface Options {
  readonly limit: number
}

export const addAudit: AddCommand = (program, bind) => {
  program
    .command('audit')
    .description('what was done with the archive: restores, undos, prunes, by whom, and what came of them')
    .option('--limit <n>', 'so many, the newest', parseLimit, 20)
    .action(bind<Options>(audit))
}

async function audit(context: Context, { limit }: Options): Promise<undefined> {
  const { out, signal } = context
  const read = await readFirst(context, ({ repository, source }) => readAudit(repository, source, signal))
  const { repository, source, passedOver, value: trail } = read
  const shown = trail.actions.slice(0, limit)
  out.data(`${out.paintData(source, 'bold')}  ${repository.storage.url}`)
  out.data(shown.length === 0 ? 'nothing was recorded yet' : shown.map(actionInWords).join('\n'))
  if (shown.length < trail.actions.length)
    out.say(`${plural(trail.actions.length - shown.length, 'older one')} (see --limit)`)
  out.document({
    source,
    repository: repository.storage.url,
    ...passedOverJson(passedOver),
    actions: shown.map(actionJson),
    total: trail.actions.length,
    ...chainJson(trail),
  })
  if (trail.breaks.length > 0) throw broken(trail.breaks)
}

function actionInWords({ begun, ended }: AuditedAction): string {
  const { number, time, action, by, asked } = begun
  const who = `${by.user ?? 'nobody known'} on ${by.host} (process ${by.pid})${by.role === null ? '' : ` as role ${by.role}`}`
  const outcome =
    ended === undefined
      ? 'BEGUN, AND NOT ENDED: it is at work, or was killed'
      : `${ended.outcome === 'done' ? 'done' : ended.outcome.toUpperCase()} in ${duration(ended.duration_ms)}: ${ended.came}`
  return [
    `${time.slice(0, 19)}Z  #${number}  ${printable(action)}, by ${printable(who)}`,
    `  ${printable(asked)}`,
    `  ${printable(outcome)}`,
  ].join('\n')
}

const actionJson = ({ begun, ended }: AuditedAction): Record<string, unknown> => ({
  record: begun.number,
  repository: begun.repository,
  action: begun.action,
  by: begun.by,
  walback_version: begun.walbackVersion,
  began: begun.time,
  asked: begun.asked,
  asked_facts: begun.facts,
  state: ended?.outcome ?? 'begun',
  ended: ended?.time ?? null,
  duration_ms: ended?.duration_ms ?? null,
  came: ended?.came ?? null,
  came_facts: ended?.facts ?? null,
})

const chainJson = ({ breaks, heads }: AuditTrail): Record<string, unknown> => ({
  whole: breaks.length === 0,
  breaks: breaks.map(({ key, message }) => ({ key, message })),
  heads: heads.map(({ repository, number, sha256 }) => ({ repository, number, sha256 })),
})

/** Said after what could be read: it may still tell what happened. */
function broken(breaks: readonly AuditBreak[]): WalbackError {
  const [first] = breaks
  const more = breaks.length > 1 ? ` (and ${breaks.length - 1} more)` : ''
  return new WalbackError(
    'corrupt',
    `the audit record is not as it was written: ${first?.key}: ${first?.message}${more}`,
    {
      hint: 'somebody changed or removed records, or the store has lost them; restores do not need them. Compare with a copy of the repository',
      facts: { breaks: breaks.map(({ key, message }) => ({ key, message })) },
    },
  )
}
