import {
  connect,
  describeConninfo,
  exitStatus,
  type FullTable,
  hasNothing,
  namesOf,
  planTeardown,
  setIdentityDefaultSql,
  type TeardownPlan,
  tearDown,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { printable } from '../format.ts'

export const addUninstall: AddCommand = (program, bind) => {
  program
    .command('uninstall')
    .description('remove from the database what init made, and look whether anything is left; the repository stays')
    .action(bind(uninstall))
}

async function uninstall(context: Context): Promise<number> {
  const { out, signal } = context
  const conninfo = await context.requireConninfo()
  const settings = await context.settings()
  // The archive knows which name this database has; without one, uninstall must work too.
  const named =
    settings.source ?? (settings.repositories === undefined ? undefined : (await context.openSource()).source)
  const source = named ?? settings.suggested ?? 'source'
  const client = await connect(conninfo, { application: 'walback uninstall', signal })
  try {
    const plan = await planTeardown(client, source)
    if (hasNothing(plan)) out.say(`nothing of walback's source ${source} is in ${describeConninfo(conninfo)}`)
    else await remove(context, plan, () => tearDown(client, source, plan))
    tellOfIdentities(context, plan)
    tellOfStrays(context, plan)
    for (const { url } of settings.repositories ?? [])
      out.say(`the repository ${url} was not touched: what it holds stays restorable`)
    out.document({
      source,
      database: describeConninfo(conninfo),
      removed: namesOf(plan.remove),
      kept_for: plan.others,
      left: plan.strays.map(({ kind, name, sql }) => ({ kind, name, sql })),
      replica_identity_full: plan.fullTables.map((table) => ({
        table: nameOf(table),
        published_by: table.publications,
        sql: defaultSql(table),
      })),
      repository: settings.repositories?.[0]?.url ?? null,
    })
    return plan.strays.length > 0 ? exitStatus.failed : 0
  } finally {
    await client.end().catch(() => undefined)
  }
}

async function remove(context: Context, plan: TeardownPlan, carryOut: () => Promise<unknown>): Promise<void> {
  const { out } = context
  out.say(`from ${describeConninfo(await context.requireConninfo())}:`)
  for (const name of namesOf(plan.remove)) out.say(`  remove  ${printable(name)}`)
  for (const name of namesOf(plan.keep)) out.say(`  keep    ${printable(name)}`)
  if (plan.others.length > 0)
    out.say(`what is kept, other sources of this database need (${plan.others.map(printable).join(', ')})`)
  await context.confirm('Remove it? Changes from now on will not be captured')
  await carryOut()
  out.say('removed, and looked again: no slot, publication, event trigger or schema of this source is left')
}

const nameOf = ({ schema, name }: FullTable): string => `${schema}.${name}`
const defaultSql = (table: FullTable): string => `${setIdentityDefaultSql(table)};`

/** Whether `init`, a trigger or a user set it is written down nowhere, so it is left, and what undoes it is shown. */
function tellOfIdentities({ out }: Context, { fullTables }: TeardownPlan): void {
  if (fullTables.length === 0) return
  out.say(
    'these tables have no key and keep REPLICA IDENTITY FULL: harmless, and perhaps not of our making; to undo it:',
  )
  for (const table of fullTables) {
    const { publications } = table
    const but =
      publications.length === 0 ? '' : `  -- not while it is in ${publications.join(', ')}: its updates would fail`
    out.say(`  ${printable(`${defaultSql(table)}${but}`)}`)
  }
}

function tellOfStrays({ out }: Context, { strays }: TeardownPlan): void {
  if (strays.length === 0) return
  out.say('LEFT: these bear the name of walback and belong to no source that can be seen; if nobody needs them:')
  for (const { sql } of strays) out.say(`  ${printable(sql)};`)
}
