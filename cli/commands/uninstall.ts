import { connect, describeConninfo, hasNothing, namesOf, planTeardown, tearDown } from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'

export const addUninstall: AddCommand = (program, bind) => {
  program
    .command('uninstall')
    .description('remove from the database what init made; the repository stays')
    .action(bind(uninstall))
}

async function uninstall(context: Context): Promise<undefined> {
  const { out, signal } = context
  const conninfo = await context.requireConninfo()
  const settings = await context.settings()
  // The archive knows which name this database has; without one, uninstall must work too.
  const named =
    settings.source ?? (settings.repositoryUrl === undefined ? undefined : (await context.openSource()).source)
  const source = named ?? settings.suggested ?? 'source'
  const client = await connect(conninfo, { application: 'walback uninstall', signal })
  try {
    const plan = await planTeardown(client, source)
    const removed = hasNothing(plan) ? [] : namesOf(plan)
    if (removed.length === 0) {
      out.say(`nothing of walback's source ${source} is in ${describeConninfo(conninfo)}`)
    } else {
      out.say(`from ${describeConninfo(conninfo)}:`)
      for (const name of removed) out.say(`  remove  ${name}`)
      if (plan.others.length > 0)
        out.say(
          `  keep    event trigger and schema walback, which other sources of this database need (${plan.others.join(', ')})`,
        )
      await context.confirm('Remove it? Changes from now on will not be captured')
      await tearDown(client, source, plan)
      out.say('removed; no slot, publication, event trigger or schema of this source is left')
    }
    if (plan.fullTables.length > 0) {
      out.say(
        `these tables have no key and keep REPLICA IDENTITY FULL, which is harmless (ALTER TABLE … REPLICA IDENTITY DEFAULT undoes it):\n  ${plan.fullTables.join(', ')}`,
      )
    }
    if (settings.repositoryUrl !== undefined)
      out.say(`the repository ${settings.repositoryUrl} was not touched: what it holds stays restorable`)
    out.document({
      source,
      database: describeConninfo(conninfo),
      removed,
      kept_for: plan.others,
      replica_identity_full: plan.fullTables,
      repository: settings.repositoryUrl ?? null,
    })
  } finally {
    await client.end().catch(() => undefined)
  }
}
