import { once } from 'node:events'
import path from 'node:path'
import { formatLsn, version } from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { type Findings, runDemo, type Show } from '../demo/demo.ts'
import { inShell, ownWords } from '../demo/own-command.ts'
import { duration, shellWord } from '../format.ts'

interface Options {
  readonly keep?: boolean
}

export const addDemo: AddCommand = (program, bind) => {
  program
    .command('demo')
    .description('see it work: a server of its own, a shop, a DELETE without WHERE, and the shop as it was before')
    .option('--keep', 'leave server and repository running until Ctrl-C, to look around')
    .action(bind<Options>(demo))
}

async function demo(context: Context, { keep = false }: Options): Promise<undefined> {
  const { out, signal, world } = context
  const started = performance.now()
  let duration_ms = 0
  await runDemo({
    env: world.env,
    signal,
    show: shown(context),
    whileUp: async (findings, up) => {
      duration_ms = Math.round(performance.now() - started)
      out.document(inJson(findings, duration_ms, keep))
      if (keep) await stay(context, findings, up)
    },
  })
  out.data(
    `\nThat took ${duration(duration_ms)}. Server, databases and repository are removed${keep ? '' : '; `--keep` leaves them for you to look around'}.`,
  )
  return undefined
}

/** The page: numbered headings, and under them what happens, as it happens. */
function shown({ out }: Context): Show {
  let number = 0
  return {
    heading: (text) => {
      if (text !== '') out.data(`${number === 0 ? '' : '\n'}${out.paintData(`${++number}. ${text}`, 'bold')}`)
    },
    text: (text) => out.data(text.trimEnd().replace(/^(?=.)/gm, '   ')),
  }
}

/** Until the user has seen enough: that is how this ends well, and no interruption. */
async function stay({ out }: Context, findings: Findings, signal: AbortSignal): Promise<void> {
  const config = path.join(findings.folder, 'walback.yaml')
  const alias = `alias walback=${shellWord(inShell([...ownWords(), '-c', config]))}`
  out.data(`
Everything but the traffic is still running, and the agent captures what you do. In another terminal:
   ${alias}
   psql '${findings.liveUrl}'
   psql '${findings.restoredUrl}'
   walback log
   walback status
The repository is ${path.join(findings.folder, 'backups')}, the agent's log ${path.join(findings.folder, 'agent.log')}.
Ctrl-C here ends it and removes everything.`)
  const pulse = setInterval(() => undefined, 60_000)
  if (!signal.aborted) await once(signal, 'abort')
  clearInterval(pulse)
}

function inJson(findings: Findings, duration_ms: number, keep: boolean): Record<string, unknown> {
  const { accident, comparison, aftermath, folder } = findings
  return {
    versions: { walback: version, postgres: findings.postgres, node: process.versions.node },
    duration_ms,
    steps: findings.steps,
    commands: findings.commands,
    transactions: findings.transactions,
    delete: { xid: accident.xid, lsn: formatLsn(findings.lsn), table: 'order_items', rows: accident.rows },
    tables: comparison.tables.map(({ table, before, restored, equal }) => ({
      table,
      rows: before.rows,
      md5: before.md5,
      restored_rows: restored.rows,
      restored_md5: restored.md5,
      equal,
    })),
    definitions: comparison.definitions,
    equal: comparison.equal,
    orders_after_delete: {
      confirmed: aftermath.confirmed,
      in_live: aftermath.in_live,
      in_restored: aftermath.in_restored,
    },
    kept: keep
      ? {
          live: findings.liveUrl,
          restored: findings.restoredUrl,
          repository: path.join(folder, 'backups'),
          config: path.join(folder, 'walback.yaml'),
        }
      : null,
  }
}
