import {
  connect,
  emit,
  formatLsn,
  formatTime,
  micros,
  readSlot,
  readTimelines,
  requireTimeline,
  scanSegments,
  WalbackError,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'

export const addMark: AddCommand = (program, bind) => {
  program
    .command('mark')
    .description('name the present, to restore to it later with --to-mark')
    .argument('<name>', 'such as before-migration-42')
    .action(bind(mark))
}

async function mark(context: Context, _: unknown, [word]: readonly string[]): Promise<undefined> {
  const { out, signal } = context
  const name = checkName(word ?? '')
  const conninfo = await context.requireConninfo()
  const { repository, source } = await context.openSource()
  const timeline = await requireTimeline(repository, source)
  for (const known of await readTimelines(repository, source, signal)) {
    for await (const { trailer } of scanSegments(repository, known, { signal })) {
      const taken = trailer.transactions.find((entry) => entry.marks?.includes(name))
      if (taken) {
        throw new WalbackError(
          'refused',
          `there is a mark ${JSON.stringify(name)} already, at ${taken.end} (${formatTime(micros(BigInt(taken.time)))})`,
          {
            hint: 'choose another name: marks are never moved',
            facts: { lsn: taken.end },
          },
        )
      }
    }
  }
  const client = await connect(conninfo, { application: 'walback mark', signal })
  try {
    const slot = await readSlot(client, timeline.slot)
    if (slot === undefined) {
      throw new WalbackError(
        'gap',
        `the replication slot ${timeline.slot} is gone, so the mark would not be captured`,
        { hint: 'run `walback init`, then `walback backup --full`' },
      )
    }
    const lsn = await emit(client, { v: 1, kind: 'mark', name })
    const { rows } = await client.query<{ time: string }>(
      'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text AS time',
    )
    const time = micros(BigInt(rows[0]?.time ?? 0))
    out.data(`mark ${name} at ${formatLsn(lsn)} (${formatTime(time)})`)
    if (!slot.active)
      out.say(
        'no agent is capturing: the mark can be restored to once `walback agent` or `walback backup --incremental` has run',
      )
    out.document({ source, name, lsn: formatLsn(lsn), time: formatTime(time), captured_by_agent: slot.active })
  } finally {
    await client.end().catch(() => undefined)
  }
}

function checkName(name: string): string {
  if (/^[^-\s\p{Cc}]\P{Cc}{0,199}$/u.test(name)) return name
  throw new WalbackError('usage', `not a name for a mark: ${JSON.stringify(name)}`, {
    hint: 'use 1 to 200 printable characters that begin with neither a space nor a dash',
  })
}
