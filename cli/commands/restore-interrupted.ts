import type { Command } from 'commander'
import { z } from 'zod'
import {
  type Conninfo,
  discardRestore,
  type InterruptedRestore,
  interruptedRestores,
  pauseRestore,
  planSelected,
  type RestorePlan,
  readRequest,
  resolveConninfo,
  WalbackError,
} from '../../src/index.ts'
import type { AddCommand } from '../command.ts'
import type { Context } from '../context.ts'
import { bytes, printable, shellWord } from '../format.ts'
import { restoreIntoDatabase } from '../into-database.ts'
import { notedPlan, type PlannedFlags, planContent } from '../plan-file.ts'
import { readFirst } from '../readable.ts'
import { roleOptionsOf } from '../roles.ts'
import { selectionOf } from '../selection.ts'

/** What a restore notes for whoever goes on with it. The server is not in it, which may have a password in its URL. */
const requestShape = z.object({ base: z.string(), plan: z.unknown() })

export function requestOf(plan: RestorePlan, flags: PlannedFlags): z.infer<typeof requestShape> {
  const { into: _, intoUrl: __, ...rest } = flags
  return { base: plan.base.id, plan: planContent(plan, rest) }
}

interface Flags {
  readonly into?: string
  readonly intoUrl?: string
}

export const addInterrupted = (restore: Command, bind: Parameters<AddCommand>[1]): void => {
  const add = (name: string, description: string): Command =>
    restore
      .command(name)
      .description(description)
      .option('--into <database>', 'the one that was to become this database; the newest, if not given')
      .option('--into-url <url>', 'on another server than that of --db')
  add('resume', 'go on with a restore that was interrupted').action(bind<Flags>(resume))
  add('pause', 'end a restore that is under way, so that `resume` goes on with it').action(bind<Flags>(pause))
  add('discard', 'remove what a restore that was interrupted has left').action(bind<Flags>(discard))
}

async function resume(context: Context, flags: Flags): Promise<number> {
  const { out, signal } = context
  const { conninfo, found } = await interruptedOf(context, flags, ({ isRunning }) => !isRunning)
  const request = requestShape.safeParse(await readRequest(conninfo, found))
  if (!request.success)
    throw new WalbackError('refused', `what was to become ${found.into} was not begun by this command line`, {
      hint: 'remove it with `walback restore discard`',
    })
  const noted = notedPlan(request.data.plan)
  const { base } = request.data
  const { repository, value: plan } = await readFirst(context, async (opened) => {
    const selected = await planSelected(opened.repository, opened.source, noted.target, selectionOf(noted.flags), {
      base,
      signal,
    })
    noted.check(opened.source, selected)
    return selected
  })
  out.say(`goes on with the restore of ${inWords(found)}`)
  const status = await restoreIntoDatabase(
    context,
    repository,
    plan,
    { conninfo, database: found.into },
    { jobs: noted.flags.jobs, roles: roleOptionsOf(noted.flags), request: request.data, resumed: found },
  )
  if (noted.flags.inPlace) out.say(`to put it in its place: walback restore rollback --to ${shellWord(found.into)}`)
  return status
}

async function pause(context: Context, flags: Flags): Promise<undefined> {
  const { conninfo, found } = await interruptedOf(context, flags, ({ isRunning }) => isRunning)
  if (!(await pauseRestore(conninfo, found)))
    throw new WalbackError('refused', `the restore of ${inWords(found)} had come too far to be gone on with`, {
      hint: 'it was ended, and has removed what it had made, or is complete: look with psql -l',
    })
  context.out.data(`paused the restore of ${inWords(found)}; go on with it by \`walback restore resume\``)
  context.out.document(inJson(found))
}

async function discard(context: Context, flags: Flags): Promise<undefined> {
  const { conninfo, found } = await interruptedOf(context, flags, ({ isRunning }) => !isRunning)
  await context.confirm(`Remove what there is of the restore of ${inWords(found)}?`)
  await discardRestore(conninfo, found)
  context.out.data(`removed what there was of the restore of ${inWords(found)}`)
  context.out.document(inJson(found))
}

/** The one that is meant: by the name that it was to get, or the newest. */
async function interruptedOf(
  context: Context,
  { into, intoUrl }: Flags,
  isMeant: (one: InterruptedRestore) => boolean,
): Promise<{ readonly conninfo: Conninfo; readonly found: InterruptedRestore }> {
  const conninfo = intoUrl === undefined ? await context.requireConninfo() : resolveConninfo(intoUrl, context.world.env)
  const all = await interruptedRestores(conninfo)
  const found = all.find((one) => isMeant(one) && (into === undefined || one.into === into))
  if (found !== undefined) return { conninfo, found }
  throw new WalbackError(
    'refused',
    `there is no such restore on this server${into === undefined ? '' : `, into ${into}`}`,
    {
      hint:
        all.length === 0
          ? 'a restore can be gone on with from when its schema is there until the first change of the schema is replayed; one that fails otherwise leaves nothing'
          : `there is: ${all.map((one) => `${inWords(one)}${one.isRunning ? ', under way' : ''}`).join('; ')}`,
    },
  )
}

/** Says what an earlier restore has left on the server that is about to get another one. */
export async function tellInterrupted({ out }: Context, conninfo: Conninfo): Promise<void> {
  for (const one of await interruptedRestores(conninfo))
    if (!one.isRunning)
      out.say(
        `note: there is an interrupted restore of ${inWords(one)}; \`walback restore resume\` goes on with it, \`walback restore discard\` removes it`,
      )
}

const inWords = ({ source, into, begun, size_bytes }: InterruptedRestore): string =>
  `${printable(source)} into ${printable(into)} (begun ${begun}${size_bytes === undefined ? '' : `, ${bytes(size_bytes)} so far`})`

const inJson = ({ source, into, begun, database, size_bytes }: InterruptedRestore): Record<string, unknown> => ({
  source,
  into,
  begun,
  database,
  size_bytes: size_bytes ?? null,
})
